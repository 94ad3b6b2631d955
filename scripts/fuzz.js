/**
 * Fuzzing beyond what the tests do: `npm run fuzz -- <target> [--minutes N] [--runs N] [--seed N] [--from N]`; without a target, what
 * targets there are.
 */
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { loadSources } from './load-sources.js'

const usage = `npm run fuzz -- <target> [options]
  --minutes N    how long to run; default 1 unless --runs is given
  --runs N       how many inputs to run
  --seed N       seed of all inputs; default: another one each time
  --from N       number of the first input; default 0
Findings are made small and kept in test/fuzz/fixtures, where the tests meet them again.`

/**
 * @param {string} name
 * @param {string | undefined} text
 */
function numberOf(name, text) {
  if (text === undefined) return undefined
  const number = Number(text)
  if (!Number.isFinite(number) || number < 0) throw new Error(`--${name} takes a number, not ${text}`)
  return number
}

function readArguments() {
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: {
        minutes: { type: 'string' },
        runs: { type: 'string' },
        seed: { type: 'string' },
        from: { type: 'string' },
      },
    })
    const [target, ...others] = positionals
    if (others.length > 0) throw new Error('one target is taken at a time')
    const runs = numberOf('runs', values.runs)
    return {
      target,
      runs,
      time: 60_000 * (numberOf('minutes', values.minutes) ?? (runs === undefined ? 1 : Number.POSITIVE_INFINITY)),
      seed: numberOf('seed', values.seed) ?? Date.now() % 2 ** 31,
      from: numberOf('from', values.from) ?? 0,
    }
  } catch (error) {
    console.error(`${error instanceof Error ? error.message : error}\n\n${usage}`)
    process.exit(2)
  }
}

const { target, runs, time, seed, from } = readArguments()
/** @type {typeof import('../test/fuzz/main.ts')} */
const { Meter, fuzz, keepFixture, targetNames, targetOf } = await loadSources(
  new URL('../test/fuzz/main.ts', import.meta.url),
)
if (target === undefined) {
  console.log(`${usage}\n\nTargets:\n${targetNames.map((each) => `  ${each}`).join('\n')}`)
  process.exit(0)
}
const name = targetNames.find((each) => each === target)
if (name === undefined) {
  console.error(`${target} is none of ${targetNames.join(', ')}\n\n${usage}`)
  process.exit(2)
}
const meter = new Meter()
meter.on()
const begun = performance.now()
console.log(`fuzz: ${target}, seed ${seed}`)
const summary = await fuzz(await targetOf(name, meter), {
  seed,
  from,
  time,
  ...(runs === undefined ? {} : { runs }),
  onProgress: (now) => {
    const perSecond = Math.round(now.inputs / ((performance.now() - begun) / 1000))
    const codes = [...now.refusals].map(([code, count]) => `${code} ${count}`).join(', ')
    console.log(
      `${now.inputs} executions, ${perSecond} a second, ${now.refused} refused (${codes}), ${now.answered} answered, ` +
        `${now.findings.length} findings`,
    )
  },
})
for (const finding of summary.findings) {
  const file = await keepFixture(fileURLToPath(new URL('../test/fuzz/fixtures', import.meta.url)), finding)
  console.log(`\nfinding: ${finding.problem}`)
  console.log(`  input ${finding.number} of seed ${seed}, met by ${summary.counts.get(finding.signature)} inputs`)
  console.log(`  again: npm run fuzz -- ${target} --seed ${seed} --from ${finding.number} --runs 1`)
  console.log(`  kept in test/fuzz/fixtures/${file}\n${finding.stack}`)
}
const codes = [...summary.refusals].map(([code, count]) => `${code} ${count}`).join(', ')
console.log(
  `fuzz: ${summary.inputs} executions (${target}), ${summary.refused} refused (${codes}), ${summary.answered} answered, ` +
    `${summary.findings.length} findings (seed ${seed})`,
)
process.exit(summary.findings.length === 0 ? 0 : 1)
