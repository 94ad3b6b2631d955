/**
 * One attribute column in the form in which it is asked: its dictionary where it lies, its row lists unpacked.
 */
import { Bitmap } from '../codec/bitmap.ts'
import type { IsovecError } from '../errors.ts'
import { columnKinds } from './column-builder.ts'
import { bitsMin, listedCount, RowListReader } from './row-list.ts'
import {
  compareBytes,
  type KeyPoint,
  type KeySpan,
  numberSize,
  stringSizeMax,
  tagCount,
  tags,
  textSize,
} from './value-key.ts'

/** Entries between two chances to stop. */
const stepSize = 1024

/** Where a column lies in its section, and how damage to it is told. */
export type ColumnPlace = {
  /** The whole section. */
  readonly bytes: Uint8Array
  readonly start: number
  readonly end: number
  readonly rowCount: number
  corrupt(offset: number, problem: string): IsovecError
}

/** Reads the front of a column: whether values are kept, and the rows where something is at the path. */
export function openColumn(place: ColumnPlace): { isKept: boolean; rows: Bitmap; valuesAt: number } {
  const cursor = new Cursor(place, place.start)
  const kind = cursor.uint8()
  if (kind > columnKinds.notKept) throw cursor.corrupt('the kind of a column is unknown')
  const count = cursor.varint()
  if (count === 0 || count > place.rowCount) throw cursor.corrupt('a column has an impossible number of rows')
  if (bitsMin(count, place.rowCount) > cursor.remaining * 8) {
    throw cursor.corrupt('a list of rows is longer than its column')
  }
  const listed = listedCount(count, place.rowCount)
  const reader = cursor.lists()
  const rows = new Uint32Array(listed)
  if (!reader.read(count, rows, 0)) throw cursor.corrupt('a list of rows is impossible')
  const bitmap = Bitmap.of(place.rowCount)
  if (listed === count) for (const row of rows) bitmap.add(row)
  else addOthers(bitmap, rows)
  const isKept = kind === columnKinds.kept
  if (!isKept && reader.offset !== place.end) throw cursor.corrupt('a column has not the size of its content')
  return { isKept, rows: bitmap, valuesAt: reader.offset }
}

/** Adds all rows but some. */
function addOthers(bitmap: Bitmap, rows: Uint32Array): void {
  const others = Bitmap.full(bitmap.length)
  for (const row of rows) others.remove(row)
  bitmap.or(others)
}

/** What two rising lists share. */
function shared(a: Uint32Array, b: Uint32Array): Uint32Array {
  const rows = new Uint32Array(Math.min(a.length, b.length))
  let count = 0
  for (let i = 0, j = 0; i < a.length && j < b.length; ) {
    const difference = a[i]! - b[j]!
    if (difference === 0) rows[count++] = a[i]!
    if (difference <= 0) i++
    if (difference >= 0) j++
  }
  return rows.subarray(0, count)
}

/** Where a rising list reaches a value. */
function reach(list: Uint32Array, value: number): number {
  let low = 0
  let high = list.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if (list[middle]! < value) low = middle + 1
    else high = middle
  }
  return low
}

/** The values of a column. */
export class Column {
  readonly #bytes: Uint8Array
  /** Where the values of each tag begin; one more for the end of the last. */
  readonly #groups: Uint32Array
  /** Where the body of each value begins in the section; one more for the end of the last. */
  readonly #offsets: Uint32Array
  /** Where the listed rows of each value begin; one more for the end of the last. */
  readonly #starts: Uint32Array
  readonly #rows: Uint32Array
  /** Values of which the absent rows are listed. */
  readonly #dense: Uint32Array

  private constructor(
    bytes: Uint8Array,
    groups: Uint32Array,
    offsets: Uint32Array,
    starts: Uint32Array,
    rows: Uint32Array,
    dense: Uint32Array,
  ) {
    this.#bytes = bytes
    this.#groups = groups
    this.#offsets = offsets
    this.#starts = starts
    this.#rows = rows
    this.#dense = dense
  }

