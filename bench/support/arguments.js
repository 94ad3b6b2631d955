/**
 * The command line that all questions share.
 */
import { parseArgs } from 'node:util'

/**
 * @typedef {object} Arguments
 * @property {boolean} quick whether to be done within half a minute: small sets, few rounds
 * @property {boolean} write whether to replace the question's tables in docs/benchmarks.md
 * @property {number} rounds alternating rounds of which the median is reported
 * @property {number | undefined} base rows of each set at most
 * @property {readonly string[] | undefined} sets names of the sets to run on
 * @property {string | undefined} folder where temporary databases go
 */

const usage = `Options:
  --quick        small sets and few rounds: a check that everything runs, not a measurement
  --set a,b      only these sets
  --rounds N     alternating rounds, of which the median is reported
  --base N       at most N rows of each set
  --folder PATH  where temporary databases go (default: the system's folder for temporary files)
  --write        also replace this question's tables in docs/benchmarks.md`

/**
 * Reads the command line; says what is wrong with it and ends the process where it makes no sense.
 *
 * @param {{ rounds: number, quickRounds: number, quickBase?: number, base?: number }} defaults
 * @returns {Arguments}
 */
export function readArguments(defaults) {
  try {
    const { values } = parseArgs({
      options: {
        quick: { type: 'boolean', default: false },
        write: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
        rounds: { type: 'string' },
        base: { type: 'string' },
        set: { type: 'string' },
        folder: { type: 'string' },
      },
    })
    if (values.help) {
      console.log(usage)
      process.exit(0)
    }
    const quick = values.quick
    return {
      quick,
      write: values.write,
      rounds: wholeNumber('rounds', values.rounds) ?? (quick ? defaults.quickRounds : defaults.rounds),
      base: wholeNumber('base', values.base) ?? (quick ? defaults.quickBase : defaults.base),
      sets: values.set?.split(','),
      folder: values.folder,
    }
  } catch (error) {
    console.error(`${error instanceof Error ? error.message : error}\n\n${usage}`)
    process.exit(2)
  }
}

/**
 * @param {string} name
 * @param {string | undefined} text
 */
function wholeNumber(name, text) {
  if (text === undefined) return undefined
  if (!/^[1-9]\d*$/.test(text)) throw new Error(`--${name} takes a whole number from 1, not ${text}`)
  return Number(text)
}
