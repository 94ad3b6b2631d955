/**
 * Long work in slices of a few milliseconds, between which the event loop runs.
 */
import { throwIfAborted } from './errors.ts'

/** Time that work may hold the thread. */
const sliceMs = 4
/** Time without a call after which the event loop is taken to have run: longer than a busy machine usually keeps a process waiting. */
const idleMs = 40

/** Turns of the event loop for work that somebody waits for: they keep the process alive and come as soon as possible. */
function nextTurn(): Promise<void> {
  if (typeof setImmediate === 'function') return new Promise((resolve) => setImmediate(resolve))
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel()
    port1.onmessage = () => {
      port1.close()
      resolve()
    }
    port2.postMessage(null)
  })
}

/**
 * Turns for work that nobody waits for. A timer rather than an immediate: it leaves the thread idle for a moment, and one that is
 * unreferenced still wakes a loop that waits for something else, but doesn't keep the process alive. So an abort must end the wait:
 * whoever waits for the work to make way has nothing else that keeps the loop turning.
 */
function nextBackgroundTurn(signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    const end = (): void => {
      clearTimeout(timer as Parameters<typeof clearTimeout>[0])
      signal?.removeEventListener('abort', end)
      resolve()
    }
    const timer: unknown = setTimeout(end, 1)
    if (typeof timer === 'object' && timer !== null && 'unref' in timer) (timer as { unref(): void }).unref()
    signal?.addEventListener('abort', end, { once: true })
  })
}

/**
 * The clock of many short calls: each ends within its turn, so that whoever awaits one after the other would never let anything else
 * run.
 */
export class Pace {
  #end = 0

  /** Whether it is time to give the event loop back. Calls that come after a while begin anew. */
  get isOver(): boolean {
    const now = performance.now()
    if (now < this.#end) return false
    if (now < this.#end + idleMs) return true
    this.#end = now + sliceMs
    return false
  }

  /** Gives the event loop back. */
  async next(): Promise<void> {
    await nextTurn()
    this.#end = performance.now() + sliceMs
  }
}

/**
 * Applies `map` to each item: at once as far as a slice goes, the rest in further turns of the event loop. A promise only where it takes
 * longer, or where `map` gives promises.
 */
export function mapInSlices<T, R>(
  items: readonly T[],
  map: (item: T) => R | Promise<R>,
  slice: Slice,
): R[] | Promise<R[]> {
  const results: (R | Promise<R>)[] = []
  let isLate = false
  for (let i = 0; i < items.length; i++) {
    const result = attempt(map, items[i]!)
    if (result instanceof Promise) isLate = true
    results.push(result)
    if (i % itemsPerLook === itemsPerLook - 1 && slice.isOver) return mapRest(items, map, slice, results)
  }
  return isLate ? Promise.all(results) : (results as R[])
}

async function mapRest<T, R>(
  items: readonly T[],
  map: (item: T) => R | Promise<R>,
  slice: Slice,
  begun: readonly (R | Promise<R>)[],
): Promise<R[]> {
  const results = await Promise.all(begun)
  while (results.length < items.length) {
    await slice.next()
    const some: (R | Promise<R>)[] = []
    do some.push(attempt(map, items[results.length + some.length]!))
    while (results.length + some.length < items.length && !(some.length % itemsPerLook === 0 && slice.isOver))
    for (const result of await Promise.all(some)) results.push(result)
  }
  return results
}

/** A failure as a promise, so that it is met together with those of promises that were made before it. */
function attempt<T, R>(map: (item: T) => R | Promise<R>, item: T): R | Promise<R> {
  try {
    return map(item)
  } catch (error) {
    return Promise.reject(error)
  }
}

/** Items between two looks at the clock. */
const itemsPerLook = 16

/** The clock of one piece of long work. */
export class Slice {
  readonly #signal: AbortSignal | undefined
  readonly #turn: (signal: AbortSignal | undefined) => Promise<void>
  #end = performance.now() + sliceMs

  /** @param options `background`: nobody waits for the work, so it yields more and doesn't keep the process alive */
  constructor(options: { signal?: AbortSignal | undefined; background?: boolean } = {}) {
    this.#signal = options.signal
    this.#turn = options.background === true ? nextBackgroundTurn : nextTurn
  }

  /** Whether the work has held the thread for long enough and should call {@link next}. */
  get isOver(): boolean {
    return performance.now() >= this.#end
  }

  /**
   * Gives the event loop back and begins another slice.
   * @throws IsovecError `ABORTED` if the signal has fired
   */
  async next(): Promise<void> {
    throwIfAborted(this.#signal)
    await this.#turn(this.#signal)
    throwIfAborted(this.#signal)
    this.#end = performance.now() + sliceMs
  }
}
