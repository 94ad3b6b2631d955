/**
 * Scalar quantisation to 7 bits: x is about origin + delta * (c - 64), c in 0..127, with one delta for all and an origin
 * per dimension. Under cosine the rows are brought to length 1 first. Questions become i8 weights on a grid of their own.
 */
import {
  CODE_PAIR,
  CODE_PAIR_REDUCED,
  CODES,
  dotF64,
  highF64,
  lowF64,
  VECTOR_COSINE,
  VECTOR_EUCLIDEAN,
  VECTOR_REDUCED,
  vectorKind,
} from './distance'
import {
  CODE_MAX,
  CODE_ZERO,
  COSINE,
  codesOf,
  DOT,
  errorOf,
  EUCLIDEAN,
  Image,
  normOf,
  Query,
  residueOf,
  Scratch,
  squaresOf,
  termOf,
  vectorOf,
} from './memory'

/** Lengths that f32 distances can be trusted with lie within [1 / NORM_LIMIT, NORM_LIMIT]. */
const NORM_LIMIT: f64 = 1152921504606846976

/** More than roundings can take away from a bound that is computed in few steps of f32. */
const SLACK: f64 = 1 + 1.0 / 1048576
/** More than f32 rounds away where it has few bits left. */
const LEAST: f64 = 7.174648137343064e-43
/** Factors below this lose bits in f32, which nothing accounts for. */
const FACTOR_MIN: f32 = 7.888609052210118e-31
/** The share of a distance on codes, or of what it is the sum of, that its roundings can amount to. */
export const ROUNDING: f32 = 1.0 / 1048576

/** Lengths of rows `from` up to `to`, NaN where too small or too large for f32 distances. */
export function measureNorms(image: Image, from: u32, to: u32): void {
  for (let row = from; row < to; row++) {
    const vector = vectorOf(image, row)
    const norm = Math.sqrt(dotF64(image.dimension, vector, vector))
    const tame = norm >= 1 / NORM_LIMIT && norm <= NORM_LIMIT
    store<u32>(normOf(image, row), tame ? reinterpret<u32>(<f32>norm) : 0x7fc00000)
  }
}

/** What a row is multiplied with before it is quantised. */
@inline
export function rowScale(image: Image, vector: usize): f64 {
  if (image.metric != COSINE) return 1
  const norm = Math.sqrt(dotF64(image.dimension, vector, vector))
  return norm == 0 ? 0 : 1 / norm
}

/** Quantises rows `from` up to `to`. */
export function encodeRows(image: Image, from: u32, to: u32): void {
  const dimension = image.dimension
  const step = 1 / image.delta
  for (let row = from; row < to; row++) {
    const vector = vectorOf(image, row)
    const codes = codesOf(image, row)
    const scale = rowScale(image, vector)
    let left: f64 = 0
    for (let i: u32 = 0; i < dimension; i++) {
      const value = <f64>load<f32>(vector + (<usize>i << 2)) * scale
      const origin = <f64>load<f32>(image.origin + (<usize>i << 2))
      const code = max<f64>(0, min<f64>(127, Math.floor((value - origin) * step + 64.5)))
      store<u8>(codes + i, <u8>(<i32>code))
      const part = value - origin - (code - <f64>CODE_ZERO) * image.delta
      left += part * part
    }
    memory.fill(codes + dimension, 0, image.codeStride - dimension)
    storeTerms(image, row)
    store<f32>(errorOf(image, row), <f32>(Math.sqrt(left) * SLACK + LEAST))
  }
}

function storeTerms(image: Image, row: u32): void {
  const codes = codesOf(image, row)
  store<u32>(termOf(image, row), centredSquares(image.dimension, codes))
  store<u32>(squaresOf(image, row), plainSquares(image.dimension, codes))
}

function centredSquares(dimension: u32, codes: usize): u32 {
  let sum: u32 = 0
  for (let i: u32 = 0; i < dimension; i++) {
    const code = <i32>load<u8>(codes + i) - CODE_ZERO
    sum += code * code
  }
  return sum
}

function plainSquares(dimension: u32, codes: usize): u32 {
  let sum: u32 = 0
  for (let i: u32 = 0; i < dimension; i++) {
    const code = <u32>load<u8>(codes + i)
    sum += code * code
  }
  return sum
}

/** The first row from `from` up to `to` whose codes or sums are not what {@link encodeRows} can have written, else `to`. */
export function checkCodes(image: Image, from: u32, to: u32): u32 {
  for (let row = from; row < to; row++) {
    const codes = codesOf(image, row)
    let bits: u8 = 0
    for (let i: u32 = 0; i < image.dimension; i++) bits |= load<u8>(codes + i)
    if (bits > <u8>CODE_MAX) return row
    for (let i = image.dimension; i < image.codeStride; i++) if (load<u8>(codes + i) != 0) return row
    if (load<u32>(termOf(image, row)) != centredSquares(image.dimension, codes)) return row
    if (load<u32>(squaresOf(image, row)) != plainSquares(image.dimension, codes)) return row
    if (!(load<f32>(errorOf(image, row)) >= 0)) return row
  }
  return to
}

