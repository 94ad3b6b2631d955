/**
 * Answering a search: plan each source, score, merge. Vectors are loaded before; from then on awaits stand only between slices.
 *
 * Every source gives rows that may be among the nearest; all of them are then scored exactly in 64-bit floats, so that one order
 * holds across sources, builds and plans. Equal scores are ordered by id, also at the cut.
 */
import type { Metric } from '../kernel/index.ts'
import { Slice } from '../slice.ts'
import type { SearchSource, Snapshot } from '../snapshot.ts'
import { Selection } from './selection.ts'

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
  /** Beam of graph walks; the engine's choice if undefined. */
  readonly ef: number | undefined
  readonly minScore: number
  readonly signal: AbortSignal | undefined
}

/** A document that was found. */
export type Candidate = {
  readonly source: SearchSource
  readonly row: number
  readonly id: string
  readonly score: number
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

/** Rows from which on a source without a graph is scanned on codes first, unless exactness is asked for. */
const codedScanRowsMin = 2048
/** Bytes of vectors between two looks at the clock. */
const scanBytesPerLook = 512 * 1024
/** Widest beam. */
export const efMax = 20_000

/**
 * The beam for a number of hits where the caller names none: recall@k is at least 0.95 for k from 1 to 100 on the hardest real set at
 * hand (SIFT descriptors; test/kernel/real.test.ts), and well above that on sentence embeddings.
 */
export function defaultEf(count: number): number {
  return Math.min(efMax, 2 * count + 48)
}

type Scored = { row: number; score: number }
type Part = {
  readonly scored: Scored[]
  readonly isExact: boolean
  readonly plan: 'scan' | 'graph'
  readonly visited: number
}

/**
 * Runs a query on a snapshot whose images are loaded.
 * @throws IsovecError `ABORTED`, `OUT_OF_MEMORY`
 */
export async function runQuery(snapshot: Snapshot, query: Query): Promise<Answer> {
  const slice = new Slice({ signal: query.signal })
  const sources = snapshot.sources.filter((source) => source.rowCount > 0)
  const isWalkable = (source: SearchSource): boolean =>
    !query.isExact && source.image.hasGraph && query.metric === source.image.metric
  const merge = new Merge(query)
  // Walks first, all in one turn: a row that dies later than the snapshot is then still alive to the walk.
  for (const source of sources.filter(isWalkable)) merge.add(source, walk(source, snapshot.sequence, query))
  for (const source of sources) {
    if (isWalkable(source) && !merge.isShort(source)) continue
    merge.add(source, await scan(source, snapshot.sequence, query, slice))
  }
  return merge.answer()
}

/** Brings together what the sources gave. */
class Merge {
  readonly #query: Query
  readonly #parts = new Map<SearchSource, Part>()
  #visited = 0

  constructor(query: Query) {
    this.#query = query
  }

  /** Adds a source's part, which takes the place of an earlier one. */
  add(source: SearchSource, part: Part): void {
    this.#parts.set(source, part)
    this.#visited += part.visited
  }

  /** Whether a walk gave fewer rows than there are to be had. */
  isShort(source: SearchSource): boolean {
    const part = this.#parts.get(source)
    return part === undefined || part.scored.length < Math.min(this.#query.count, source.liveCount)
  }

  answer(): Answer {
    const candidates: Candidate[] = []
    let exact = true
    let plan: Plan | undefined
    for (const [source, part] of this.#parts) {
      exact &&= part.isExact
      plan = plan === undefined || plan === part.plan ? part.plan : 'mixed'
      for (const { row, score } of cutWithTies(part.scored, this.#query.count)) {
        if (score >= this.#query.minScore) candidates.push({ source, row, score, id: source.idAt(row) })
      }
    }
    candidates.sort(byScoreThenId)
    return {
      candidates: candidates.slice(0, this.#query.count),
      exact,
      plan: plan ?? 'scan',
      visited: this.#visited,
    }
  }
}

/** The best `count`, and whatever has the score of the last of them: which of those comes first is for the ids to say. */
function cutWithTies(scored: Scored[], count: number): Scored[] {
  scored.sort((a, b) => b.score - a.score)
  let end = Math.min(count, scored.length)
  while (end > 0 && end < scored.length && scored[end]!.score === scored[end - 1]!.score) end++
  return scored.slice(0, end)
}

function byScoreThenId(a: Candidate, b: Candidate): number {
  if (a.score !== b.score) return b.score - a.score
  return a.id < b.id ? -1 : a.id > b.id ? 1 : 0
}

let walkRows = new Uint32Array(256)
let walkDistances = new Float32Array(256)

/** Beam search in the source's graph. Synchronous. */
function walk(source: SearchSource, sequence: number, query: Query): Part {
  const { image } = source
  const ef = Math.min(efMax, Math.max(query.count, query.ef ?? defaultEf(query.count)))
  if (walkRows.length < ef) {
    walkRows = new Uint32Array(ef)
    walkDistances = new Float32Array(ef)
  }
  image.prepare(query.vector, query.metric)
  const { count, visited } = image.search(ef, { rows: walkRows, distances: walkDistances })
  const rows = walkRows.subarray(0, Math.min(count, rescoreCount(query.count)))
  return { scored: score(source, rows, sequence), isExact: false, plan: 'graph', visited }
}

/** Rows whose order by code is settled by their exact scores, for a number of hits. */
function rescoreCount(count: number): number {
  return 2 * count + 20
}

async function scan(source: SearchSource, sequence: number, query: Query, slice: Slice): Promise<Part> {
  const isCoded =
    !query.isExact &&
    source.image.hasCodes &&
    source.rowCount >= codedScanRowsMin &&
    query.metric === source.image.metric
  const selection = new Selection(isCoded ? Math.max(64, 4 * query.count) : query.count)
  const rowCount = source.rowCount
  const offer: Offer = (row, lower, upper) => {
    if (source.isVisible(row, sequence)) selection.offer(row, lower, upper)
  }
  source.image.prepare(query.vector, query.metric)
  const pass = isCoded ? codedPass(source) : exactPass(source)
  for (let from = 0; from < rowCount; from += pass.rowsPerLook) {
    pass.run(from, Math.min(rowCount, from + pass.rowsPerLook), offer, selection)
    if (!slice.isOver) continue
    await slice.next()
    // Another search may have asked the image something else meanwhile.
    source.image.prepare(query.vector, query.metric)
  }
  const rows = selection.candidates()
  const rowsPerLook = rowsPerLookFor(source)
  const scored: Scored[] = []
  // Where many rows are equally near, as many are to be scored.
  for (let from = 0; from < rows.length; from += rowsPerLook) {
    source.image.prepare(query.vector, query.metric)
    for (const found of score(source, rows.subarray(from, from + rowsPerLook), sequence)) scored.push(found)
    if (slice.isOver) await slice.next()
  }
  return { scored, isExact: !isCoded, plan: 'scan', visited: rowCount }
}

type Offer = (row: number, lower: number, upper: number) => void
type Pass = {
  readonly rowsPerLook: number
  /** Offers the rows of a range that may be among the nearest so far. The image must have been given the query. */
  run(from: number, to: number, offer: Offer, selection: Selection): void
}

function rowsPerLookFor(source: SearchSource): number {
  return Math.max(64, Math.min(source.rowCount, Math.floor(scanBytesPerLook / (source.image.dimension * 4))))
}

/** Distances on codes, which say which rows are worth scoring. */
function codedPass(source: SearchSource): Pass {
  const rowsPerLook = rowsPerLookFor(source) * 4
  const distances = new Float32Array(rowsPerLook)
  return {
    rowsPerLook,
    run(from, to, offer, selection) {
      source.image.scanCodes(from, to, distances)
      let { limit } = selection
      for (let i = 0; i < to - from; i++) {
        const distance = distances[i]!
        if (distance > limit) continue
        offer(from + i, distance, distance)
        limit = selection.limit
      }
    },
  }
}

/** Distances on 32-bit floats with the interval in which the true one lies: what is left out is certainly not among the nearest. */
function exactPass(source: SearchSource): Pass {
  const { image } = source
  const rowsPerLook = rowsPerLookFor(source)
  const distances = new Float32Array(rowsPerLook)
  const norms = new Float32Array(rowsPerLook)
  const { relative, absolute, scaledByNorm } = image.bound()
  return {
    rowsPerLook,
    run(from, to, offer, selection) {
      image.scan(from, to, distances)
      if (scaledByNorm) image.norms(from, to, norms)
      let { limit } = selection
      for (let i = 0; i < to - from; i++) {
        const distance = distances[i]!
        const error = relative * (scaledByNorm ? norms[i]! : Math.abs(distance)) + absolute
        const lower = distance - error
        if (lower > limit) continue
        offer(from + i, lower, distance + error)
        limit = selection.limit
      }
    },
  }
}

let scores = new Float64Array(256)

/** Exact scores of those rows that the snapshot sees. */
function score(source: SearchSource, rows: Uint32Array, sequence: number): Scored[] {
  if (scores.length < rows.length) scores = new Float64Array(rows.length)
  source.image.score(rows, rows.length, scores)
  const scored: Scored[] = []
  for (let i = 0; i < rows.length; i++) {
    const row = rows[i]!
    // The negation of no distance is -0; adding 0 makes it 0.
    if (source.isVisible(row, sequence)) scored.push({ row, score: scores[i]! + 0 })
  }
  return scored
}