  /**
   * Unpacks a column whose values begin at `valuesAt`. What it allocates is proportional to the column, whatever is in it.
   * @throws IsovecError `CORRUPTION`
   */
  static *read(place: ColumnPlace, valuesAt: number): Generator<void, Column> {
    const cursor = new Cursor(place, valuesAt)
    const groups = readGroups(cursor)
    const offsets = readOffsets(cursor, groups)
    yield* checkOrder(cursor, groups, offsets)
    const valueCount = groups[tagCount]!
    const counts = new Uint32Array(valueCount)
    const starts = new Uint32Array(valueCount + 1)
    const dense: number[] = []
    let listed = 0
    let bits = 0
    for (let value = 0; value < valueCount; value++) {
      const count = cursor.varint()
      if (count === 0 || count > place.rowCount) throw cursor.corrupt('a value has an impossible number of rows')
      counts[value] = count
      const own = listedCount(count, place.rowCount)
      if (own < count) dense.push(value)
      listed += own
      starts[value + 1] = listed
      bits += bitsMin(count, place.rowCount)
      if (value % stepSize === 0) yield
    }
    if (bits > cursor.remaining * 8) throw cursor.corrupt('the lists of rows are longer than their column')
    const rows = new Uint32Array(listed)
    const reader = cursor.lists()
    for (let value = 0; value < valueCount; value++) {
      if (!reader.read(counts[value]!, rows, starts[value]!)) throw cursor.corrupt('a list of rows is impossible')
      if (value % stepSize === 0) yield
    }
    if (reader.offset !== place.end) throw cursor.corrupt('a column has not the size of its content')
    return new Column(place.bytes, groups, offsets, starts, rows, Uint32Array.from(dense))
  }

  /** Bytes that it takes beside the section. */
  get memorySize(): number {
    return this.#offsets.byteLength + this.#starts.byteLength + this.#rows.byteLength + this.#dense.byteLength
  }

  /** Adds the rows of keys that rise. O(rows + keys log (values / keys)). */
  addKeys(keys: readonly KeyPoint[], targetOf: (isSure: boolean) => Bitmap): void {
    let from = 0
    for (const { key, isSure } of keys) {
      const tag = key[0]!
      const end = this.#groups[tag + 1]!
      from = this.#lowerBound(tag, key, Math.max(from, this.#groups[tag]!))
      if (from < end && this.#compare(from, key) === 0) this.#add(targetOf(isSure), from, from + 1)
    }
  }

  /** Adds the rows of all keys of a span. O(log values + listed rows + rows of the source / 32). */
  addSpan(bitmap: Bitmap, { from, to }: KeySpan): void {
    const tag = from[0]!
    this.#add(
      bitmap,
      this.#lowerBound(tag, from),
      to === undefined ? this.#groups[tag + 1]! : this.#lowerBound(tag, to),
    )
  }

  #add(bitmap: Bitmap, from: number, to: number): void {
    const starts = this.#starts
    const dense = this.#dense
    let next = from
    /** Rows that none of the dense values has. */
    let missing: Uint32Array | undefined
    for (let i = reach(dense, from); i < dense.length && dense[i]! < to; i++) {
      const value = dense[i]!
      this.#addSparse(bitmap, next, value)
      const absent = this.#rows.subarray(starts[value]!, starts[value + 1]!)
      missing = missing === undefined ? absent : shared(missing, absent)
      next = value + 1
    }
    this.#addSparse(bitmap, next, to)
    if (missing !== undefined) addOthers(bitmap, missing)
  }

  #addSparse(bitmap: Bitmap, from: number, to: number): void {
    if (from >= to) return
    const rows = this.#rows
    const { words } = bitmap
    const end = this.#starts[to]!
    for (let i = this.#starts[from]!; i < end; i++) words[rows[i]! >>> 5]! |= 1 << (rows[i]! & 31)
  }

  /** The first value of a tag, from `start` on, that isn't before a key. Near ones are found first. */
  #lowerBound(tag: number, key: Uint8Array, start = this.#groups[tag]!): number {
    const end = this.#groups[tag + 1]!
    let low = start
    let high = start
    for (let step = 1; high < end && this.#compare(high, key) < 0; step *= 2) {
      low = high + 1
      high += step
    }
    high = Math.min(high, end)
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.#compare(middle, key) < 0) low = middle + 1
      else high = middle
    }
    return low
  }

  #compare(value: number, key: Uint8Array): number {
    return compareBytes(this.#bytes, this.#offsets[value]!, this.#offsets[value + 1]!, key, 1, key.length)
  }
}

