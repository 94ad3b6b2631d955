/** Bytes that are handed over in parts, cut anew. */

/** Takes bytes off the beginning of parts, in pieces of any size that share nothing with them. */
export class PartReader {
  readonly #parts: readonly Uint8Array[]
  #part = 0
  #from = 0

  constructor(parts: readonly Uint8Array[]) {
    this.#parts = parts
  }

  /** Takes no more than there is. */
  take(length: number): Uint8Array {
    const piece = new Uint8Array(length)
    for (let done = 0; done < length; ) {
      const part = this.#parts[this.#part]!
      const bytes = part.subarray(this.#from, this.#from + length - done)
      piece.set(bytes, done)
      done += bytes.byteLength
      this.#from += bytes.byteLength
      if (this.#from === part.byteLength) {
        this.#part++
        this.#from = 0
      }
    }
    return piece
  }
}
