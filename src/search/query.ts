/**
 * Answering a search: plan each source, score, merge. Vectors are loaded before; from then on awaits stand only between slices.
 *
 * Every source gives rows that may be among the nearest; all of them are then scored exactly in 64-bit floats, so that one order
 * holds across sources, builds and plans. Equal scores are ordered by id, also at the cut.
 */
import { Bitmap } from '../codec/bitmap.ts'
import { efMax, type Metric } from '../kernel/index.ts'
import type { Slice } from '../slice.ts'
import type { SearchSource, Snapshot } from '../snapshot.ts'
import { efFor, rescoredCount } from './beams.ts'
import { type Candidate, Ranking } from './ranking.ts'
import { type Scan, scan, score } from './scan.ts'

export type { Candidate } from './ranking.ts'

/** How a search went about a source, or all of them. */
export type Plan = 'scan' | 'graph' | 'filtered-graph' | 'mixed'

/** A search with everything decided but the plan. */
export type Query = {
  readonly vector: Float32Array
  readonly metric: Metric
  /** Whether only the true nearest will do. */
  readonly isExact: boolean
  /** Hits to find, those skipped by an offset included. */
  readonly count: number
  /** Beam of graph walks; chosen for the recall if undefined. */
  readonly ef: number | undefined
  /** Recall that walks are to reach. */
  readonly recall: number
  readonly minScore: number
  /** Under a filter: the rows of each source that pass it and that the snapshot sees; no others are returned. */
  readonly open?: ReadonlyMap<SearchSource, Bitmap> | undefined
}

/** What a query found, best first. */
export type Answer = {
  readonly candidates: readonly Candidate[]
  /** Whether scoring every vector exactly would give the same. */
  readonly exact: boolean
  readonly plan: Plan
  /** Vectors that were compared with the query, in whatever form. */
  readonly visited: number
}

/** Widest beam that is walked: a walk holds the thread until it ends, and beyond this that takes longer than a slice. */
const walkedEfMax = 4096
/** Rows that a scan measures in the time that a walk takes for each place of its beam: some ten rows, in no order, and the pool. */
const scannedRowsPerEf = 20
/**
 * Share of open rows from which on a walk may be made under a filter. Below, one that passes all rows costs too much, and one that
 * measures the open rows alone loses hits where those lie far from the question.
 */
const gatedShareMin = 0.4

/**
 * The beam for a number of hits where a graph's own were not measured: recall@k is at least 0.95 for k from 1 to 100 on the hardest real set at
 * hand (SIFT descriptors; test/kernel/real.test.ts), and well above that on sentence embeddings.
 */
export function defaultEf(count: number): number {
  return Math.min(efMax, 2 * count + 48)
}

/**
 * Answers a query on a snapshot whose images are loaded. Yields whenever the slice may be over: see {@link inSlices}.
 * @throws IsovecError `OUT_OF_MEMORY`
 */
export function* answer(snapshot: Snapshot, query: Query, slice: Slice): Generator<void, Answer> {
  const { sequence } = snapshot
  const ranking = new Ranking()
  const scans: Scan[] = []
  let walks = 0
  let visited = 0
  let isLate = query.open !== undefined
  for (const source of snapshot.sources) {
    if (slice.isOver) {
      yield
      isLate = true
    }
    // In the turn of the snapshot every row that it sees is alive to a walk. Later, which those are must be said.
    const open = isLate ? (query.open?.get(source) ?? visibleRows(source, query, sequence)) : undefined
    const count = open === undefined ? source.rowCount : open.count()
    if (count === 0) continue
    const filter = planWalk(source, query, open, count)
    const found = filter === undefined ? undefined : walk(source, sequence, query, filter, ranking)
    visited += found?.visited ?? 0
    if (found?.isEnough === true) walks++
    else scans.push({ source, query, rows: open?.rows(), sequence })
  }
  for (const each of scans) {
    visited += each.rows?.length ?? each.source.rowCount
    yield* scan(each, slice, ranking)
  }
  return {
    candidates: ranking.best(query.count, query.minScore),
    exact: walks === 0,
    plan: planName(walks, scans.length, query),
    visited,
  }
}

