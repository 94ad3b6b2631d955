import type { Parameters } from 'fast-check'

const { FAST_CHECK_SEED: seed } = process.env

/** Settings of property tests. The seed of a failure is printed; give it back in `FAST_CHECK_SEED`. */
export function runs<T>(numRuns: number): Parameters<T> {
  return seed === undefined ? { numRuns } : { numRuns, seed: Number(seed) }
}
