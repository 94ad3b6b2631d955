import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { memoryBackend } from '../../src/directory/memory.ts'
import type { Collection, CollectionOptions, Database, OpenOptions, StorageBackend } from '../../src/index.ts'
import { openDatabase } from '../../src/index.ts'
import { temporaryFolder } from './folder.ts'

/** A place for one database, which can be opened, closed and opened again. */
export type Store = {
  readonly location: string | StorageBackend
  open(options?: OpenOptions): Promise<Database>
}

export type StoreKind = 'memory' | 'node'
export const storeKinds: readonly StoreKind[] = ['memory', 'node']

/** An empty store; what was opened of it is closed after the test. */
export async function newStore(kind: StoreKind): Promise<Store> {
  return storeAt(kind === 'memory' ? memoryBackend() : join(await temporaryFolder(), 'data'))
}

/** A store at a location. */
export function storeAt(location: string | StorageBackend): Store {
  return {
    location,
    async open(options) {
      const database = await openDatabase(location, options)
      onTestFinished(() => database.close())
      return database
    },
  }
}

/** A collection in a database of its own. */
export async function newCollection<P extends object>(
  options: CollectionOptions,
  kind: StoreKind = 'memory',
): Promise<{ store: Store; database: Database; collection: Collection<P> }> {
  const store = await newStore(kind)
  const database = await store.open()
  const collection = await database.createCollection<P>('c', options)
  return { store, database, collection }
}
