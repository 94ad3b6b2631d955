/**
 * How many documents a second are stored, alone and in batches, by one caller and by many, synced and handed to the platform?
 *
 * The cost of one sync of the same disk is measured between the cells: nothing that is `strict` can be quicker for a lone caller.
 */
import { mkdtemp, open, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { openDatabase } from 'isovec'
import { readArguments } from './support/arguments.js'
import { inTemporaryFolder } from './support/database.js'
import { fixed, Report, whole } from './support/report.js'
import { generateVectors } from './support/sets.js'
import { median, quantile } from './support/statistics.js'

/** @typedef {'strict' | 'buffered'} Durability */

const dimension = 384
const batchSizes = [1, 10, 100, 1000]
const callerCounts = [1, 64]
/** Distinct vectors and ids; when they are used up, documents are replaced. */
const documentCount = 20_000

const given = readArguments({ rounds: 3, quickRounds: 1 })
const cellMs = given.quick ? 300 : 2000
/** Bytes of one sync's write: about one document. */
const syncedSize = 2048

const payload = { title: 'Of the swift answering of questions', year: 1905, tags: ['search', 'vectors'] }
const vectors = generateVectors(dimension, documentCount, 7)

/**
 * Stores for a while in a new collection.
 *
 * @param {string} folder
 * @param {{ durability: Durability, batchSize: number, callerCount: number }} cell
 * @returns {Promise<{ rate: number, callMs: number }>} documents per second, and the median time of a call
 */
async function store(folder, { durability, batchSize, callerCount }) {
  const path = await mkdtemp(join(folder, 'cell-'))
  const database = await openDatabase(path)
  try {
    const collection = await database.createCollection('documents', {
      dimension,
      durability,
      index: 'manual',
      compaction: 'manual',
    })
    let next = 0
    let stored = 0
    /** @type {number[]} */
    const calls = []
    const started = performance.now()
    const call = async () => {
      while (performance.now() - started < cellMs) {
        const documents = Array.from({ length: batchSize }, () => {
          const row = next++ % documentCount
          return { id: `document-${row}`, vector: vectors[row] ?? [], payload }
        })
        const asked = performance.now()
        await collection.upsert(documents)
        calls.push(performance.now() - asked)
        stored += batchSize
      }
    }
    await Promise.all(Array.from({ length: callerCount }, call))
    const elapsedMs = performance.now() - started
    const docs = await collection.count()
    if (docs !== Math.min(stored, documentCount)) throw new Error(`${docs} documents of ${stored} stored`)
    return { rate: (stored / elapsedMs) * 1000, callMs: median(calls) }
  } finally {
    await database.close()
    await rm(path, { recursive: true, force: true })
  }
}

/**
 * Milliseconds of appending and syncing, without the library.
 *
 * @param {string} folder
 * @param {number} count
 */
async function timeSyncs(folder, count) {
  const path = join(folder, 'synced')
  const file = await open(path, 'a')
  try {
    const bytes = new Uint8Array(syncedSize).fill(1)
    const times = []
    for (let i = 0; i < count; i++) {
      const started = performance.now()
      await file.write(bytes)
      await file.datasync()
      times.push(performance.now() - started)
    }
    return times
  } finally {
    await file.close()
    await rm(path, { force: true })
  }
}

const report = new Report('write', given.write)
await report.begin()
await inTemporaryFolder(given.folder, async (folder) => {
  /** @type {number[]} */
  const syncs = []
  const rows = []
  for (const callerCount of callerCounts) {
    for (const batchSize of batchSizes) {
      console.error(`${callerCount} callers, batches of ${batchSize} …`)
      /** @type {Record<Durability, { rate: number, callMs: number }[]>} */
      const found = { strict: [], buffered: [] }
      for (let round = 0; round < given.rounds; round++) {
        syncs.push(...(await timeSyncs(folder, 30)))
        found.strict.push(await store(folder, { durability: 'strict', batchSize, callerCount }))
        found.buffered.push(await store(folder, { durability: 'buffered', batchSize, callerCount }))
      }
      const rate = (/** @type {Durability} */ durability) => median(found[durability].map((cell) => cell.rate))
      const callMs = (/** @type {Durability} */ durability) => median(found[durability].map((cell) => cell.callMs))
      rows.push([
        callerCount,
        batchSize,
        whole(rate('strict')),
        fixed(callMs('strict')),
        whole(rate('buffered')),
        fixed(callMs('buffered')),
        fixed(rate('buffered') / rate('strict'), 1),
      ])
    }
  }
  report.note(
    `One append of ${whole(syncedSize)} bytes with \`fdatasync\` on this disk, without the library: median ${fixed(median(syncs))} ms, ` +
      `p95 ${fixed(quantile(syncs, 0.95))} ms (${syncs.length} samples, taken between the cells).`,
  )
  report.table(
    `Documents per second (${dimension} dimensions, small payload), and milliseconds of a call`,
    ['callers', 'batch', 'strict', 'call ms', 'buffered', 'call ms', 'buffered / strict'],
    rows,
  )
})
report.end()
