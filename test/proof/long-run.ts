/** The tests of storage without an end: one step after the other, from seed to seed, until the goals are reached. */
import * as fc from 'fast-check'
import { seededChoice } from '../../src/directory/crash-image.ts'
import { CrashRun } from '../support/crash-run.ts'
import { bufferedWork, indexedWork, mixedWork, namedWork, patchedWork, shortWork } from '../support/crash-work.ts'
import { filesOf } from '../support/damage.ts'
import { DamageRun, readDamaged, segmentedImage, segmentedQueries } from '../support/damage-run.ts'
import { FaultSeries, faultWorks } from '../support/fault-work.ts'
import { type Command, command, runCommands } from '../support/model.ts'
import { Scenario } from '../support/scenario.ts'
import { seedCrypto } from '../support/seed.ts'
import { SpareRun } from '../support/spare-run.ts'

/** What has been reached, and where to go on. */
export type LongRunState = {
  /** The seed of the next step. */
  readonly seed: number
  readonly reached: { readonly [measure in Measure]?: number }
  /** Bits of the damaged database that were flipped. */
  readonly nextBit?: number
  /** What was not as it was said, with the seed that repeats it; kept until somebody removes it. */
  readonly violations?: readonly string[]
}

/** What is counted, with its goal. */
const goals = {
  'crash states recovered': 100_000,
  'crashes in recovery': 50_000,
  'damaged crash states': 50_000,
  'fault workloads at every call': Object.keys(faultWorks).length,
  'bits flipped of a whole database': Number.POSITIVE_INFINITY,
  'model commands': 5_000_000,
  'kill -9 rounds': 1000,
  'lock races': 10_000,
  'seconds of load': 600,
} as const

type Measure = keyof typeof goals

/** Time for one step, after which another measure has its turn. */
const stepMs = 20_000

/** Runs a test that makes processes of its own, under settings of the environment; rejects with its output if it fails. */
export type ProcessTest = (file: string, settings: { readonly [name: string]: string }) => Promise<void>

/** The state of a long run. */
export class LongRun {
  /** What was not as it was said, each with the seed that repeats it. */
  readonly violations: string[]
  #seed: number
  #nextBit: number
  #turn: number
  readonly #only: string | undefined
  readonly #reached: { [measure in Measure]: number }
  /** Bits of the damaged database; known once it is made. */
  #bitCount = Number.POSITIVE_INFINITY
  readonly #processTest: ProcessTest

