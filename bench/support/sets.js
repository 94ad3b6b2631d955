/**
 * Sets of vectors with queries and their true neighbours: real ones from files, and clustered ones made from a seed.
 */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { normalFrom, randomFrom } from './statistics.js'

/** @typedef {'cosine' | 'euclidean'} Metric */

/**
 * @typedef {object} VectorSet
 * @property {string} name
 * @property {number} dimension
 * @property {Metric} metric
 * @property {readonly Float32Array[]} base of length 1 under cosine
 * @property {readonly Float32Array[]} queries of length 1 under cosine
 * @property {readonly ReadonlySet<number>[]} truth for each query the rows that are as near as its tenth neighbour or nearer
 */

/** Neighbours that recall is measured on. */
export const neighbourCount = 10

const folder = process.env.ISOVEC_DATA ?? fileURLToPath(new URL('../../../shared/data', import.meta.url))

/** @type {readonly { name: string, metric: Metric }[]} */
const filedSets = [
  { name: 'mnist-784', metric: 'euclidean' },
  { name: 'mlnotes-bge-micro-384', metric: 'cosine' },
  { name: 'wikimovies-lsa-256', metric: 'cosine' },
]

/** @type {readonly { name: string, dimension: number, rowCount: number }[]} */
const generatedSets = [
  { name: 'clusters-768', dimension: 768, rowCount: 20_000 },
  { name: 'clusters-128', dimension: 128, rowCount: 50_000 },
]

const generatedSeed = 20_260
const generatedQueryCount = 500

/** Names of all sets, in the order in which they are run. */
export const setNames = [...filedSets, ...generatedSets].map(({ name }) => name)

/**
 * Gives one set after the other, so that only one is in memory. Says which are left out because their files are missing.
 *
 * @param {readonly string[]} names
 * @param {{ base?: number | undefined, queries?: number | undefined }} limits rows and queries at most
 * @returns {Generator<VectorSet>}
 */
export function* eachSet(names, limits) {
  for (const name of names) {
    const filed = filedSets.find((set) => set.name === name)
    const generated = generatedSets.find((set) => set.name === name)
    if (filed !== undefined) {
      const set = readSet(filed.name, filed.metric, limits)
      if (set === undefined) console.error(`${name}: not in ${folder}, left out (ISOVEC_DATA names the folder)`)
      else yield set
    } else if (generated !== undefined) {
      yield generateSet(generated.name, generated.dimension, limits.base ?? generated.rowCount, limits.queries)
    } else {
      throw new Error(`there is no set ${name}; there are ${setNames.join(', ')}`)
    }
  }
}

/**
 * @param {string} name
 * @param {Metric} metric
 * @param {{ base?: number | undefined, queries?: number | undefined }} limits
 * @returns {VectorSet | undefined}
 */
function readSet(name, metric, limits) {
  const place = join(folder, name)
  const bytesPath = join(place, 'base.u8bin')
  const isBytes = existsSync(bytesPath)
  const basePath = isBytes ? bytesPath : join(place, 'base.fbin')
  if (!existsSync(basePath)) return undefined
  const all = readMatrix(basePath, isBytes ? 'u8' : 'f32')
  const base = all.slice(0, limits.base)
  const queries = readMatrix(join(place, 'query.fbin'), 'f32').slice(0, limits.queries)
  if (metric === 'cosine') for (const vector of [...base, ...queries]) normalize(vector)
  const truth =
    base.length === all.length
      ? readTruth(place, queries.length)
      : queries.map((query) => nearestRows(base, query, neighbourCount))
  return { name, dimension: base[0]?.length ?? 0, metric, base, queries, truth }
}

/**
 * Reads `uint32 n, uint32 dimension`, then rows, little-endian.
 *
 * @param {string} path
 * @param {'f32' | 'u8' | 'i32'} type
 * @returns {Float32Array[]} bytes and whole numbers as floats
 */
