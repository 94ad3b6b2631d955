/** The connection to a database of IndexedDB, which browsers may drop at any time. */

import { type DBSchema, type IDBPDatabase, type IDBPTransaction, openDB, type StoreNames } from 'idb'
import { IsovecError } from '../errors.ts'
import { notFoundError } from './directory.ts'
import { domError, isDomError } from './dom-error.ts'

/** What lies in a database of IndexedDB. Directories are known by their numbers, the root by -1. */
export interface Schema extends DBSchema {
  /** `writer`: who took the writer's lock last. */
  meta: { key: 'writer'; value: string }
  directories: { key: number; value: number }
  /** By directory and name. The id is random and never used again. */
  files: { key: [directory: number, name: string]; value: FileRecord }
  /** By the file's id and the offset of the first byte, without gaps up to the file's size. */
  chunks: { key: [id: number, offset: number]; value: Uint8Array }
}

export type FileRecord = { readonly id: number; readonly size: number }
export type Stores = StoreNames<Schema>[]
export type ReadTransaction = IDBPTransaction<Schema, Stores, 'readonly'>
export type WriteTransaction = IDBPTransaction<Schema, Stores, 'readwrite'>

const schemaVersion = 1
const attemptsMax = 3

/** Opens a database when it is first used, and again whenever the browser has dropped it. */
export class Connection {
  readonly #name: string
  #database: Promise<IDBPDatabase<Schema> | undefined> | undefined
  #current: IDBPDatabase<Schema> | undefined

  /** @param name the database's name in IndexedDB */
  constructor(name: string) {
    this.#name = name
  }

  /**
   * Whether the database is there.
   *
   * @param create whether to make it if it isn't
   */
  async open(create: boolean): Promise<boolean> {
    return (await this.#open(create)) !== undefined
  }

  /**
   * Runs a transaction that only reads, again if the connection is lost meanwhile.
   *
   * @param body must wait for nothing but requests of the transaction
   * @throws `NOT_FOUND` without a database, the platform's error
   */
  async read<T>(stores: Stores, body: (transaction: ReadTransaction) => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      const database = await this.#open(false)
      if (database === undefined) throw notFoundError(this.#name)
      try {
        return await settle(begin(database, stores, 'readonly'), body)
      } catch (error) {
        if (!isConnectionLoss(error) || attempt === attemptsMax) throw error
        this.#drop(database)
      }
    }
  }

  /**
   * Runs a transaction that changes something, all of it or nothing. If the connection is lost meanwhile, the new one is asked first
   * whether the change has happened.
   *
   * @param durability `strict` to resolve only when the browser has had the change, and all before it, written to the disk
   * @param body must wait for nothing but requests of the transaction; what it throws undoes everything
   * @param happened tells whether `body` has had its effect; by default it may have it twice
   * @throws `IO` without a database, the platform's error
   */
  async change(
    stores: Stores,
    durability: IDBTransactionDurability,
    body: (transaction: WriteTransaction) => Promise<void>,
    happened: (transaction: ReadTransaction) => Promise<boolean> = async () => false,
  ): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      const database = await this.#open(false)
      if (database === undefined) throw new IsovecError('IO', `${this.#name} was deleted`)
      try {
        await settle(begin(database, stores, 'readwrite', durability), body)
        return
      } catch (error) {
        if (!isConnectionLoss(error) || attempt === attemptsMax) throw error
        this.#drop(database)
        if (await this.read(stores, happened)) return
      }
    }
  }

  /** Closes it for now: the next call opens it again. */
  close(): void {
    if (this.#current !== undefined) this.#drop(this.#current)
  }

  async #open(create: boolean): Promise<IDBPDatabase<Schema> | undefined> {
    this.#database ??= this.#connect(create)
    const opening = this.#database
    let database: IDBPDatabase<Schema> | undefined
    try {
      database = await opening
    } finally {
      if (database === undefined && this.#database === opening) this.#database = undefined
    }
    return database ?? (create ? this.#open(create) : undefined)
  }

  async #connect(create: boolean): Promise<IDBPDatabase<Schema> | undefined> {
    if (globalThis.indexedDB === undefined) {
      throw new IsovecError('UNSUPPORTED', `cannot open ${this.#name}: there is no IndexedDB here`)
    }
    let isMissing = false
    try {
      const database: IDBPDatabase<Schema> = await openDB<Schema>(this.#name, schemaVersion, {
        upgrade(made, _oldVersion, _newVersion, transaction) {
          if (create) {
            for (const store of ['meta', 'directories', 'files', 'chunks'] as const) made.createObjectStore(store)
            return
          }
          isMissing = true
          // Without stores there is nothing, and what was begun by opening is undone.
          transaction.done.catch(() => {})
          transaction.abort()
        },
        blocking: () => this.#drop(database),
        terminated: () => this.#drop(database),
      })
      this.#current = database
      return database
    } catch (error) {
      if (isMissing) return undefined
      if (isDomError(error, 'VersionError')) {
        throw new IsovecError('UNSUPPORTED_VERSION', `${this.#name} was made by a later version of isovec`, {
          cause: error,
        })
      }
      if (isDomError(error, 'SecurityError', 'InvalidStateError', 'NotSupportedError')) {
        throw new IsovecError('UNSUPPORTED', `the browser refuses the use of IndexedDB for ${this.#name}`, {
          cause: error,
        })
      }
      throw domError('open', this.#name, error)
    }
  }

  /** Lets go of a connection that is of no more use, or in somebody's way. The next call opens another one. */
  #drop(database: IDBPDatabase<Schema>): void {
    // Another one may have taken its place.
    if (this.#current === database) this.#database = this.#current = undefined
    database.close()
  }
}

