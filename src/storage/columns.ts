/**
 * The attribute columns of a segment: which rows pass a condition, without reading payloads wherever that can be.
 */
import { Bitmap } from '../codec/bitmap.ts'
import { viewOf } from '../codec/bytes.ts'
import { type Condition, holdsAt } from '../condition.ts'
import { IsovecError } from '../errors.ts'
import { Slice } from '../slice.ts'
import type { AttributeColumns } from '../snapshot.ts'
import { parsePayload } from './attribute.ts'
import { Column, type ColumnPlace, openColumn } from './column.ts'
import { columnsHeaderSize } from './column-builder.ts'
import { paddingSize } from './row-list.ts'
import { runInSlices, runNow } from './steps.ts'
import { compareBytes, encodeText, keyTestOf } from './value-key.ts'

/** Reads a payload as JSON in UTF-8. */
export type PayloadAt = (row: number) => Uint8Array | undefined | Promise<Uint8Array | undefined>

/** Bytes that unpacked columns may take, by default. */
const cacheSizeMaxDefault = 32 * 1024 * 1024
/** Size of a column from which on it's unpacked in slices. */
const slicedSizeMin = 128 * 1024

/**
 * Opens the columns of a segment; the directory is checked now, each column when it is first used.
 *
 * @param bytes the section, whose checksum holds; kept and never changed
 * @param payloadAt is asked only for rows that columns cannot decide: texts that differ from the operand behind their head, and values
 *   that were too many to be kept
 * @param name of the file, for messages
 * @param cacheSizeMax bytes that unpacked columns may take beside `bytes`; the last one used stays whatever its size
 * @throws IsovecError `CORRUPTION`
 */
export function openColumns(
  bytes: Uint8Array,
  rowCount: number,
  payloadAt: PayloadAt,
  name: string,
  cacheSizeMax: number = cacheSizeMaxDefault,
): Columns {
  return new Columns(bytes, rowCount, payloadAt, name, cacheSizeMax)
}

/** Open attribute columns. */
export class Columns implements AttributeColumns {
  readonly #bytes: Uint8Array
  readonly #view: DataView
  readonly #rowCount: number
  readonly #payloadAt: PayloadAt
  readonly #name: string
  readonly #pathCount: number
  readonly #namesAt: number
  readonly #columnsAt: number
  /** Unpacked columns; the one used last stands last. */
  readonly #unpacked = new Map<number, Column>()
  readonly #unpacking = new Map<number, Promise<Column>>()
  readonly #cacheSizeMax: number
  #cacheSize = 0

