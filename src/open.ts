/**
 * Opening a database: options, lock, root.
 */
import type { Database, OpenOptions } from './api.ts'
import { DatabaseHandle } from './database.ts'
import type { StorageBackend } from './directory/directory.ts'
import { memoryBackend } from './directory/memory.ts'
import { throwIfAborted } from './errors.ts'
import { loadKernel } from './kernel/index.ts'
import { LocalDatabase } from './local-database.ts'
import { type CheckedOpen, checkOpen } from './open-options.ts'
import { invalid } from './options.ts'
import { openRoot, readRoot, sweepRoot } from './root.ts'

/** Turns a path or URL into a backend. */
export type PlatformBackend = (location: string | URL) => StorageBackend

/** Opens a database, and makes one if there is none. Fails as {@link openLocal} does. */
export async function open(
  location: string | URL | StorageBackend,
  given: OpenOptions | undefined,
  platformBackend: PlatformBackend,
): Promise<Database> {
  return openChecked(location, checkOpen(given), platformBackend)
}

/** The same with options that were checked. */
export async function openChecked(
  location: string | URL | StorageBackend,
  checked: CheckedOpen,
  platformBackend: PlatformBackend,
): Promise<Database> {
  return new DatabaseHandle(await openLocal(location, checked, platformBackend))
}

/**
 * Opens a database on a backend in this thread, and makes one if there is none.
 * @param steal whether to take the lock from whoever holds it, since they no longer answer
 * @throws IsovecError `NOT_FOUND`, `LOCKED`, `CORRUPTION`, `UNSUPPORTED`, `UNSUPPORTED_VERSION`, `ABORTED`, `IO`
 */
export async function openLocal(
  location: string | URL | StorageBackend,
  { isReader, mustExist, lockTimeout, signal, onEvent, wasm }: CheckedOpen,
  platformBackend: PlatformBackend,
  steal = false,
): Promise<LocalDatabase> {
  const backend = backendOf(location, platformBackend, 'location')

  const times = [performance.now()]
  const kernel = await loadKernel({ wasm })
  times.push(performance.now())
  const directory = await backend.open({ create: !mustExist })
  const lock = isReader ? undefined : await backend.lock({ timeout: lockTimeout, signal, steal })
  times.push(performance.now())
  try {
    throwIfAborted(signal)
    const root = isReader
      ? await readRoot(kernel, directory, backend)
      : await openRoot(kernel, directory, backend, mustExist)
    times.push(performance.now())
    if (!isReader) await sweepRoot(root, directory, backend)
    times.push(performance.now())
    const openMs = {
      kernel: times[1]! - times[0]!,
      lock: times[2]! - times[1]!,
      manifest: times[3]! - times[2]!,
      sweep: times[4]! - times[3]!,
    }
    const others = {
      backendOf: (other: string | URL | StorageBackend, field: string) => backendOf(other, platformBackend, field),
      open: (other: StorageBackend) => open(other, wasm === undefined ? {} : { wasm }, platformBackend),
    }
    return new LocalDatabase({ backend, directory, lock, kernel, root, openMs, onEvent, others })
  } catch (error) {
    await lock?.release()
    throw error
  }
}

/**
 * The backend that a location stands for.
 * @throws IsovecError `INVALID_ARGUMENT` naming `field`
 */
export function backendOf(
  location: string | URL | StorageBackend,
  platformBackend: PlatformBackend,
  field: string,
): StorageBackend {
  if (location === ':memory:') return memoryBackend()
  if (typeof location === 'string') {
    if (location.length === 0) throw invalid(field, 'is empty')
    return platformBackend(location)
  }
  if (location instanceof URL) return platformBackend(location)
  if (typeof location !== 'object' || location === null || typeof location.lock !== 'function') {
    throw invalid(field, 'is no path, URL or backend')
  }
  return location
}
