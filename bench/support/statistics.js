/**
 * Numbers from samples.
 */

/**
 * The middle of the values; the mean of the two in the middle where their number is even.
 *
 * @param {readonly number[]} values at least one
 */
export function median(values) {
  return quantile(values, 0.5)
}

/**
 * @param {readonly number[]} values at least one
 * @param {number} share 0 to 1
 */
export function quantile(values, share) {
  if (values.length === 0) throw new RangeError('no samples')
  const sorted = [...values].sort((a, b) => a - b)
  const place = (sorted.length - 1) * share
  const low = Math.floor(place)
  const lower = sorted[low] ?? Number.NaN
  const upper = sorted[Math.min(low + 1, sorted.length - 1)] ?? Number.NaN
  return lower + (upper - lower) * (place - low)
}

/**
 * Numbers from 0 to 1 that are the same in every run (mulberry32).
 *
 * @param {number} seed
 * @returns {() => number}
 */
export function randomFrom(seed) {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296
  }
}

/**
 * Normally distributed numbers that are the same in every run (Box and Muller).
 *
 * @param {() => number} random
 * @returns {() => number}
 */
export function normalFrom(random) {
  /** @type {number | undefined} */
  let spare
  return () => {
    if (spare !== undefined) {
      const value = spare
      spare = undefined
      return value
    }
    const radius = Math.sqrt(-2 * Math.log(1 - random()))
    const angle = 2 * Math.PI * random()
    spare = radius * Math.sin(angle)
    return radius * Math.cos(angle)
  }
}
