/**
 * The long run of the tests of storage: from seed to seed until the goals are reached, or the time is over.
 *
 * `npm run prove -- --minutes 30 --seed 1 --resume prove.json`
 *
 * `--resume FILE` keeps what was reached, violations too, and goes on from there. `--measure NAME` works on one row of the table alone, which with the seed of
 * a violation repeats it. Ends with code 1 where something was not as it was said.
 */
import { execFile } from 'node:child_process'
import { readFile, rename, writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs, promisify } from 'node:util'
import { loadSources } from './load-sources.js'

/** @typedef {import('../test/proof/long-run.ts').LongRunState} LongRunState */

const root = fileURLToPath(new URL('..', import.meta.url))

/**
 * Runs a test that makes processes of its own.
 *
 * @param {string} file
 * @param {{ readonly [name: string]: string }} settings
 */
async function runProcessTest(file, settings) {
  const options = { cwd: root, env: { ...process.env, ...settings }, maxBuffer: 2 ** 26 }
  try {
    await promisify(execFile)(process.execPath, ['node_modules/vitest/vitest.mjs', 'run', file], options)
  } catch (error) {
    const { stdout } = /** @type {{ stdout?: string }} */ (error)
    throw new Error(`${file} failed:\n${stdout ?? error}`, { cause: error })
  }
}

/**
 * @param {string} text
 * @param {string} name
 */
function wholeNumber(text, name) {
  const value = Number(text)
  if (!Number.isFinite(value) || value < 0) throw new Error(`--${name} takes a number, not ${text}`)
  return value
}

/**
 * What an earlier run has reached, if there was one.
 *
 * @param {string} file
 * @returns {Promise<LongRunState | undefined>}
 */
async function readState(file) {
  try {
    return JSON.parse(await readFile(file, 'utf8'))
  } catch (error) {
    if (/** @type {NodeJS.ErrnoException} */ (error).code !== 'ENOENT') throw error
    return undefined
  }
}

/**
 * Replaces the state in one step, so that an interrupted run leaves a whole one.
 *
 * @param {string} file
 * @param {LongRunState} state
 */
async function writeState(file, state) {
  await writeFile(`${file}.new`, `${JSON.stringify(state, null, 2)}\n`)
  await rename(`${file}.new`, file)
}

/** @param {readonly (readonly (string | number)[])[]} rows */
function printTable(rows) {
  const lines = [['measure', 'reached', 'goal', 'violations'], ...rows.map((row) => row.map(String))]
  const widths = [0, 1, 2, 3].map((column) => Math.max(...lines.map((line) => line[column]?.length ?? 0)))
  for (const line of lines) {
    const cells = line.map((cell, column) => {
      const width = widths[column] ?? 0
      return column === 0 ? cell.padEnd(width) : cell.padStart(width)
    })
    console.log(cells.join('  '))
  }
}

const { values } = parseArgs({
  options: {
    minutes: { type: 'string' },
    seed: { type: 'string' },
    resume: { type: 'string' },
    measure: { type: 'string' },
  },
})
const minutes = values.minutes === undefined ? Number.POSITIVE_INFINITY : wholeNumber(values.minutes, 'minutes')
const deadline = performance.now() + minutes * 60_000
/** @type {typeof import('../test/proof/long-run.ts')} */
const { LongRun } = await loadSources(new URL('../test/proof/long-run.ts', import.meta.url))
const known = values.resume === undefined ? undefined : await readState(values.resume)
const seed = values.seed === undefined ? (known?.seed ?? 1) : wholeNumber(values.seed, 'seed')
const run = new LongRun({ ...known, seed }, runProcessTest, values.measure)
let reportedAt = performance.now()
const before = run.violations.length
while (!run.isDone && run.violations.length === before && performance.now() < deadline) {
  await run.step(deadline)
  if (values.resume !== undefined) await writeState(values.resume, run.state)
  if (performance.now() - reportedAt > 60_000) {
    reportedAt = performance.now()
    console.error(run.progress)
  }
}
printTable(run.rows)
for (const note of run.notes) console.log(note)
if (run.violations.length > 0) {
  for (const violation of run.violations) console.error(violation)
  process.exitCode = 1
}
