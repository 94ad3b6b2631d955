/**
 * Values as bytes whose order is that of the values, and conditions as ranges of such bytes.
 *
 * A key is a tag for the type and a body. Strings are encoded code unit by code unit (CESU-8), which keeps the order of UTF-16 and
 * carries lone surrogates; of a long one only the head and a hash are kept, so that a text isn't stored twice.
 */
import { viewOf } from '../codec/bytes.ts'
import type { Condition, Scalar } from '../condition.ts'

/** First byte of a key. A *text* is a string whose body would be longer than {@link stringSizeMax}. */
export const tags = { null: 0, boolean: 1, number: 2, string: 3, text: 4 } as const
export const tagCount = 5
/** Bytes of a string's body. */
export const stringSizeMax = 128
/** Bytes of a text that are kept. */
export const headSize = 64
/** Bytes of a text's body: head and hash. */
export const textSize = headSize + 8
export const numberSize = 8

/** Encodes values into one buffer, over and over. */
export class KeyEncoder {
  /** The tag and the body of the value encoded last. */
  readonly bytes = new Uint8Array(1 + stringSizeMax + 3)
  readonly #view = viewOf(this.bytes)

  /** Encodes a value and returns the size of its key. */
  encode(value: Scalar): number {
    const { bytes } = this
    if (typeof value === 'string') return this.#string(value)
    if (typeof value === 'number') {
      bytes[0] = tags.number
      // Adding zero makes 0 of -0, which it equals.
      this.#view.setFloat64(1, value + 0)
      const high = this.#view.getUint32(1)
      const isNegative = high >= 0x80000000
      this.#view.setUint32(1, isNegative ? ~high : high ^ 0x80000000)
      if (isNegative) this.#view.setUint32(5, ~this.#view.getUint32(5))
      return 1 + numberSize
    }
    if (value === null) {
      bytes[0] = tags.null
      return 1
    }
    bytes[0] = tags.boolean
    bytes[1] = value ? 1 : 0
    return 2
  }

  /** The key of a value, in memory of its own. */
  keyOf(value: Scalar): Uint8Array {
    return this.bytes.slice(0, this.encode(value))
  }

  #string(text: string): number {
    const { bytes } = this
    if (text.length > stringSizeMax) return this.#text(text)
    const size = encodeUnits(text, bytes, 1, 1 + stringSizeMax)
    if (size > 1 + stringSizeMax) return this.#text(text)
    bytes[0] = tags.string
    return size
  }

  #text(text: string): number {
    encodeUnits(text, this.bytes, 1, 1 + headSize)
    this.bytes[0] = tags.text
    // Units of several bytes may be cut: bytes compare all the same.
    hashUnits(text, this.#view, 1 + headSize)
    return 1 + textSize
  }
}

/** Writes code units until the text or the room is at its end, by up to two bytes beyond. Returns where it ended, one unit beyond if there were more. */
function encodeUnits(text: string, target: Uint8Array, start: number, end: number): number {
  let size = start
  for (let i = 0; i < text.length; i++) {
    if (size >= end) return end + 1
    const unit = text.charCodeAt(i)
    if (unit < 0x80) target[size++] = unit
    else if (unit < 0x800) {
      target[size++] = 0xc0 | (unit >>> 6)
      target[size++] = 0x80 | (unit & 63)
    } else {
      target[size++] = 0xe0 | (unit >>> 12)
      target[size++] = 0x80 | ((unit >>> 6) & 63)
      target[size++] = 0x80 | (unit & 63)
    }
  }
  return size
}

/** The whole of a string as CESU-8. */
export function encodeText(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length * 3)
  return bytes.subarray(0, encodeUnits(text, bytes, 0, bytes.length + 1))
}

/** 64 bits of hash of a string's code units, by two multiplicative lanes and the finaliser of MurmurHash3, written big-endian. */
function hashUnits(text: string, target: DataView, offset: number): void {
  let a = 0xdeadbeef | 0
  let b = 0x41c6ce57
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i)
    a = Math.imul(a ^ unit, 0x9e3779b1)
    b = Math.imul(b ^ unit, 0x5f356495)
  }
  a = Math.imul(a ^ (a >>> 16), 0x85ebca6b) ^ Math.imul(b ^ (b >>> 13), 0xc2b2ae35)
  b = Math.imul(b ^ (b >>> 16), 0x85ebca6b) ^ Math.imul(a ^ (a >>> 13), 0xc2b2ae35)
  target.setUint32(offset, a)
  target.setUint32(offset + 4, b)
}

/**
 * Order of two keys, each a run of bytes.
 * @returns a negative number, 0, or a positive one
 */
