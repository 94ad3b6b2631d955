/**
 * Sorting keys.
 */
import type { KeyTable } from './key-table.ts'
import { compareBytes, headOf } from './value-key.ts'

/** Keys between two chances to stop. */
const stepSize = 1024
/** Keys that are sorted at one go before sorted runs are merged. */
const runSize = 1024

/** Distinct keys, sorted by their bytes; the bytes themselves lie as they were given. */
export type SortedKeys = {
  /** The numbers of the keys, in order. */
  readonly numbers: Uint32Array
  /** For each place in that order, which of {@link offsets} is the key's. */
  readonly order: Uint32Array
  readonly bytes: Uint8Array
  /** Where each key begins in `bytes`; one more for the end of the last. */
  readonly offsets: Uint32Array
}

/** Sorts distinct keys. O(n log n), stopping between steps whatever n is. */
export function* sortKeys(table: KeyTable, keys: Uint32Array): Generator<void, SortedKeys> {
  const { bytes, offsets } = yield* gather(table, keys)
  // What all keys begin with decides nothing.
  const skip = yield* sharedSize(bytes, offsets)
  const heads = new Float64Array(keys.length)
  for (let i = 0; i < keys.length; i++) {
    heads[i] = headOf(bytes, offsets[i]! + skip, offsets[i + 1]!)
    if (i % stepSize === 0) yield
  }
  const compare = (a: number, b: number): number =>
    heads[a]! - heads[b]! ||
    compareBytes(bytes, offsets[a]! + skip, offsets[a + 1]!, bytes, offsets[b]! + skip, offsets[b + 1]!)
  const order = yield* sortIndices(keys.length, compare)
  const numbers = new Uint32Array(keys.length)
  for (let i = 0; i < keys.length; i++) {
    numbers[i] = keys[order[i]!]!
    if (i % stepSize === 0) yield
  }
  return { numbers, order, bytes, offsets }
}

/** The bytes of keys one after the other: compared again and again, they had better lie together. */
function* gather(table: KeyTable, keys: Uint32Array): Generator<void, { bytes: Uint8Array; offsets: Uint32Array }> {
  const offsets = new Uint32Array(keys.length + 1)
  for (let i = 0; i < keys.length; i++) {
    offsets[i + 1] = offsets[i]! + table.endOf(keys[i]!) - table.startOf(keys[i]!)
    if (i % stepSize === 0) yield
  }
  const bytes = new Uint8Array(offsets[keys.length]!)
  let at = 0
  for (let i = 0; i < keys.length; i++) {
    const from = table.bytesOf(keys[i]!)
    const end = table.endOf(keys[i]!)
    for (let byte = table.startOf(keys[i]!); byte < end; byte++) bytes[at++] = from[byte]!
    if (i % stepSize === 0) yield
  }
  return { bytes, offsets }
}

/** Bytes with which all keys begin. */
function* sharedSize(bytes: Uint8Array, offsets: Uint32Array): Generator<void, number> {
  let shared = offsets[1] ?? 0
  for (let i = 1; i + 1 < offsets.length && shared > 0; i++) {
    const start = offsets[i]!
    const size = Math.min(shared, offsets[i + 1]! - start)
    shared = 0
    while (shared < size && bytes[start + shared] === bytes[shared]) shared++
    if (i % stepSize === 0) yield
  }
  return shared
}

/** The numbers 0 … count - 1 in an order of theirs: a merge sort, which stops between steps. */
export function* sortIndices(count: number, order: (a: number, b: number) => number): Generator<void, Uint32Array> {
  let from = new Uint32Array(count)
  for (let i = 0; i < count; i++) {
    from[i] = i
    if (i % stepSize === 0) yield
  }
  for (let start = 0; start < count; start += runSize) {
    from.subarray(start, start + runSize).sort(order)
    yield
  }
  let into = new Uint32Array(count)
  for (let width = runSize; width < count; width *= 2) {
    for (let start = 0; start < count; start += 2 * width) {
      yield* merge(from, into, start, Math.min(start + width, count), Math.min(start + 2 * width, count), order)
    }
    const sorted = into
    into = from
    from = sorted
  }
  return from
}

/** Merges the sorted runs `start` … `middle` and `middle` … `end`. */
function* merge(
  from: Uint32Array,
  into: Uint32Array,
  start: number,
  middle: number,
  end: number,
  order: (a: number, b: number) => number,
): Generator<void, void> {
  let left = start
  let right = middle
  for (let at = start; at < end; at++) {
    const isLeft = right === end || (left < middle && order(from[left]!, from[right]!) < 0)
    into[at] = isLeft ? from[left++]! : from[right++]!
    if (at % stepSize === 0) yield
  }
}
