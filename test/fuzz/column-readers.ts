/**
 * Samples of attribute columns, without the checksum of their section, and of the payloads that columns are made of.
 */
import type { Bitmap } from '../../src/codec/bitmap.ts'
import type { Condition } from '../../src/condition.ts'
import { ColumnBuilder, type ColumnLimits, columnLimits } from '../../src/storage/column-builder.ts'
import { openColumns } from '../../src/storage/columns.ts'
import { MemoryColumns } from '../../src/storage/memory-columns.ts'
import { holdsFor } from '../support/filter-reference.ts'
import { payloadOf } from './bases.ts'
import { ColumnOracle } from './column-oracle.ts'
import { payloads as filteredPayloads } from './filter-target.ts'
import { demand } from './input.ts'
import { questions as baseQuestions, textOfBytes } from './places.ts'
import type { Reading, Sample } from './reader-target.ts'

type Payloads = readonly (Uint8Array | undefined)[]
type Questions = readonly (readonly [path: string, condition: Condition])[]

const encode = (text: string | undefined): Uint8Array | undefined =>
  text === undefined ? undefined : new TextEncoder().encode(text)

const mixed: Payloads = filteredPayloads.map(encode)
const shaped: Payloads = Array.from({ length: 24 }, (_, i) => encode(JSON.stringify(payloadOf(i))))
/** Values that most rows share, so that the absent ones are listed. */
const dense: Payloads = Array.from({ length: 200 }, (_, i) =>
  encode(i % 50 === 7 ? undefined : JSON.stringify({ a: i % 9 === 0 ? 1 : 2, b: { c: i % 90 }, c: i % 70 === 3 })),
)

const questions: Questions = [
  ...baseQuestions.slice(0, 5),
  ['a', { kind: 'exists' }],
  ['a', { kind: 'equal', values: [1, 'a', null, true] }],
  ['a', { kind: 'range', operator: 'gt', value: 1 }],
  ['a', { kind: 'prefix', value: 'x'.repeat(100) }],
  ['b.c', { kind: 'exists' }],
  ['b.c', { kind: 'range', operator: 'lte', value: 44 }],
  ['b.c', { kind: 'prefix', value: 't' }],
  ['c', { kind: 'equal', values: [false, 'x'.repeat(300)] }],
  ['no.such', { kind: 'equal', values: [0] }],
]

function built(payloads: Payloads, limits?: ColumnLimits): Uint8Array {
  const builder = new ColumnBuilder(payloads.length, 'columns', limits)
  for (const [row, payload] of payloads.entries()) builder.add(row, payload)
  return builder.finish()
}

/** Columns as they are built, and with what is left to be read from payloads. */
export async function columnSamples(): Promise<Sample[]> {
  const of = (name: string, payloads: Payloads, limits?: ColumnLimits): Sample => ({
    name,
    kind: 'columns',
    bytes: built(payloads, limits),
    isGuarded: false,
    read: (bytes, reading) => readColumns(bytes, payloads, reading),
  })
  return [
    of('mixed', mixed),
    of('shaped', shaped),
    of('dense', dense),
    of('few paths', mixed, { ...columnLimits, pathCountMax: 2 }),
    of('small columns', shaped, { ...columnLimits, columnSizeMax: 40 }),
  ]
}

async function readColumns(bytes: Uint8Array, payloads: Payloads, reading: Reading): Promise<void> {
  const rowCount = payloads.length
  const columns = await reading.attempt('openColumns', () => openColumns(bytes, rowCount, (row) => payloads[row], 'c'))
  const oracle = ColumnOracle.open(bytes, rowCount)
  demand((columns === undefined) === (oracle === undefined), 'columns are taken that are none, or the other way round')
  if (columns === undefined || oracle === undefined) return
  for (const [path, condition] of questions) {
    const found = await reading.attempt('match', () => columns.match(path, condition))
    if (found !== undefined) demand(isSound(found, rowCount), 'rows are found that are none')
    const expected = oracle.rowsOf(path, condition)
    if (expected === 'unknown') continue
    const isSame = found?.rows().join() === expected?.join()
    demand(isSame, `${path} ${condition.kind} finds ${found?.count()} rows instead of ${expected?.length}, or others`)
  }
}

/** No row lies beyond the last. */
function isSound(rows: Bitmap, rowCount: number): boolean {
  const rest = rowCount & 31
  const isClean = rest === 0 || rows.words.at(-1)! >>> rest === 0
  return rows.length === rowCount && rows.words.length === Math.ceil(rowCount / 32) && isClean
}

/** Payloads as they may stand in files whose checksums hold: any bytes at all. */
export async function payloadSamples(): Promise<Sample[]> {
  return [...mixed, ...shaped.slice(0, 6)].flatMap((bytes, i) =>
    bytes === undefined || bytes.length < 4
      ? []
      : [{ name: `payload ${i}`, kind: 'payload' as const, bytes, isGuarded: false, read: readPayload }],
  )
}

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** The JSON value that bytes hold; an empty list where they hold none. */
function parsed(bytes: Uint8Array): unknown[] {
  try {
    return [JSON.parse(decoder.decode(bytes))]
  } catch (error) {
    demand(error instanceof SyntaxError || error instanceof TypeError, `JSON.parse fails with ${String(error)}`)
    return []
  }
}

async function readPayload(bytes: Uint8Array, reading: Reading): Promise<void> {
  const rows = [mixed[0], bytes, undefined]
  const section = await reading.attempt('build', () => built(rows))
  const values = parsed(bytes)
  demand((section === undefined) === (values.length === 0), `${textOfBytes(bytes)} is JSON to one and not to the other`)
  const memory = new MemoryColumns({ rowCount: rows.length, payloadAt: (row) => rows[row] }, 'memory')
  const columns = section === undefined ? undefined : openColumns(section, rows.length, (row) => rows[row], 'columns')
  const payloads = [parsed(mixed[0]!)[0], values[0], undefined]
  for (const [path, condition] of questions) {
    const remembered = await reading.attempt('match', () => memory.match(path, condition))
    demand((remembered === undefined) === (values.length === 0), 'a memtable takes another JSON than a segment')
    if (columns === undefined) continue
    const found = (await columns.match(path, condition)).rows().join()
    const expected = payloads.flatMap((payload, row) => (holdsFor('', payload, path, condition) ? [row] : [])).join()
    demand(found === expected, `${path} ${condition.kind} finds ${found} instead of ${expected}`)
    demand(remembered?.rows().join() === expected, `${path} ${condition.kind} finds others in a memtable`)
  }
}
