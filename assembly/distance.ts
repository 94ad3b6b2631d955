/**
 * Distances; smaller is nearer. Each kernel measures four rows a call, in one fixed order of accumulation that depends
 * on neither the batch nor the build, so results are the same bit for bit everywhere.
 */
import { COSINE, codesOf, DOT, EUCLIDEAN, Image, normOf, Query, residueOf, squaresOf, termOf, vectorOf } from './memory'

/** A question against codes: base + alpha * term + beta * (w . c - offset). */
export const CODES: u32 = 0
/** A row's codes against codes: squared euclidean distance in units of delta^2. */
export const CODE_PAIR: u32 = 1
/** The same under dot, with the added dimension of the reduction to euclidean distance (Bachrach et al. 2014). */
export const CODE_PAIR_REDUCED: u32 = 2
/** f32 rows: squared euclidean distance. */
export const VECTOR_EUCLIDEAN: u32 = 3
/** f32 rows: negated dot product. */
export const VECTOR_DOT: u32 = 4
/** f32 rows: negated cosine. */
export const VECTOR_COSINE: u32 = 5
/** f32 rows: squared euclidean distance with the added dimension of the reduction. */
export const VECTOR_REDUCED: u32 = 6

/** Bytes of rows that are fetched into the nearest cache ahead of their use. */
const TOUCHED_BYTES: u32 = 24 * 1024

/** The formula for f32 rows under a metric. */
export function vectorKind(metric: u32): u32 {
  if (metric == COSINE) return VECTOR_COSINE
  return metric == DOT ? VECTOR_DOT : VECTOR_EUCLIDEAN
}

@inline
function sumI32(a: v128, b: v128, c: v128, d: v128): v128 {
  const ab = i32x4.add(v128.shuffle<i32>(a, b, 0, 4, 1, 5), v128.shuffle<i32>(a, b, 2, 6, 3, 7))
  const cd = i32x4.add(v128.shuffle<i32>(c, d, 0, 4, 1, 5), v128.shuffle<i32>(c, d, 2, 6, 3, 7))
  return i32x4.add(v128.shuffle<i32>(ab, cd, 0, 1, 4, 5), v128.shuffle<i32>(ab, cd, 2, 3, 6, 7))
}

/**
 * Dot products of `bytes` i8 weights with four rows of codes in 0..127, as i32x4. Exact: a product is at most 127 * 127,
 * so a sum of two fits i16 and one of 65,536 fits i32.
 */
function codeDots(weights: usize, a: usize, b: usize, c: usize, d: usize, bytes: u32): v128 {
  let sa = i32x4.splat(0)
  let sb = i32x4.splat(0)
  let sc = i32x4.splat(0)
  let sd = i32x4.splat(0)
  for (const end = weights + bytes; weights < end; weights += 16, a += 16, b += 16, c += 16, d += 16) {
    const low = lowWeights(weights)
    const high = highWeights(weights)
    sa = addCodes(sa, low, high, a)
    sb = addCodes(sb, low, high, b)
    sc = addCodes(sc, low, high, c)
    sd = addCodes(sd, low, high, d)
  }
  return sumI32(sa, sb, sc, sd)
}

/**
 * The same for the eight rows named at `ids`: eight streams from memory instead of four. Returns the products of the first
 * four and leaves those of the others at `others`.
 */