  /** @param only the one measure to work on; by default all have their turns */
  constructor(
    { seed, reached = {}, nextBit = 0, violations = [] }: Partial<LongRunState> & { seed: number },
    processTest: ProcessTest,
    only?: string,
  ) {
    if (only !== undefined && !(only in goals)) {
      throw new Error(`there is no measure ${only}, only ${Object.keys(goals).join(', ')}`)
    }
    this.#seed = seed
    this.#turn = seed
    this.#nextBit = nextBit
    this.violations = [...violations]
    this.#processTest = processTest
    this.#only = only
    this.#reached = Object.fromEntries(
      Object.keys(goals).map((measure) => [measure, reached[measure as Measure] ?? 0]),
    ) as { [measure in Measure]: number }
  }

  /** What is needed to go on later. */
  get state(): LongRunState {
    return { seed: this.#seed, reached: this.#reached, nextBit: this.#nextBit, violations: this.violations }
  }

  get isDone(): boolean {
    return this.#pending.length === 0
  }

  /** Rows of the table: measure, reached, goal, violations. */
  get rows(): [Measure, number, number, number][] {
    const measures = Object.keys(goals) as Measure[]
    return measures.map((measure) => [
      measure,
      this.#reached[measure],
      this.#goalOf(measure),
      this.violations.filter((violation) => violation.startsWith(measure)).length,
    ])
  }

  /** What the table doesn't say. */
  get notes(): string[] {
    return [
      `next seed: ${this.#seed}`,
      'crash states are distinct within one seed; from seed to seed every file differs by its uuid',
    ]
  }

  get progress(): string {
    return this.rows.map(([measure, reached, goal]) => `${measure} ${reached}/${goal}`).join(', ')
  }

  #goalOf(measure: Measure): number {
    return measure === 'bits flipped of a whole database' ? this.#bitCount : goals[measure]
  }

  get #pending(): Measure[] {
    const isWanted = (measure: Measure): boolean => this.#only === undefined || this.#only === measure
    return (Object.keys(goals) as Measure[]).filter(
      (measure) => isWanted(measure) && this.#reached[measure] < this.#goalOf(measure),
    )
  }

  /** Works on the next measure whose goal isn't reached, for some seconds at most. */
  async step(deadline: number): Promise<void> {
    const pending = this.#pending
    const measure = pending[this.#turn++ % pending.length]!
    const seed = this.#seed++
    const end = Math.min(deadline, performance.now() + stepMs)
    const restore = seedCrypto(seed)
    try {
      await this.#steps[measure](seed, () => performance.now() >= end)
    } catch (error) {
      const what = error instanceof Error ? error.stack : String(error)
      this.violations.push(`${measure}: ${what}\nrepeat with --seed ${seed} --measure '${measure}'`)
    } finally {
      restore()
    }
  }

  readonly #steps: { [measure in Measure]: (seed: number, isOver: () => boolean) => Promise<void> } = {
    'crash states recovered': (seed, isOver) => this.#crash(seed, isOver, 6, 60),
    // Every second call's recovery is crashed.
    'crashes in recovery': (seed, isOver) => this.#crash(seed, isOver, 1, 2),
    'damaged crash states': async (seed, isOver) => {
      const run = new SpareRun(seededChoice(seed))
      const scenario = await scenarioOf(seed)
      // There is no time for all calls, and what comes late in a history has more behind it.
      const from = seededChoice(seed)(scenario.backend.changes.length)
      await run.damageEverywhere(scenario, isOver, from)
      this.#reached['damaged crash states'] += run.checked
    },
    'fault workloads at every call': async (seed) => {
      const works = Object.keys(faultWorks) as (keyof typeof faultWorks)[]
      const work = works[this.#reached['fault workloads at every call']]!
      // A workload only counts as a whole.
      await new FaultSeries(seed).failEverywhere(faultWorks[work])
      this.#reached['fault workloads at every call']++
    },
    'bits flipped of a whole database': async (_, isOver) => {
      const restore = seedCrypto(1)
      try {
        await this.#flip(isOver)
      } finally {
        restore()
      }
    },
    'model commands': async (seed, isOver) => {
      const commands = fc.array(command, { minLength: 10, maxLength: 60, size: 'max' })
      const metrics = ['euclidean', 'dot', 'cosine'] as const
      for (let round = 0; !isOver(); round++) {
        const metric = metrics[round % metrics.length]!
        const isLarge = round % 5 === 4
        const run = async (list: Command[]): Promise<void> => {
          this.#reached['model commands'] += await runCommands(metric, isLarge ? 1060 : 0, list)
        }
        await fc.assert(fc.asyncProperty(commands, run), { numRuns: isLarge ? 3 : 20, seed: seed * 1000 + round })
      }
    },
    'kill -9 rounds': async (seed) => {
      const rounds = 25
      await this.#processTest('test/process/kill.test.ts', {
        ISOVEC_SEED: String(seed),
        ISOVEC_KILL_ROUNDS: String(rounds),
      })
      this.#reached['kill -9 rounds'] += rounds
    },
    'lock races': async (seed) => {
      const rounds = 100
      await this.#processTest('test/process/lock.test.ts', {
        ISOVEC_SEED: String(seed),
        ISOVEC_RACE_ROUNDS: String(rounds),
      })
      // Eight openers take part in each round.
      this.#reached['lock races'] += rounds
    },
    'seconds of load': async () => {
      // Long enough at a time to see whether memory grows.
      const seconds = 60
      await this.#processTest('test/process/load.test.ts', { ISOVEC_LOAD_SECONDS: String(seconds) })
      this.#reached['seconds of load'] += seconds
    },
  }

  async #crash(seed: number, isOver: () => boolean, powerImages: number, recoveryStep: number): Promise<void> {
    const run = new CrashRun(seed)
    try {
      await run.crashEverywhere(await scenarioOf(seed), powerImages, recoveryStep, isOver)
    } finally {
      this.#reached['crash states recovered'] += run.states.size
      this.#reached['crashes in recovery'] += run.recoveryStates.size
    }
  }

  /** Goes on with every bit of a database with files of every kind. */
  async #flip(isOver: () => boolean): Promise<void> {
    const image = await segmentedImage()
    const whole = (await readDamaged(image, segmentedQueries))!
    const run = new DamageRun()
    let first = 0
    for (const file of filesOf(image)) {
      const size = file.bytes.length * 8
      for (; this.#nextBit < first + size && !isOver(); this.#nextBit++) {
        await run.flip(image, file, this.#nextBit - first, whole, segmentedQueries)
        this.#reached['bits flipped of a whole database']++
      }
      first += size
    }
    this.#bitCount = first
  }
}

/** Work of one of several kinds, as the seed decides, done. */
async function scenarioOf(seed: number): Promise<Scenario> {
  const choose = seededChoice(seed)
  const scenario = new Scenario(choose)
  const kind = choose(12)
  if (kind === 0) await shortWork(scenario)
  else if (kind === 1) await bufferedWork(scenario)
  else if (kind === 2) await namedWork(scenario)
  else if (kind === 3) await indexedWork(scenario)
  else if (kind < 6) await patchedWork(scenario, 20 + choose(40))
  else await mixedWork(scenario, 10 + choose(30))
  return scenario
}
