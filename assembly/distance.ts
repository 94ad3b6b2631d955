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

/** The formula for f32 rows under a metric. */
export function vectorKind(metric: u32): u32 {
  if (metric == COSINE) return VECTOR_COSINE
  return metric == DOT ? VECTOR_DOT : VECTOR_EUCLIDEAN
}

/** Four sums of four lanes: lane i of the result is (l0 + l1) + (l2 + l3) of argument i. */
@inline
function sumF32(a: v128, b: v128, c: v128, d: v128): v128 {
  const ab = v128.shuffle<f32>(a, b, 0, 4, 1, 5)
  const cd = v128.shuffle<f32>(c, d, 0, 4, 1, 5)
  const ab2 = v128.shuffle<f32>(a, b, 2, 6, 3, 7)
  const cd2 = v128.shuffle<f32>(c, d, 2, 6, 3, 7)
  return f32x4.add(
    f32x4.add(v128.shuffle<f32>(ab, cd, 0, 1, 4, 5), v128.shuffle<f32>(ab, cd, 2, 3, 6, 7)),
    f32x4.add(v128.shuffle<f32>(ab2, cd2, 0, 1, 4, 5), v128.shuffle<f32>(ab2, cd2, 2, 3, 6, 7)),
  )
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
    sa = addCodes(sa, weights, a)
    sb = addCodes(sb, weights, b)
    sc = addCodes(sc, weights, c)
    sd = addCodes(sd, weights, d)
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
    sa = addCodes(sa, weights + i, a + i)
    sb = addCodes(sb, weights + i, b + i)
    sc = addCodes(sc, weights + i, c + i)
    sd = addCodes(sd, weights + i, d + i)
    se = addCodes(se, weights + i, e + i)
    sf = addCodes(sf, weights + i, f + i)
    sg = addCodes(sg, weights + i, g + i)
    sh = addCodes(sh, weights + i, h + i)
  }
  v128.store(others, sumI32(se, sf, sg, sh))
  return sumI32(sa, sb, sc, sd)
}

/** Adds the products of 16 weights and codes, in whatever lanes. */
@inline
function addCodes(sum: v128, weights: usize, codes: usize): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) {
    return i32x4.relaxed_dot_i8x16_i7x16_add_s(v128.load(weights), v128.load(codes), sum)
  }
  const low = i32x4.dot_i16x8_s(v128.load8x8_s(weights), v128.load8x8_u(codes))
  const high = i32x4.dot_i16x8_s(v128.load8x8_s(weights, 8), v128.load8x8_u(codes, 8))
  return i32x4.add(i32x4.add(sum, low), high)
}

/**
 * Dot products of four f32 rows with `query`, `bytes` a multiple of 16. Per row two accumulators of four lanes take
 * turns; then lanes are added pairwise.
 */
function vectorDots(query: usize, a: usize, b: usize, c: usize, d: usize, bytes: u32): v128 {
  let a0 = f32x4.splat(0)
  let b0 = f32x4.splat(0)
  let c0 = f32x4.splat(0)
  let d0 = f32x4.splat(0)
  let a1 = f32x4.splat(0)
  let b1 = f32x4.splat(0)
  let c1 = f32x4.splat(0)
  let d1 = f32x4.splat(0)
  const end = query + (bytes & ~31)
  while (query < end) {
    const q0 = v128.load(query)
    a0 = addProduct(a0, q0, a, 0)
    b0 = addProduct(b0, q0, b, 0)
    c0 = addProduct(c0, q0, c, 0)
    d0 = addProduct(d0, q0, d, 0)
    const q1 = v128.load(query, 16)
    a1 = addProduct(a1, q1, a, 16)
    b1 = addProduct(b1, q1, b, 16)
    c1 = addProduct(c1, q1, c, 16)
    d1 = addProduct(d1, q1, d, 16)
    query += 32
    a += 32
    b += 32
    c += 32
    d += 32
  }
  if (bytes & 16) {
    const q0 = v128.load(query)
    a0 = addProduct(a0, q0, a, 0)
    b0 = addProduct(b0, q0, b, 0)
    c0 = addProduct(c0, q0, c, 0)
    d0 = addProduct(d0, q0, d, 0)
  }
  return sumF32(f32x4.add(a0, a1), f32x4.add(b0, b1), f32x4.add(c0, c1), f32x4.add(d0, d1))
}

@inline
function addProduct(sum: v128, query: v128, row: usize, offset: usize): v128 {
  return f32x4.add(sum, f32x4.mul(query, v128.load(row + offset)))
}

@inline
function addSquare(sum: v128, query: v128, row: usize, offset: usize): v128 {
  const difference = f32x4.sub(query, v128.load(row + offset))
  return f32x4.add(sum, f32x4.mul(difference, difference))
}