function codeDotsOfEight(image: Image, weights: usize, ids: usize, bytes: u32, others: usize): v128 {
  const a = codesOf(image, load<u32>(ids))
  const b = codesOf(image, load<u32>(ids, 4))
  const c = codesOf(image, load<u32>(ids, 8))
  const d = codesOf(image, load<u32>(ids, 12))
  const e = codesOf(image, load<u32>(ids, 16))
  const f = codesOf(image, load<u32>(ids, 20))
  const g = codesOf(image, load<u32>(ids, 24))
  const h = codesOf(image, load<u32>(ids, 28))
  let sa = i32x4.splat(0)
  let sb = i32x4.splat(0)
  let sc = i32x4.splat(0)
  let sd = i32x4.splat(0)
  let se = i32x4.splat(0)
  let sf = i32x4.splat(0)
  let sg = i32x4.splat(0)
  let sh = i32x4.splat(0)
  for (let i: usize = 0; i < bytes; i += 16) {
    const low = lowWeights(weights + i)
    const high = highWeights(weights + i)
    sa = addCodes(sa, low, high, a + i)
    sb = addCodes(sb, low, high, b + i)
    sc = addCodes(sc, low, high, c + i)
    sd = addCodes(sd, low, high, d + i)
    se = addCodes(se, low, high, e + i)
    sf = addCodes(sf, low, high, f + i)
    sg = addCodes(sg, low, high, g + i)
    sh = addCodes(sh, low, high, h + i)
  }
  v128.store(others, sumI32(se, sf, sg, sh))
  return sumI32(sa, sb, sc, sd)
}

/** 16 weights as the build at hand multiplies them: all of them at once, or the lower and the upper eight widened to i16. */
@inline
function lowWeights(weights: usize): v128 {
  return ASC_FEATURE_RELAXED_SIMD ? v128.load(weights) : v128.load8x8_s(weights)
}

@inline
function highWeights(weights: usize): v128 {
  return ASC_FEATURE_RELAXED_SIMD ? i32x4.splat(0) : v128.load8x8_s(weights, 8)
}

/** Adds the products of 16 weights and codes, in whatever lanes. */
@inline
function addCodes(sum: v128, low: v128, high: v128, codes: usize): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return i32x4.relaxed_dot_i8x16_i7x16_add_s(low, v128.load(codes), sum)
  const first = i32x4.dot_i16x8_s(low, v128.load8x8_u(codes))
  const second = i32x4.dot_i16x8_s(high, v128.load8x8_u(codes, 8))
  return i32x4.add(sum, i32x4.add(first, second))
}

/** Adds products with the query, or squared differences from it, of four components. */
@inline
function addTerm(sum: v128, query: v128, row: usize, offset: usize, squared: bool): v128 {
  const components = v128.load(row + offset)
  if (!squared) return f32x4.add(sum, f32x4.mul(query, components))
  const difference = f32x4.sub(query, components)
  return f32x4.add(sum, f32x4.mul(difference, difference))
}

/**
 * Dot product of a f32 row with `query`, or squared euclidean distance; `bytes` is a multiple of 16. Four accumulators of four lanes
 * take turns, since with fewer each addition waits for the one before; they are added as (0 + 1) + (2 + 3), then lanes pairwise.
 */
@inline
function sumOfRow(query: usize, row: usize, bytes: u32, squared: bool): f32 {
  let a0 = f32x4.splat(0)
  let a1 = f32x4.splat(0)
  let a2 = f32x4.splat(0)
  let a3 = f32x4.splat(0)
  for (const end = query + (bytes & ~63); query < end; query += 64, row += 64) {
    a0 = addTerm(a0, v128.load(query), row, 0, squared)
    a1 = addTerm(a1, v128.load(query, 16), row, 16, squared)
    a2 = addTerm(a2, v128.load(query, 32), row, 32, squared)
    a3 = addTerm(a3, v128.load(query, 48), row, 48, squared)
  }
  const rest = bytes & 63
  if (rest > 0) a0 = addTerm(a0, v128.load(query), row, 0, squared)
  if (rest > 16) a1 = addTerm(a1, v128.load(query, 16), row, 16, squared)
  if (rest > 32) a2 = addTerm(a2, v128.load(query, 32), row, 32, squared)
  const lanes = f32x4.add(f32x4.add(a0, a1), f32x4.add(a2, a3))
  const pairs = f32x4.add(lanes, v128.shuffle<f32>(lanes, lanes, 1, 0, 3, 2))
  return f32x4.extract_lane(pairs, 0) + f32x4.extract_lane(pairs, 2)
}

