/**
 * Scans: every row of a source, or of a list, is measured; those that may be among the nearest are scored exactly.
 */
import type { VectorImage } from '../kernel/index.ts'
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
  /** Whether codes say which rows are worth scoring; what is found then can't be said to be exact. */
  readonly isCoded: boolean
}

/** Bytes of vectors between two looks at the clock. */
const bytesPerLook = 512 * 1024

/** Adds the nearest rows with their scores to a ranking; yields where the slice is over. */
export function* scan(scan: Scan, slice: Slice, ranking: Ranking): Generator<void, void> {
  const { source, query, sequence } = scan
  const { image } = source
  const total = scan.rows?.length ?? source.rowCount
  const rowsPerLook = Math.max(64, Math.min(total, Math.floor(bytesPerLook / (image.dimension * 4))))
  const nearest = new Selection(scan.isCoded ? Math.max(64, 4 * query.count) : query.count)
  const isKept = scan.rows === undefined ? (row: number) => source.isVisible(row, sequence) : () => true
  image.prepare(query.vector, query.metric)
  const pass = passOf(scan, rowsPerLook)
  for (let from = 0; from < total; from += rowsPerLook) {
    const to = Math.min(total, from + rowsPerLook)
    pass(from, to, (row, lower, upper) => isKept(row) && nearest.offer(row, lower, upper), nearest)
    if (!slice.isOver) continue
    yield
    // Another search may have asked the image something else meanwhile.
    image.prepare(query.vector, query.metric)
  }
  const rows = nearest.candidates()
  // Where many rows are equally near, as many are to be scored.
  for (let from = 0; from < rows.length; from += rowsPerLook) {
    score(scan, rows.subarray(from, from + rowsPerLook), ranking)
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

type Offer = (row: number, lower: number, upper: number) => unknown
/** Offers the rows of a range that may be among the nearest so far. */
type Pass = (from: number, to: number, offer: Offer, nearest: Selection) => void

function passOf(scan: Scan, rowsPerLook: number): Pass {
  const { rows, isCoded } = scan
  const { image } = scan.source
  const distances = new Float32Array(rowsPerLook)
  const measure = (from: number, to: number): void => {
    if (rows !== undefined) image.scanRows(rows.subarray(from, to), to - from, distances, isCoded)
    else if (isCoded) image.scanCodes(from, to, distances)
    else image.scan(from, to, distances)
  }
  return isCoded ? codedPass(rows, distances, measure) : exactPass(image, rows, distances, measure)
}

function codedPass(
  rows: Uint32Array | undefined,
  distances: Float32Array,
  measure: (from: number, to: number) => void,
): Pass {
  return (from, to, offer, nearest) => {
    measure(from, to)
    let { limit } = nearest
    for (let i = from; i < to; i++) {
      const distance = distances[i - from]!
      if (distance > limit) continue
      offer(rows === undefined ? i : rows[i]!, distance, distance)
      limit = nearest.limit
    }
  }
}

/** Distances on 32-bit floats with the interval in which the true one lies: what is left out is certainly not among the nearest. */
function exactPass(
  image: VectorImage,
  rows: Uint32Array | undefined,
  distances: Float32Array,
  measure: (from: number, to: number) => void,
): Pass {
  const { relative, absolute, scaledByNorm } = image.bound()
  const norms = new Float32Array(scaledByNorm ? distances.length : 0)
  return (from, to, offer, nearest) => {
    measure(from, to)
    if (scaledByNorm && rows === undefined) image.norms(from, to, norms)
    else if (scaledByNorm) image.normsOf(rows!.subarray(from, to), norms)
    let { limit } = nearest
    for (let i = from; i < to; i++) {
      const distance = distances[i - from]!
      const error = relative * (scaledByNorm ? norms[i - from]! : Math.abs(distance)) + absolute
      const lower = distance - error
      if (lower > limit) continue
      offer(rows === undefined ? i : rows[i]!, lower, distance + error)
      limit = nearest.limit
    }
  }
}
