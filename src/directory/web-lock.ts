/**
 * The writer's lock among the tabs and workers of one origin, and how a holder finds out that it has lost it: where a holder seems to be
 * frozen, another one may take the lock from it.
 */

import { IsovecError } from '../errors.ts'
import type { Lock, StorageBackend } from './directory.ts'
import { isDomError } from './dom-error.ts'
import { type LockAttempt, waitForLock } from './lock.ts'
import { randomName } from './place-name.ts'

/**
 * How long it is believed that the lock is still held, in ms. Nobody takes it from a holder who was heard of within the last 5 seconds, so
 * the proof may be a little old.
 */
const proofAgeMax = 2_000
/** The longest time that timers of browsers can wait, in ms. */
const delayMax = 2 ** 31 - 1

/** A writer's lock that may be taken over. */
export interface WebLock extends Lock {
  readonly primitive: 'web-lock'
  /** `lost` once it is known that somebody else has taken it over; a lock that was lost stays lost. */
  readonly state: 'held' | 'released' | 'lost'
  /** Resolves when that becomes known; stays pending if it never happens. */
  readonly whenLost: Promise<void>
  /** When it was last known to be held, as `performance.now()` tells the time. */
  readonly lastProof: number
  /**
   * Makes sure that the lock was held less than 2 seconds ago: asks the browser unless that is known.
   *
   * @throws `IO` if it was taken over or given back
   */
  confirm(): Promise<void>
}

/** How a store whose lock is a {@link WebLock} is asked for it. */
export type WebLockOptions = {
  readonly timeout: number
  readonly signal?: AbortSignal | undefined
  /** Takes it at once, whoever has it: for one who has heard nothing of the holder for 5 seconds. */
  readonly steal?: boolean
}

/** A store in a browser. */
export interface WebBackend extends StorageBackend {
  lock(options: WebLockOptions): Promise<WebLock>
}

/**
 * Takes a lock of the whole origin, such as `isovec:opfs:mail`. It falls with its tab or worker, however that ends.
 *
 * @param options `timeout`: milliseconds to wait, 0 to try once, `Infinity` to wait for good; `steal`: take it at once, whoever has it:
 * the holder finds out with its next {@link WebLock.confirm}; `location`: what to call the store in errors
 * @throws `LOCKED`, `ABORTED`, `INVALID_ARGUMENT` for a timeout below 0, `UNSUPPORTED` where there are no locks
 */
export async function acquireWebLock(
  name: string,
  options: WebLockOptions & { readonly location?: string },
): Promise<WebLock> {
  const { timeout, signal, steal = false, location = name } = options
  if (globalThis.navigator?.locks === undefined) {
    throw new IsovecError(
      'UNSUPPORTED',
      `cannot keep a second writer out of ${location}: there are no Web Locks here; pages need https or localhost for them`,
    )
  }
  const deadline = performance.now() + timeout
  const attempt = async (): Promise<LockAttempt> => {
    const held = await attemptAt(name, steal ? { steal } : waiting(deadline - performance.now(), signal))
    return held === undefined ? {} : { lock: held }
  }
  return (await waitForLock(location, { timeout, signal }, attempt)) as WebLock
}

/** How to ask for the lock: at once or not at all, or with a signal that ends the waiting. */
function waiting(left: number, signal: AbortSignal | undefined): LockOptions {
  if (!(left > 0)) return { ifAvailable: true }
  const signals = signal === undefined ? [] : [signal]
  if (left !== Number.POSITIVE_INFINITY) signals.push(AbortSignal.timeout(Math.min(Math.ceil(left), delayMax)))
  return signals.length === 0 ? {} : { signal: anyOf(signals) }
}

/** `AbortSignal.any` for browsers that are older than it. */
function anyOf(signals: readonly AbortSignal[]): AbortSignal {
  const controller = new AbortController()
  for (const signal of signals) {
    if (signal.aborted) controller.abort(signal.reason)
    signal.addEventListener('abort', () => controller.abort(signal.reason), { once: true, signal: controller.signal })
  }
  return controller.signal
}

async function attemptAt(name: string, options: LockOptions): Promise<WebLock | undefined> {
  try {
    const held = await HeldLock.request(name, options)
    await held?.confirm()
    return held
  } catch (error) {
    if (options.signal?.aborted) return undefined
    // Taken over before it was of any use.
    if (error instanceof IsovecError) return undefined
    if (isDomError(error, 'SecurityError', 'InvalidStateError')) {
      throw new IsovecError('UNSUPPORTED', 'Web Locks are refused here, as in a page without an origin of its own', {
        cause: error,
      })
    }
    throw new IsovecError('IO', `cannot ask for the lock ${name}`, { cause: error })
  }
}