/** The same of two rows, in lanes 0 and 1. */
@inline
function sumsOfTwo(query: usize, a: usize, b: usize, bytes: u32, squared: bool): v128 {
  let a0 = f32x4.splat(0)
  let a1 = f32x4.splat(0)
  let a2 = f32x4.splat(0)
  let a3 = f32x4.splat(0)
  let b0 = f32x4.splat(0)
  let b1 = f32x4.splat(0)
  let b2 = f32x4.splat(0)
  let b3 = f32x4.splat(0)
  for (const end = query + (bytes & ~63); query < end; query += 64, a += 64, b += 64) {
    const q0 = v128.load(query)
    a0 = addTerm(a0, q0, a, 0, squared)
    b0 = addTerm(b0, q0, b, 0, squared)
    const q1 = v128.load(query, 16)
    a1 = addTerm(a1, q1, a, 16, squared)
    b1 = addTerm(b1, q1, b, 16, squared)
    const q2 = v128.load(query, 32)
    a2 = addTerm(a2, q2, a, 32, squared)
    b2 = addTerm(b2, q2, b, 32, squared)
    const q3 = v128.load(query, 48)
    a3 = addTerm(a3, q3, a, 48, squared)
    b3 = addTerm(b3, q3, b, 48, squared)
  }
  const rest = bytes & 63
  if (rest > 0) {
    a0 = addTerm(a0, v128.load(query), a, 0, squared)
    b0 = addTerm(b0, v128.load(query), b, 0, squared)
  }
  if (rest > 16) {
    a1 = addTerm(a1, v128.load(query, 16), a, 16, squared)
    b1 = addTerm(b1, v128.load(query, 16), b, 16, squared)
  }
  if (rest > 32) {
    a2 = addTerm(a2, v128.load(query, 32), a, 32, squared)
    b2 = addTerm(b2, v128.load(query, 32), b, 32, squared)
  }
  const lanesA = f32x4.add(f32x4.add(a0, a1), f32x4.add(a2, a3))
  const lanesB = f32x4.add(f32x4.add(b0, b1), f32x4.add(b2, b3))
  const low = v128.shuffle<f32>(lanesA, lanesB, 0, 4, 2, 6)
  const high = v128.shuffle<f32>(lanesA, lanesB, 1, 5, 3, 7)
  const pairs = f32x4.add(low, high)
  return f32x4.add(pairs, v128.shuffle<f32>(pairs, pairs, 2, 3, 0, 1))
}

/** Dot products of four f32 rows with `query`. */
function vectorDots(query: usize, a: usize, b: usize, c: usize, d: usize, bytes: u32): v128 {
  const ab = sumsOfTwo(query, a, b, bytes, false)
  return v128.shuffle<f32>(ab, sumsOfTwo(query, c, d, bytes, false), 0, 1, 4, 5)
}

/** Squared euclidean distances of four f32 rows from `query`. */
function vectorSquares(query: usize, a: usize, b: usize, c: usize, d: usize, bytes: u32): v128 {
  const ab = sumsOfTwo(query, a, b, bytes, true)
  return v128.shuffle<f32>(ab, sumsOfTwo(query, c, d, bytes, true), 0, 1, 4, 5)
}

/** One 32-bit lane from each of four addresses. */
@inline
function gather(a: usize, b: usize, c: usize, d: usize): v128 {
  return v128.load32_lane(d, v128.load32_lane(c, v128.load32_lane(b, v128.load32_zero(a), 1), 2), 3)
}

/** Squared differences of four rows from the query in the added dimension. */
@inline
function residueSquares(image: Image, query: Query, ids: usize): v128 {
  const residues = gather(
    residueOf(image, load<u32>(ids)),
    residueOf(image, load<u32>(ids, 4)),
    residueOf(image, load<u32>(ids, 8)),
    residueOf(image, load<u32>(ids, 12)),
  )
  const difference = f32x4.sub(f32x4.splat(query.residue), residues)
  return f32x4.mul(difference, difference)
}

