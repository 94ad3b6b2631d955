/** Waiting for a lock, the same for every backend, and the lock among those who share one JavaScript realm. */

import { abortError, IsovecError, throwIfAborted } from '../errors.ts'
import type { Lock } from './directory.ts'

const pollDelayMin = 5
const pollDelayMax = 50

/** What an attempt at a lock found: the lock, or who has it. */
export type LockAttempt = { readonly lock: Lock } | { readonly lock?: undefined; readonly pid?: number | undefined }

/**
 * Tries for a lock until it is had or `timeout` milliseconds are over; between attempts it sleeps 5 ms to 50 ms.
 *
 * @throws `LOCKED` with the holder's pid where the last attempt found one, `ABORTED`, `INVALID_ARGUMENT` for a timeout below 0, and
 * whatever `attempt` throws
 */
export async function waitForLock(
  location: string,
  options: { timeout: number; signal?: AbortSignal | undefined },
  attempt: () => Promise<LockAttempt>,
): Promise<Lock> {
  const { timeout, signal } = options
  if (typeof timeout !== 'number' || !(timeout >= 0)) {
    throw new IsovecError('INVALID_ARGUMENT', `not a time to wait for a lock: ${timeout}`, { field: 'lockTimeout' })
  }
  const deadline = performance.now() + timeout
  for (let delay = pollDelayMin; ; delay = Math.min(delay * 2, pollDelayMax)) {
    throwIfAborted(signal)
    const found = await attempt()
    if (found.lock !== undefined) {
      if (!signal?.aborted) return found.lock
      await found.lock.release()
      throw abortError(signal)
    }
    const left = deadline - performance.now()
    if (left <= 0) {
      const { pid } = found
      const holder = pid === undefined ? 'another writer' : `process ${pid}`
      throw new IsovecError('LOCKED', `${location} is in use by ${holder}`, pid === undefined ? {} : { pid })
    }
    await sleep(Math.min(delay, left), signal)
  }
}

/** Resolves after `delay` milliseconds, at once when the signal fires. */
function sleep(delay: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer)
      signal?.removeEventListener('abort', end)
      resolve()
    }
    const timer = setTimeout(end, delay)
    signal?.addEventListener('abort', end, { once: true })
  })
}

/**
 * The stores that are locked in this realm: for each namespace (the object that stands for a file system or a store) the keys held.
 * It hangs on `globalThis`, so that several copies of the package respect each other; its shape must never change.
 */
type Registry = WeakMap<object, Set<string>>

const registryKey = Symbol.for('isovec.locks')

/**
 * Takes `key` in the namespace of `owner` among all copies of the package in this realm.
 *
 * @returns what gives it back, or `undefined` if it is taken
 */
export function claim(owner: object, key: string): (() => void) | undefined {
  const realm = globalThis as { [registryKey]?: Registry }
  realm[registryKey] ??= new WeakMap()
  const registry = realm[registryKey]
  const held = registry.get(owner) ?? new Set<string>()
  registry.set(owner, held)
  if (held.has(key)) return undefined
  held.add(key)
  let released = false
  return () => {
    if (released) return
    released = true
    held.delete(key)
  }
}

/** Takes the in-process lock of a store that nobody outside of this realm can reach. */
export function lockInProcess(
  owner: object,
  key: string,
  location: string,
  options: { timeout: number; signal?: AbortSignal | undefined },
): Promise<Lock> {
  return waitForLock(location, options, async () => {
    const release = claim(owner, key)
    if (release === undefined) return {}
    return { lock: { primitive: 'in-process', release: async () => release() } }
  })
}