function readMatrix(path, type) {
  const file = readFileSync(path)
  const rowCount = file.readUInt32LE(0)
  const dimension = file.readUInt32LE(4)
  const size = rowCount * dimension
  const width = type === 'u8' ? 1 : 4
  if (file.length !== 8 + size * width) throw new Error(`${path}: ${file.length} bytes for ${rowCount} x ${dimension}`)
  const data = file.buffer.slice(file.byteOffset + 8, file.byteOffset + file.length)
  const values =
    type === 'f32'
      ? new Float32Array(data)
      : Float32Array.from(type === 'u8' ? new Uint8Array(data) : new Int32Array(data))
  return Array.from({ length: rowCount }, (_, row) => values.subarray(row * dimension, (row + 1) * dimension))
}

/**
 * @param {string} place
 * @param {number} queryCount
 */
function readTruth(place, queryCount) {
  const rows = readMatrix(join(place, 'gt.ibin'), 'i32')
  const distances = readMatrix(join(place, 'gt_dist.fbin'), 'f32')
  return rows.slice(0, queryCount).map((nearest, query) => {
    const reach = distances[query]?.[neighbourCount - 1] ?? 0
    return new Set(nearest.filter((_, place) => (distances[query]?.[place] ?? Number.POSITIVE_INFINITY) <= reach))
  })
}

/**
 * The rows that are as near as the `count`th nearest or nearer, by a plain loop in 64-bit floats that shares nothing with what is
 * measured. On vectors of length 1 this is also the order of cosine.
 *
 * @param {readonly Float32Array[]} base
 * @param {Float32Array} query
 * @param {number} count
 */
export function nearestRows(base, query, count) {
  const distances = Float64Array.from(base, (row) => squaredDistance(row, query))
  const reach = Float64Array.from(distances).sort()[Math.min(count, base.length) - 1] ?? 0
  /** @type {Set<number>} */
  const rows = new Set()
  for (let row = 0; row < distances.length; row++) if ((distances[row] ?? 0) <= reach) rows.add(row)
  return rows
}

/**
 * @param {Float32Array} a
 * @param {Float32Array} b
 */
function squaredDistance(a, b) {
  let sum = 0
  for (let i = 0; i < a.length; i++) {
    const difference = /** @type {number} */ (a[i]) - /** @type {number} */ (b[i])
    sum += difference * difference
  }
  return sum
}

/** @param {Float32Array} vector */
function normalize(vector) {
  let squares = 0
  for (const component of vector) squares += component * component
  const scale = 1 / Math.sqrt(squares)
  for (let i = 0; i < vector.length; i++) vector[i] = /** @type {number} */ (vector[i]) * scale
}

/**
 * Vectors around cluster centres. Each cluster spreads along a few directions of its own, ever less along each, and a little in all:
 * embeddings, too, fill few of their dimensions.
 *
 * @param {number} dimension
 * @param {number} count
 * @param {number} seed
 * @returns {Float32Array[]} of length 1
 */
export function generateVectors(dimension, count, seed) {
  const clusterCount = 100
  const directionCount = 48
  const random = randomFrom(seed)
  const normal = normalFrom(random)
  const draw = () => Float32Array.from({ length: dimension }, normal)
  const clusters = Array.from({ length: clusterCount }, () => ({
    centre: draw(),
    directions: Array.from({ length: directionCount }, draw),
  }))
  return Array.from({ length: count }, () => {
    const cluster = clusters[Math.floor(random() * clusterCount)]
    if (cluster === undefined) throw new RangeError('no such cluster')
    const vector = Float32Array.from(cluster.centre, (component) => component + 0.3 * normal())
    cluster.directions.forEach((direction, order) => {
      const reach = 0.6 * 0.97 ** order * normal()
      for (let i = 0; i < dimension; i++) {
        vector[i] = /** @type {number} */ (vector[i]) + reach * /** @type {number} */ (direction[i])
      }
    })
    normalize(vector)
    return vector
  })
}

/**
 * @param {string} name
 * @param {number} dimension
 * @param {number} rowCount
 * @param {number | undefined} queryCount
 * @returns {VectorSet}
 */
function generateSet(name, dimension, rowCount, queryCount = generatedQueryCount) {
  const count = Math.min(queryCount, generatedQueryCount)
  const vectors = generateVectors(dimension, rowCount + count, generatedSeed + dimension)
  const queries = vectors.splice(rowCount)
  const truth = queries.map((query) => nearestRows(vectors, query, neighbourCount))
  return { name, dimension, metric: 'cosine', base: vectors, queries, truth }
}
