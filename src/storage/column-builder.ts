/**
 * Building the attribute columns of a segment: per path a sorted dictionary of values, each with the list of its rows.
 */
import { ByteWriter, viewOf } from '../codec/bytes.ts'
import { assert } from '../errors.ts'
import type { Slice } from '../slice.ts'
import { type AttributeLimits, AttributeLog, attributeLimits, noValue, type PathNode } from './attribute-log.ts'
import { type SortedKeys, sortIndices, sortKeys } from './key-sort.ts'
import type { KeyTable } from './key-table.ts'
import { paddingSize, RowListWriter } from './row-list.ts'
import { runInSlices, runNow } from './steps.ts'
import { compareBytes, encodeText, tagCount, tags } from './value-key.ts'

/** Bytes before the directory. */
export const columnsHeaderSize = 16
/** First byte of a column: its values are there, or are left to be read from the payloads. */
export const columnKinds = { kept: 0, notKept: 1 } as const

/** What a section takes before further columns are left to be read from the payloads. */
export type ColumnLimits = AttributeLimits & {
  /** Bytes of one column; below 2^28. */
  readonly columnSizeMax: number
  /** Bytes of all columns; below 2^32. */
  readonly columnsSizeMax: number
}

export const columnLimits: ColumnLimits = {
  ...attributeLimits,
  columnSizeMax: 2 ** 27,
  columnsSizeMax: 2 ** 30,
}

/** Entries between two chances to stop. */
const stepSize = 1024

/** Gathers payloads in the order of their rows and makes columns of them. */
export class ColumnBuilder {
  readonly #log: AttributeLog
  readonly #rowCount: number
  readonly #limits: ColumnLimits

  /** @param name of the file, for messages */
  constructor(rowCount: number, name: string, limits: ColumnLimits = columnLimits) {
    this.#log = new AttributeLog(name, limits)
    this.#rowCount = rowCount
    this.#limits = limits
  }

