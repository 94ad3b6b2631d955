/**
 * From which share of matches on is a walk over the graph quicker than a scan of the matches?
 *
 * Both are run below the planner, on one segment's worth of rows; walks without a bound, so that it shows what they take where the
 * matches lie far from the question. The planner's constants come from here.
 */
import { loadSources } from '../scripts/load-sources.js'
import { readArguments } from './support/arguments.js'
import { hnsw } from './support/database.js'
import { fixed, Report, whole } from './support/report.js'
import { eachSet } from './support/sets.js'
import { median, randomFrom } from './support/statistics.js'

/** @typedef {import('./support/sets.js').VectorSet} VectorSet */
/** @typedef {import('../src/snapshot.ts').SearchSource} SearchSource */
/** @typedef {import('../src/search/query.ts').Query} Query */

const k = 10
const shares = [0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9]
/** Beams as the default recall asks of the sets at hand. */
const ef = 40
/** @type {readonly (readonly [name: string, base: number | undefined])[]} */
const sizes = [
  ['mnist-784', undefined],
  ['mlnotes-bge-micro-384', undefined],
  ['clusters-128', 25_000],
  ['clusters-128', 100_000],
]
const given = readArguments({ rounds: 5, quickRounds: 2, quickBase: 8000 })
/** @type {typeof import('./support/engine.ts')} */
const { Bitmap, loadKernel, Ranking, scan, Slice, walk } = await loadSources(
  new URL('support/engine.ts', import.meta.url),
)

/** @param {VectorSet} set */
async function fill(set) {
  const kernel = await loadKernel()
  const { dimension, metric, base } = set
  const image = kernel.createPool().createImage({ dimension, metric, capacity: base.length })
  for (const vector of base) image.append(new Uint8Array(vector.buffer, vector.byteOffset, vector.byteLength))
  const quantizer = image.calibrate()
  if (quantizer === null) throw new Error(`${set.name} has no codes`)
  image.setQuantizer(quantizer)
  image.encode(0, image.rows)
  image.beginGraph({ ...hnsw, seed: 7 })
  while (!image.buildGraph(1000));
  return image
}

/**
 * Rows in the order of their likeness to one of them, and questions near that one.
 *
 * @param {VectorSet} set
 * @param {() => number} random
 */
function direct(set, random) {
  const { base, metric } = set
  const direction = /** @type {Float32Array} */ (base[Math.floor(base.length / 3)])
  const likeness = Float64Array.from(base, (vector) =>
    vector.reduce((sum, component, i) => {
      const other = /** @type {number} */ (direction[i])
      return metric === 'euclidean' ? sum - (component - other) ** 2 : sum + component * other
    }, 0),
  )
  const at = (/** @type {number} */ row) => /** @type {number} */ (likeness[row])
  const order = [...base.keys()].sort((a, b) => at(a) - at(b))
  const near = order.slice(-2000)
  const vectorAt = (/** @type {number} */ row) => /** @type {Float32Array} */ (base[row])
  const questions = Array.from({ length: given.quick ? 10 : 40 }, (_, i) => {
    const other = vectorAt(Math.floor(random() * base.length))
    const own = vectorAt(/** @type {number} */ (near[(i * 37) % near.length]))
    return own.map((component, j) => 0.8 * component + 0.2 * /** @type {number} */ (other[j]))
  })
  return { order, questions }
}

/** @param {VectorSet} set */
async function measure(set) {
  const image = await fill(set)
  const rowCount = image.rows
  const random = randomFrom(9)
  const { order, questions } = direct(set, random)
  const bucket = order.map(random)
  // What walks and scans ask of a source whose rows are all alive.
  const source = /** @type {SearchSource} */ (
    /** @type {unknown} */ ({ image, rowCount, liveCount: rowCount, isVisible: () => true, idAt: String })
  )
  const slice = new Slice()
  /**
   * @param {Float32Array} vector
   * @param {import('../src/codec/bitmap.ts').Bitmap} open
   * @returns {Query}
   */
  const queryOf = (vector, open) => {
    const rows = new Map([[source, open]])
    const { metric } = set
    return {
      vector,
      metric,
      isExact: false,
      count: k,
      ef,
      recall: 0,
      minScore: Number.NEGATIVE_INFINITY,
      open: rows,
      isLate: true,
    }
  }
  const cells = []
  for (const kind of ['unrelated', 'near', 'far']) {
    for (const share of shares) {
      const passing =
        kind === 'unrelated'
          ? [...order.keys()].filter((row) => /** @type {number} */ (bucket[row]) < share)
          : kind === 'far'
            ? order.slice(0, rowCount * share)
            : order.slice(-rowCount * share)
      const open = Bitmap.of(rowCount)
      for (const row of passing) open.add(row)
      const rows = open.rows()
      const planned = { open, count: rows.length, ef, reach: rowCount }
      const scanned = (/** @type {Float32Array} */ vector) => {
        const ranking = new Ranking()
        for (const _ of scan({ source, query: queryOf(vector, open), rows, sequence: 0 }, slice, ranking));
        return { ranking, visited: rows.length }
      }
      const walked = (/** @type {Float32Array} */ vector) => {
        const ranking = new Ranking()
        const { visited } = walk(source, 0, queryOf(vector, open), planned, ranking)
        return { ranking, visited }
      }
      const times = { scan: /** @type {number[]} */ ([]), walk: /** @type {number[]} */ ([]) }
      let [visited, found, wanted] = [0, 0, 0]
      for (let round = 0; round < given.rounds; round++) {
        for (const vector of questions) {
          const started = performance.now()
          const truth = scanned(vector)
          const between = performance.now()
          const answer = walked(vector)
          times.walk.push(performance.now() - between)
          times.scan.push(between - started)
          if (round > 0) continue
          visited += answer.visited / questions.length
          const ids = new Set(truth.ranking.best(k, Number.NEGATIVE_INFINITY).map(({ id }) => id))
          wanted += ids.size
          for (const { id } of answer.ranking.best(k, Number.NEGATIVE_INFINITY)) if (ids.has(id)) found++
        }
      }
      const [scanMs, walkMs] = [median(times.scan), median(times.walk)]
      const step = ((walkMs / scanMs) * rows.length) / (ef / share)
      cells.push([
        `${set.name}, ${whole(rowCount)} rows`,
        kind,
        `${share * 100} %`,
        fixed(scanMs, 3),
        fixed(walkMs, 3),
        fixed(walkMs / scanMs),
        whole(visited),
        fixed(found / wanted, 3),
        fixed(step, 1),
      ])
    }
  }
  image.release()
  return cells
}

const report = new Report('plans', given.write)
await report.begin()
const rows = []
for (const [name, base] of given.sets?.map((name) => /** @type {const} */ ([name, given.base])) ?? sizes) {
  for (const set of eachSet([name], { base: given.base ?? base, queries: 1 })) {
    console.error(`${set.name}, ${set.base.length} rows …`)
    rows.push(...(await measure(set)))
  }
}
report.table(
  `Milliseconds of a scan of the matches and of a walk without a bound, k ${k}, ef ${ef}; "step" is the time of the walk, in rows of that scan, for each of ef / share`,
  ['set', 'matches', 'share', 'scan', 'walk', 'walk/scan', 'visited', 'recall', 'step'],
  rows,
)
report.end()
