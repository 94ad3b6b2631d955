/**
 * Runs inputs of a target one after the other, and makes findings small.
 */
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { seededChoice } from '../../src/directory/crash-image.ts'
import { withSeededCrypto } from './bases.ts'
import { Finding, type Input, type Outcome, type Target } from './input.ts'
import { Watchdog } from './watchdog.ts'

/** What an input may take, in milliseconds; what never gives the thread back is ended by the watchdog. */
const timeMax = 10_000
/** Attempts to make an input smaller. */
const attemptsMax = 400

/** An input that was met in a way that it must not be. */
export type Found = {
  readonly target: string
  readonly seed: number
  readonly number: number
  readonly signature: string
  readonly problem: string
  readonly stack: string
  readonly input: Input
}

/** What a run came to. */
export type Summary = {
  readonly target: string
  readonly inputs: number
  /** Inputs of which anything was refused. */
  readonly refused: number
  /** Inputs of which everything was answered. */
  readonly answered: number
  readonly refusals: ReadonlyMap<string, number>
  readonly findings: readonly Found[]
  /** Inputs by the signature of what they met. */
  readonly counts: ReadonlyMap<string, number>
}

export type RunOptions = {
  readonly seed: number
  /** Stops after so many inputs. */
  readonly runs?: number
  /** Stops after so many milliseconds. */
  readonly time?: number
  /** The first input. Default 0. */
  readonly from?: number
  readonly onProgress?: (summary: Summary) => void
}

/** Input `number` of a target: the same for the same seed. */
export function inputOf(target: Target, seed: number, number: number): Input {
  return target.make(seededChoice(Math.imul(seed ^ Math.imul(number + 1, 0x9e3779b1), 0x85ebca6b)))
}

const rejections: unknown[] = []
const onRejection = (reason: unknown): void => {
  rejections.push(reason)
}

/** Runs one input to its end, within its time, and with what it leaves behind. */
export async function runInput(target: Target, input: Input): Promise<Outcome> {
  let timer: ReturnType<typeof setTimeout> | undefined
  rejections.length = 0
  try {
    const outcome = await Promise.race([
      withSeededCrypto(0, () => target.run(input)),
      new Promise<never>((_, reject) => {
        timer = setTimeout(() => reject(new Finding(`takes longer than ${timeMax} ms`)), timeMax)
      }),
    ])
    // Rejections that nobody sees are told once the microtasks have come to their end.
    await new Promise((resolve) => setImmediate(resolve))
    if (rejections.length > 0) throw new Finding(`rejects unseen with ${String(rejections[0])}`, rejections[0])
    return outcome
  } finally {
    clearTimeout(timer)
  }
}

/** The finding of an input, if there is one. */
async function findingOf(target: Target, input: Input): Promise<Finding | undefined> {
  try {
    await runInput(target, input)
    return undefined
  } catch (error) {
    if (error instanceof Finding) return error
    // Whatever a target's own code can't explain.
    return new Finding(`the harness fails with ${String(error)}`, error)
  }
}

/** Throws inputs at a target. */
export async function fuzz(target: Target, options: RunOptions): Promise<Summary> {
  const { seed, runs = Number.POSITIVE_INFINITY, time = Number.POSITIVE_INFINITY, from = 0 } = options
  const refusals = new Map<string, number>()
  const counts = new Map<string, number>()
  const findings: Found[] = []
  const watchdog = new Watchdog(`${target.name}, seed ${seed}`, 3 * timeMax)
  const begun = performance.now()
  let inputs = 0
  let refused = 0
  let answered = 0
  const summary = (): Summary => ({ target: target.name, inputs, refused, answered, refusals, findings, counts })
  let progressAt = begun + 5000
  process.on('unhandledRejection', onRejection)
  try {
    for (let number = from; inputs < runs && performance.now() - begun < time; number++) {
      watchdog.feed(number)
      const input = inputOf(target, seed, number)
      inputs++
      try {
        const outcome = await runInput(target, input)
        if (outcome.refusals.length > 0) refused++
        else answered++
        for (const code of outcome.refusals) refusals.set(code, (refusals.get(code) ?? 0) + 1)
      } catch (error) {
        const finding = error instanceof Finding ? error : new Finding(`the harness fails with ${String(error)}`, error)
        const { signature } = finding
        counts.set(signature, (counts.get(signature) ?? 0) + 1)
        if (counts.get(signature) === 1) {
          const small = await shrunk(target, input, finding, watchdog)
          const { cause } = small.finding
          findings.push({
            target: target.name,
            seed,
            number,
            signature,
            problem: small.finding.message,
            stack: (cause instanceof Error ? cause.stack : small.finding.stack) ?? '',
            input: small.input,
          })
        }
      }
      if (performance.now() >= progressAt) {
        options.onProgress?.(summary())
        progressAt = performance.now() + 5000
      }
    }
    return summary()
  } finally {
    process.off('unhandledRejection', onRejection)
    watchdog.end()
  }
}

/** The input with as few and as short steps as still lead to the same finding. */
async function shrunk(
  target: Target,
  input: Input,
  finding: Finding,
  watchdog: Watchdog,
): Promise<{ input: Input; finding: Finding }> {
  const { signature } = finding
  let attempts = 0
  const best = { input, finding }
  const attempt = async (smaller: Input): Promise<boolean> => {
    if (++attempts > attemptsMax) return false
    watchdog.feed(-1)
    const found = await findingOf(target, smaller)
    if (found?.signature !== signature) return false
    best.input = smaller
    best.finding = found
    return true
  }
  for (let i = 0; i < best.input.steps.length; ) {
    if (!(await attempt({ ...best.input, steps: best.input.steps.toSpliced(i, 1) }))) i++
  }
  for (let i = 0; i < best.input.steps.length; i++) {
    for (let isShorter = true; isShorter && attempts <= attemptsMax; ) {
      isShorter = false
      for (const step of target.shorter?.(best.input.steps[i]!) ?? []) {
        isShorter = await attempt({ ...best.input, steps: best.input.steps.with(i, step) })
        if (isShorter) break
      }
    }
  }
  return best
}

/** Keeps a finding in a folder, to be met again by every run of the tests. Returns the name of the file. */
export async function keepFixture(folder: string, { target, seed, number, problem, input }: Found): Promise<string> {
  await mkdir(folder, { recursive: true })
  const name = `${target}-${seed}-${number}.json`
  await writeFile(join(folder, name), `${JSON.stringify({ target, seed, number, problem, input }, null, 2)}\n`)
  return name
}
