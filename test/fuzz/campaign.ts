/**
 * Runs of targets as tests: how many inputs, what came of them, and what is told of it at the end.
 */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { seed } from '../support/seed.ts'
import { makeBases } from './bases.ts'
import { Meter } from './meter.ts'
import { fuzz, type Summary } from './runner.ts'
import { type TargetName, targetOf } from './targets.ts'

/** Watches the memory that targets ask for, between the first and the last test of a file that calls {@link prepare}. */
export const meter = new Meter()

/** Makes the bases and watches memory for all tests of a file. */
export function prepare(): void {
  beforeAll(async () => {
    meter.on()
    await makeBases()
  }, 120_000)
  afterAll(() => meter.off())
}

/** What a run came to. */
export type Outcome = Pick<Summary, 'target' | 'inputs' | 'refused' | 'answered' | 'findings'>

/** Runs a target in this process; {@link prepare} comes before it. */
async function runHere(name: TargetName, runs: number): Promise<Outcome> {
  return fuzz(await targetOf(name, meter), { seed, runs })
}

/**
 * One test for each target.
 * @param runs how many inputs each is given
 * @param executionsMin inputs that there must be of all targets together
 * @param run runs a target, by default in this process
 */
export function campaign(
  runs: { readonly [name in TargetName]?: number },
  executionsMin = 0,
  run: (name: TargetName, runs: number) => Promise<Outcome> = runHere,
): void {
  const summaries: Outcome[] = []

  afterAll(() => {
    const sum = (count: (summary: Outcome) => number): number => summaries.reduce((all, each) => all + count(each), 0)
    const inputs = summaries.map(({ target, inputs }) => `${target} ${inputs}`).join(', ')
    console.log(
      `fuzz: ${sum((each) => each.inputs)} executions (${inputs}), ${sum((each) => each.refused)} refused, ` +
        `${sum((each) => each.answered)} answered, ${sum((each) => each.findings.length)} findings (ISOVEC_SEED=${seed})`,
    )
  })

  const names = Object.keys(runs) as TargetName[]
  test.each(names)('%s', { timeout: 600_000 }, async (name) => {
    const summary = await run(name, runs[name]!)
    summaries.push(summary)
    const told = summary.findings.map(
      ({ number, problem, stack, input }) =>
        `input ${number}: ${problem}\n${stack}\n${JSON.stringify(input).slice(0, 3000)}`,
    )
    expect(told.join('\n\n'), `ISOVEC_SEED=${seed}`).toBe('')
    expect(summary.inputs).toBe(runs[name])
    // Damage that is never noticed is no damage, and what is never answered is not read.
    expect(summary.refused).toBeGreaterThan(summary.inputs / 50)
    expect(summary.answered).toBeGreaterThan(0)
  })

  test('there are enough of them', () => {
    const made = summaries.reduce((sum, { inputs }) => sum + inputs, 0)
    expect(made).toBeGreaterThan(0)
    expect(made).toBeGreaterThanOrEqual(executionsMin)
  })
}
