/**
 * Damage that knows where the structure of a file is. Each mutation is kept as what it came to, a replaced run of bytes, so that any of
 * them can be left out.
 */
import type { Choice } from '../../src/directory/crash-image.ts'
import { type Json, pick, someSize } from './input.ts'
import { type Field, type FieldGroup, fieldsOf, type Kind, piecesOf } from './layout.ts'

/** A run of bytes that takes the place of another. */
export type Splice = { readonly at: number; readonly remove: number; readonly insert: string }

const decoder = new TextDecoder()
const encoder = new TextEncoder()

/** Bytes that are compared at one go. */
const chunk = 256

/** Whether two chunks are the same. */
function isSame(a: Uint8Array, aStart: number, b: Uint8Array, bStart: number): boolean {
  return Buffer.compare(a.subarray(aStart, aStart + chunk), b.subarray(bStart, bStart + chunk)) === 0
}

/** The smallest splice that makes one of the other. */
export function spliceBetween(before: Uint8Array, after: Uint8Array): Splice {
  const shorter = Math.min(before.length, after.length)
  let at = 0
  while (at + chunk <= shorter && isSame(before, at, after, at)) at += chunk
  while (at < shorter && before[at] === after[at]) at++
  let tail = 0
  const isTail = (size: number): boolean => isSame(before, before.length - size, after, after.length - size)
  while (tail + chunk <= shorter - at && isTail(tail + chunk)) tail += chunk
  while (tail < shorter - at && before[before.length - 1 - tail] === after[after.length - 1 - tail]) tail++
  const insert = Buffer.from(after.subarray(at, after.length - tail)).toString('base64')
  return { at, remove: before.length - tail - at, insert }
}

/** The bytes with a splice; one that lies behind the end is put there. */
export function spliced(bytes: Uint8Array, { at, remove, insert }: Splice): Uint8Array {
  const from = Math.min(at, bytes.length)
  return joined(bytes.subarray(0, from), Buffer.from(insert, 'base64'), bytes.subarray(from + remove))
}

/** Runs of bytes one after the other. */
export function joined(...parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((size, part) => size + part.length, 0))
  let at = 0
  for (const part of parts) {
    bytes.set(part, at)
    at += part.length
  }
  return bytes
}

type Mutator = (bytes: Uint8Array, choose: Choice, kind: Kind, others: readonly Uint8Array[]) => Uint8Array

const words = [0n, 1n, 2n, 3n, 255n, 256n, 0x7fffn, 0xffffn, 2n ** 31n - 1n, 2n ** 31n, 2n ** 32n - 2n, 2n ** 32n - 1n]
const longWords = [...words, 2n ** 32n, 2n ** 53n - 1n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n]
/** Bits of 32-bit floats: NaN, infinities, the largest, the least, -0, 1. */
const floats = [0x7fc00000n, 0x7f800000n, 0xff800000n, 0x7f7fffffn, 1n, 0x80000000n, 0x3f800000n]

function numberIn(bytes: Uint8Array, { at, size }: Field): bigint {
  let value = 0n
  for (let i = size - 1; i >= 0; i--) value = (value << 8n) | BigInt(bytes[at + i]!)
  return value
}

function withNumber(bytes: Uint8Array, { at, size }: Field, value: bigint): Uint8Array {
  const copy = bytes.slice()
  let rest = BigInt.asUintN(8 * size, value)
  for (let i = 0; i < size; i++) {
    copy[at + i] = Number(rest & 0xffn)
    rest >>= 8n
  }
  return copy
}

const someOf = (choose: Choice, group: FieldGroup): Field => group.at(choose(group.length))

const someField = (bytes: Uint8Array, choose: Choice, kind: Kind): Field | undefined => {
  const groups = fieldsOf(kind, bytes)
  return groups.length === 0 ? undefined : someOf(choose, pick(choose, groups))
}

