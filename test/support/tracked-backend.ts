import type { Directory, StorageBackend } from '../../src/index.ts'
import { IsovecError } from '../../src/index.ts'

/** What goes on in a backend. */
export type Tracked = {
  readonly backend: StorageBackend
  /** Files that are open for reading. */
  openCount: number
  /** How many were open, and how often a file was touched after it, when the lock was given back last. */
  openAtRelease: number
  callsAfterRelease: number
  /** Whether nothing can be removed. */
  refusesRemoval: boolean
}

/** A backend whose files take a turn of the event loop to close. */
export function trackedBackend(inner: StorageBackend): Tracked {
  let isLocked = false
  const touch = (): void => {
    if (!isLocked) tracked.callsAfterRelease++
  }
  const refuse = async (): Promise<never> => {
    throw new IsovecError('IO', 'removing is not possible')
  }
  const directory = (of: Directory): Directory => ({
    list: () => of.list(),
    sync: (name) => of.sync(name),
    create(name) {
      touch()
      return of.create(name)
    },
    async remove(name) {
      await new Promise((resolve) => setTimeout(resolve, 1))
      touch()
      if (tracked.refusesRemoval) return refuse()
      return of.remove(name)
    },
    async open(name) {
      const file = await of.open(name)
      tracked.openCount++
      return {
        size: file.size,
        read: (offset, target) => file.read(offset, target),
        async close() {
          await new Promise((resolve) => setTimeout(resolve, 2))
          await file.close()
          tracked.openCount--
        },
      }
    },
  })
  const backend: StorageBackend = {
    kind: inner.kind,
    location: inner.location,
    exists: () => inner.exists(),
    open: async (options) => directory(await inner.open(options)),
    directories: () => inner.directories(),
    directory: async (number, options) => directory(await inner.directory(number, options)),
    removeDirectory: (number) => (tracked.refusesRemoval ? refuse() : inner.removeDirectory(number)),
    async lock(options) {
      const lock = await inner.lock(options)
      isLocked = true
      return {
        primitive: lock.primitive,
        async release() {
          isLocked = false
          tracked.openAtRelease = tracked.openCount
          tracked.callsAfterRelease = 0
          await lock.release()
        },
      }
    },
  }
  const tracked: Tracked = {
    backend,
    openCount: 0,
    openAtRelease: 0,
    callsAfterRelease: 0,
    refusesRemoval: false,
  }
  return tracked
}
