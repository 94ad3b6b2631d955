/**
 * hnswlib-node, the native library that isovec is measured against: as it comes from npm, compiled by its own build file.
 */
import { createRequire } from 'node:module'
import { hnsw } from './database.js'
import { Stopwatch } from './stopwatch.js'

/** @typedef {import('./sets.js').VectorSet} VectorSet */
/** @typedef {import('./stopwatch.js').Time} Time */

/**
 * What is used of hnswlib-node, both classes alike.
 *
 * @typedef {object} PeerIndex
 * @property {(point: number[], label: number) => void} addPoint
 * @property {(query: number[], count: number, isOpen?: (row: number) => boolean) => { distances: number[], neighbors: number[] }} searchKnn best first
 */

/**
 * @typedef {PeerIndex & {
 *   initIndex(options: { maxElements: number, m: number, efConstruction: number, randomSeed: number }): void
 *   setEf(ef: number): void
 * }} PeerGraph
 */

/** @typedef {PeerIndex & { initIndex(maxElements: number): void }} PeerScan */

/**
 * @typedef {object} Peer
 * @property {new (space: 'l2' | 'ip', dimension: number) => PeerGraph} HierarchicalNSW
 * @property {new (space: 'l2' | 'ip', dimension: number) => PeerScan} BruteforceSearch
 */

/** Rows that are converted at a time, so that the plain arrays which hnswlib-node takes don't fill the memory. */
const chunkRows = 1000

/** @returns {Peer} */
function load() {
  try {
    return createRequire(new URL('../peers/package.json', import.meta.url))('hnswlib-node')
  } catch (error) {
    console.error(`hnswlib-node is missing: npm ci --prefix bench/peers (needs a C++ compiler and Python)\n\n${error}`)
    process.exit(1)
  }
}

const { HierarchicalNSW, BruteforceSearch } = load()

/** @param {VectorSet} set */
const spaceOf = (set) => (set.metric === 'cosine' ? 'ip' : 'l2')

/**
 * Builds hnswlib-node's graph.
 *
 * @param {VectorSet} set
 * @returns {Promise<{ graph: PeerGraph, build: Time }>} time of the calls of `addPoint` alone
 */
export async function buildPeerGraph(set) {
  const graph = new HierarchicalNSW(spaceOf(set), set.dimension)
  graph.initIndex({ maxElements: set.base.length, m: hnsw.M, efConstruction: hnsw.efConstruction, randomSeed: 100 })
  return { graph, build: await addAll(graph, set.base) }
}

/**
 * Fills hnswlib-node's exact index.
 *
 * @param {VectorSet} set
 * @returns {Promise<PeerScan>}
 */
export async function fillPeerScan(set) {
  const scan = new BruteforceSearch(spaceOf(set), set.dimension)
  scan.initIndex(set.base.length)
  await addAll(scan, set.base)
  return scan
}

/**
 * @param {PeerIndex} index
 * @param {readonly Float32Array[]} base
 */
async function addAll(index, base) {
  const watch = new Stopwatch()
  for (let from = 0; from < base.length; from += chunkRows) {
    const points = base.slice(from, from + chunkRows).map((vector) => Array.from(vector))
    await watch.run(() =>
      points.forEach((point, place) => {
        index.addPoint(point, from + place)
      }),
    )
  }
  return watch
}