const interesting: Mutator = (bytes, choose, kind) => {
  const field = someField(bytes, choose, kind)
  if (field === undefined) return bytes
  const now = numberIn(bytes, field)
  const size = BigInt(bytes.length)
  switch (choose(8)) {
    case 0:
    case 1:
      return withNumber(bytes, field, now + pick(choose, [1n, -1n]))
    case 2:
      return withNumber(bytes, field, now + pick(choose, [2n, -2n, 8n, -8n, 64n, -64n, 4096n, -4096n]))
    case 3:
      return withNumber(bytes, field, pick(choose, [now * 2n, now / 2n, now << 32n, now >> 32n, -now]))
    case 4:
      return withNumber(bytes, field, pick(choose, [size, size - 1n, size + 1n, size / 4n, size * 4n]))
    case 5:
      return withNumber(bytes, field, field.size === 4 ? pick(choose, floats) : BigInt(choose(64)))
    case 6:
      return withNumber(bytes, field, BigInt(someSize(choose, 2000)))
    default:
      return withNumber(bytes, field, pick(choose, field.size === 8 ? longWords : words))
  }
}

/** The number of one field in the place of another. */
const copiedNumber: Mutator = (bytes, choose, kind) => {
  const groups = fieldsOf(kind, bytes)
  if (groups.length === 0) return bytes
  const group = pick(choose, groups)
  return withNumber(bytes, someOf(choose, group), numberIn(bytes, someOf(choose, group)))
}

const flip: Mutator = (bytes, choose) => {
  if (bytes.length === 0) return bytes
  const copy = bytes.slice()
  const at = choose(choose(2) === 0 ? Math.min(256, bytes.length) : bytes.length)
  copy[at]! ^= 1 << choose(8)
  return copy
}

const overwrite: Mutator = (bytes, choose) => {
  const copy = bytes.slice()
  const at = choose(bytes.length + 1)
  const size = Math.min(someSize(choose, 64), bytes.length - at)
  const fill = choose(3)
  for (let i = at; i < at + size; i++) copy[i] = fill === 0 ? choose(256) : fill === 1 ? 0 : 255
  return copy
}

const cut: Mutator = (bytes, choose) => bytes.subarray(0, bytes.length - someSize(choose, bytes.length))

const extend: Mutator = (bytes, choose) => {
  const more = new Uint8Array(someSize(choose, 300))
  if (choose(2) === 0) for (let i = 0; i < more.length; i++) more[i] = choose(256)
  return joined(bytes, more)
}

const insertOrRemove: Mutator = (bytes, choose) => {
  const at = choose(bytes.length + 1)
  const size = someSize(choose, 64)
  if (choose(2) === 0) return joined(bytes.subarray(0, at), bytes.subarray(at + size))
  return joined(bytes.subarray(0, at), new Uint8Array(size).fill(choose(256)), bytes.subarray(at))
}

/** Records, sections or entries doubled, left out, or one in the place of another. */
const shuffle: Mutator = (bytes, choose, kind) => {
  const pieces = piecesOf(kind, bytes)
  if (pieces.length === 0) return bytes
  const one = pick(choose, pieces)
  const other = pick(choose, pieces)
  const bytesOf = ({ at, size }: { at: number; size: number }): Uint8Array => bytes.subarray(at, at + size)
  const around = (piece: { at: number; size: number }, ...middle: Uint8Array[]): Uint8Array =>
    joined(bytes.subarray(0, piece.at), ...middle, bytes.subarray(piece.at + piece.size))
  switch (choose(4)) {
    case 0:
      return around(one, bytesOf(one), bytesOf(other))
    case 1:
      return around(one)
    case 2:
      return around(one, bytesOf(other))
    default: {
      if (one.at + one.size > other.at) return around(one, bytesOf(one), bytesOf(one))
      const between = bytes.subarray(one.at + one.size, other.at)
      const before = bytes.subarray(0, one.at)
      return joined(before, bytesOf(other), between, bytesOf(one), bytes.subarray(other.at + other.size))
    }
  }
}

/** The end of another file behind the beginning of this one, or a piece of it in the same place. */
const crossed: Mutator = (bytes, choose, _kind, others) => {
  if (others.length === 0) return bytes
  const other = pick(choose, others)
  const at = choose(Math.min(bytes.length, other.length) + 1)
  if (choose(3) === 0) return joined(bytes.subarray(0, at), other.subarray(at))
  const end = Math.min(at + someSize(choose, 512), bytes.length, other.length)
  return joined(bytes.subarray(0, at), other.subarray(at, end), bytes.subarray(end))
}

