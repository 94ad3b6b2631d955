/**
 * isovec's side: databases in temporary folders, filled from sets.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openDatabase } from 'isovec'
import { Stopwatch } from './stopwatch.js'

/** @typedef {import('isovec').Collection} Collection */
/** @typedef {import('./sets.js').VectorSet} VectorSet */
/** @typedef {import('./stopwatch.js').Time} Time */

/** Parameters of both graphs, isovec's and the peer's. */
export const hnsw = { M: 16, efConstruction: 200 }

/**
 * Runs something in a temporary folder, which is removed afterwards.
 *
 * @template T
 * @param {string | undefined} parent
 * @param {(folder: string) => Promise<T>} use
 * @returns {Promise<T>}
 */
export async function inTemporaryFolder(parent, use) {
  const folder = await mkdtemp(join(parent ?? tmpdir(), 'isovec-bench-'))
  try {
    return await use(folder)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

/**
 * @typedef {object} Filled
 * @property {Collection} collection one compacted segment; ids are the rows of the set in decimal
 * @property {Time} ingest of storing all documents and merging them into one segment
 * @property {Time} build of the graph, its file included
 */

/**
 * Fills a collection in a temporary folder, uses it, and removes it.
 *
 * @template T
 * @param {VectorSet} set
 * @param {{ folder: string | undefined, graph: boolean }} options
 * @param {(filled: Filled) => Promise<T>} use
 * @returns {Promise<T>}
 */
export function withFilled(set, { folder, graph }, use) {
  return inTemporaryFolder(folder, async (path) => {
    const database = await openDatabase(path)
    try {
      const { dimension, metric } = set
      // Nothing goes on in the background, so that each step can be timed.
      const collection = await database.createCollection('vectors', {
        dimension,
        metric,
        hnsw,
        durability: 'buffered',
        compaction: 'manual',
        index: 'manual',
      })
      const ingest = new Stopwatch()
      const build = new Stopwatch()
      await ingest.run(async () => {
        await collection.ingest(documentsOf(set.base))
        await collection.compact()
      })
      if (graph) await build.run(() => collection.buildIndex())
      const { segments, docs } = await collection.stats()
      if (segments !== 1 || docs !== set.base.length) throw new Error(`${docs} documents in ${segments} segments`)
      return await use({ collection, ingest, build })
    } finally {
      await database.close()
    }
  })
}

/**
 * @param {readonly Float32Array[]} base
 * @param {number} [from] the row of the first of them
 */
export function* documentsOf(base, from = 0) {
  for (let row = 0; row < base.length; row++)
    yield { id: String(from + row), vector: /** @type {Float32Array} */ (base[row]) }
}
