/**
 * Whether answers are worth their time.
 */
import { neighbourCount } from './sets.js'

/**
 * The share of the true ten nearest that was found, averaged over the queries.
 *
 * @param {readonly ReadonlySet<number>[]} truth
 * @param {readonly (readonly number[])[]} answers rows for each query, best first
 */
export function recallOf(truth, answers) {
  if (truth.length !== answers.length) throw new RangeError(`${answers.length} answers to ${truth.length} queries`)
  let found = 0
  truth.forEach((nearest, query) => {
    const rows = new Set(answers[query]?.slice(0, neighbourCount))
    let hits = 0
    for (const row of rows) if (nearest.has(row)) hits++
    found += Math.min(hits, neighbourCount)
  })
  return found / (truth.length * neighbourCount)
}

/**
 * The smallest beam whose recall reaches a target: recall grows with the beam, so doubling and then halving finds it.
 *
 * @param {number} target
 * @param {number} least
 * @param {number} most
 * @param {(ef: number) => Promise<number>} measure recall of a beam
 * @returns {Promise<number | undefined>} undefined where even `most` falls short
 */
export async function smallestBeam(target, least, most, measure) {
  let low = least
  let high = least
  while ((await measure(high)) < target) {
    if (high === most) return undefined
    low = high + 1
    high = Math.min(most, high * 2)
  }
  while (low < high) {
    const middle = (low + high) >> 1
    if ((await measure(middle)) >= target) high = middle
    else low = middle + 1
  }
  return high
}
