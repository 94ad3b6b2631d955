import { spawn } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { bundleForChild } from '../support/bundle.ts'
import { seed } from '../support/seed.ts'
import type { Outcome } from './child.ts'
import { type HarnessName, harnesses } from './harness.ts'
import { type Mutant, mutants } from './mutants.ts'

const entry = new URL('child.ts', import.meta.url)
const sources = fileURLToPath(new URL('../../src/', import.meta.url))
/** Time for one harness, which takes seconds on a machine with nothing else to do. */
const timeMax = 180_000

/** Replaces the mutant's text in its file while that is bundled. */
function mutation({ file, find, replace }: Mutant) {
  return {
    name: 'mutant',
    enforce: 'pre' as const,
    transform: (code: string, id: string) =>
      id.split('?')[0] === `${sources}${file}` ? code.replace(find, () => replace) : undefined,
  }
}

/** Runs a harness on a bundle in a process of its own; undefined if it took too long. */
function runHarness(bundle: string, name: HarnessName, of = seed): Promise<Outcome | undefined> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [bundle, name, String(of)], { stdio: ['ignore', 'pipe', 'pipe'] })
    let isLate = false
    const timer = setTimeout(() => {
      isLate = true
      child.kill('SIGKILL')
    }, timeMax)
    let [out, errors] = ['', '']
    child.stdout.on('data', (data: Buffer) => {
      out += data.toString()
    })
    child.stderr.on('data', (data: Buffer) => {
      errors += data.toString()
    })
    child.on('error', reject)
    child.on('close', (code) => {
      clearTimeout(timer)
      if (isLate) resolve(undefined)
      // A process that dies of what nobody caught has not kept what was said either.
      else if (out === '') resolve({ violation: `the process ended with ${code}: ${errors.trim().split('\n').at(-1)}` })
      else resolve(JSON.parse(out) as Outcome)
    })
  })
}

/** Seeds that a mutant has to get past. */
const seedsPerMutant = 4

/** Does all of a list, as many at once as there are processors. */
async function inParallel<T>(list: readonly T[], run: (item: T) => Promise<void>): Promise<void> {
  const rest = [...list]
  const worker = async (): Promise<void> => {
    for (let item = rest.shift(); item !== undefined; item = rest.shift()) await run(item)
  }
  await Promise.all(Array.from({ length: availableParallelism() }, worker))
}

describe('rules of the protocol', () => {
  test.each(mutants)('the text of "$name" is there once', async ({ file, find }) => {
    const source = await readFile(`${sources}${file}`, 'utf8')
    expect(source.split(find).length - 1).toBe(1)
  })

  test('the page on durability lists them', async () => {
    const page = await readFile(new URL('../../docs/durability.md', import.meta.url), 'utf8')
    const listed = [...page.split('## Rules that are taken out')[1]!.matchAll(/^\| (.+) \| (.+) \| (.+) \|$/gm)].slice(
      1,
    )
    expect(listed.map(([, name, rule, harness]) => [name, rule, harness])).toEqual(
      mutants.map(({ name, rule, harness }) => [name, rule, harness]),
    )
  })

  test('mutants have names of their own', () => {
    expect(new Set(mutants.map(({ name }) => name)).size).toBe(mutants.length)
  })

  test('every harness passes where no rule is broken', { timeout: 600_000 }, async () => {
    const bundle = await bundleForChild(entry)
    const violations: string[] = []
    await inParallel(Object.keys(harnesses) as HarnessName[], async (name) => {
      const outcome = await runHarness(bundle, name)
      if (outcome === undefined || 'violation' in outcome)
        violations.push(`${name}: ${outcome?.violation ?? 'too slow'}`)
    })
    expect(violations).toEqual([])
  })

  test('none can be broken unnoticed', { timeout: 900_000 }, async () => {
    const survivors: string[] = []
    await inParallel(mutants, async (mutant) => {
      const bundle = await bundleForChild(entry, { plugins: [mutation(mutant)] })
      let done = 'too slow'
      // What work in the background does meanwhile depends on the machine: another order of things may show what one has not.
      for (let round = 0; round < seedsPerMutant; round++) {
        const outcome = await runHarness(bundle, mutant.harness, seed + round)
        if (outcome !== undefined && 'violation' in outcome) return
        if (outcome !== undefined) done = outcome.done
      }
      survivors.push(`${mutant.name} (${mutant.harness}: ${done})`)
    })
    console.log(`mutants: ${mutants.length - survivors.length} of ${mutants.length} caught (ISOVEC_SEED=${seed})`)
    expect(survivors).toEqual([])
  })
})
