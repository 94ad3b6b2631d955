import type { Directory, StorageBackend } from '../../src/index.ts'

/** Bytes and calls that went through a backend. */
export type Traffic = { bytesRead: number; reads: number; opens: number; creates: number; removes: number }

/** A backend that counts what is read through it. */
export function countingBackend(inner: StorageBackend): { backend: StorageBackend; traffic: Traffic } {
  const traffic: Traffic = { bytesRead: 0, reads: 0, opens: 0, creates: 0, removes: 0 }
  const directory = (of: Directory): Directory => ({
    list: () => of.list(),
    sync: (name) => of.sync(name),
    create(name) {
      traffic.creates++
      return of.create(name)
    },
    remove(name) {
      traffic.removes++
      return of.remove(name)
    },
    async open(name) {
      traffic.opens++
      const file = await of.open(name)
      return {
        size: file.size,
        close: () => file.close(),
        read(offset, target) {
          traffic.reads++
          traffic.bytesRead += target.byteLength
          return file.read(offset, target)
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
    removeDirectory: (number) => inner.removeDirectory(number),
    lock: (options) => inner.lock(options),
  }
  return { backend, traffic }
}