/** Makes the vector at `scratch.raw` the question; `metric` need not be the image's, but codes serve only that. */
export function prepareQuery(image: Image, scratch: Scratch, metric: u32): void {
  const query = scratch.query
  const dimension = image.dimension
  const padded = ((dimension << 2) + 15) & ~15
  memory.fill(scratch.raw + (<usize>dimension << 2), 0, padded - (dimension << 2))
  query.metric = metric
  query.raw = scratch.raw
  query.vector = scratch.raw
  query.weights = scratch.weights
  query.inverse = 1
  query.norm = Math.sqrt(dotF64(dimension, scratch.raw, scratch.raw))
  if (metric == COSINE) {
    const scale = f64x2.splat(query.norm == 0 ? 0 : 1 / query.norm)
    query.vector = scratch.vector
    for (let at: usize = 0; at < padded; at += 16) {
      const raw = v128.load(scratch.raw + at)
      v128.store(scratch.vector + at, demote(f64x2.mul(lowF64(raw), scale), f64x2.mul(highF64(raw), scale)))
    }
  }
  query.kind = vectorKind(metric)
  if (image.codes != 0 && metric == image.metric) prepareWeights(image, query)
}

/**
 * Quantises the question. With w the weights, s their step and W their sum, q . x is about q . origin + delta * s * (w . c - 64 W),
 * and |q - x|^2 about |p|^2 + delta^2 * term - 2 delta * s * (w . c - 64 W) where w stands for p = q - origin.
 */
function prepareWeights(image: Image, query: Query): void {
  const centred = query.metric == EUCLIDEAN
  const vector = query.vector
  const origin = image.origin
  const size = <usize>((image.dimension + 3) & ~3)
  let largest = f64x2.splat(0)
  let low = f64x2.splat(0)
  let high = f64x2.splat(0)
  let zero = f64x2.splat(0)
  for (let at: usize = 0; at < size << 2; at += 16) {
    const values = v128.load(vector + at)
    const origins = v128.load(origin + at)
    zero = f64x2.add(zero, f64x2.mul(lowF64(origins), lowF64(origins)))
    zero = f64x2.add(zero, f64x2.mul(highF64(origins), highF64(origins)))
    const lowPart = partOf(lowF64(values), lowF64(origins), centred)
    const highPart = partOf(highF64(values), highF64(origins), centred)
    low = f64x2.add(low, f64x2.mul(lowPart, centred ? lowPart : f64x2.neg(lowF64(origins))))
    high = f64x2.add(high, f64x2.mul(highPart, centred ? highPart : f64x2.neg(highF64(origins))))
    largest = f64x2.max(largest, f64x2.max(f64x2.abs(lowPart), f64x2.abs(highPart)))
  }
  const most = max<f64>(f64x2.extract_lane(largest, 0), f64x2.extract_lane(largest, 1))
  const inverse = f64x2.splat(most == 0 ? 0 : 127 / most)
  const sums = f64x2.add(low, high)
  const step = f64x2.splat(most / 127)
  let total = i32x4.splat(0)
  let left = f64x2.splat(0)
  for (let at: usize = 0; at < size; at += 4) {
    const values = v128.load(vector + (at << 2))
    const origins = v128.load(origin + (at << 2))
    const lowPart = partOf(lowF64(values), lowF64(origins), centred)
    const highPart = partOf(highF64(values), highF64(origins), centred)
    const lowWeights = weightsOf(lowPart, inverse)
    const highWeights = weightsOf(highPart, inverse)
    const lowLeft = f64x2.sub(lowPart, f64x2.mul(lowWeights, step))
    const highLeft = f64x2.sub(highPart, f64x2.mul(highWeights, step))
    left = f64x2.add(left, f64x2.add(f64x2.mul(lowLeft, lowLeft), f64x2.mul(highLeft, highLeft)))
    const weights = v128.shuffle<i32>(
      i32x4.trunc_sat_f64x2_s_zero(lowWeights),
      i32x4.trunc_sat_f64x2_s_zero(highWeights),
      0,
      1,
      4,
      5,
    )
    total = i32x4.add(total, weights)
    const narrow = i16x8.narrow_i32x4_s(weights, weights)
    v128.store32_lane(query.weights + at, i8x16.narrow_i16x8_s(narrow, narrow), 0)
  }
  memory.fill(query.weights + size, 0, ((size + 15) & ~15) - size)
  query.kind = CODES
  query.offset =
    CODE_ZERO *
    (i32x4.extract_lane(total, 0) +
      i32x4.extract_lane(total, 1) +
      i32x4.extract_lane(total, 2) +
      i32x4.extract_lane(total, 3))
  const constant = f64x2.extract_lane(sums, 0) + f64x2.extract_lane(sums, 1)
  setCoefficients(image, query, constant, most / 127, centred)
  const error = Math.sqrt(f64x2.extract_lane(left, 0) + f64x2.extract_lane(left, 1))
  setBounds(image, query, error, Math.sqrt(f64x2.extract_lane(zero, 0) + f64x2.extract_lane(zero, 1)), centred)
}