/** Who has each lock among those who ask through this module: all of them are one client to the browser. */
const holders = new Map<string, HeldLock>()

class HeldLock implements WebLock {
  readonly primitive = 'web-lock'
  readonly whenLost: Promise<void>
  readonly #name: string
  /** Resolves when the browser has taken note that the lock was given back, or that it was taken over. */
  readonly #ended: () => Promise<void>
  readonly #released: Promise<void>
  #lastProof = Number.NEGATIVE_INFINITY
  #state: 'held' | 'released' | 'lost' = 'held'
  #giveBack: () => void = () => {}
  #tellLost: () => void = () => {}

  private constructor(name: string, ended: () => Promise<void>) {
    this.#name = name
    this.#ended = ended
    this.#released = new Promise((resolve) => {
      this.#giveBack = resolve
    })
    this.whenLost = new Promise((resolve) => {
      this.#tellLost = resolve
    })
    holders.set(name, this)
  }

  /** @returns `undefined` if it was asked for at once or not at all, and somebody has it */
  static request(name: string, options: LockOptions): Promise<HeldLock | undefined> {
    return new Promise((resolve, reject) => {
      let held: HeldLock | undefined
      const request = navigator.locks.request(name, options, (lock) => {
        if (lock === null) {
          resolve(undefined)
          return undefined
        }
        held = new HeldLock(name, () => ended)
        resolve(held)
        return held.#released
      })
      // The request of a holder fails when somebody takes the lock from it.
      const ended: Promise<void> = request.then(
        () => {},
        (error) => (held === undefined ? reject(error) : held.#lose()),
      )
    })
  }

  get state(): 'held' | 'released' | 'lost' {
    return this.#state
  }

  get lastProof(): number {
    return this.#lastProof
  }

  async confirm(): Promise<void> {
    while (this.#state === 'held') {
      if (performance.now() - this.#lastProof <= proofAgeMax) return
      // The answer is of some time after the question, however late it comes.
      const askedAt = performance.now()
      const [{ held }, client] = await Promise.all([navigator.locks.query(), ownClient()])
      const isHeld = held?.some((lock) => lock.name === this.#name && lock.clientId === client)
      if (isHeld && holders.get(this.#name) === this) this.#lastProof = Math.max(this.#lastProof, askedAt)
      else if (this.#state === 'held') this.#lose()
    }
    const what = this.#state === 'lost' ? 'was taken over by another tab or worker' : 'was given back'
    throw new IsovecError('IO', `the lock ${this.#name} ${what}`)
  }

  async release(): Promise<void> {
    if (this.#state === 'held') this.#end('released')
    this.#giveBack()
    await this.#ended()
  }

  #lose(): void {
    if (this.#state !== 'held') return
    this.#end('lost')
    this.#tellLost()
  }

  #end(state: 'released' | 'lost'): void {
    this.#state = state
    if (holders.get(this.#name) === this) holders.delete(this.#name)
  }
}

let client: Promise<string | undefined> | undefined

/** What the browser calls this tab or worker in its list of locks. */
function ownClient(): Promise<string | undefined> {
  const name = `isovec:client:${randomName()}`
  client ??= navigator.locks.request(name, async () => {
    const { held } = await navigator.locks.query()
    return held?.find((lock) => lock.name === name)?.clientId
  })
  return client
}

/**
 * Runs what changes a store, and lets it count only if the lock was held when it happened: what a holder does after the lock was taken
 * from it may be undone, and must not be acknowledged.
 *
 * @throws `IO` if the lock was taken over, and whatever `change` throws
 */
export async function fenced<T>(lock: WebLock | undefined, change: () => Promise<T>): Promise<T> {
  if (lock === undefined) return change()
  await lock.confirm()
  const result = await change()
  await lock.confirm()
  return result
}

/**
 * Shares a name with all others who do, until the function that it gives is called. Where there are no locks, nobody can write either, and
 * nothing is held.
 */
export async function shareWebLock(name: string): Promise<() => void> {
  const locks = globalThis.navigator?.locks
  if (locks === undefined) return () => {}
  return new Promise((resolve, reject) => {
    locks.request(name, { mode: 'shared' }, () => new Promise<void>((end) => resolve(end))).catch(reject)
  })
}

/** Runs `work` unless somebody shares the name; returns whether it did. */
export async function unlessShared(name: string, work: () => Promise<void>): Promise<boolean> {
  const locks = globalThis.navigator?.locks
  if (locks === undefined) {
    await work()
    return true
  }
  return locks.request(name, { ifAvailable: true }, async (lock) => {
    if (lock === null) return false
    await work()
    return true
  })
}