const hostileValues: readonly ((choose: Choice) => string)[] = [
  () => 'null',
  () => 'true',
  () => '""',
  () => '{}',
  () => '[]',
  (choose) => pick(choose, ['0', '-1', '1.5', '1e308', '-0', '1e999', '4294967295', '4294967296', '2147483648']),
  (choose) => pick(choose, ['9007199254740991', '9007199254740992', '65536', '65537', '1', '2', '3', '10', '50']),
  () => '"9007199254740991"',
  (choose) => JSON.stringify('x'.repeat(someSize(choose, 200_000))),
  (choose) => {
    const depth = someSize(choose, 50_000)
    return '['.repeat(depth) + ']'.repeat(depth)
  },
  (choose) => `${'{"a":'.repeat(choose(2000))}0`,
  () => '{"__proto__":{"number":1}}',
  () => '{"toString":1,"constructor":{"prototype":null}}',
  (choose) => pick(choose, ['"disk"', '"memory"', '"auto"', '"cosine"', '"dot"', '"none"', '"strict"', '"buffered"']),
  () => '"0000000000000000"',
  () => '"\\ud800"',
]

/** The JSON values in a text, by where they stand. */
function valuesIn(text: string): { from: number; to: number }[] {
  const values: { from: number; to: number }[] = []
  for (const match of text.matchAll(/"(?:[^"\\]|\\.)*"|-?\d[\d.e+-]*|true|false|null/g)) {
    values.push({ from: match.index, to: match.index + match[0].length })
  }
  const open: number[] = []
  for (let i = 0; i < text.length; i++) {
    if (text[i] === '{' || text[i] === '[') open.push(i)
    if (text[i] === '}' || text[i] === ']') values.push({ from: open.pop() ?? 0, to: i + 1 })
  }
  return values
}

/** Damage to the JSON that a manifest holds or a payload is. */
const jsonText: Mutator = (bytes, choose, kind) => {
  const start = kind === 'manifest' ? 64 : 0
  const text = decoder.decode(bytes.subarray(start))
  const values = valuesIn(text)
  if (values.length === 0) return bytes
  const { from, to } = pick(choose, values)
  const value = text.slice(from, to)
  const put = (middle: string): Uint8Array =>
    joined(bytes.subarray(0, start), encoder.encode(text.slice(0, from) + middle + text.slice(to)))
  switch (choose(7)) {
    case 0:
      return put(pick(choose, hostileValues)(choose))
    case 1: {
      const number = Number(value)
      return put(Number.isFinite(number) ? String(number + pick(choose, [1, -1, 2, 8, -8, 64])) : 'null')
    }
    case 2: {
      const other = pick(choose, values)
      return put(text.slice(other.from, other.to))
    }
    case 3:
      return put(`${value},${value}`)
    case 4:
      return put(`${value},"${pick(choose, ['x', '__proto__', 'segments', 'file', 'graph', 'tombstones'])}":${value}`)
    case 5:
      return put('')
    default:
      // Bytes that are no text.
      return joined(bytes.subarray(0, start + from), Uint8Array.of(choose(256), 0xff), bytes.subarray(start + from))
  }
}

const common: readonly Mutator[] = [
  interesting,
  interesting,
  interesting,
  interesting,
  copiedNumber,
  flip,
  flip,
  overwrite,
  cut,
  extend,
  insertOrRemove,
  shuffle,
  shuffle,
  crossed,
]
const forJson: readonly Mutator[] = [...common, ...Array.from({ length: 20 }, () => jsonText)]

/** A file after a mutation, and the splice that makes it; never the same unless the file is empty. */
export function mutated(
  bytes: Uint8Array,
  choose: Choice,
  kind: Kind,
  others: readonly Uint8Array[],
): { readonly after: Uint8Array; readonly splice: Splice } {
  for (let attempt = 0; attempt < 20; attempt++) {
    const isJson = kind === 'manifest' || kind === 'payload'
    const changed = pick(choose, isJson ? forJson : common)(bytes, choose, kind, others)
    const splice = spliceBetween(bytes, changed)
    if (splice.remove > 0 || splice.insert !== '') return { after: changed, splice }
  }
  return { after: bytes, splice: spliceBetween(bytes, bytes) }
}

/** A splice as it is kept. */
export function decodeSplice(step: Json): Splice & { readonly file: string } {
  return step as Splice & { file: string }
}
