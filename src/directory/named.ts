/** A database of a name in a browser, wherever it lies: in the origin private file system or in IndexedDB. */

import { IsovecError } from '../errors.ts'
import type { Directory, Lock, StorageBackend } from './directory.ts'
import { indexedDbBackend, indexedDbHolds } from './indexeddb.ts'
import { hasOpfs, opfsBackend, opfsHolds } from './opfs.ts'
import { checkDatabaseName } from './place-name.ts'

/**
 * The backend of a name: OPFS or IndexedDB, whichever already holds the database, else OPFS where it is there, else IndexedDB. Decided
 * with the first call.
 *
 * @throws `INVALID_ARGUMENT` for a name that is none
 */
export function namedBackend(location: string | URL): StorageBackend {
  if (typeof location !== 'string') {
    throw new IsovecError('INVALID_ARGUMENT', 'location: a database in a browser has a name, not an address', {
      field: 'location',
    })
  }
  checkDatabaseName(location)
  return new NamedBackend(location)
}

async function pick(name: string): Promise<StorageBackend> {
  const isOpfsThere = await hasOpfs()
  if (isOpfsThere && (await opfsHolds(name))) return opfsBackend(name)
  const isIndexedDbThere = typeof indexedDB !== 'undefined'
  if (isIndexedDbThere && (await indexedDbHolds(name))) return indexedDbBackend(name)
  if (isOpfsThere) return opfsBackend(name)
  if (isIndexedDbThere) return indexedDbBackend(name)
  throw new IsovecError('UNSUPPORTED', `there is no durable storage for ${name} here: neither OPFS nor IndexedDB`)
}

class NamedBackend implements StorageBackend {
  readonly location: string
  #kind = 'named'
  #picked: Promise<StorageBackend> | undefined

  constructor(name: string) {
    this.location = name
  }

  get kind(): string {
    return this.#kind
  }

  async #backend(): Promise<StorageBackend> {
    this.#picked ??= pick(this.location)
    try {
      const backend = await this.#picked
      this.#kind = backend.kind
      return backend
    } catch (error) {
      this.#picked = undefined
      throw error
    }
  }

  async exists(): Promise<boolean> {
    return (await this.#backend()).exists()
  }

  async open(options: { create: boolean }): Promise<Directory> {
    return (await this.#backend()).open(options)
  }

  async directories(): Promise<number[]> {
    return (await this.#backend()).directories()
  }

  async directory(number: number, options: { create: boolean }): Promise<Directory> {
    return (await this.#backend()).directory(number, options)
  }

  async removeDirectory(number: number): Promise<void> {
    return (await this.#backend()).removeDirectory(number)
  }

  async lock(options: { timeout: number; signal?: AbortSignal | undefined; steal?: boolean }): Promise<Lock> {
    return (await this.#backend()).lock(options)
  }
}
