/**
 * Little-endian reading and writing with every access checked, and the UTF-8 conversions that files share.
 */
import { IsovecError } from '../errors.ts'

const encoder = new TextEncoder()
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** UTF-8 bytes of `text`. */
export function utf8Encode(text: string): Uint8Array {
  return encoder.encode(text)
}

/** Text of UTF-8 `bytes`. @throws TypeError on malformed input. */
export function utf8Decode(bytes: Uint8Array): string {
  return decoder.decode(bytes)
}

/** Whether `text` holds a surrogate without its partner, which UTF-8 cannot carry. */
export function hasLoneSurrogate(text: string): boolean {
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i)
    if (unit < 0xd800 || unit > 0xdfff) continue
    if (unit > 0xdbff) return true
    const next = text.charCodeAt(i + 1)
    if (!(next >= 0xdc00 && next <= 0xdfff)) return true
    i++
  }
  return false
}

/** `value` rounded up to a multiple of `unit`, a power of two up to 2^30; works beyond 32 bits. */
export function alignUp(value: number, unit: number): number {
  const rest = value % unit
  return rest === 0 ? value : value + unit - rest
}

/** Whether two runs of bytes are equal. */
export function bytesEqual(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false
  return true
}

/** Lower-case hexadecimal of `bytes`. */
export function hexEncode(bytes: Uint8Array): string {
  let text = ''
  for (const byte of bytes) text += byte.toString(16).padStart(2, '0')
  return text
}

/** The bytes that lower-case hexadecimal `text` names, or undefined where it is not that. */
export function hexDecode(text: string): Uint8Array | undefined {
  if (text.length % 2 !== 0 || !/^[0-9a-f]*$/.test(text)) return undefined
  const bytes = new Uint8Array(text.length / 2)
  for (let i = 0; i < bytes.length; i++) bytes[i] = Number.parseInt(text.slice(2 * i, 2 * i + 2), 16)
  return bytes
}

const twoTo32 = 2 ** 32

/** Writes a whole number below 2^53 as an unsigned 64-bit integer. */
export function writeUint64(view: DataView, offset: number, value: number): void {
  view.setUint32(offset, value % twoTo32, true)
  view.setUint32(offset + 4, Math.floor(value / twoTo32), true)
}

/** Reads an unsigned 64-bit integer; values of 2^53 and more give undefined, since no writer produces them. */
export function readUint64(view: DataView, offset: number): number | undefined {
  const high = view.getUint32(offset + 4, true)
  return high >= 0x200000 ? undefined : high * twoTo32 + view.getUint32(offset, true)
}

/** A view of the same memory as `bytes`. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

/** A buffer that grows as it is written. */
export class ByteWriter {
  #bytes: Uint8Array
  #view: DataView
  #size = 0

  constructor(capacity = 256) {
    this.#bytes = new Uint8Array(capacity)
    this.#view = viewOf(this.#bytes)
  }

  /** Bytes written so far. */
  get size(): number {
    return this.#size
  }

  uint8(value: number): void {
    const offset = this.claim(1)
    this.#view.setUint8(offset, value)
  }

  uint16(value: number): void {
    const offset = this.claim(2)
    this.#view.setUint16(offset, value, true)
  }

  uint32(value: number): void {
    const offset = this.claim(4)
    this.#view.setUint32(offset, value, true)
  }

  bytes(bytes: Uint8Array): void {
    const offset = this.claim(bytes.length)
    this.#bytes.set(bytes, offset)
  }

  /** Writes `text` as UTF-8 and returns its length in bytes. */
  utf8(text: string): number {
    const offset = this.claim(text.length * 3)
    const { written } = encoder.encodeInto(text, this.#bytes.subarray(offset))
    this.#size = offset + written
    return written
  }

  /** Overwrites four bytes that were written before. */
  patchUint32(offset: number, value: number): void {
    this.#view.setUint32(offset, value, true)
  }

  /** Overwrites two bytes that were written before. */
  patchUint16(offset: number, value: number): void {
    this.#view.setUint16(offset, value, true)
  }

  /** Makes room for `size` bytes and returns where they start; their content is for the caller to set through {@link view}. */
  claim(size: number): number {
    const offset = this.#size
    const needed = offset + size
    if (needed > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(needed, this.#bytes.length * 2))
      grown.set(this.#bytes.subarray(0, offset))
      this.#bytes = grown
      this.#view = viewOf(grown)
    }
    this.#size = needed
    return offset
  }

  /** The live view; growing replaces it. */
  get view(): DataView {
    return this.#view
  }

  /** What was written, sharing the writer's memory. */
  finish(): Uint8Array {
    return this.#bytes.subarray(0, this.#size)
  }
}

/** Reads a run of bytes front to back; running past its end is `CORRUPTION` of the file it came from. */
export class ByteReader {
  readonly #bytes: Uint8Array
  readonly #view: DataView
  readonly #file: string
  readonly #base: number
  #offset = 0

  /** @param base position of `bytes` in `file`, for error messages */
  constructor(bytes: Uint8Array, file: string, base = 0) {
    this.#bytes = bytes
    this.#view = viewOf(bytes)
    this.#file = file
    this.#base = base
  }

  get remaining(): number {
    return this.#bytes.length - this.#offset
  }

  uint8(): number {
    return this.#view.getUint8(this.#advance(1))
  }

  uint16(): number {
    return this.#view.getUint16(this.#advance(2), true)
  }

  uint32(): number {
    return this.#view.getUint32(this.#advance(4), true)
  }

  uint64(): number {
    const value = readUint64(this.#view, this.#advance(8))
    if (value === undefined) throw this.corrupt('a 64-bit number is out of range')
    return value
  }

  /** The next `size` bytes, sharing memory with the input. */
  bytes(size: number): Uint8Array {
    const offset = this.#advance(size)
    return this.#bytes.subarray(offset, offset + size)
  }

  /** The next `size` bytes as text. */
  utf8(size: number): string {
    const bytes = this.bytes(size)
    try {
      return utf8Decode(bytes)
    } catch (cause) {
      throw this.corrupt('text is not UTF-8', cause)
    }
  }

  /** The error for a finding at the present position. */
  corrupt(problem: string, cause?: unknown): IsovecError {
    const offset = this.#base + this.#offset
    return new IsovecError('CORRUPTION', `${this.#file}: ${problem} (at byte ${offset})`, {
      file: this.#file,
      offset,
      cause,
    })
  }

  #advance(size: number): number {
    const offset = this.#offset
    if (size > this.#bytes.length - offset) throw this.corrupt('the data ends too early')
    this.#offset = offset + size
    return offset
  }
}

/** The bytes of some arrays, one after the other. */
export function concatenate(parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0))
  let at = 0
  for (const part of parts) {
    bytes.set(part, at)
    at += part.length
  }
  return bytes
}