/**
 * How far q . x, or |q - x|^2, can be from what codes say, where `error` is the length of what the weights leave out of the question
 * and `zero` that of the origin: with y for what a row's codes hold and r for what they leave out, q . x = q . (origin + y) + q . r by
 * Cauchy and Schwarz within |q| |r| + `error` |y|. The question itself is rounded to f32 before it is quantised.
 */
function setBounds(image: Image, query: Query, error: f64, zero: f64, centred: bool): void {
  const norm = centred || query.metric != COSINE ? query.norm : 1
  const rounding = norm * (1.0 / 4194304)
  query.errorScale = centred ? 1 : <f32>((norm + rounding) * SLACK)
  query.codeScale = <f32>((error + rounding) * (centred ? 2 : 1) * image.delta * SLACK)
  const isKnown = isPlain(image) && isFactor(query.beta) && isFactor(query.errorScale)
  query.errorBase = isKnown ? <f32>((<f64>Math.abs(query.base) * 2 * ROUNDING + rounding * zero) * SLACK) : f32.NaN
}

/** What of two components the weights stand for. */
@inline
function partOf(values: v128, origins: v128, centred: bool): v128 {
  return centred ? f64x2.sub(values, origins) : values
}

/** Two weights, rounded, as f64. */
@inline
function weightsOf(parts: v128, inverse: v128): v128 {
  return f64x2.floor(f64x2.add(f64x2.mul(parts, inverse), f64x2.splat(0.5)))
}

/** Four f64 rounded to f32. */
@inline
function demote(low: v128, high: v128): v128 {
  return v128.shuffle<f32>(f32x4.demote_f64x2_zero(low), f32x4.demote_f64x2_zero(high), 0, 1, 4, 5)
}

/** Whether squares of delta stay within the range of f32. */
function isPlain(image: Image): bool {
  const square = image.delta * image.delta
  return square >= 1 / NORM_LIMIT && square <= NORM_LIMIT
}

/** Whether products with a number keep the precision of f32. */
function isFactor(number: f32): bool {
  return number == 0 || Mathf.abs(number) >= FACTOR_MIN
}

/** Sets the formula, in units of delta where squares of it leave the range of f32. */
function setCoefficients(image: Image, query: Query, constant: f64, step: f64, centred: bool): void {
  const square = image.delta * image.delta
  const unit = isPlain(image) ? 1 : centred ? square : image.delta
  query.base = <f32>(constant / unit)
  query.alpha = centred ? <f32>(square / unit) : 0
  query.beta = <f32>(((centred ? -2 : -1) * image.delta * step) / unit)
}

/** Makes a row the point that distances are measured from, for building the graph. */
export function prepareRow(image: Image, query: Query, row: u32): void {
  const vector = vectorOf(image, row)
  const reduced = image.metric == DOT
  query.metric = image.metric
  query.raw = vector
  query.vector = vector
  if (image.codes != 0) {
    query.kind = reduced ? CODE_PAIR_REDUCED : CODE_PAIR
    query.weights = codesOf(image, row)
    query.squares = load<u32>(squaresOf(image, row))
  } else {
    query.kind = image.metric == COSINE ? VECTOR_COSINE : reduced ? VECTOR_REDUCED : VECTOR_EUCLIDEAN
    query.inverse = image.metric == COSINE ? 1 / load<f32>(normOf(image, row)) : 1
  }
  if (reduced) query.residue = load<f32>(residueOf(image, row))
}

/** Largest length among all rows, for the reduction of the dot product. */
export function largestNorm(image: Image): f64 {
  let largest: f64 = 0
  for (let row: u32 = 0; row < image.rows; row++) {
    const norm = <f64>load<f32>(normOf(image, row))
    largest = max<f64>(largest, norm == norm ? norm : lengthOf(image, row))
  }
  return largest
}

function lengthOf(image: Image, row: u32): f64 {
  const vector = vectorOf(image, row)
  return Math.sqrt(dotF64(image.dimension, vector, vector))
}

/** Writes the added dimension of `row`, in units of delta where distances are. */
export function storeResidue(image: Image, row: u32): void {
  const length = lengthOf(image, row)
  const residue = Math.sqrt(max<f64>(0, image.maxNorm * image.maxNorm - length * length))
  store<f32>(residueOf(image, row), <f32>(image.codes != 0 ? residue / image.delta : residue))
}
