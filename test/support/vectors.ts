/** Numbers from 0 to 1 that depend on the seed alone: mulberry32. */
export function randomNumbers(seed: number): () => number {
  let state = seed | 0
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** A vector of the standard normal distribution, by Box and Muller. */
export function normalVector(dimension: number, random: () => number): Float32Array {
  const vector = new Float32Array(dimension)
  for (let i = 0; i < dimension; i++) {
    vector[i] = Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random())
  }
  return vector
}

/** Documents `d0`, `d1`, … with payload `{ number }`, in clusters as embeddings have them. */
export function* clusteredDocuments(
  count: number,
  dimension: number,
  seed = 1,
): Generator<{ id: string; vector: Float32Array; payload: { number: number } }> {
  const random = randomNumbers(seed)
  const centres = Array.from({ length: 50 }, () => normalVector(dimension, random))
  for (let number = 0; number < count; number++) {
    const centre = centres[Math.floor(random() * centres.length)]!
    const vector = normalVector(dimension, random).map((component, i) => 0.5 * component + centre[i]!)
    yield { id: `d${number}`, vector, payload: { number } }
  }
}

/** The first of what is iterated; there must be one. */
export function firstOf<T>(values: Iterable<T>): T {
  for (const value of values) return value
  throw new Error('nothing is first')
}