export function compareBytes(
  a: Uint8Array,
  aStart: number,
  aEnd: number,
  b: Uint8Array,
  bStart: number,
  bEnd: number,
): number {
  const length = Math.min(aEnd - aStart, bEnd - bStart)
  for (let i = 0; i < length; i++) {
    const difference = a[aStart + i]! - b[bStart + i]!
    if (difference !== 0) return difference
  }
  return aEnd - aStart - (bEnd - bStart)
}

/**
 * Six bytes of a key from `start` on as a number, which decides most comparisons; bytes from `end` on count as zero, so that equal
 * numbers leave it open which key comes first.
 */
export function headOf(bytes: Uint8Array, start: number, end: number): number {
  let head = 0
  for (let at = start; at < start + 6; at++) head = head * 256 + (at < end ? bytes[at]! : 0)
  return head
}

/** A key that a condition names. `isSure`: whoever has the key fulfils the condition; if not, the payload decides. */
export type KeyPoint = { readonly key: Uint8Array; readonly isSure: boolean }

/** Keys of one tag from `from` on and before `to`; without `to`, all further ones of the tag. */
export type KeySpan = { readonly from: Uint8Array; readonly to: Uint8Array | undefined; readonly isSure: boolean }

/** A condition on values in terms of keys; the points rise. */
export type KeyTest = { readonly points: readonly KeyPoint[]; readonly spans: readonly KeySpan[] }

/** Conditions are asked of every source of a snapshot, and are never changed. */
const tests = new WeakMap<Condition, KeyTest>()

/** The keys whose values fulfil a condition, or may. */
export function keyTestOf(condition: Exclude<Condition, { kind: 'exists' }>): KeyTest {
  let test = tests.get(condition)
  if (test === undefined) {
    test = condition.kind === 'equal' ? { points: pointsOf(condition.values), spans: [] } : spanTestOf(condition)
    tests.set(condition, test)
  }
  return test
}

function pointsOf(values: readonly Scalar[]): KeyPoint[] {
  const encoder = new KeyEncoder()
  return values
    .map((value) => {
      const key = encoder.keyOf(value)
      return { key, isSure: key[0] !== tags.text, head: headOf(key, 0, key.length) }
    })
    .sort((a, b) => a.head - b.head || compareBytes(a.key, 0, a.key.length, b.key, 0, b.key.length))
}

function spanTestOf(condition: Exclude<Condition, { kind: 'exists' | 'equal' }>): KeyTest {
  if (condition.kind === 'range' && typeof condition.value !== 'string') {
    return { points: [], spans: [rangeSpan(new KeyEncoder().keyOf(condition.value), condition.operator)] }
  }
  const text = encodeText(condition.value as string)
  const body = tagged(tags.string, text)
  const head = tagged(tags.text, text.subarray(0, headSize))
  const isWhole = text.length <= headSize
  const afterHead = afterPrefix(head)
  if (condition.kind === 'prefix') {
    const strings = { from: body, to: afterPrefix(body), isSure: true }
    return { points: [], spans: [strings, { from: head, to: afterHead, isSure: isWhole }] }
  }
  const strings = rangeSpan(body, condition.operator)
  const isUpward = condition.operator === 'gt' || condition.operator === 'gte'
  // A text is longer than a head, so one that begins with an operand no longer than that comes after it.
  if (isWhole) return { points: [], spans: [strings, rangeSpan(head, isUpward ? 'gte' : 'lt')] }
  const doubtful = { from: head, to: afterHead, isSure: false }
  const further = isUpward ? rangeSpan(afterHead!, 'gte') : rangeSpan(head, 'lt')
  return { points: [], spans: [strings, doubtful, further] }
}

function rangeSpan(key: Uint8Array, operator: 'gt' | 'gte' | 'lt' | 'lte'): KeySpan {
  switch (operator) {
    case 'gt':
      return { from: successor(key), to: undefined, isSure: true }
    case 'gte':
      return { from: key, to: undefined, isSure: true }
    case 'lt':
      return { from: key.slice(0, 1), to: key, isSure: true }
    case 'lte':
      return { from: key.slice(0, 1), to: successor(key), isSure: true }
  }
}

/** The first run of bytes after one: it with a zero behind. */
function successor(key: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(key.length + 1)
  bytes.set(key)
  return bytes
}

/** The first key after all that begin with one; undefined if it is the tag alone. No byte of CESU-8 is 255. */
function afterPrefix(prefix: Uint8Array): Uint8Array | undefined {
  if (prefix.length === 1) return undefined
  const bytes = prefix.slice()
  bytes[bytes.length - 1]!++
  return bytes
}

function tagged(tag: number, body: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(1 + body.length)
  bytes[0] = tag
  bytes.set(body, 1)
  return bytes
}
