/**
 * The process behind `open.js` and `recovery.js`: fills a database or opens one, says what it found, and waits to be
 * closed or killed.
 */
import { once } from 'node:events'
import { openDatabase } from 'isovec'
import { documentsOf } from './database.js'
import { generateVectors } from './sets.js'
import { median, randomFrom } from './statistics.js'

/**
 * @typedef {{ kind: 'fill', path: string, collectionCount: number, megabytes: number }
 *   | { kind: 'build', path: string, collectionCount: number, rowCount: number }
 *   | { kind: 'open', path: string }} Order
 */

/** @typedef {{ kind: 'filled', docs: number, walSize: number }} Filled */

/**
 * @typedef {object} Opened
 * @property {'opened'} kind
 * @property {number} docs
 * @property {number} openMs time of `openDatabase`, loading the kernel included
 * @property {number} collectionsMs time to open all collections one after the other
 * @property {number} processorMs processor time of both, of all threads
 * @property {number} firstMs time of the first search, the sum over the collections
 * @property {number} laterMs median time of a later one
 * @property {number} bytesPerDoc as `stats` reports it
 * @property {number} residentBytesPerDoc what the process has grown by, from before opening to after the searches
 */

/** @typedef {Filled | Opened} Outcome */

const dimension = 384
/** Fits 64 MB of log into a memtable: rows of 1.5 KB with a text of this length. */
const textLength = 11_000
const batchRows = 8

/** @param {number} count */
function vectorsOf(count) {
  return generateVectors(dimension, count, 11)
}

/**
 * Text that is no repetition, so that nothing could have been saved on it.
 *
 * @param {() => number} random
 */
function textFrom(random) {
  let text = ''
  while (text.length < textLength) text += `${random().toString(36).slice(2)} `
  return text.slice(0, textLength)
}

/**
 * Writes until the log of each collection has a size, and leaves everything in the logs.
 *
 * @param {string} path
 * @param {number} collectionCount
 * @param {number} megabytes
 */
async function fill(path, collectionCount, megabytes) {
  const database = await openDatabase(path)
  const sizeWanted = megabytes * 2 ** 20
  const random = randomFrom(3)
  const batchSize = batchRows * (dimension * 4 + textLength + 100)
  const vectors = vectorsOf(Math.ceil(sizeWanted / (batchSize / batchRows)))
  let docs = 0
  let walSize = 0
  for (let number = 0; number < collectionCount; number++) {
    const options = /** @type {const} */ ({ dimension, index: 'manual', compaction: 'manual' })
    const collection = await database.createCollection(`documents-${number}`, options)
    let count = 0
    // The largest log that isn't flushed by itself ends just below the size that makes a flush due.
    while ((await collection.stats()).walBytes + batchSize < sizeWanted) {
      const documents = Array.from({ length: batchRows }, () => {
        const id = count++
        return { id: String(id), vector: vectors[id % vectors.length] ?? [], payload: { text: textFrom(random) } }
      })
      await collection.upsert(documents)
    }
    const { walBytes, segments, memtableDocs } = await collection.stats()
    if (segments > 0 || memtableDocs !== count)
      throw new Error(`${memtableDocs} of ${count} in the log, ${segments} segments`)
    docs += count
    walSize += walBytes
  }
  process.send?.({ kind: 'filled', docs, walSize })
  return database
}

/**
 * @param {string} path
 * @param {number} collectionCount
 * @param {number} rowCount
 */
async function build(path, collectionCount, rowCount) {
  const database = await openDatabase(path)
  const vectors = vectorsOf(rowCount)
  for (let number = 0; number < collectionCount; number++) {
    const collection = await database.createCollection(`documents-${number}`, { dimension, compaction: 'manual' })
    await collection.ingest(documentsOf(vectors), { durability: 'buffered' })
    // One segment with its graph, also where everything fits into a memtable and there is nothing to merge.
    await collection.compact()
    await collection.buildIndex()
    if (!(await collection.hasIndex())) throw new Error('there is no graph')
  }
  process.send?.({ kind: 'filled', docs: collectionCount * rowCount, walSize: 0 })
  return database
}

/** @param {string} path */
async function open(path) {
  const queries = vectorsOf(20)
  const residentBefore = process.memoryUsage.rss()
  const usedBefore = process.cpuUsage()
  const started = performance.now()
  const database = await openDatabase(path)
  const opened = performance.now()
  const collections = []
  for (const name of await database.listCollections()) collections.push(await database.openCollection(name))
  const ready = performance.now()
  const { user, system } = process.cpuUsage(usedBefore)
  const search = (/** @type {import('isovec').Collection} */ collection, /** @type {Float32Array} */ vector) =>
    collection.search({ vector, k: 10 })
  for (const collection of collections) await search(collection, /** @type {Float32Array} */ (queries[0]))
  const searched = performance.now()
  const later = []
  for (const query of queries.slice(1)) {
    for (const collection of collections) {
      const { elapsedMs, hits } = await search(collection, query)
      if (hits.length !== 10) throw new Error(`${hits.length} hits`)
      later.push(elapsedMs)
    }
  }
  const stats = await Promise.all(collections.map((collection) => collection.stats()))
  const docs = stats.reduce((sum, each) => sum + each.docs, 0)
  /** @type {Opened} */
  const outcome = {
    kind: 'opened',
    docs,
    openMs: opened - started,
    collectionsMs: ready - opened,
    processorMs: (user + system) / 1000,
    firstMs: searched - ready,
    laterMs: median(later),
    bytesPerDoc: stats.reduce((sum, each) => sum + each.memoryBytes, 0) / docs,
    residentBytesPerDoc: (process.memoryUsage.rss() - residentBefore) / docs,
  }
  process.send?.(outcome)
  return database
}

/** @type {[Order]} */
const [order] = /** @type {[Order]} */ (await once(process, 'message'))
const closing = once(process, 'message')
const database =
  order.kind === 'fill'
    ? await fill(order.path, order.collectionCount, order.megabytes)
    : order.kind === 'build'
      ? await build(order.path, order.collectionCount, order.rowCount)
      : await open(order.path)
await closing
await database.close()
process.disconnect?.()
