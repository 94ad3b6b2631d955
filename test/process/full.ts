/** What is written until a disk is full, by the tests as by their child. */
export type Payload = { n: number; text: string }

export const dimension = 128
export const collectionOptions = { dimension, metric: 'euclidean', compaction: 'auto', index: 'manual' } as const

/** A document that says its value in its vector as in its payload. */
export function documentOf(id: string, value: number): { id: string; vector: number[]; payload: Payload } {
  const vector = Array.from({ length: dimension }, (_, i) => (i === 0 ? value : i))
  return { id, vector, payload: { n: value, text: 'x'.repeat(600) } }
}
