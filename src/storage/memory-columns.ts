/**
 * Attribute columns of rows in memory that are still being added to.
 */
import { Bitmap } from '../codec/bitmap.ts'
import { type Condition, holdsAt } from '../condition.ts'
import type { Slice } from '../slice.ts'
import type { AttributeColumns } from '../snapshot.ts'
import { parsePayload } from './attribute.ts'
import { type AttributeLimits, AttributeLog, noValue, type PathNode } from './attribute-log.ts'
import { runAsFar } from './steps.ts'
import { compareBytes, type KeyTest, keyTestOf } from './value-key.ts'

/** Rows that have a payload or none; they are only ever added to. */
export type RowPayloads = {
  readonly rowCount: number
  payloadAt(row: number): Uint8Array | undefined
}

/** Payloads that are parsed, and values that are compared, in one step. */
const payloadsPerStep = 16
const entriesPerStep = 1024

const verdicts = { fails: 0, holds: 1, unsure: 2 } as const

/** What a condition says of a value. */
type Judge = (value: number) => number

/**
 * Columns of a memtable. Each payload is parsed once, when a filter first meets it. A match then costs O(values at its path), whatever
 * other paths there are.
 */
export class MemoryColumns implements AttributeColumns {
  readonly #source: RowPayloads
  readonly #log: AttributeLog
  readonly #name: string

  /** @param name for messages */
  constructor(source: RowPayloads, name = 'memtable', limits?: AttributeLimits) {
    this.#source = source
    this.#name = name
    this.#log = new AttributeLog(name, limits)
  }

  /** Rows taken in so far. */
  get rowCount(): number {
    return this.#log.rowCount
  }

  /** Bytes of memory that the rows taken in so far take. */
  get memorySize(): number {
    return this.#log.memorySize
  }

  /** Takes in the rows that are there, so that the next {@link match} doesn't have to. */
  async extend(slice: Slice): Promise<void> {
    while (this.#log.rowCount < this.#source.rowCount) {
      this.#log.add(this.#source.payloadAt(this.#log.rowCount))
      if (slice.isOver) await slice.next()
    }
  }

  /** As {@link AttributeColumns.match}, over the first `rowCount` rows: all that there are, unless told otherwise. */
  match(
    path: string,
    condition: Condition,
    slice?: Slice,
    rowCount: number = this.#source.rowCount,
  ): Bitmap | Promise<Bitmap> {
    return runAsFar(this.#matching(path, condition, rowCount), slice)
  }

  *#matching(path: string, condition: Condition, rowCount: number): Generator<void, Bitmap> {
    while (this.#log.rowCount < rowCount) {
      this.#log.add(this.#source.payloadAt(this.#log.rowCount))
      if (this.#log.rowCount % payloadsPerStep === 0) yield
    }
    const matches = Bitmap.of(rowCount)
    const node = this.#log.find(path)
    if (node === undefined) {
      yield* this.#addHolding(matches, this.#rowsOf(this.#log.root, rowCount), path, condition)
    } else if (condition.kind === 'exists') matches.or(this.#rowsOf(node, rowCount))
    else if (node.isKept) yield* this.#addJudged(matches, node, path, condition)
    else yield* this.#addHolding(matches, this.#rowsOf(node, rowCount), path, condition)
    return matches
  }

  *#addJudged(
    matches: Bitmap,
    node: PathNode,
    path: string,
    condition: Exclude<Condition, { kind: 'exists' }>,
  ): Generator<void, void> {
    const { entries } = this.#log
    const judge = this.#judgeOf(keyTestOf(condition))
    let doubts: Bitmap | undefined
    let count = 0
    for (let entry = node.last; entry !== 0; entry = entries.previousOf(entry)) {
      if (++count % entriesPerStep === 0) yield
      const value = entries.valueAt(entry)
      const row = entries.rowAt(entry)
      if (value === noValue || row >= matches.length) continue
      const verdict = judge(value)
      if (verdict === verdicts.holds) matches.add(row)
      else if (verdict === verdicts.unsure) {
        doubts ??= Bitmap.of(matches.length)
        doubts.add(row)
      }
    }
    if (doubts !== undefined) yield* this.#addHolding(matches, doubts.andNot(matches), path, condition)
  }

  #judgeOf({ points, spans }: KeyTest): Judge {
    const { keys } = this.#log
    const named = new Map<number, number>()
    for (const { key, isSure } of points) {
      const value = keys.find(key, key.length)
      if (value >= 0) named.set(value, isSure ? verdicts.holds : verdicts.unsure)
    }
    if (spans.length === 0) return (value) => named.get(value) ?? verdicts.fails
    return (value) => {
      const bytes = keys.bytesOf(value)
      const start = keys.startOf(value)
      const end = keys.endOf(value)
      for (const { from, to, isSure } of spans) {
        const isWithin =
          bytes[start] === from[0] &&
          compareBytes(bytes, start, end, from, 0, from.length) >= 0 &&
          (to === undefined || compareBytes(bytes, start, end, to, 0, to.length) < 0)
        if (isWithin) return isSure ? verdicts.holds : verdicts.unsure
      }
      return verdicts.fails
    }
  }

  /** The rows where something is at a path. */
  #rowsOf(node: PathNode, rowCount: number): Bitmap {
    const { entries } = this.#log
    const rows = Bitmap.of(rowCount)
    for (let entry = node.last; entry !== 0; entry = entries.previousOf(entry)) {
      const row = entries.rowAt(entry)
      if (row < rowCount) rows.add(row)
    }
    return rows
  }

  /** Adds those rows whose payload fulfils a condition. */
  *#addHolding(matches: Bitmap, rows: Bitmap, path: string, condition: Condition): Generator<void, void> {
    let count = 0
    for (const row of rows.rows()) {
      const payload = this.#source.payloadAt(row)
      if (payload !== undefined && holdsAt(parsePayload(payload, this.#name, row), path, condition)) matches.add(row)
      if (++count % payloadsPerStep === 0) yield
    }
  }
}
