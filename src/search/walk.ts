/**
 * Walks over graphs: when one is worth it, and what it finds.
 *
 * Under a filter a walk passes all rows and returns the open ones, so it must go the further the fewer are open: about ef / share rows
 * if those have nothing to do with the question, and up to all that are nearer than the first open one if they have. The costs that
 * decide were measured (docs/adr/0011, `bench/plans.js`).
 */
import type { Bitmap } from '../codec/bitmap.ts'
import { efMax } from '../kernel/index.ts'
import type { SearchSource } from '../snapshot.ts'
import { efFor, rescoredCount } from './beams.ts'
import type { Query } from './query.ts'
import type { Ranking } from './ranking.ts'
import { score } from './scan.ts'

/** Widest beam that is walked: a walk holds the thread until it ends, and beyond this that takes longer than a slice. */
const walkedEfMax = 4096
/**
 * Rows that a scan may measure in the time in which a walk takes a row, its neighbours and its place in the pool: one number for all
 * dimensions, between the 11 to 28 that were measured of long vectors and the 65 of short ones.
 */
const scannedRowsPerStep = 40
/** Places of a beam without a filter for which a row must be there: few, since a walk also reads less where both take as long. */
const rowsPerFreeStep = 8

/** How a walk is to go. */
export type PlannedWalk = {
  /** The rows that it may return; undefined for all that are alive. */
  readonly open: Bitmap | undefined
  /** How many these are; without `open`, all rows of the source. */
  readonly count: number
  readonly ef: number
  /** Rows that it bears in mind at most, open or not. */
  readonly reach: number
}

/**
 * The beam for a number of hits where a graph's own were not measured: recall@k is at least 0.95 for k from 1 to 100 on the hardest real set at
 * hand (SIFT descriptors; test/kernel/real.test.ts), and well above that on sentence embeddings.
 */
function defaultEf(count: number): number {
  return Math.min(efMax, 2 * count + 48)
}

/**
 * Whether to walk a source's graph, and how; undefined where a scan is the quicker way, or the only one.
 *
 * @param open the rows that may be returned, `count` of them; undefined for all that are alive of `count` rows
 */
export function planWalk(
  source: SearchSource,
  query: Query,
  open: Bitmap | undefined,
  count: number,
): PlannedWalk | undefined {
  const { image, rowCount } = source
  if (query.isExact || !image.hasGraph || query.metric !== image.metric) return undefined
  const ef = efOf(source, query)
  if (ef > walkedEfMax) return undefined
  if (query.open === undefined) {
    return ef * rowsPerFreeStep < count ? { open, count, ef, reach: ef + rowCount - count } : undefined
  }
  const reach = Math.ceil(count / scannedRowsPerStep)
  return (ef * rowCount) / count < reach ? { open, count, ef, reach } : undefined
}

/** The beam of a query in a source's graph. */
function efOf({ beams }: SearchSource, { count, ef, recall }: Query): number {
  return Math.max(count, ef ?? Math.min(efMax, efFor(beams, count, recall) ?? defaultEf(count)))
}

/** What a walk finds. Walks are synchronous, so one buffer serves them all. */
let beam = { rows: new Uint32Array(256), distances: new Float32Array(256) }

/**
 * Beam search in the source's graph: adds the best of what it finds, with their exact scores, to a ranking. Nothing, if it found fewer
 * rows than are to be had (`isEnough` is false then): under a filter it ends where a scan would have been done already.
 */
export function walk(
  source: SearchSource,
  sequence: number,
  query: Query,
  { open, count, ef, reach }: PlannedWalk,
  ranking: Ranking,
): { visited: number; isEnough: boolean } {
  const { image } = source
  if (beam.rows.length < ef) beam = { rows: new Uint32Array(ef), distances: new Float32Array(ef) }
  image.prepare(query.vector, query.metric)
  const found = image.search(ef, beam, open === undefined ? undefined : { open: open.words, reach })
  // Under a filter a beam that is not full of open rows has not looked far enough for them.
  if (query.open !== undefined && found.count < Math.min(ef, count)) return { visited: found.visited, isEnough: false }
  const before = ranking.size
  const rows = beam.rows.subarray(0, Math.min(found.count, rescoredCount(query.count)))
  score({ source, query, rows: open === undefined ? undefined : rows, sequence }, rows, ranking)
  const wanted = Math.min(query.count, open === undefined ? source.liveCount : count)
  const isEnough = ranking.size - before >= wanted
  if (!isEnough) ranking.truncate(before)
  return { visited: found.visited, isEnough }
}