/** Distances of four rows from their dot products by the formula of `query`. */
@inline
function codeDistances(image: Image, query: Query, kind: u32, dots: v128, ids: usize): v128 {
  if (kind == CODES) {
    const product = f32x4.mul(
      f32x4.splat(query.beta),
      f32x4.convert_i32x4_s(i32x4.sub(dots, i32x4.splat(query.offset))),
    )
    const sum = f32x4.add(f32x4.splat(query.base), product)
    if (query.alpha == 0) return sum
    const terms = gather(
      termOf(image, load<u32>(ids)),
      termOf(image, load<u32>(ids, 4)),
      termOf(image, load<u32>(ids, 8)),
      termOf(image, load<u32>(ids, 12)),
    )
    return f32x4.add(sum, f32x4.mul(f32x4.splat(query.alpha), f32x4.convert_i32x4_s(terms)))
  }
  const squares = gather(
    squaresOf(image, load<u32>(ids)),
    squaresOf(image, load<u32>(ids, 4)),
    squaresOf(image, load<u32>(ids, 8)),
    squaresOf(image, load<u32>(ids, 12)),
  )
  const distances = f32x4.convert_i32x4_s(
    i32x4.sub(i32x4.add(i32x4.splat(query.squares), squares), i32x4.add(dots, dots)),
  )
  if (kind == CODE_PAIR) return distances
  return f32x4.add(distances, residueSquares(image, query, ids))
}

/** Distances of four f32 rows from their dot products, or squared euclidean distances, by the formula of `query`. */
@inline
function vectorDistances(image: Image, query: Query, kind: u32, sums: v128, ids: usize): v128 {
  if (kind == VECTOR_DOT) return f32x4.neg(sums)
  if (kind == VECTOR_EUCLIDEAN) return sums
  if (kind == VECTOR_REDUCED) return f32x4.add(sums, residueSquares(image, query, ids))
  const norms = gather(
    normOf(image, load<u32>(ids)),
    normOf(image, load<u32>(ids, 4)),
    normOf(image, load<u32>(ids, 8)),
    normOf(image, load<u32>(ids, 12)),
  )
  return f32x4.neg(f32x4.div(f32x4.mul(sums, f32x4.splat(query.inverse)), norms))
}

/** Bytes of a row that the kernels for `kind` read: the components, rounded up to 16 bytes. */
@inline
function bytesRead(image: Image, kind: u32): u32 {
  return ((kind <= CODE_PAIR_REDUCED ? image.dimension : image.dimension << 2) + 15) & ~15
}

/**
 * Distances of `count` rows named at `ids` to `out`. Both have room for three more: the list is filled up to a multiple
 * of four with the last id. No distance is NaN: what f32 cannot express is computed in f64.
 */
export function scoreRows(image: Image, query: Query, ids: usize, count: u32, out: usize): void {
  const last = load<u32>(ids + (<usize>(count - 1) << 2))
  const end = ids + (<usize>count << 2)
  store<u32>(end, last)
  store<u32>(end, last, 4)
  store<u32>(end, last, 8)
  if (query.kind <= CODE_PAIR_REDUCED) scoreCodes(image, query, ids, end, out)
  else scoreVectors(image, query, ids, end, out)
}

/** Eight rows a call, the last four or fewer in one of four. */
function scoreCodes(image: Image, query: Query, ids: usize, end: usize, out: usize): void {
  const kind = query.kind
  const weights = query.weights
  const bytes = bytesRead(image, kind)
  for (; ids + 16 < end; ids += 32, out += 32) {
    const dots = codeDotsOfEight(image, weights, ids, bytes, out + 16)
    v128.store(out, codeDistances(image, query, kind, dots, ids))
    v128.store(out, codeDistances(image, query, kind, v128.load(out, 16), ids + 16), 16)
  }
  if (ids >= end) return
  const dots = codeDots(
    weights,
    codesOf(image, load<u32>(ids)),
    codesOf(image, load<u32>(ids, 4)),
    codesOf(image, load<u32>(ids, 8)),
    codesOf(image, load<u32>(ids, 12)),
    bytes,
  )
  v128.store(out, codeDistances(image, query, kind, dots, ids))
}

