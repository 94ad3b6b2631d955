/** What the host sets and reads of an image and of the working memory. */
import { scanCodes, scanVectors, scoreExactly, scoreRows, vectorKind } from './distance'
import { codeStride, errorOf, EUCLIDEAN, Image, imageSize, linkStride, Scratch, termOf, vectorStride } from './memory'
import { ROUNDING } from './quantize'

/** First address that the host may hand out. */
export function heapBase(): usize {
  return __heap_base
}

/** Whether this is the build for relaxed SIMD. */
export function usesRelaxedSimd(): bool {
  return ASC_FEATURE_RELAXED_SIMD
}

/** Starts an empty image in a region of `imageSize()` bytes. */
export function createImage(image: Image, dimension: u32, metric: u32): void {
  memory.fill(changetype<usize>(image), 0, imageSize())
  image.dimension = dimension
  image.metric = metric
  image.vectorStride = vectorStride(dimension)
  image.codeStride = codeStride(dimension)
}

/** Says where the rows are. */
export function placeRows(image: Image, vectors: usize, norms: usize, dead: usize): void {
  image.vectors = vectors
  image.norms = norms
  image.dead = dead
}

export function setRows(image: Image, rows: u32): void {
  image.rows = rows
}

/** Marks a live row as dead. */
export function killRow(image: Image, row: u32): void {
  const at = image.dead + (row >> 3)
  store<u8>(at, load<u8>(at) | ((<u8>1) << (<u8>(row & 7))))
  image.deadCount++
}

/** Says where codes and their sums are; 0 where there are none. */
export function placeCodes(image: Image, codes: usize, terms: usize): void {
  image.codes = codes
  image.terms = terms
}

export function setQuantizer(image: Image, delta: f64, origin: usize): void {
  image.delta = delta
  image.origin = origin
}

/** Sets the size of a graph that is to come. */
export function shapeGraph(
  image: Image,
  M: u32,
  efConstruction: u32,
  seedLow: u32,
  seedHigh: u32,
  rows: u32,
  maxNorm: f64,
): void {
  image.M = M
  image.efConstruction = efConstruction
  image.seedLow = seedLow
  image.seedHigh = seedHigh
  image.linkStride = linkStride(M)
  image.graphRows = rows
  image.maxNorm = maxNorm
}

/** Says where the graph is. */
export function placeGraph(
  image: Image,
  levels: usize,
  links: usize,
  upperIndex: usize,
  upperLinks: usize,
  upperCount: u32,
  residues: usize,
): void {
  image.residues = residues
  image.levels = levels
  image.links = links
  image.upperIndex = upperIndex
  image.upperLinks = upperLinks
  image.upperCount = upperCount
}

/** Sets how far the graph is built and where walks begin. */
export function setProgress(image: Image, inserted: u32, entry: u32, maxLevel: u32): void {
  image.inserted = inserted
  image.entry = entry
  image.maxLevel = maxLevel
}

export function entryOf(image: Image): u32 {
  return image.entry
}

export function maxLevelOf(image: Image): u32 {
  return image.maxLevel
}

/** Where the host writes a question before `prepareQuery`. */
export function questionAt(scratch: Scratch): usize {
  return scratch.raw
}

/** Length of the question. */
export function questionNorm(scratch: Scratch): f64 {
  return scratch.query.norm
}

/** Where `collect` leaves what a walk found. */
export function resultsAt(scratch: Scratch): usize {
  return scratch.pool
}

/** Rows that the last walk scored. */
export function visitedCount(scratch: Scratch): u32 {
  return scratch.visitedCount
}

/** f32 distances of rows `from` up to `to`. */
export function scan(image: Image, scratch: Scratch, from: u32, to: u32, out: usize): void {
  scanVectors(image, scratch.query, vectorKind(scratch.query.metric), from, to, out)
}

/** Distances on codes of rows `from` up to `to`. */
export function scanCoded(image: Image, scratch: Scratch, from: u32, to: u32, out: usize): void {
  scanCodes(image, scratch.query, from, to, out)
}

/**
 * Distances of `count` rows named at `rows`, on codes or f32, to `out`. Both have room for three more.
 */
export function scanRows(image: Image, scratch: Scratch, rows: usize, count: u32, out: usize, coded: bool): void {
  const query = scratch.query
  const kind = query.kind
  if (!coded) query.kind = vectorKind(query.metric)
  scoreRows(image, query, rows, count, out)
  query.kind = kind
}

/**
 * Turns `count` distances on codes at `lower`, of the rows named at `rows` or, if that is 0, of those from `from` on, into what the
 * true ones are at least; what they are at most goes to `upper`. NaN where nothing is known.
 */
export function boundRows(
  image: Image,
  scratch: Scratch,
  rows: usize,
  from: u32,
  count: u32,
  lower: usize,
  upper: usize,
): void {
  const query = scratch.query
  const delta = <f32>image.delta
  const centred = query.metric == EUCLIDEAN
  for (let i: u32 = 0; i < count; i++, lower += 4, upper += 4) {
    const row = rows == 0 ? from + i : load<u32>(rows + (<usize>i << 2))
    const term = <f32>load<u32>(termOf(image, row))
    const left = load<f32>(errorOf(image, row))
    const distance = load<f32>(lower)
    const rounding = (Mathf.abs(distance) + 2 * query.alpha * term) * ROUNDING
    const inner = query.codeScale * Mathf.sqrt(term) + query.errorBase + rounding
    if (centred) {
      // |q - x| is within |r| of |q - (origin + y)|, whose square is known.
      const least = Mathf.sqrt(max<f32>(0, distance - inner)) * (1 - ROUNDING) - left
      const most = Mathf.sqrt(max<f32>(0, distance + inner)) * (1 + ROUNDING) + left
      store<f32>(lower, least > 0 ? least * least * (1 - ROUNDING) : least != least ? least : 0)
      store<f32>(upper, most * most * (1 + ROUNDING))
      continue
    }
    const error = query.errorScale * left + inner
    store<f32>(lower, distance - error)
    store<f32>(upper, distance + error)
  }
}

/** Exact scores, f64, of `count` rows named at `rows`. */
export function score(image: Image, scratch: Scratch, rows: usize, count: u32, out: usize): void {
  scoreExactly(image, scratch.query, rows, count, out)
}