/** Checks that there can be as many values as are told, of each tag. */
function readGroups(cursor: Cursor): Uint32Array {
  const groups = new Uint32Array(tagCount + 1)
  for (let tag = 0; tag < tagCount; tag++) {
    const count = cursor.varint()
    const countMax = tag === tags.null ? 1 : tag === tags.boolean ? 2 : cursor.remaining
    // A value takes a byte at least: the count of its rows.
    if (count > countMax) throw cursor.corrupt('a column has an impossible number of values')
    groups[tag + 1] = groups[tag]! + count
  }
  if (groups[tagCount]! > cursor.remaining) throw cursor.corrupt('a column has an impossible number of values')
  return groups
}

function readOffsets(cursor: Cursor, groups: Uint32Array): Uint32Array {
  const offsets = new Uint32Array(groups[tagCount]! + 1)
  const sizes = cursor.bytes(groups[tags.string + 1]! - groups[tags.string]!)
  const fixed = [0, 1, numberSize, 0, textSize]
  let value = 0
  let offset = cursor.offset
  for (let tag = 0; tag < tagCount; tag++) {
    const first = groups[tag]!
    for (; value < groups[tag + 1]!; value++) {
      offsets[value] = offset
      const size = tag === tags.string ? sizes[value - first]! : fixed[tag]!
      if (size > stringSizeMax) throw cursor.corrupt('a value is too long')
      offset += size
    }
  }
  offsets[value] = offset
  cursor.bytes(offset - cursor.offset)
  return offsets
}

/** Searching needs values that rise within their tag. */
function* checkOrder(cursor: Cursor, groups: Uint32Array, offsets: Uint32Array): Generator<void, void> {
  const bytes = cursor.place.bytes
  for (let tag = 0; tag < tagCount; tag++) {
    for (let value = groups[tag]!; value < groups[tag + 1]!; value++) {
      const start = offsets[value]!
      const end = offsets[value + 1]!
      if (tag === tags.boolean && bytes[start]! > 1) throw cursor.corrupt('a value is impossible')
      if (value > groups[tag]! && compareBytes(bytes, offsets[value - 1]!, start, bytes, start, end) >= 0) {
        throw cursor.corrupt('the values of a column are not sorted')
      }
      if (value % stepSize === 0) yield
    }
  }
}

/** Reads a column front to back and never beyond its end. */
class Cursor {
  readonly place: ColumnPlace
  #offset: number

  constructor(place: ColumnPlace, offset: number) {
    this.place = place
    this.#offset = offset
  }

  get offset(): number {
    return this.#offset
  }

  get remaining(): number {
    return this.place.end - this.#offset
  }

  uint8(): number {
    if (this.remaining < 1) throw this.corrupt('a column ends too early')
    return this.place.bytes[this.#offset++]!
  }

  varint(): number {
    let value = 0
    for (let scale = 1; scale <= 2 ** 28; scale *= 128) {
      const byte = this.uint8()
      value += (byte & 127) * scale
      if (byte < 128) {
        if (value >= 2 ** 32) break
        return value
      }
    }
    throw this.corrupt('a number is out of range')
  }

  bytes(size: number): Uint8Array {
    if (size > this.remaining) throw this.corrupt('a column ends too early')
    const start = this.#offset
    this.#offset += size
    return this.place.bytes.subarray(start, start + size)
  }

  /** The lists of rows that begin here. */
  lists(): RowListReader {
    return new RowListReader(this.place.bytes, this.#offset, this.place.end, this.place.rowCount)
  }

  corrupt(problem: string): IsovecError {
    return this.place.corrupt(this.#offset, problem)
  }
}