function scoreVectors(image: Image, query: Query, ids: usize, end: usize, out: usize): void {
  const kind = query.kind
  const vector = query.vector
  const bytes = bytesRead(image, kind)
  for (; ids < end; ids += 16, out += 16) {
    const a = vectorOf(image, load<u32>(ids))
    const b = vectorOf(image, load<u32>(ids, 4))
    const c = vectorOf(image, load<u32>(ids, 8))
    const d = vectorOf(image, load<u32>(ids, 12))
    const sums =
      kind == VECTOR_DOT || kind == VECTOR_COSINE
        ? vectorDots(vector, a, b, c, d, bytes)
        : vectorSquares(vector, a, b, c, d, bytes)
    const distances = vectorDistances(image, query, kind, sums, ids)
    v128.store(out, distances)
    if (v128.any_true(f32x4.ne(distances, distances))) replaceNaN(image, query, ids, out)
  }
}

/** Computes the NaN among four distances anew in f64. */
function replaceNaN(image: Image, query: Query, ids: usize, distances: usize): void {
  const norm = Math.sqrt(dotF64(image.dimension, query.raw, query.raw))
  for (let i: usize = 0; i < 16; i += 4) {
    const distance = load<f32>(distances + i)
    if (distance == distance) continue
    const row = vectorOf(image, load<u32>(ids + i))
    const score = f64x2.extract_lane(scoresOfTwo(image.dimension, query.metric, query.raw, norm, row, row), 0)
    store<f32>(distances + i, <f32>(query.metric == EUCLIDEAN ? score * score : -score))
  }
}

/** What {@link codeDots} gives for one row. */
@inline
function rowCodes(weights: usize, row: usize, bytes: u32): i32 {
  let sum = i32x4.splat(0)
  for (const end = weights + bytes; weights < end; weights += 16, row += 16) {
    sum = addCodes(sum, lowWeights(weights), highWeights(weights), row)
  }
  const pairs = i32x4.add(sum, v128.shuffle<i32>(sum, sum, 1, 0, 3, 2))
  return i32x4.extract_lane(pairs, 0) + i32x4.extract_lane(pairs, 2)
}

/**
 * f32 distances of rows `from` up to `to`, NaN where f32 cannot tell. Rows are read one after another by one and the same
 * loop: hardware then fetches ahead, which is faster than four rows side by side.
 */
export function scanVectors(image: Image, query: Query, kind: u32, from: u32, to: u32, out: usize): void {
  const bytes = bytesRead(image, kind)
  const vector = query.vector
  if (kind == VECTOR_EUCLIDEAN) {
    for (let row = from; row < to; row++, out += 4) store<f32>(out, sumOfRow(vector, vectorOf(image, row), bytes, true))
    return
  }
  for (let row = from; row < to; row++, out += 4) {
    const product = -sumOfRow(vector, vectorOf(image, row), bytes, false)
    store<f32>(out, kind == VECTOR_COSINE ? product / load<f32>(normOf(image, row)) : product)
  }
}

/** Distances on codes of rows `from` up to `to`. */
export function scanCodes(image: Image, query: Query, from: u32, to: u32, out: usize): void {
  const bytes = bytesRead(image, CODES)
  const weights = query.weights
  const base = query.base
  const alpha = query.alpha
  const beta = query.beta
  const offset = query.offset
  for (let row = from; row < to; row++, out += 4) {
    const product = beta * <f32>(rowCodes(weights, codesOf(image, row), bytes) - offset)
    const term: f32 = alpha == 0 ? 0 : alpha * <f32>load<u32>(termOf(image, row))
    store<f32>(out, base + product + term)
  }
}

/** The lower and the upper two of four f32 as f64. */
@inline
export function lowF64(vector: v128): v128 {
  return f64x2.promote_low_f32x4(vector)
}