  constructor(bytes: Uint8Array, rowCount: number, payloadAt: PayloadAt, name: string, cacheSizeMax: number) {
    this.#bytes = bytes
    this.#view = viewOf(bytes)
    this.#rowCount = rowCount
    this.#payloadAt = payloadAt
    this.#name = name
    this.#cacheSizeMax = cacheSizeMax
    if (bytes.length < columnsHeaderSize + 8 + paddingSize) throw this.#corrupt(0, 'the columns end too early')
    if (this.#view.getUint32(0, true) !== rowCount) throw this.#corrupt(0, 'the columns are of other rows')
    this.#pathCount = this.#view.getUint32(4, true)
    this.#namesAt = columnsHeaderSize + 8 * (this.#pathCount + 1)
    if (this.#namesAt + paddingSize > bytes.length) throw this.#corrupt(4, 'there cannot be that many paths')
    this.#columnsAt = this.#namesAt + this.#nameStart(this.#pathCount)
    this.#checkDirectory()
  }

  /** Bytes that the columns hold in memory. */
  get memorySize(): number {
    return this.#bytes.length + this.#cacheSize
  }

  match(path: string, condition: Condition, slice?: Slice): Bitmap | Promise<Bitmap> {
    let index = this.#find(path)
    // The column of no name holds the rows with paths that were too many to be kept.
    if (index < 0) index = this.#find('')
    if (index < 0) return Bitmap.of(this.#rowCount)
    const isNamed = this.#nameStart(index) < this.#nameStart(index + 1)
    if (condition.kind === 'exists' && isNamed) return openColumn(this.#place(index)).rows
    const column = this.#column(index)
    if (column instanceof Promise) {
      return column.then((found) => this.#matchColumn(index, found, path, condition, slice))
    }
    return this.#matchColumn(index, column, path, condition, slice)
  }

  #matchColumn(
    index: number,
    column: Column | undefined,
    path: string,
    condition: Condition,
    slice: Slice | undefined,
  ): Bitmap | Promise<Bitmap> {
    const matches = Bitmap.of(this.#rowCount)
    if (column === undefined || condition.kind === 'exists') {
      return this.#decide(matches, openColumn(this.#place(index)).rows, path, condition, slice)
    }
    const { points, spans } = keyTestOf(condition)
    let doubts: Bitmap | undefined
    const targetOf = (isSure: boolean): Bitmap => {
      if (isSure) return matches
      doubts ??= Bitmap.of(this.#rowCount)
      return doubts
    }
    column.addKeys(points, targetOf)
    for (const span of spans) column.addSpan(targetOf(span.isSure), span)
    return doubts === undefined ? matches : this.#decide(matches, doubts, path, condition, slice)
  }

  /** Adds those of the rows in doubt whose payload fulfils the condition. */
  #decide(
    matches: Bitmap,
    doubts: Bitmap,
    path: string,
    condition: Condition,
    slice: Slice | undefined,
  ): Bitmap | Promise<Bitmap> {
    const rows = doubts.andNot(matches).rows()
    return rows.length === 0 ? matches : this.#readDoubts(matches, rows, path, condition, slice ?? new Slice())
  }

  async #readDoubts(
    matches: Bitmap,
    rows: Uint32Array,
    path: string,
    condition: Condition,
    slice: Slice,
  ): Promise<Bitmap> {
    for (const row of rows) {
      const found = this.#payloadAt(row)
      const payload = found instanceof Promise ? await found : found
      if (payload !== undefined && holdsAt(parsePayload(payload, this.#name, row), path, condition)) matches.add(row)
      if (slice.isOver) await slice.next()
    }
    return matches
  }

  /** The values of a column; undefined where they are not kept. */
  #column(index: number): Column | undefined | Promise<Column | undefined> {
    const column = this.#unpacked.get(index)
    if (column !== undefined) {
      this.#unpacked.delete(index)
      this.#unpacked.set(index, column)
      return column
    }
    const underWay = this.#unpacking.get(index)
    if (underWay !== undefined) return underWay
    const place = this.#place(index)
    const { isKept, valuesAt } = openColumn(place)
    if (!isKept) return undefined
    if (place.end - place.start < slicedSizeMin) return this.#keep(index, runNow(Column.read(place, valuesAt)))
    const unpacking = runInSlices(Column.read(place, valuesAt), new Slice())
      .then((column) => this.#keep(index, column))
      .finally(() => this.#unpacking.delete(index))
    this.#unpacking.set(index, unpacking)
    return unpacking
  }

  #keep(index: number, column: Column): Column {
    this.#unpacked.set(index, column)
    this.#cacheSize += column.memorySize
    for (const [oldest, dropped] of this.#unpacked) {
      if (this.#cacheSize <= this.#cacheSizeMax || oldest === index) break
      this.#unpacked.delete(oldest)
      this.#cacheSize -= dropped.memorySize
    }
    return column
  }

  #place(index: number): ColumnPlace {
    return {
      bytes: this.#bytes,
      start: this.#columnsAt + this.#columnStart(index),
      end: this.#columnsAt + this.#columnStart(index + 1),
      rowCount: this.#rowCount,
      corrupt: (offset, problem) => this.#corrupt(offset, problem),
    }
  }

  #nameStart(index: number): number {
    return this.#view.getUint32(columnsHeaderSize + 4 * index, true)
  }

  #columnStart(index: number): number {
    return this.#view.getUint32(columnsHeaderSize + 4 * (this.#pathCount + 1 + index), true)
  }

  /** Names and columns fill the section, and names rise. */
  #checkDirectory(): void {
    const end = this.#bytes.length - paddingSize
    const fits =
      this.#nameStart(0) === 0 &&
      this.#columnStart(0) === 0 &&
      this.#columnsAt + this.#columnStart(this.#pathCount) === end
    if (!fits) throw this.#corrupt(columnsHeaderSize, 'the directory of the columns does not fit them')
    for (let index = 0; index < this.#pathCount; index++) {
      const isRising =
        this.#nameStart(index) <= this.#nameStart(index + 1) &&
        this.#namesAt + this.#nameStart(index + 1) <= this.#columnsAt &&
        this.#columnStart(index) < this.#columnStart(index + 1) &&
        (index === 0 || this.#compareName(index - 1, this.#bytes, this.#nameOf(index)) < 0)
      if (!isRising) throw this.#corrupt(columnsHeaderSize + 4 * index, 'the directory of the columns is impossible')
    }
  }

  #nameOf(index: number): { start: number; end: number } {
    return { start: this.#namesAt + this.#nameStart(index), end: this.#namesAt + this.#nameStart(index + 1) }
  }

  #compareName(index: number, bytes: Uint8Array, { start, end }: { start: number; end: number }): number {
    const name = this.#nameOf(index)
    return compareBytes(this.#bytes, name.start, name.end, bytes, start, end)
  }

  /** The column of a path, or -1. */
  #find(path: string): number {
    const name = encodeText(path)
    const place = { start: 0, end: name.length }
    let low = 0
    let high = this.#pathCount
    while (low < high) {
      const middle = (low + high) >>> 1
      const order = this.#compareName(middle, name, place)
      if (order === 0) return middle
      if (order < 0) low = middle + 1
      else high = middle
    }
    return -1
  }

  #corrupt(offset: number, problem: string): IsovecError {
    return new IsovecError('CORRUPTION', `${this.#name}: ${problem} (at byte ${offset} of the columns)`, {
      file: this.#name,
      offset,
    })
  }
}
