/**
 * Answering a search: plan each source, score, merge. Vectors are loaded before; from then on awaits stand only between slices.
 *
 * Every source gives rows that may be among the nearest; all of them are then scored exactly in 64-bit floats, so that one order
 * holds across sources, builds and plans. Equal scores are ordered by id, also at the cut.
 */
import { Bitmap } from '../codec/bitmap.ts'
import type { Metric } from '../kernel/index.ts'
import type { Slice } from '../slice.ts'
import type { SearchSource, Snapshot } from '../snapshot.ts'
import { type Candidate, Ranking } from './ranking.ts'
import { type Scan, scan } from './scan.ts'
import { planWalk, walk } from './walk.ts'

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
  /** Whether others may have run since the snapshot was taken. */
  readonly isLate: boolean
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
  let { isLate } = query
  for (const source of snapshot.sources) {
    if (slice.isOver) {
      yield
      isLate = true
    }
    // In the turn of the snapshot every row that it sees is alive to a walk. Later, which those are must be said.
    const open = isLate ? (query.open?.get(source) ?? visibleRows(source, query, sequence)) : undefined
    const count = open === undefined ? source.rowCount : open.count()
    if (count === 0) continue
    const planned = planWalk(source, query, open, count)
    const found = planned === undefined ? undefined : walk(source, sequence, query, planned, ranking)
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