/** The rows that a snapshot sees; none where there is a filter that knows nothing of the source. */
function visibleRows(source: SearchSource, query: Query, sequence: number): Bitmap {
  if (query.open !== undefined) return Bitmap.of(source.rowCount)
  const rows = Bitmap.full(source.rowCount)
  source.keepVisible(rows, sequence)
  return rows
}

function planName(walks: number, scans: number, query: Query): Plan {
  if (walks === 0) return 'scan'
  if (scans > 0) return 'mixed'
  return query.open === undefined ? 'graph' : 'filtered-graph'
}

/**
 * Runs work that yields where it may be interrupted: at once as far as one slice goes, the rest in further turns of the event loop.
 * @throws IsovecError `ABORTED`, and what the work throws, either at once or by the promise
 */
export function inSlices<T>(work: Generator<void, T>, slice: Slice): T | Promise<T> {
  const step = work.next()
  return step.done === true ? step.value : finish(work, slice)
}

async function finish<T>(work: Generator<void, T>, slice: Slice): Promise<T> {
  for (;;) {
    await slice.next()
    const step = work.next()
    if (step.done === true) return step.value
  }
}

/** The beam of a query in a source's graph. */
function efOf({ beams }: SearchSource, { count, ef, recall }: Query): number {
  return Math.max(count, ef ?? Math.min(efMax, efFor(beams, count, recall) ?? defaultEf(count)))
}

/** How a walk is to go: with which beam, and how about rows that aren't open, if there is a filter that leaves `count` of them open. */
type Filtered = {
  readonly open: Bitmap | undefined
  readonly count: number
  readonly ef: number
}

/**
 * Whether to walk a source's graph, and how; undefined where a scan is the quicker way, or the only one. The costs were measured
 * (`bench/filter.js`), in rows of a scan on codes.
 */
function planWalk(source: SearchSource, query: Query, open: Bitmap | undefined, count: number): Filtered | undefined {
  const { image, rowCount } = source
  if (query.isExact || !image.hasGraph || query.metric !== image.metric) return undefined
  const ef = efOf(source, query)
  if (ef > walkedEfMax) return undefined
  const share = count / rowCount
  const isFree = query.open === undefined
  if (!isFree && share < gatedShareMin) return undefined
  const cost = (ef * scannedRowsPerEf) / (isFree ? 1 : share)
  return cost < count || (isFree && ef * 8 < count) ? { open, count, ef } : undefined
}

/** What a walk finds. Walks are synchronous, so one buffer serves them all. */
let beam = { rows: new Uint32Array(256), distances: new Float32Array(256) }

/** Beam search in the source's graph. What it finds is taken back if that is fewer rows than are to be had. */
function walk(
  source: SearchSource,
  sequence: number,
  query: Query,
  { open, count, ef }: Filtered,
  ranking: Ranking,
): { visited: number; isEnough: boolean } {
  const { image } = source
  if (beam.rows.length < ef) beam = { rows: new Uint32Array(ef), distances: new Float32Array(ef) }
  image.prepare(query.vector, query.metric)
  const found = image.search(ef, beam, open === undefined ? undefined : { open: open.words })
  const before = ranking.size
  const rows = beam.rows.subarray(0, Math.min(found.count, rescoredCount(query.count)))
  score({ source, query, rows: open === undefined ? undefined : rows, sequence }, rows, ranking)
  const wanted = Math.min(query.count, open === undefined ? source.liveCount : count)
  // Under a filter a beam that is not full of open rows has not looked far enough for them.
  const isFull = query.open === undefined || found.count >= Math.min(ef, count)
  const isEnough = isFull && ranking.size - before >= wanted
  if (!isEnough) ranking.truncate(before)
  return { visited: found.visited, isEnough }
}