  /**
   * Adds the next row: its payload as JSON in UTF-8, undefined if it has none. The bytes are not kept.
   * @throws IsovecError `CORRUPTION` if they are not JSON
   */
  add(row: number, payload: Uint8Array | undefined): void {
    assert(row === this.#log.rowCount, 'rows are added in order')
    this.#log.add(payload)
  }

  /** The section; every row must have been added. O(v log v) for v distinct values. */
  finish(): Uint8Array {
    return runNow(this.#build())
  }

  /** As {@link finish}, giving the event loop back in between. */
  finishInSlices(slice: Slice): Promise<Uint8Array> {
    return runInSlices(this.#build(), slice)
  }

  *#build(): Generator<void, Uint8Array> {
    assert(this.#log.rowCount === this.#rowCount, 'every row was added')
    const found: { name: Uint8Array; node: PathNode }[] = []
    for (const node of nodesOf(this.#log.root)) {
      if (node.count > 0) found.push({ name: encodeText(node.path), node })
      if (found.length % stepSize === 0) yield
    }
    const compare = (a: number, b: number): number => compareAll(found[a]!.name, found[b]!.name)
    const named = Array.from(yield* sortIndices(found.length, compare), (index) => found[index]!)
    const writer = new ColumnWriter(this.#log, this.#rowCount, this.#limits.columnSizeMax)
    const columns: Parts[] = []
    let size = 0
    for (const { node } of named) {
      const column = yield* writer.column(node, this.#limits.columnsSizeMax - size)
      columns.push(column)
      size += sizeOf(column)
      if (columns.length % 16 === 0) yield
    }
    return yield* assemble(
      this.#rowCount,
      named.map(({ name }) => [name]),
      columns,
    )
  }
}

/** Bytes that belong one behind the other. */
type Parts = readonly Uint8Array[]

function sizeOf(parts: Parts): number {
  return parts.reduce((sum, part) => sum + part.length, 0)
}

function* nodesOf(node: PathNode): Generator<PathNode> {
  yield node
  if (node.children !== undefined) for (const child of node.children.values()) yield* nodesOf(child)
}

function compareAll(a: Uint8Array, b: Uint8Array): number {
  return compareBytes(a, 0, a.length, b, 0, b.length)
}

/** Bytes that are copied at one go. */
const copySize = 256 * 1024

/** Header, directory, names, columns, padding. */
function* assemble(rowCount: number, names: readonly Parts[], columns: readonly Parts[]): Generator<void, Uint8Array> {
  const directorySize = 8 * (names.length + 1)
  const contentSize = [...names, ...columns].reduce((sum, parts) => sum + sizeOf(parts), 0)
  const bytes = new Uint8Array(columnsHeaderSize + directorySize + contentSize + paddingSize)
  const view = viewOf(bytes)
  view.setUint32(0, rowCount, true)
  view.setUint32(4, names.length, true)
  let directoryAt = columnsHeaderSize
  let offset = columnsHeaderSize + directorySize
  for (const list of [names, columns]) {
    const start = offset
    view.setUint32(directoryAt, 0, true)
    for (const parts of list) {
      for (const part of parts) {
        for (let from = 0; from < part.length; from += copySize) {
          bytes.set(part.subarray(from, from + copySize), offset + from)
          if (from > 0) yield
        }
        offset += part.length
      }
      directoryAt += 4
      view.setUint32(directoryAt, offset - start, true)
      if (directoryAt % 256 === 0) yield
    }
    directoryAt += 4
  }
  return bytes
}

/** Writes one column after the other with the same tables. */
class ColumnWriter {
  readonly #log: AttributeLog
  readonly #keys: KeyTable
  readonly #rowCount: number
  readonly #columnSizeMax: number
  readonly #lists = new RowListWriter()

  constructor(log: AttributeLog, rowCount: number, columnSizeMax: number) {
    this.#log = log
    this.#keys = log.keys
    this.#rowCount = rowCount
    this.#columnSizeMax = columnSizeMax
  }

  /** The column of a path. Its values are left out if it would be larger than `sizeMax`. */
  *column(node: PathNode, sizeMax: number): Generator<void, Parts> {
    const { values, rows } = yield* this.#entriesOf(node)
    const presence = yield* this.#presence(rows)
    const parts = node.isKept
      ? yield* this.#values(values, rows, Math.min(sizeMax, this.#columnSizeMax) - 1 - sizeOf(presence))
      : undefined
    if (parts === undefined) return [Uint8Array.of(columnKinds.notKept), ...presence]
    return [Uint8Array.of(columnKinds.kept), ...presence, ...parts]
  }

  /** The entries of a path in the order of rows. */
  *#entriesOf(node: PathNode): Generator<void, { values: Uint32Array; rows: Uint32Array }> {
    const values = new Uint32Array(node.count)
    const rows = new Uint32Array(node.count)
    const { entries } = this.#log
    let at = node.count
    for (let entry = node.last; entry !== 0; entry = entries.previousOf(entry)) {
      values[--at] = entries.valueAt(entry)
      rows[at] = entries.rowAt(entry)
      if (at % stepSize === 0) yield
    }
    return { values, rows }
  }

  /** Number and list of the rows with entries. */
  *#presence(entryRows: Uint32Array): Generator<void, Parts> {
    const rows = new Uint32Array(entryRows.length)
    let count = 0
    for (let i = 0; i < entryRows.length; i++) {
      if (count === 0 || rows[count - 1] !== entryRows[i]) rows[count++] = entryRows[i]!
      if (i % stepSize === 0) yield
    }
    const writer = new ByteWriter(8)
    writeVarint(writer, count)
    this.#lists.write(rows, 0, count, this.#rowCount)
    return [writer.finish(), this.#lists.take()]
  }

  /** Dictionary and lists; undefined if they do not fit. */
  *#values(entryValues: Uint32Array, entryRows: Uint32Array, sizeMax: number): Generator<void, Parts | undefined> {
    const keys = yield* this.#sortedKeys(entryValues)
    if (keys.bytes.length > sizeMax) return undefined
    const dictionary = yield* writeDictionary(keys)
    const room = sizeMax - sizeOf(dictionary)
    const { starts, rows } = yield* this.#group(keys.numbers, entryValues, entryRows)
    const counts = new ByteWriter(Math.max(8, keys.numbers.length))
    for (let rank = 0; rank < keys.numbers.length; rank++) {
      let end = starts[rank]! + 1
      // A list that holds a value twice has named its row twice.
      for (let i = end; i < starts[rank + 1]!; i++) if (rows[i] !== rows[end - 1]) rows[end++] = rows[i]!
      writeVarint(counts, end - starts[rank]!)
      this.#lists.write(rows, starts[rank]!, end, this.#rowCount)
      if (rank % stepSize !== 0) continue
      if (counts.size + this.#lists.size > room) break
      yield
    }
    const lists = this.#lists.take()
    return counts.size + lists.length > room ? undefined : [...dictionary, counts.finish(), lists]
  }

  /** The distinct values among entries, in order. */
  *#sortedKeys(entryValues: Uint32Array): Generator<void, SortedKeys> {
    const keys = this.#keys
    const distinct = new Uint32Array(entryValues.length)
    let count = 0
    for (let i = 0; i < entryValues.length; i++) {
      const value = entryValues[i]!
      if (value !== noValue && keys.rankOf(value) === 0) {
        distinct[count++] = value
        keys.setRank(value, 1)
      }
      if (i % stepSize === 0) yield
    }
    for (let i = 0; i < count; i++) keys.setRank(distinct[i]!, 0)
    return yield* sortKeys(keys, distinct.subarray(0, count))
  }

  /** The rows of each key, one list after the other: a counting sort, which keeps their order. */
  *#group(
    keys: Uint32Array,
    entryValues: Uint32Array,
    entryRows: Uint32Array,
  ): Generator<void, { starts: Uint32Array; rows: Uint32Array }> {
    const table = this.#keys
    for (let i = 0; i < keys.length; i++) {
      table.setRank(keys[i]!, i)
      if (i % stepSize === 0) yield
    }
    const starts = new Uint32Array(keys.length + 1)
    for (let i = 0; i < entryValues.length; i++) {
      if (entryValues[i] !== noValue) starts[table.rankOf(entryValues[i]!) + 1]!++
      if (i % stepSize === 0) yield
    }
    for (let i = 0; i < keys.length; i++) {
      starts[i + 1]! += starts[i]!
      if (i % stepSize === 0) yield
    }
    const rows = new Uint32Array(starts[keys.length]!)
    const next = starts.slice()
    for (let i = 0; i < entryValues.length; i++) {
      const value = entryValues[i]!
      if (value !== noValue) rows[next[table.rankOf(value)]!++] = entryRows[i]!
      if (i % stepSize === 0) yield
    }
    for (let i = 0; i < keys.length; i++) {
      table.setRank(keys[i]!, 0)
      if (i % stepSize === 0) yield
    }
    return { starts, rows }
  }
}

/** Numbers of values of each type, sizes of the strings, and all values. */
function* writeDictionary({ order, bytes, offsets }: SortedKeys): Generator<void, Parts> {
  const counts = new Uint32Array(tagCount)
  for (let i = 0; i < order.length; i++) {
    counts[bytes[offsets[i]!]!]!++
    if (i % stepSize === 0) yield
  }
  const writer = new ByteWriter(8)
  for (const count of counts) writeVarint(writer, count)
  const firstString = counts[tags.null]! + counts[tags.boolean]! + counts[tags.number]!
  const sizes = new Uint8Array(counts[tags.string]!)
  // The tag is told by the place among the values.
  const bodies = new Uint8Array(bytes.length - order.length)
  let at = 0
  for (let i = 0; i < order.length; i++) {
    const start = offsets[order[i]!]! + 1
    const end = offsets[order[i]! + 1]!
    const string = i - firstString
    if (string >= 0 && string < sizes.length) sizes[string] = end - start
    for (let byte = start; byte < end; byte++) bodies[at++] = bytes[byte]!
    if (i % stepSize === 0) yield
  }
  return [writer.finish(), sizes, bodies]
}

/** Writes a whole number below 2^32 in groups of 7 bits, the lowest first. */
function writeVarint(writer: ByteWriter, value: number): void {
  let rest = value
  while (rest > 127) {
    writer.uint8((rest & 127) | 128)
    rest >>>= 7
  }
  writer.uint8(rest)
}
