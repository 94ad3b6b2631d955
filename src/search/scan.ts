/**
 * Scans: every row of a source, or of a list, is measured; those that may be among the nearest are scored exactly.
 */
import type { Slice } from '../slice.ts'
import type { SearchSource } from '../snapshot.ts'
import type { Query } from './query.ts'
import type { Ranking } from './ranking.ts'
import { Selection } from './selection.ts'

/** What is to be scanned, and as of when. */
export type Scan = {
  readonly source: SearchSource
  readonly query: Query
  /** Rows that the snapshot sees. */
  readonly rows: Uint32Array | undefined
  /** Where `rows` isn't given: all that are visible at this sequence. */
  readonly sequence: number
}

/** Bytes of vectors between two looks at the clock. */
const bytesPerLook = 2 * 1024 * 1024

/**
 * Adds the nearest rows with their scores to a ranking; yields where the slice is over. What is left out is certainly not among the
 * nearest.
 */
export function* scan(scan: Scan, slice: Slice, ranking: Ranking): Generator<void, void> {
  const { source, query, rows, sequence } = scan
  const { image } = source
  const total = rows?.length ?? source.rowCount
  const rowsPerLook = Math.max(64, Math.min(total, Math.floor(bytesPerLook / (image.dimension * 4))))
  const nearest = new Selection(query.count)
  image.prepare(query.vector, query.metric)
  const measure = measureOf(scan, rowsPerLook)
  const lower = new Float32Array(rowsPerLook)
  const upper = new Float32Array(rowsPerLook)
  for (let from = 0; from < total; from += rowsPerLook) {
    const to = Math.min(total, from + rowsPerLook)
    measure(from, to, lower, upper)
    let { limit } = nearest
    for (let i = 0; i < to - from; i++) {
      if (lower[i]! > limit) continue
      const row = rows === undefined ? from + i : rows[from + i]!
      if (rows === undefined && !source.isVisible(row, sequence)) continue
      nearest.offer(row, lower[i]!, upper[i]!)
      limit = nearest.limit
    }
    if (!slice.isOver) continue
    yield
    // Another search may have asked the image something else meanwhile.
    image.prepare(query.vector, query.metric)
  }
  const candidates = nearest.candidates()
  // Where many rows are equally near, as many are to be scored.
  for (let from = 0; from < candidates.length; from += rowsPerLook) {
    score(scan, candidates.subarray(from, from + rowsPerLook), ranking)
    if (!slice.isOver) continue
    yield
    image.prepare(query.vector, query.metric)
  }
}

/** Adds the exact scores of those rows that the snapshot sees. The image must have been given the query. */
export function score({ source, sequence, rows: seen }: Scan, rows: Uint32Array, ranking: Ranking): void {
  if (scores.length < rows.length) scores = new Float64Array(rows.length)
  source.image.score(rows, rows.length, scores)
  for (let i = 0; i < rows.length; i++) {
    const row = rows[i]!
    // The negation of no distance is -0; adding 0 makes it 0.
    if (seen !== undefined || source.isVisible(row, sequence)) ranking.add(source, row, scores[i]! + 0)
  }
}

/** Scoring is synchronous, so one buffer serves all. */
let scores = new Float64Array(256)

/** Fills in what the distances of some rows are at least and at most. */
type Measure = (from: number, to: number, lower: Float32Array, upper: Float32Array) => void

/** On codes, whose errors are bounded, where there are any for the metric; else on 32-bit floats, whose roundings are. */
function measureOf({ source: { image }, query, rows }: Scan, rowsPerLook: number): Measure {
  if (image.hasCodes && query.metric === image.metric) {
    return (from, to, lower, upper) => image.scanBounds(rows, from, to, lower, upper)
  }
  const { relative, absolute, scaledByNorm } = image.bound()
  const norms = new Float32Array(scaledByNorm ? rowsPerLook : 0)
  return (from, to, lower, upper) => {
    const named = rows?.subarray(from, to)
    if (named === undefined) image.scan(from, to, lower)
    else image.scanRows(named, named.length, lower, false)
    if (scaledByNorm && named === undefined) image.norms(from, to, norms)
    else if (scaledByNorm) image.normsOf(named!, norms)
    for (let i = 0; i < to - from; i++) {
      const distance = lower[i]!
      const error = relative * (scaledByNorm ? norms[i]! : Math.abs(distance)) + absolute
      // Rounded to 32 bits they may come together by a little less than one part in 2^24, for which the bound has room.
      lower[i] = distance - error
      upper[i] = distance + error
    }
  }
}
