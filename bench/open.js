/**
 * How long does opening take: with a log to be read again, after a clean end and after a kill, and with large collections?
 *
 * Every opening is a process of its own, so that nothing is compiled or in its memory yet; the files are in the page cache.
 */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readdir, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { readArguments } from './support/arguments.js'
import { inTemporaryFolder } from './support/database.js'
import { fixed, Report, whole } from './support/report.js'
import { median } from './support/statistics.js'

/** @typedef {import('./support/process.js').Order} Order */
/** @typedef {import('./support/process.js').Opened} Opened */
/** @typedef {import('./support/process.js').Outcome} Outcome */

const given = readArguments({ rounds: 5, quickRounds: 1, base: 100_000, quickBase: 5000 })
const logMegabytes = given.quick ? [1, 16] : [1, 16, 64]
const collectionRows = given.base ?? 100_000

const worker = fileURLToPath(new URL('support/process.js', import.meta.url))

/**
 * Runs an order in a new process, which stays until it is ended.
 *
 * @param {Order} order
 * @returns {Promise<{ outcome: Outcome, kill: () => Promise<void>, close: () => Promise<void> }>}
 */
async function run(order) {
  const child = fork(worker, { stdio: 'inherit' })
  const ended = once(child, 'exit')
  child.send(order)
  const first = await Promise.race([once(child, 'message'), ended.then(() => undefined)])
  if (first === undefined) throw new Error(`the process for "${order.kind}" ended early`)
  return {
    outcome: first[0],
    async kill() {
      child.kill('SIGKILL')
      await ended
    },
    async close() {
      child.send('close')
      const [code] = await ended
      if (code !== 0) throw new Error(`closing ended with ${code}`)
    },
  }
}

/**
 * @param {string} path
 * @param {boolean} isKilled how every process that had the database ends
 * @param {Order & { kind: 'fill' }} order
 */
async function measureLog(path, isKilled, order) {
  const filled = await run(order)
  if (filled.outcome.kind !== 'filled') throw new Error('not filled')
  const { docs, walSize } = filled.outcome
  await (isKilled ? filled.kill() : filled.close())
  /** @type {Opened[]} */
  const rounds = []
  for (let round = 0; round < given.rounds; round++) {
    const opening = await run({ kind: 'open', path })
    if (opening.outcome.kind !== 'opened') throw new Error('not opened')
    if (opening.outcome.docs !== docs) throw new Error(`${opening.outcome.docs} documents of ${docs} came back`)
    rounds.push(opening.outcome)
    await (isKilled ? opening.kill() : opening.close())
  }
  return { docs, walSize, rounds }
}

/**
 * @param {readonly Opened[]} rounds
 * @param {(opened: Opened) => number} value
 */
const middle = (rounds, value) => median(rounds.map(value))

/** @param {string} folder */
async function measureLogs(folder) {
  const rows = []
  for (const megabytes of logMegabytes) {
    for (const isKilled of [true, false]) {
      console.error(`log of ${megabytes} MB, ${isKilled ? 'killed' : 'closed'} …`)
      const path = await mkdtemp(join(folder, 'log-'))
      const { docs, walSize, rounds } = await measureLog(path, isKilled, { kind: 'fill', path, megabytes })
      rows.push([
        `${fixed(walSize / 2 ** 20, 1)} MiB`,
        isKilled ? 'killed' : 'closed',
        whole(docs),
        fixed(
          middle(rounds, ({ openMs }) => openMs),
          0,
        ),
        fixed(
          middle(rounds, ({ collectionsMs }) => collectionsMs),
          0,
        ),
        fixed(
          middle(rounds, ({ firstMs }) => firstMs),
          1,
        ),
        fixed(
          middle(rounds, ({ laterMs }) => laterMs),
          2,
        ),
      ])
      await rm(path, { recursive: true })
    }
  }
  return rows
}

/** @param {string} folder */
async function measureCollections(folder) {
  const path = await mkdtemp(join(folder, 'collections-'))
  const collectionCount = 2
  console.error(`${collectionCount} collections of ${collectionRows} documents …`)
  const filled = await run({ kind: 'build', path, collectionCount, rowCount: collectionRows })
  await filled.close()
  let diskSize = 0
  for (const entry of await readdir(path, { recursive: true, withFileTypes: true })) {
    if (entry.isFile()) diskSize += (await stat(join(entry.parentPath, entry.name))).size
  }
  /** @type {Opened[]} */
  const rounds = []
  for (let round = 0; round < given.rounds; round++) {
    const opening = await run({ kind: 'open', path })
    if (opening.outcome.kind !== 'opened') throw new Error('not opened')
    if (opening.outcome.docs !== collectionCount * collectionRows) throw new Error(`${opening.outcome.docs} documents`)
    rounds.push(opening.outcome)
    await opening.close()
  }
  return [
    [
      `${collectionCount} x ${whole(collectionRows)} x 384`,
      `${fixed(diskSize / 2 ** 20, 0)} MiB`,
      fixed(
        middle(rounds, ({ openMs }) => openMs),
        0,
      ),
      fixed(
        middle(rounds, ({ collectionsMs }) => collectionsMs),
        0,
      ),
      fixed(
        middle(rounds, ({ firstMs }) => firstMs),
        0,
      ),
      fixed(
        middle(rounds, ({ laterMs }) => laterMs),
        2,
      ),
      whole(middle(rounds, ({ bytesPerDoc }) => bytesPerDoc)),
      whole(middle(rounds, ({ residentBytesPerDoc }) => residentBytesPerDoc)),
    ],
  ]
}

const report = new Report('open', given.write)
await report.begin()
await inTemporaryFolder(given.folder, async (folder) => {
  report.table(
    'Milliseconds to open a database whose documents are in the log (384 dimensions, payloads of some kilobytes)',
    ['log', 'ended', 'documents', 'database', 'collection', 'first search', 'later search'],
    await measureLogs(folder),
  )
  report.table(
    'Milliseconds to open large collections with graphs; bytes of memory for each document after a search in each',
    [
      'collections',
      'on disk',
      'database',
      'collections',
      'first searches',
      'later search',
      'bytes/doc',
      'resident bytes/doc',
    ],
    await measureCollections(folder),
  )
})
report.end()
