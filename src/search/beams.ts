/**
 * From a wanted recall to a beam: a small table that is measured when a graph is built.
 *
 * Rows that are in the graph are no fair questions: building it looked for their neighbours. So the last rows are asked before they
 * are inserted, and, since questions are often unlike what is stored, blends of two rows as well. The worse of the two counts.
 */
import type { VectorImage } from '../kernel/index.ts'
import type { Slice } from '../slice.ts'
import type { Beam } from '../snapshot.ts'
import { Selection } from './selection.ts'

/** Rows that are asked before they are inserted. */
export const heldOutRows = 64
const blendCount = 64
/** Share of the second row in a blend: with it, recall comes out as for questions to passages of text, and below other sets' own. */
const blendShare = 0.35
/** Numbers of hits that recall is measured for. */
const hitCounts = [1, 10, 100] as const
const efs = [1, 2, 4, 7, 10, 14, 20, 28, 40, 56, 80, 112, 160, 224, 320, 448, 640] as const
/** Recall from which on wider beams need not be tried. */
const recallEnough = 0.998
/** Rows between two looks at the clock. */
const rowsPerLook = 4096

/**
 * Measures the recall of beams on a graph that leads to all rows but the last {@link heldOutRows}.
 * @throws IsovecError `ABORTED`, `OUT_OF_MEMORY`
 */
export async function measureBeams(image: VectorImage, slice: Slice): Promise<Beam[]> {
  const rowCount = image.graphRows
  const asked: Asked[] = [
    ...heldOut(image, rowCount).map((vector) => ({ vector, group: 0, truth: [] })),
    ...blends(image, rowCount).map((vector) => ({ vector, group: 1, truth: [] })),
  ]
  for (const each of asked) each.truth = await nearest(image, each.vector, rowCount, slice)
  const beams: Beam[] = []
  for (const k of hitCounts) {
    if (k * 2 > rowCount) break
    for (const ef of efs) {
      if (ef < k) continue
      const recall = await recallOf(image, asked, k, ef, slice)
      beams.push({ k, ef, recall })
      if (recall >= recallEnough) break
    }
  }
  return beams
}

/**
 * The narrowest beam that reaches a recall for a number of hits, as far as it was measured; undefined if nothing was.
 */
export function efFor(beams: readonly Beam[], k: number, recall: number): number | undefined {
  const points: { k: number; ef: number }[] = []
  for (const measured of hitCounts) {
    const own = beams.filter((beam) => beam.k === measured)
    if (own.length > 0) points.push({ k: measured, ef: efReaching(own, recall) })
  }
  if (points.length === 0) return undefined
  const above = points.findIndex((point) => point.k >= k)
  const high = points[above === -1 ? points.length - 1 : above]!
  const low = points[above === -1 ? points.length - 1 : Math.max(0, above - 1)]!
  // Between two numbers of hits beams grow about as a power of it; beyond the last they grow with it.
  if (k > high.k) return Math.max(k, Math.ceil((high.ef * k) / high.k))
  if (low.k === high.k) return Math.max(k, high.ef)
  const share = Math.log(k / low.k) / Math.log(high.k / low.k)
  return Math.max(k, Math.ceil(low.ef * (high.ef / low.ef) ** share))
}

/** By interpolation between the measured beams of one number of hits. */
function efReaching(beams: readonly Beam[], recall: number): number {
  let before: Beam | undefined
  for (const beam of beams) {
    if (beam.recall < recall) {
      before = beam
      continue
    }
    if (before === undefined || beam.recall === before.recall) return beam.ef
    const share = (recall - before.recall) / (beam.recall - before.recall)
    return Math.ceil(before.ef + share * (beam.ef - before.ef))
  }
  // Not reached: the widest that was tried.
  return before!.ef
}

type Asked = { readonly vector: Float32Array; readonly group: number; truth: readonly number[] }

function heldOut(image: VectorImage, rowCount: number): Float32Array[] {
  const count = Math.min(heldOutRows, image.rows - rowCount)
  return Array.from({ length: count }, (_, i) => image.vectorAt(rowCount + i))
}

function blends(image: VectorImage, rowCount: number): Float32Array[] {
  return Array.from({ length: blendCount }, (_, i) => {
    const first = image.vectorAt(Math.floor(((i + 0.5) * rowCount) / blendCount))
    // Far from the first in the order of rows, and another one for each.
    const second = image.vectorAt(Math.floor((((i * 37 + 19) % blendCount) * rowCount) / blendCount))
    return first.map((component, at) => component * (1 - blendShare) + second[at]! * blendShare)
  })
}

/** The true nearest rows below `rowCount`, best first. */
async function nearest(image: VectorImage, vector: Float32Array, rowCount: number, slice: Slice): Promise<number[]> {
  const count = hitCounts[hitCounts.length - 1]!
  const selection = new Selection(count)
  const lower = new Float32Array(rowsPerLook)
  const upper = image.hasCodes ? new Float32Array(rowsPerLook) : lower
  for (let from = 0; from < rowCount; from += rowsPerLook) {
    const to = Math.min(rowCount, from + rowsPerLook)
    image.prepare(vector)
    if (image.hasCodes) image.scanBounds(undefined, from, to, lower, upper)
    else image.scan(from, to, lower)
    for (let i = 0; i < to - from; i++) {
      if (!(lower[i]! > selection.limit)) selection.offer(from + i, lower[i]!, upper[i]!)
    }
    if (slice.isOver) await slice.next()
  }
  return byScore(image, vector, selection.candidates()).slice(0, count)
}

/** Rows by their exact scores, best first. */
function byScore(image: VectorImage, vector: Float32Array, rows: Uint32Array): number[] {
  const scores = new Float64Array(rows.length)
  image.prepare(vector)
  image.score(rows, rows.length, scores)
  return [...rows.keys()].sort((a, b) => scores[b]! - scores[a]!).map((i) => rows[i]!)
}

/** The lower of the mean recalls of both groups of questions. */
async function recallOf(
  image: VectorImage,
  asked: readonly Asked[],
  k: number,
  ef: number,
  slice: Slice,
): Promise<number> {
  const found = [0, 0]
  const wanted = [0, 0]
  const out = { rows: new Uint32Array(ef), distances: new Float32Array(ef) }
  // Many hits tell as much of a question as few hits of several.
  const step = k > 10 ? 4 : 1
  for (let i = 0; i < asked.length; i += step) {
    const { vector, group, truth } = asked[i]!
    image.prepare(vector)
    const { count } = image.search(ef, out)
    const rows = out.rows.subarray(0, Math.min(count, rescoredCount(k)))
    const best = new Set(byScore(image, vector, rows).slice(0, k))
    for (const row of truth.slice(0, k)) if (best.has(row)) found[group]!++
    wanted[group]! += Math.min(k, truth.length)
    if (slice.isOver) await slice.next()
  }
  return Math.min(...found.map((count, group) => (wanted[group] === 0 ? 1 : count / wanted[group]!)))
}

/** Rows whose order by code is settled by their exact scores, for a number of hits. */
export function rescoredCount(k: number): number {
  return 2 * k + 20
}
