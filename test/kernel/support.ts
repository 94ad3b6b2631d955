/** Kernels and data for the tests of the kernel. */
import { readFileSync } from 'node:fs'
import { type Kernel, loadKernel, type Metric, type VectorImage } from '../../src/kernel/index.ts'
import { normalVector, randomNumbers } from '../support/vectors.ts'

export const metrics: readonly Metric[] = ['cosine', 'dot', 'euclidean']

/** The kernel of one build; `debug` checks its own assertions. */
export function kernelOf(build: 'simd' | 'relaxed' | 'debug'): Promise<Kernel> {
  return loadKernel({ wasm: readFileSync(new URL(`../../build/kernel.${build}.wasm`, import.meta.url)) })
}

export function bytesOf(vector: Float32Array): Uint8Array {
  return new Uint8Array(vector.buffer, vector.byteOffset, vector.byteLength)
}

/** An image of `vectors`; with codes if asked for. */
export function imageOf(
  kernel: Kernel,
  metric: Metric,
  vectors: readonly Float32Array[],
  options: { codes?: boolean } = {},
): VectorImage {
  const dimension = vectors[0]!.length
  const image = kernel.createPool().createImage({ dimension, metric, capacity: vectors.length })
  for (const vector of vectors) image.append(bytesOf(vector))
  if (options.codes) {
    const quantizer = image.calibrate()
    if (quantizer === null) throw new Error('these rows have no quantiser')
    image.setQuantizer(quantizer)
    image.encode(0, image.rows)
  }
  return image
}

/** Vectors in clusters of unequal length, as embeddings under every metric may be. */
export function clusters(count: number, dimension: number, seed: number): Float32Array[] {
  const random = randomNumbers(seed)
  const centres = Array.from({ length: 40 }, () => normalVector(dimension, random))
  return Array.from({ length: count }, () => {
    const centre = centres[Math.floor(random() * centres.length)]!
    const length = 0.5 + random()
    return normalVector(dimension, random).map((component, i) => length * (0.6 * component + centre[i]!))
  })
}

/** Builds the whole graph, `slice` rows a call. */
export function buildWhole(image: VectorImage, slice = 500, options = { M: 16, efConstruction: 100, seed: 7 }): void {
  image.beginGraph(options)
  while (!image.buildGraph(slice));
}

/** The `k` best rows by exact score, ties to the lower row. */
export function exactTop(image: VectorImage, k: number): number[] {
  const rows = Uint32Array.from({ length: image.rows }, (_, row) => row).filter((row) => !image.isDead(row))
  const scores = new Float64Array(rows.length)
  image.score(rows, rows.length, scores)
  const order = Array.from(rows.keys()).sort((a, b) => scores[b]! - scores[a]! || a - b)
  return order.slice(0, k).map((index) => rows[index]!)
}

/** Recall of the `k` best after exact scoring of what the walk finds, and rows visited per question. */
export function recallOf(
  image: VectorImage,
  questions: readonly Float32Array[],
  k: number,
  ef: number,
): { recall: number; visited: number } {
  const out = { rows: new Uint32Array(ef), distances: new Float32Array(ef) }
  const scores = new Float64Array(ef)
  let hits = 0
  let visited = 0
  for (const question of questions) {
    image.prepare(question)
    const found = image.search(ef, out)
    visited += found.visited
    image.score(out.rows, found.count, scores)
    const order = Array.from({ length: found.count }, (_, i) => i).sort((a, b) => scores[b]! - scores[a]!)
    const best = new Set(order.slice(0, k).map((i) => out.rows[i]!))
    for (const row of exactTop(image, k)) if (best.has(row)) hits++
  }
  return { recall: hits / (k * questions.length), visited: visited / questions.length }
}
