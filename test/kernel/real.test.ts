import { existsSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { Metric } from '../../src/kernel/index.ts'
import { buildWhole, clusters, imageOf, kernelOf, recallOf } from './support.ts'

const root = resolve(process.env.ISOVEC_DATA ?? '../shared/data')

/** Vectors of an .fbin or .u8bin file: count, dimension, components. */
function readVectors(file: string): Float32Array[] {
  const bytes = readFileSync(file)
  const [count, dimension] = [bytes.readUInt32LE(0), bytes.readUInt32LE(4)]
  const width = file.endsWith('.u8bin') ? 1 : 4
  return Array.from({ length: count }, (_, row) => {
    const start = 8 + row * dimension * width
    return Float32Array.from({ length: dimension }, (_, i) =>
      width === 1 ? bytes[start + i]! : bytes.readFloatLE(start + i * 4),
    )
  })
}

/** A real set, or clusters of the same shape where it's not at hand. */
function load(name: string, dimension: number): { rows: Float32Array[]; questions: Float32Array[] } {
  const folder = join(root, name)
  if (!existsSync(folder)) {
    console.log(`${folder} is missing: clusters are used in its place`)
    const all = clusters(3100, dimension, 51)
    return { rows: all.slice(0, 3000), questions: all.slice(3000) }
  }
  const base = ['base.fbin', 'base.u8bin'].map((file) => join(folder, file)).find(existsSync)!
  return { rows: readVectors(base), questions: readVectors(join(folder, 'query.fbin')) }
}

const sets: readonly (readonly [name: string, metric: Metric, dimension: number, ef: number, visits: number])[] = [
  ['glove2024-50-2k', 'cosine', 50, 24, 400],
  ['sift-texmex-5k', 'euclidean', 128, 64, 1100],
]

describe('recall on real vectors', async () => {
  const kernel = await kernelOf('simd')
  for (const [name, metric, dimension, ef, visits] of sets) {
    it(`of ${name} is 0.95 on codes and f32 within ${visits} visits`, () => {
      const { rows, questions } = load(name, dimension)
      for (const codes of [true, false]) {
        const image = imageOf(kernel, metric, rows, { codes })
        buildWhole(image, 500, { M: 16, efConstruction: 200, seed: 1 })
        const { recall, visited } = recallOf(image, questions, 10, ef)
        expect(recall).toBeGreaterThan(0.95)
        expect(visited).toBeLessThan(visits)
        image.release()
      }
    })
  }
})
