/**
 * Damaged bytes that are given to one reader of the library, without a database around it: thousands in the time of one opening.
 */
import type { Choice } from '../../src/directory/crash-image.ts'
import { IsovecError, type IsovecErrorCode } from '../../src/errors.ts'
import type { Kernel } from '../../src/kernel/index.ts'
import { Finding, type Input, type Json, type Outcome, pick, type Target } from './input.ts'
import type { Kind } from './layout.ts'
import type { Meter } from './meter.ts'
import { decodeSplice, mutated, spliced } from './mutate.ts'
import { type Repair, repairFile } from './repair.ts'

/** Bytes as they were written, and what reads them. */
export type Sample = {
  /** Names it in what is kept of an input. */
  readonly name: string
  readonly kind: Kind
  readonly bytes: Uint8Array
  /** Whether checksums guard the bytes, so that what was not repaired must be refused or read as it was. */
  readonly isGuarded: boolean
  /** Reads bytes in the place of its own, step by step. Throws {@link Finding} where an answer is impossible. */
  read(bytes: Uint8Array, reading: Reading): Promise<void>
}

/** What a reader may refuse bytes with. */
const refusals: ReadonlySet<IsovecErrorCode> = new Set(['CORRUPTION', 'UNSUPPORTED_VERSION'])

/** Memory that reading a few kilobytes may ask for, and how much of it at once. */
const allocatedMax = 16 * 1024 * 1024
const allocatedAtOnceMax = 4 * 1024 * 1024

/** One reading of a sample: what was refused, and what was answered. */
export class Reading {
  readonly repair: Repair | 'none'
  /** Codes of what was refused. */
  readonly codes = new Set<IsovecErrorCode>()
  readonly answers = new Map<string, string>()
  readonly #whole: ReadonlyMap<string, string> | undefined

  /** Whether it is being found out what the sample answers as it is. */
  get isFirst(): boolean {
    return this.#whole === undefined
  }

  /** @param whole what the sample answers as it is; undefined if that is being found out */
  constructor(repair: Repair | 'none', whole: ReadonlyMap<string, string> | undefined) {
    this.repair = repair
    this.#whole = whole
  }

  /** What a step gives; undefined where it is refused. */
  async attempt<T>(step: string, run: () => T | Promise<T>): Promise<T | undefined> {
    try {
      return await run()
    } catch (error) {
      this.refuse(step, error)
      return undefined
    }
  }

  /** Notes that a step was refused, as it may be. */
  refuse(step: string, error: unknown): void {
    if (error instanceof Finding) throw error
    if (!(error instanceof IsovecError) || !refusals.has(error.code)) {
      throw new Finding(`${step} is met with ${String(error).slice(0, 200)}`, error)
    }
    this.codes.add(error.code)
  }

  /**
   * Notes what a step answered. Where no checksum was made to fit, that is what it was before the damage.
   * @param fits whether an answer may take the place of the one before; by default if they are equal
   */
  answer(step: string, text: string, fits?: (text: string, whole: string) => boolean): void {
    this.answers.set(step, text)
    if (this.#whole === undefined || this.repair !== 'none') return
    const whole = this.#whole.get(step)
    const holds = whole !== undefined && (fits === undefined ? text === whole : fits(text, whole))
    if (!holds) throw new Finding(`${step} is silently another`)
  }
}

/** Where an input of such a target begins. */
type ReaderInput = { readonly sample: string; readonly repair: Repair | 'none' }

export class ReaderTarget implements Target {
  readonly name: string
  readonly #kernel: Kernel
  readonly #samples: readonly Sample[]
  readonly #others: readonly Uint8Array[]
  readonly #meter: Meter
  readonly #wholes = new Map<Sample, ReadonlyMap<string, string>>()

  private constructor(name: string, kernel: Kernel, samples: readonly Sample[], meter: Meter) {
    this.name = name
    this.#kernel = kernel
    this.#samples = samples
    this.#others = [...new Set(samples.map(({ bytes }) => bytes))]
    this.#meter = meter
  }

  /** @param meter is on wherever memory is to be watched */
  static async create(name: string, kernel: Kernel, samples: readonly Sample[], meter: Meter): Promise<ReaderTarget> {
    const target = new ReaderTarget(name, kernel, samples, meter)
    for (const sample of samples) {
      const reading = new Reading('none', undefined)
      await sample.read(sample.bytes, reading)
      if (reading.codes.size > 0) throw new Error(`${sample.name} is refused as it is with ${[...reading.codes]}`)
      target.#wholes.set(sample, reading.answers)
    }
    return target
  }

  make(choose: Choice): Input {
    const sample = pick(choose, this.#samples)
    const repair = sample.isGuarded ? pick(choose, ['none', 'none', 'checksums', 'sizes'] as const) : 'sizes'
    const steps: Json[] = []
    let now = sample.bytes
    for (let i = 1 + choose(choose(4) === 0 ? 5 : 2); i > 0; i--) {
      const { after, splice } = mutated(now, choose, sample.kind, this.#others)
      steps.push(splice)
      now = after
    }
    return { base: { sample: sample.name, repair }, steps }
  }

  async run({ base, steps }: Input): Promise<Outcome> {
    const { sample: name, repair } = base as ReaderInput
    const sample = this.#samples.find((each) => each.name === name)
    if (sample === undefined) throw new Error(`there is no sample ${name}`)
    // A copy: what is repaired is repaired in place.
    let bytes: Uint8Array = sample.bytes.slice()
    for (const step of steps) bytes = spliced(bytes, decodeSplice(step))
    if (repair !== 'none') repairFile(this.#kernel, sample.kind, bytes, repair)
    // What has become another whole file is as good as repaired.
    const isOther = this.#others.some((other) => other !== sample.bytes && Buffer.compare(other, bytes) === 0)
    const reading = new Reading(isOther ? 'sizes' : repair, this.#wholes.get(sample)!)
    this.#meter.begin()
    await sample.read(bytes, reading)
    const { total, largest } = this.#meter
    if (total > allocatedMax) throw new Finding(`${total >> 20} MiB are allocated`)
    if (largest > allocatedAtOnceMax) throw new Finding(`${largest >> 20} MiB are allocated at once`)
    return { refusals: [...reading.codes] }
  }
}
