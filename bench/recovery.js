/**
 * How long does opening take when documents are in the log, after a clean end and after a kill?
 *
 * Every opening is a process of its own, so that nothing is compiled or in its memory yet; the files are in the page
 * cache. A collection is flushed when its log reaches 64 MiB, so larger logs are those of several collections, which are
 * opened one after the other.
 */
import { mkdtemp } from 'node:fs/promises'
import { join } from 'node:path'
import { readArguments } from './support/arguments.js'
import { inTemporaryFolder } from './support/database.js'
import { measureOpening, middle, run } from './support/opening.js'
import { fixed, Report, whole } from './support/report.js'

/** @typedef {import('./support/opening.js').Opened} Opened */

const given = readArguments({ rounds: 7, quickRounds: 1 })
/** MiB of log of each collection. */
const megabytes = given.quick ? [1, 16] : [1, 16, 64]
const sizes = [
  ...megabytes.map((each) => ({ collectionCount: 1, megabytes: each })),
  { collectionCount: 4, megabytes: given.quick ? 4 : 64 },
]

/**
 * A database whose documents are all in the log, and how every process that has it ends.
 *
 * @param {string} folder
 * @param {{ collectionCount: number, megabytes: number }} size
 * @param {boolean} isKilled
 */
async function filled(folder, size, isKilled) {
  console.error(`${size.collectionCount} x ${size.megabytes} MiB, ${isKilled ? 'killed' : 'closed'} …`)
  const path = await mkdtemp(join(folder, 'log-'))
  const filling = await run({ kind: 'fill', path, ...size })
  if (filling.outcome.kind !== 'filled') throw new Error('not filled')
  await (isKilled ? filling.kill() : filling.close())
  const { docs, walSize } = filling.outcome
  /** @type {Opened[]} */
  const rounds = []
  return { path, isKilled, collectionCount: size.collectionCount, docs, walSize, rounds }
}

/** @param {string} folder */
async function measureLogs(folder) {
  const logs = []
  for (const size of sizes) for (const isKilled of [true, false]) logs.push(await filled(folder, size, isKilled))
  for (let round = 0; round < given.rounds; round++) {
    console.error(`round ${round + 1} of ${given.rounds} …`)
    for (const { path, docs, isKilled, rounds } of logs) rounds.push(await measureOpening(path, docs, isKilled))
  }
  return logs.map(({ collectionCount, walSize, isKilled, docs, rounds }) => [
    `${fixed(walSize / 2 ** 20, 1)} MiB`,
    collectionCount,
    isKilled ? 'killed' : 'closed',
    whole(docs),
    middle(rounds, ({ openMs }) => openMs),
    middle(rounds, ({ collectionsMs }) => collectionsMs),
    middle(rounds, ({ processorMs }) => processorMs),
    fixed(Math.max(...rounds.map(({ openMs, collectionsMs }) => openMs + collectionsMs)), 0),
    middle(rounds, ({ firstMs }) => firstMs, 1),
    middle(rounds, ({ laterMs }) => laterMs, 2),
  ])
}

const report = new Report('recovery', given.write)
await report.begin()
await inTemporaryFolder(given.folder, async (folder) => {
  report.table(
    `Milliseconds to open a database whose documents are in logs (384 dimensions, texts of 11 KB), medians of ${given.rounds}`,
    [
      'log',
      'collections',
      'ended',
      'documents',
      'database opened',
      'collections opened',
      'processor',
      'slowest round',
      'first searches',
      'later search',
    ],
    await measureLogs(folder),
  )
})
report.end()
