import { type Choice, forEachChoice, imageKey, seededChoice } from '../../src/directory/crash-image.ts'
import { faultyBackend } from '../../src/directory/faulty.ts'
import type { StoreImage } from '../../src/directory/memory.ts'
import { openDatabase } from '../../src/index.ts'
import { type CrashKind, digestOf, History, Timeline } from './history.ts'
import { checkRecovery, readDatabase } from './recovered.ts'
import type { Scenario } from './scenario.ts'

/** What ends an enumeration early, without a failure: no more is wanted. */
export type Limit = () => boolean

const never: Limit = () => false

/** Recovers what crashes leave, each image once, and throws for the first one that is not as the history says. */
export class CrashRun {
  /** Every image that was recovered. */
  readonly states = new Set<string>()
  /** Those of them that a crash of a recovery has left. */
  readonly recoveryStates = new Set<string>()
  readonly #seed: number

  /** @param seed decides what survives, and is named in failures */
  constructor(seed: number) {
    this.#seed = seed
  }

  /**
   * Recovers what each kind of crash leaves at every call.
   *
   * @param powerImages images of power loss that are tried for each call
   * @param recoveryStep at every so manieth call one of the recoveries is itself crashed at each of its calls
   * @param from the first call
   */
  async crashEverywhere(
    { backend, history }: Scenario,
    powerImages: number,
    recoveryStep: number,
    isEnough = never,
    from = 0,
  ): Promise<void> {
    for (let at = from; at <= backend.changes.length && !isEnough(); at++) {
      for (let round = -2; round < powerImages && !isEnough(); round++) {
        const choose = seededChoice(this.#seed ^ Math.imul(at * 64 + round + 2, 0x9e3779b1))
        const kind: CrashKind = round < 0 ? 'process' : 'power'
        // The first image of a process is between two calls, the second within one.
        const image = backend.crashImage(round === -2 ? { kind, at } : { kind, at, choose })
        await this.#checkOnce(image, history, kind, at, choose)
        if (at % recoveryStep === 0 && round === (at / recoveryStep) % powerImages) {
          await this.#crashInRecovery(image, kind, at, choose, isEnough)
        }
      }
    }
  }

  /**
   * Recovers every image that power loss can leave at every call, with few lengths for an append that is cut.
   *
   * @param waysMax ways that are tried at one call; where there are more, some of the others are drawn by the seed
   * @returns how many calls were tried in every way
   */
  async crashEveryWay({ backend, history }: Scenario, cuts: number, waysMax: number): Promise<number> {
    let completeCount = 0
    for (let at = 0; at <= backend.changes.length; at++) {
      await this.#checkOnce(backend.crashImage({ kind: 'process', at }), history, 'process', at, seededChoice(at))
      const check = async (choose: Choice): Promise<void> => {
        const image = backend.crashImage({ kind: 'power', at, choose, cuts })
        await this.#checkOnce(image, history, 'power', at, seededChoice(this.#seed ^ this.states.size))
      }
      const { complete } = await forEachChoice(check, waysMax)
      if (complete) completeCount++
      else for (let draw = 0; draw < 30; draw++) await check(seededChoice(this.#seed ^ Math.imul(at + draw * 4096, 97)))
    }
    return completeCount
  }

  async #checkOnce(image: StoreImage, history: History, kind: CrashKind, at: number, choose: Choice): Promise<void> {
    const key = imageKey(image)
    if (this.states.has(key)) return
    this.states.add(key)
    try {
      await checkRecovery(image, history, kind, at, choose)
    } catch (error) {
      throw new Error(`${kind} crash after change ${at} (ISOVEC_SEED=${this.#seed}): ${(error as Error).message}`, {
        cause: error,
      })
    }
  }

  /** Recovers, with a crash at every call of that, from which recovery must still give the same. */
  async #crashInRecovery(
    image: StoreImage,
    kind: CrashKind,
    at: number,
    choose: Choice,
    isEnough: Limit,
  ): Promise<void> {
    const backend = faultyBackend({ image })
    const db = await openDatabase(backend)
    const found = await readDatabase(db, choose, 1)
    const names = new Map([...found.keys()].map((name, index) => [name, index]))
    const recovered = new History(0, names)
    for (const [name, contents] of found) {
      recovered.collections.set(names.get(name)!, new Timeline(0, digestOf(contents)))
    }
    await db.close()
    for (let stop = 0; stop <= backend.changes.length && !isEnough(); stop++) {
      for (const again of ['process', 'power', 'power'] as const) {
        const second = backend.crashImage({ kind: again, at: stop, choose })
        const key = imageKey(second)
        if (this.states.has(key)) continue
        this.recoveryStates.add(key)
        try {
          await this.#checkOnce(second, recovered, again, stop, choose)
        } catch (error) {
          throw new Error(
            `after a ${kind} crash at ${at}, at change ${stop} of the recovery: ${(error as Error).message}`,
            {
              cause: error,
            },
          )
        }
      }
    }
  }
}
