/**
 * Lists of rising rows as bits: gaps between rows in the code of Golomb and Rice, which comes near to the least that a random list
 * takes, whatever its density. Of more than half of all rows the absent ones are listed.
 */
import { viewOf } from '../codec/bytes.ts'

/** Rows that stand for a list of `count` out of `rowCount`: its own or, if those are fewer, the absent ones. */
export function listedCount(count: number, rowCount: number): number {
  return Math.min(count, rowCount - count)
}

/** Bits of a gap that are written as they are; the rest is written in unary. */
function lowBits(listed: number, rowCount: number): number {
  return 31 - Math.clz32(Math.floor(rowCount / listed))
}

/** Bits that a list of `count` takes at least. */
export function bitsMin(count: number, rowCount: number): number {
  const listed = listedCount(count, rowCount)
  return listed === 0 ? 0 : listed * (1 + lowBits(listed, rowCount))
}

/** Writes lists one after the other, low bits first. */
export class RowListWriter {
  #bytes = new Uint8Array(64)
  #position = 0

  /** Bytes so far, the last one filled up with zeros. */
  get size(): number {
    return Math.ceil(this.#position / 8)
  }

  /** Writes the list `rows[from]` … `rows[to - 1]`, rising, of rows below `rowCount`. */
  write(rows: Uint32Array, from: number, to: number, rowCount: number): void {
    const listed = listedCount(to - from, rowCount)
    if (listed === 0) return
    const low = lowBits(listed, rowCount)
    let previous = -1
    if (listed === to - from) {
      for (let i = from; i < to; i++) {
        this.#gap(rows[i]! - previous - 1, low)
        previous = rows[i]!
      }
      return
    }
    let next = from
    for (let row = 0; row < rowCount; row++) {
      if (next < to && rows[next] === row) next++
      else {
        this.#gap(row - previous - 1, low)
        previous = row
      }
    }
  }

  /** What was written; the writer begins anew. */
  take(): Uint8Array {
    const taken = this.#bytes.slice(0, this.size)
    this.#bytes.fill(0, 0, this.size)
    this.#position = 0
    return taken
  }

  #gap(gap: number, low: number): void {
    const high = Math.floor(gap / 2 ** low)
    const end = this.#position + high + 1 + low
    if (end > this.#bytes.length * 8) {
      const grown = new Uint8Array(Math.max(Math.ceil(end / 8), this.#bytes.length * 2))
      grown.set(this.#bytes)
      this.#bytes = grown
    }
    let at = this.#position + high
    this.#bytes[at >>> 3]! |= 1 << (at & 7)
    at++
    let rest = gap - high * 2 ** low
    for (let left = low; left > 0; ) {
      const bit = at & 7
      const taken = Math.min(8 - bit, left)
      this.#bytes[at >>> 3]! |= (rest & ((1 << taken) - 1)) << bit
      rest = Math.floor(rest / 2 ** taken)
      at += taken
      left -= taken
    }
    this.#position = end
  }
}

/** Bytes that must follow every stream of lists, so that reading needs no check of its own for each bit. */
export const paddingSize = 16

/** Bits in one window, whatever its position in a byte. */
const windowBits = 25
const windowMask = 2 ** windowBits - 1

/** Reads lists one after the other. The bytes may be anything. */
export class RowListReader {
  readonly #view: DataView
  readonly #start: number
  readonly #end: number
  readonly #rowCount: number
  #position = 0

  /** @param bytes holds the stream from `start` to `end`, less than 2^28 bytes, and {@link paddingSize} more after it */
  constructor(bytes: Uint8Array, start: number, end: number, rowCount: number) {
    this.#view = viewOf(bytes)
    this.#start = start
    this.#end = (end - start) * 8
    this.#rowCount = rowCount
  }

  /** Where the byte begins in which nothing was read yet, in the bytes that were given. */
  get offset(): number {
    return this.#start + Math.ceil(this.#position / 8)
  }

  /**
   * Reads the listed rows of a list of `count`, rising and each below the number of rows, into `target` from `at` on.
   * @returns whether there was such a list
   */
  read(count: number, target: Uint32Array, at: number): boolean {
    const listed = listedCount(count, this.#rowCount)
    if (listed === 0) return true
    const low = lowBits(listed, this.#rowCount)
    const scale = 2 ** low
    const firstBits = Math.min(low, windowBits)
    const firstMask = 2 ** firstBits - 1
    const highMax = Math.floor(this.#rowCount / scale)
    let position = this.#position
    let row = -1
    for (let i = at; i < at + listed; i++) {
      let high = 0
      let window = 0
      for (;;) {
        if (position >= this.#end || high > highMax) return false
        window = this.#window(position)
        if (window !== 0) break
        high += windowBits
        position += windowBits
      }
      const zeros = 31 - Math.clz32(window & -window)
      high += zeros
      position += zeros + 1
      let rest = this.#window(position) & firstMask
      if (low > windowBits)
        rest += (this.#window(position + windowBits) & (2 ** (low - windowBits) - 1)) * 2 ** windowBits
      position += low
      row += high * scale + rest + 1
      if (row >= this.#rowCount) return false
      target[i] = row
    }
    this.#position = position
    return position <= this.#end
  }

  #window(position: number): number {
    return (this.#view.getUint32(this.#start + (position >>> 3), true) >>> (position & 7)) & windowMask
  }
}
