import type { Metric } from '../../src/index.ts'

export type Scored = { readonly id: string; readonly score: number }

/** Higher is better, in 64-bit floats on the values as they are stored. */
export function scoreOf(metric: Metric, query: Float32Array, vector: Float32Array): number {
  if (metric === 'euclidean') {
    let sum = 0
    for (let i = 0; i < query.length; i++) sum += (query[i]! - vector[i]!) ** 2
    return -Math.sqrt(sum)
  }
  const product = dot(query, vector)
  if (metric === 'dot') return product
  const norms = Math.sqrt(dot(query, query)) * Math.sqrt(dot(vector, vector))
  return norms === 0 ? 0 : Math.max(-1, Math.min(1, product / norms))
}

/** All documents, best first; equal scores by id in the order of UTF-16 code units. */
export function ranking(metric: Metric, query: Float32Array, documents: ReadonlyMap<string, Float32Array>): Scored[] {
  const scored = [...documents].map(([id, vector]) => ({ id, score: scoreOf(metric, query, vector) }))
  return scored.sort((a, b) => b.score - a.score || (a.id < b.id ? -1 : 1))
}

function dot(a: Float32Array, b: Float32Array): number {
  let sum = 0
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!
  return sum
}