function begin<Mode extends 'readonly' | 'readwrite'>(
  database: IDBPDatabase<Schema>,
  stores: Stores,
  mode: Mode,
  durability: IDBTransactionDurability = 'default',
): IDBPTransaction<Schema, Stores, Mode> {
  try {
    return database.transaction(stores, mode, { durability })
  } catch (error) {
    throw new ConnectionLoss(error)
  }
}

/** Runs a transaction to its end. */
async function settle<Mode extends 'readonly' | 'readwrite', T>(
  transaction: IDBPTransaction<Schema, Stores, Mode>,
  body: (transaction: IDBPTransaction<Schema, Stores, Mode>) => Promise<T>,
): Promise<T> {
  const ended = transaction.done.then(
    () => undefined,
    (error: unknown) => ({ error }),
  )
  let result: T
  try {
    result = await body(transaction)
  } catch (error) {
    abort(transaction)
    await ended
    if (error instanceof IsovecError) throw error
    // Requests only say that their transaction was aborted; why is known to the transaction.
    throw lossOr(transaction.error ?? error)
  }
  const failure = await ended
  if (failure !== undefined) throw lossOr(transaction.error ?? failure.error)
  return result
}

function abort(transaction: { abort(): void }): void {
  try {
    transaction.abort()
  } catch (error) {
    // It has ended by itself.
    if (!isDomError(error, 'InvalidStateError')) throw error
  }
}

/** What is known of a transaction when the browser has dropped its connection: nothing. */
class ConnectionLoss extends Error {
  override readonly name = 'ConnectionLoss'
  constructor(cause: unknown) {
    super('the connection to IndexedDB was lost', { cause })
  }
}

function lossOr(error: unknown): unknown {
  // A transaction that is aborted for no fault of its own.
  return isDomError(error, 'AbortError', 'UnknownError', 'InvalidStateError', 'TransactionInactiveError')
    ? new ConnectionLoss(error)
    : error
}

function isConnectionLoss(error: unknown): boolean {
  return error instanceof ConnectionLoss
}