@inline
export function highF64(vector: v128): v128 {
  return f64x2.promote_low_f32x4(v128.shuffle<f64>(vector, vector, 1, 1))
}

@inline
function sumF64(low: v128, high: v128): f64 {
  const sum = f64x2.add(low, high)
  return f64x2.extract_lane(sum, 0) + f64x2.extract_lane(sum, 1)
}

/** Dot product in f64: component i goes to accumulator i mod 4, the sum is (s0 + s2) + (s1 + s3). */
export function dotF64(dimension: u32, x: usize, y: usize): f64 {
  let low = f64x2.splat(0)
  let high = f64x2.splat(0)
  const end = x + (((dimension << 2) + 15) & ~15)
  while (x < end) {
    const a = v128.load(x)
    const b = v128.load(y)
    low = f64x2.add(low, f64x2.mul(lowF64(a), lowF64(b)))
    high = f64x2.add(high, f64x2.mul(highF64(a), highF64(b)))
    x += 16
    y += 16
  }
  return sumF64(low, high)
}

/**
 * Scores of `count` rows named at `ids`, as f64 to `out`: what users see, higher is better. Cosine (0 if either length is 0), inner
 * product or negated euclidean distance, in f64, where components of f32 neither overflow nor underflow. Two rows at a time, since
 * one alone waits for each of its additions; the order within a row is that of {@link dotF64} all the same.
 */
export function scoreExactly(image: Image, query: Query, ids: usize, count: u32, out: usize): void {
  const group = max<u32>(2, (TOUCHED_BYTES / image.vectorStride) & ~1)
  for (let done: u32 = 0; done < count; done += group) {
    const end = min(count, done + group)
    touchVectors(image, ids, done, end, out)
    for (let i = done; i < end; i += 2) {
      const isPair = i + 1 < end
      const a = vectorOf(image, idAt(ids, i))
      const b = isPair ? vectorOf(image, idAt(ids, i + 1)) : a
      const scores = scoresOfTwo(image.dimension, query.metric, query.raw, query.norm, a, b)
      const at = out + (<usize>i << 3)
      if (isPair) v128.store(at, scores)
      else v128.store64_lane(at, scores, 0)
    }
  }
}

@inline
function idAt(ids: usize, index: u32): u32 {
  return load<u32>(ids + (<usize>index << 2))
}

/**
 * Reads something of every cache line of rows that will be scored, so that all of them are fetched from memory side by side: there
 * are no instructions for that in WASM. What is read is written to the place of the first score, or else it would not be read.
 */
function touchVectors(image: Image, ids: usize, from: u32, to: u32, out: usize): void {
  let sum: u32 = 0
  for (let line: u32 = 0, size = image.dimension << 2; line < size; line += 64) {
    for (let i = from; i < to; i++) sum += load<u32>(vectorOf(image, idAt(ids, i)) + line)
  }
  store<u32>(out + (<usize>from << 3), sum)
}

/** Scores of rows `a` and `b`; `norm` is the length of the query. */
function scoresOfTwo(dimension: u32, metric: u32, query: usize, norm: f64, a: usize, b: usize): v128 {
  if (metric == EUCLIDEAN) return distancesOfTwo(dimension, query, a, b)
  return metric == DOT ? dotsOfTwo(dimension, query, a, b) : cosinesOfTwo(dimension, query, norm, a, b)
}

/** (a0 + a1) + (a2 + a3) in lane 0 for accumulators {0, 1} and {2, 3} of a row, in lane 1 for another row. */
@inline
function sumOfTwo(lowA: v128, highA: v128, lowB: v128, highB: v128): v128 {
  const a = f64x2.add(lowA, highA)
  const b = f64x2.add(lowB, highB)
  return f64x2.add(v128.shuffle<f64>(a, b, 0, 2), v128.shuffle<f64>(a, b, 1, 3))
}

