/**
 * Openings are measured in processes of their own: this starts them, and `process.js` is what runs in them.
 */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { fixed } from './report.js'
import { median } from './statistics.js'

/** @typedef {import('./process.js').Order} Order */
/** @typedef {import('./process.js').Opened} Opened */
/** @typedef {import('./process.js').Outcome} Outcome */

const worker = fileURLToPath(new URL('process.js', import.meta.url))

/**
 * Runs an order in a new process, which stays until it is ended.
 *
 * @param {Order} order
 * @returns {Promise<{ outcome: Outcome, kill: () => Promise<void>, close: () => Promise<void> }>}
 */
export async function run(order) {
  const child = fork(worker, { stdio: 'inherit' })
  const ended = once(child, 'exit')
  child.send(order)
  const first = await Promise.race([once(child, 'message'), ended.then(() => undefined)])
  if (first === undefined) throw new Error(`the process for "${order.kind}" ended early`)
  return {
    outcome: first[0],
    async kill() {
      child.kill('SIGKILL')
      await ended
    },
    async close() {
      child.send('close')
      const [code] = await ended
      if (code !== 0) throw new Error(`closing ended with ${code}`)
    },
  }
}

/**
 * Opens a database in a new process, which then ends in one of two ways.
 *
 * @param {string} path
 * @param {number} docs how many documents there must be
 * @param {boolean} isKilled
 * @returns {Promise<Opened>}
 */
export async function measureOpening(path, docs, isKilled) {
  const opening = await run({ kind: 'open', path })
  if (opening.outcome.kind !== 'opened') throw new Error('not opened')
  if (opening.outcome.docs !== docs) throw new Error(`${opening.outcome.docs} documents of ${docs} came back`)
  await (isKilled ? opening.kill() : opening.close())
  return opening.outcome
}

/**
 * The median over rounds, as a cell of a table.
 *
 * @param {readonly Opened[]} rounds
 * @param {(opened: Opened) => number} value
 * @param {number} [digits] after the point
 */
export function middle(rounds, value, digits = 0) {
  return fixed(median(rounds.map(value)), digits)
}