/** Squared euclidean distances of four f32 rows; order of accumulation as in {@link vectorDots}. */
function vectorSquares(query: usize, a: usize, b: usize, c: usize, d: usize, bytes: u32): v128 {
  let a0 = f32x4.splat(0)
  let b0 = f32x4.splat(0)
  let c0 = f32x4.splat(0)
  let d0 = f32x4.splat(0)
  let a1 = f32x4.splat(0)
  let b1 = f32x4.splat(0)
  let c1 = f32x4.splat(0)
  let d1 = f32x4.splat(0)
  const end = query + (bytes & ~31)
  while (query < end) {
    const q0 = v128.load(query)
    a0 = addSquare(a0, q0, a, 0)
    b0 = addSquare(b0, q0, b, 0)
    c0 = addSquare(c0, q0, c, 0)
    d0 = addSquare(d0, q0, d, 0)
    const q1 = v128.load(query, 16)
    a1 = addSquare(a1, q1, a, 16)
    b1 = addSquare(b1, q1, b, 16)
    c1 = addSquare(c1, q1, c, 16)
    d1 = addSquare(d1, q1, d, 16)
    query += 32
    a += 32
    b += 32
    c += 32
    d += 32
  }
  if (bytes & 16) {
    const q0 = v128.load(query)
    a0 = addSquare(a0, q0, a, 0)
    b0 = addSquare(b0, q0, b, 0)
    c0 = addSquare(c0, q0, c, 0)
    d0 = addSquare(d0, q0, d, 0)
  }
  return sumF32(f32x4.add(a0, a1), f32x4.add(b0, b1), f32x4.add(c0, c1), f32x4.add(d0, d1))
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
    const score = exactScore(image.dimension, query.metric, query.raw, norm, vectorOf(image, load<u32>(ids + i)))
    store<f32>(distances + i, <f32>(query.metric == EUCLIDEAN ? score * score : -score))
  }
}

/** Sum of the four lanes, in the order of {@link sumF32}. */
@inline
function sumLanes(lanes: v128): f32 {
  const pairs = f32x4.add(lanes, v128.shuffle<f32>(lanes, lanes, 1, 0, 3, 2))
  return f32x4.extract_lane(pairs, 0) + f32x4.extract_lane(pairs, 2)
}

/** What {@link vectorDots} gives for one row. */
@inline
function rowDot(query: usize, row: usize, bytes: u32): f32 {
  let even = f32x4.splat(0)
  let odd = f32x4.splat(0)
  for (const end = query + (bytes & ~31); query < end; query += 32, row += 32) {
    even = addProduct(even, v128.load(query), row, 0)
    odd = addProduct(odd, v128.load(query, 16), row, 16)
  }
  if (bytes & 16) even = addProduct(even, v128.load(query), row, 0)
  return sumLanes(f32x4.add(even, odd))
}

/** What {@link vectorSquares} gives for one row. */
@inline
function rowSquares(query: usize, row: usize, bytes: u32): f32 {
  let even = f32x4.splat(0)
  let odd = f32x4.splat(0)
  for (const end = query + (bytes & ~31); query < end; query += 32, row += 32) {
    even = addSquare(even, v128.load(query), row, 0)
    odd = addSquare(odd, v128.load(query, 16), row, 16)
  }
  if (bytes & 16) even = addSquare(even, v128.load(query), row, 0)
  return sumLanes(f32x4.add(even, odd))
}

/** What {@link codeDots} gives for one row. */
@inline
function rowCodes(weights: usize, row: usize, bytes: u32): i32 {
  let sum = i32x4.splat(0)
  for (const end = weights + bytes; weights < end; weights += 16, row += 16) sum = addCodes(sum, weights, row)
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
    for (let row = from; row < to; row++, out += 4) store<f32>(out, rowSquares(vector, vectorOf(image, row), bytes))
    return
  }
  for (let row = from; row < to; row++, out += 4) {
    const product = -rowDot(vector, vectorOf(image, row), bytes)
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

@inline
function lowF64(vector: v128): v128 {
  return f64x2.promote_low_f32x4(vector)
}

@inline
function highF64(vector: v128): v128 {
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

/** Squared euclidean distance in f64; order of accumulation as in {@link dotF64}. */
export function squaresF64(dimension: u32, x: usize, y: usize): f64 {
  let low = f64x2.splat(0)
  let high = f64x2.splat(0)
  const end = x + (((dimension << 2) + 15) & ~15)
  while (x < end) {
    const a = v128.load(x)
    const b = v128.load(y)
    const first = f64x2.sub(lowF64(a), lowF64(b))
    const second = f64x2.sub(highF64(a), highF64(b))
    low = f64x2.add(low, f64x2.mul(first, first))
    high = f64x2.add(high, f64x2.mul(second, second))
    x += 16
    y += 16
  }
  return sumF64(low, high)
}

/**
 * The score that users see, higher is better: cosine (0 if either length is 0), inner product or negated euclidean
 * distance, in f64, where components of f32 neither overflow nor underflow.
 */
export function exactScore(dimension: u32, metric: u32, query: usize, norm: f64, row: usize): f64 {
  if (metric == EUCLIDEAN) return -Math.sqrt(squaresF64(dimension, query, row))
  const product = dotF64(dimension, query, row)
  if (metric == DOT) return product
  const length = Math.sqrt(dotF64(dimension, row, row))
  if (length == 0 || norm == 0) return 0
  return max<f64>(-1, min<f64>(1, product / (norm * length)))
}
