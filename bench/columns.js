/**
 * What do attribute columns take: how long are they built at a flush, and how large are they, beside the payloads that they come from?
 */
import { loadSources } from '../scripts/load-sources.js'
import { readArguments } from './support/arguments.js'
import { fixed, Report, whole } from './support/report.js'
import { median, randomFrom } from './support/statistics.js'

const given = readArguments({ rounds: 5, quickRounds: 1, base: 100_000, quickBase: 5000 })
const rowCount = given.base ?? 100_000
/** @type {typeof import('./support/engine.ts')} */
const { ColumnBuilder } = await loadSources(new URL('support/engine.ts', import.meta.url))
const random = randomFrom(5)
const words = ['alpha', 'beta', 'gamma', 'delta', 'epsilon', 'zeta', 'eta', 'theta']
const word = () => words[Math.floor(random() * words.length)] ?? ''

/** @type {readonly (readonly [name: string, payload: (row: number) => object])[]} */
const shapes = [
  ['a number, all different', (row) => ({ n: row * 1.5 })],
  ['a text of eight', () => ({ kind: word() })],
  ['a text of 200, all different', (row) => ({ text: `${word()} ${'x'.repeat(190)} ${row}` })],
  ['five tags of eight', () => ({ tags: Array.from({ length: 5 }, word) })],
  ['objects in a list', (row) => ({ authors: [{ name: word(), age: row % 90 }, { name: word() }] })],
  [
    'all of these',
    (row) => ({ n: row, kind: word(), tags: [word(), word()], text: `${row}`.repeat(30), at: { x: row } }),
  ],
]

const report = new Report('columns', given.write)
await report.begin()
const rows = []
for (const [name, payload] of shapes) {
  const payloads = Array.from({ length: rowCount }, (_, row) => new TextEncoder().encode(JSON.stringify(payload(row))))
  const times = []
  let size = 0
  for (let round = 0; round < given.rounds; round++) {
    const started = performance.now()
    const builder = new ColumnBuilder(rowCount, 'bench')
    for (const [row, bytes] of payloads.entries()) builder.add(row, bytes)
    size = builder.finish().length
    times.push(performance.now() - started)
  }
  const payloadSize = payloads.reduce((sum, { length }) => sum + length, 0)
  rows.push([
    name,
    fixed(payloadSize / rowCount, 1),
    fixed(size / rowCount, 1),
    fixed((median(times) * 1000) / rowCount, 2),
  ])
}
report.table(
  `Attribute columns of ${whole(rowCount)} documents: bytes of payload, bytes of columns and microseconds to build them, for each document`,
  ['payload', 'payload bytes', 'column bytes', 'build µs'],
  rows,
)
report.end()
