/**
 * The kernel's arithmetic in plain TypeScript, operation by operation in the same order, so that results must be equal bit for bit.
 */
import type { Metric, Quantizer } from '../../src/kernel/index.ts'

const { fround } = Math

type Combine = (query: number, row: number) => number

/** f32: component i goes to accumulator i mod 16; the sums of i, i + 4, i + 8 and i + 12, then lanes (0 + 1) + (2 + 3). */
function sumF32(query: Float32Array, row: Float32Array, combine: Combine): number {
  const sums = new Float32Array(16)
  for (let i = 0; i < query.length; i++) sums[i % 16]! += combine(query[i]!, row[i]!)
  const pair = (i: number): number => fround(sums[i]! + sums[i + 4]!)
  const lanes = [0, 1, 2, 3].map((lane) => fround(pair(lane) + pair(lane + 8)))
  return fround(fround(lanes[0]! + lanes[1]!) + fround(lanes[2]! + lanes[3]!))
}

/** f64: component i goes to accumulator i mod 4; the sum is (0 + 2) + (1 + 3). */
function sumF64(query: Float32Array | Float64Array, row: Float32Array, combine: Combine): number {
  const sums = new Float64Array(4)
  for (let i = 0; i < query.length; i++) sums[i % 4]! += combine(query[i]!, row[i]!)
  return sums[0]! + sums[2]! + (sums[1]! + sums[3]!)
}

const productF64: Combine = (x, y) => x * y
const squareF64: Combine = (x, y) => (x - y) * (x - y)

export function normOf(vector: Float32Array): number {
  return Math.sqrt(sumF64(vector, vector, productF64))
}

/** What `VectorImage.norms` holds. */
export function storedNorm(vector: Float32Array): number {
  const norm = normOf(vector)
  return norm >= 2 ** -60 && norm <= 2 ** 60 ? fround(norm) : Number.NaN
}

/** What `VectorImage.scan` writes. */
export function scanned(metric: Metric, query: Float32Array, row: Float32Array): number {
  if (metric === 'euclidean') {
    return sumF32(query, row, (x, y) => {
      const difference = fround(x - y)
      return fround(difference * difference)
    })
  }
  const product: Combine = (x, y) => fround(x * y)
  if (metric === 'dot') return -sumF32(query, row, product)
  const norm = normOf(query)
  const scale = norm === 0 ? 0 : 1 / norm
  const unit = query.map((component) => component * scale)
  return fround(-sumF32(unit, row, product) / storedNorm(row))
}

/** What `VectorImage.score` writes. */
export function exactScore(metric: Metric, query: Float32Array, row: Float32Array): number {
  if (metric === 'euclidean') return -Math.sqrt(sumF64(query, row, squareF64))
  const product = sumF64(query, row, productF64)
  if (metric === 'dot') return product
  const length = normOf(row)
  const norm = normOf(query)
  return length === 0 || norm === 0 ? 0 : Math.max(-1, Math.min(1, product / (norm * length)))
}

/** The codes of a row. */
export function encoded(metric: Metric, quantizer: Quantizer, row: Float32Array): Uint8Array {
  const norm = normOf(row)
  const scale = metric !== 'cosine' ? 1 : norm === 0 ? 0 : 1 / norm
  const step = 1 / quantizer.delta
  return Uint8Array.from(row, (component, i) =>
    Math.max(0, Math.min(127, Math.floor((component * scale - quantizer.origin[i]!) * step + 64.5))),
  )
}

/** Length of what codes leave out of a row. */
export function leftOut(metric: Metric, { delta, origin }: Quantizer, row: Float32Array, codes: Uint8Array): number {
  const scale = metric === 'cosine' ? 1 / normOf(row) : 1
  return Math.hypot(...Array.from(row, (component, i) => component * scale - origin[i]! - delta * (codes[i]! - 64)))
}

/** What `VectorImage.scanCodes` writes. */
export function scannedCodes(metric: Metric, quantizer: Quantizer, query: Float32Array, codes: Uint8Array): number {
  const { delta, origin } = quantizer
  const norm = normOf(query)
  const scale = norm === 0 ? 0 : 1 / norm
  const vector = metric === 'cosine' ? query.map((component) => component * scale) : query
  const isCentred = metric === 'euclidean'
  const parts = Array.from(vector, (component, i) => (isCentred ? component - origin[i]! : component))
  const constant = sumF64(Float64Array.from(parts), origin, (part, zero) => part * (isCentred ? part : -zero))
  const largest = Math.max(...parts.map(Math.abs))
  const weights = parts.map((part) => Math.floor(part * (largest === 0 ? 0 : 127 / largest) + 0.5))
  const beta = fround((isCentred ? -2 : -1) * delta * (largest / 127))
  let product = 0
  let term = 0
  for (let i = 0; i < weights.length; i++) {
    product += weights[i]! * (codes[i]! - 64)
    term += (codes[i]! - 64) ** 2
  }
  const sum = fround(fround(constant) + fround(beta * fround(product)))
  return isCentred ? fround(sum + fround(fround(delta * delta) * fround(term))) : sum
}

const mask = (1n << 64n) - 1n
const primes = [
  0x9e3779b185ebca87n,
  0xc2b2ae3d27d4eb4fn,
  0x165667b19e3779f9n,
  0x85ebca77c2b2ae63n,
  0x27d4eb2f165667c5n,
] as const

/** xxh64 by its specification, on big integers. */
export function xxh64(bytes: Uint8Array, seed: bigint): bigint {
  const [p1, p2, p3, p4, p5] = primes
  const rotate = (x: bigint, by: bigint) => ((x << by) | (x >> (64n - by))) & mask
  const round = (sum: bigint, lane: bigint) => (rotate((sum + lane * p2) & mask, 31n) * p1) & mask
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  let at = 0
  let hash = (seed + p5) & mask
  if (bytes.length >= 32) {
    let sums = [seed + p1 + p2, seed + p2, seed, seed - p1].map((sum) => sum & mask)
    for (; at + 32 <= bytes.length; at += 32) {
      sums = sums.map((sum, lane) => round(sum, view.getBigUint64(at + lane * 8, true)))
    }
    const turns = [1n, 7n, 12n, 18n]
    hash = sums.reduce((total, sum, lane) => (total + rotate(sum, turns[lane]!)) & mask, 0n)
    for (const sum of sums) hash = ((hash ^ round(0n, sum)) * p1 + p4) & mask
  }
  hash = (hash + BigInt(bytes.length)) & mask
  for (; at + 8 <= bytes.length; at += 8) {
    hash = (rotate(hash ^ round(0n, view.getBigUint64(at, true)), 27n) * p1 + p4) & mask
  }
  if (at + 4 <= bytes.length) {
    hash = (rotate(hash ^ ((BigInt(view.getUint32(at, true)) * p1) & mask), 23n) * p2 + p3) & mask
    at += 4
  }
  for (; at < bytes.length; at++) hash = (rotate(hash ^ ((BigInt(bytes[at]!) * p5) & mask), 11n) * p1) & mask
  hash = ((hash ^ (hash >> 33n)) * p2) & mask
  hash = ((hash ^ (hash >> 29n)) * p3) & mask
  return hash ^ (hash >> 32n)
}