function dotsOfTwo(dimension: u32, query: usize, a: usize, b: usize): v128 {
  let lowA = f64x2.splat(0)
  let highA = f64x2.splat(0)
  let lowB = f64x2.splat(0)
  let highB = f64x2.splat(0)
  const end = query + (((dimension << 2) + 15) & ~15)
  for (; query < end; query += 16, a += 16, b += 16) {
    const q = v128.load(query)
    const x = v128.load(a)
    const y = v128.load(b)
    const low = lowF64(q)
    const high = highF64(q)
    lowA = f64x2.add(lowA, f64x2.mul(low, lowF64(x)))
    highA = f64x2.add(highA, f64x2.mul(high, highF64(x)))
    lowB = f64x2.add(lowB, f64x2.mul(low, lowF64(y)))
    highB = f64x2.add(highB, f64x2.mul(high, highF64(y)))
  }
  return sumOfTwo(lowA, highA, lowB, highB)
}

function distancesOfTwo(dimension: u32, query: usize, a: usize, b: usize): v128 {
  let lowA = f64x2.splat(0)
  let highA = f64x2.splat(0)
  let lowB = f64x2.splat(0)
  let highB = f64x2.splat(0)
  const end = query + (((dimension << 2) + 15) & ~15)
  for (; query < end; query += 16, a += 16, b += 16) {
    const q = v128.load(query)
    const x = v128.load(a)
    const y = v128.load(b)
    const low = lowF64(q)
    const high = highF64(q)
    const lowX = f64x2.sub(low, lowF64(x))
    const highX = f64x2.sub(high, highF64(x))
    const lowY = f64x2.sub(low, lowF64(y))
    const highY = f64x2.sub(high, highF64(y))
    lowA = f64x2.add(lowA, f64x2.mul(lowX, lowX))
    highA = f64x2.add(highA, f64x2.mul(highX, highX))
    lowB = f64x2.add(lowB, f64x2.mul(lowY, lowY))
    highB = f64x2.add(highB, f64x2.mul(highY, highY))
  }
  return f64x2.neg(f64x2.sqrt(sumOfTwo(lowA, highA, lowB, highB)))
}

function cosinesOfTwo(dimension: u32, query: usize, norm: f64, a: usize, b: usize): v128 {
  let lowA = f64x2.splat(0)
  let highA = f64x2.splat(0)
  let lowB = f64x2.splat(0)
  let highB = f64x2.splat(0)
  let lowAA = f64x2.splat(0)
  let highAA = f64x2.splat(0)
  let lowBB = f64x2.splat(0)
  let highBB = f64x2.splat(0)
  const end = query + (((dimension << 2) + 15) & ~15)
  for (; query < end; query += 16, a += 16, b += 16) {
    const q = v128.load(query)
    const x = v128.load(a)
    const y = v128.load(b)
    const low = lowF64(q)
    const high = highF64(q)
    const lowX = lowF64(x)
    const highX = highF64(x)
    const lowY = lowF64(y)
    const highY = highF64(y)
    lowA = f64x2.add(lowA, f64x2.mul(low, lowX))
    highA = f64x2.add(highA, f64x2.mul(high, highX))
    lowAA = f64x2.add(lowAA, f64x2.mul(lowX, lowX))
    highAA = f64x2.add(highAA, f64x2.mul(highX, highX))
    lowB = f64x2.add(lowB, f64x2.mul(low, lowY))
    highB = f64x2.add(highB, f64x2.mul(high, highY))
    lowBB = f64x2.add(lowBB, f64x2.mul(lowY, lowY))
    highBB = f64x2.add(highBB, f64x2.mul(highY, highY))
  }
  const products = sumOfTwo(lowA, highA, lowB, highB)
  const lengths = f64x2.mul(f64x2.splat(norm), f64x2.sqrt(sumOfTwo(lowAA, highAA, lowBB, highBB)))
  const cosines = f64x2.max(f64x2.splat(-1), f64x2.min(f64x2.splat(1), f64x2.div(products, lengths)))
  // Lengths of f32 vectors are no less than 2^-149, so that their product is 0 only where one of them is.
  return v128.and(cosines, f64x2.ne(lengths, f64x2.splat(0)))
}
