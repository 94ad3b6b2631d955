import { describe, expect, it } from 'vitest'
import type { Metric } from '../../src/kernel/index.ts'
import { loadSet } from '../support/sets.ts'
import { buildWhole, imageOf, kernelOf, recallOf } from './support.ts'

const sets: readonly (readonly [name: string, metric: Metric, dimension: number, ef: number, visits: number])[] = [
  ['glove2024-50-2k', 'cosine', 50, 24, 400],
  ['sift-texmex-5k', 'euclidean', 128, 64, 1100],
]

describe('recall on real vectors', async () => {
  const kernel = await kernelOf('simd')
  for (const [name, metric, dimension, ef, visits] of sets) {
    it(`of ${name} is 0.95 on codes and f32 within ${visits} visits`, () => {
      const { rows, questions } = loadSet(name, dimension, 10_000, 100)
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
