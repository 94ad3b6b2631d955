/** Files in IndexedDB, on the main thread of a page or in any worker. */

import { IsovecError } from '../errors.ts'
import {
  checkDirectoryNumber,
  checkFileName,
  type Directory,
  fileExistsError,
  filePath,
  notFoundError,
  type RandomAccessFile,
  type WritableFile,
} from './directory.ts'
import { domError, isDomError } from './dom-error.ts'
import {
  Connection,
  type FileRecord,
  type ReadTransaction,
  type Stores,
  type WriteTransaction,
} from './idb-connection.ts'
import { ReadFile, SequentialFile } from './open-file.ts'
import { PartReader } from './part-reader.ts'
import { checkDatabaseName, randomName } from './place-name.ts'
import {
  acquireWebLock,
  shareWebLock,
  unlessShared,
  type WebBackend,
  type WebLock,
  type WebLockOptions,
} from './web-lock.ts'

/**
 * A database in IndexedDB, in the one named `isovec:<name>`. Nothing is touched before the first call.
 *
 * An append is a transaction that need not be on the disk when it completes (`relaxed`); `sync` is one that must (`strict`), and so
 * are those that make the root and the numbered directories. A sync rewrites nothing: it relies on browsers keeping one log in which
 * a later transaction is never on the disk without the earlier ones. Chromium (LevelDB), Firefox and Safari (SQLite) do, for values
 * that are small enough to lie in that log, which is why files are kept in chunks of 60 KiB; the specification does not ask for
 * it. After power loss, what was appended since the last sync may be missing from the end.
 *
 * The writer's lock is a Web Lock, `isovec:indexeddb:<name>`. Who took it last stands in the database too, and every transaction that
 * changes something looks there, so that nothing changes any more for a writer whose lock was taken over.
 *
 * A file that is removed while it is open, in whatever tab, can be read on.
 *
 * @throws `INVALID_ARGUMENT` for a name that {@link checkDatabaseName} refuses
 */
export function indexedDbBackend(name: string): WebBackend {
  checkDatabaseName(name)
  return new IndexedDbBackend(name)
}

/** Whether there is a database of that name. Creates nothing. */
export async function indexedDbHolds(name: string): Promise<boolean> {
  checkDatabaseName(name)
  if (globalThis.indexedDB === undefined) return false
  const connection = new Connection(databaseName(name))
  try {
    if (!(await connection.open(false))) return false
    return await connection.read(['directories', 'files'], async (transaction) => {
      const counts = [transaction.objectStore('directories').count(), transaction.objectStore('files').count()]
      const [directories = 0, files = 0] = await Promise.all(counts)
      // The root itself is one of the directories.
      return directories > 1 || files > 0
    })
  } finally {
    connection.close()
  }
}

/** The name of the Web Lock of a database's writer. */
export function indexedDbLockName(name: string): string {
  return `isovec:indexeddb:${name}`
}

function databaseName(name: string): string {
  return `isovec:${name}`
}

/** Below 64 KiB, from where on Chromium keeps a value in a file of its own, which no later sync would cover. */
const chunkBytes = 60 * 1024
/** What one transaction appends at most: the browser holds all of it in memory. */
const transactionBytesMax = 1 << 24
/** What a read asks for at a time. */
const readBytesMax = 1 << 23
const readCountMax = 4096
/** Chunks of that size or more are read one by one. */
const largeBytes = 4096

const rootNumber = -1

/** All keys that begin with a number. */
function keysOf(first: number): IDBKeyRange {
  return IDBKeyRange.bound([first], [first, []])
}

/** A file that is open for reading in this tab or worker, by its database and id. */
type OpenFile = { readers: number; isRemoved: boolean }
const openFiles = new Map<string, OpenFile>()

/** The writer's lock with the mark that its holder has left in the database. */
type Writer = { readonly lock: WebLock; readonly mark: string }

class IndexedDbBackend implements WebBackend {
  readonly kind = 'indexeddb'
  readonly location: string
  readonly connection: Connection
  #writer: Writer | undefined

  constructor(name: string) {
    this.location = name
    this.connection = new Connection(databaseName(name))
  }

  /** Who writes, while the lock is held and from when it was taken over on. */
  get writer(): Writer | undefined {
    return this.#writer?.lock.state === 'released' ? undefined : this.#writer
  }

  async exists(): Promise<boolean> {
    try {
      return (await this.connection.open(false)) && (await this.#has(rootNumber))
    } catch (error) {
      throw domError('open', this.location, error)
    }
  }

  async open(options: { create: boolean }): Promise<Directory> {
    if (!(await this.exists())) {
      if (!options.create) throw notFoundError(this.location)
      try {
        await this.connection.open(true)
        await this.change(['directories'], 'strict', async (transaction) => {
          await transaction.objectStore('directories').put(rootNumber, rootNumber)
        })
      } catch (error) {
        throw domError('create', this.location, error)
      }
    }
    return new IndexedDbDirectory(this, undefined)
  }

  async directories(): Promise<number[]> {
    if (!(await this.exists())) return []
    try {
      return await this.connection.read(['directories'], (transaction) =>
        transaction.objectStore('directories').getAllKeys(IDBKeyRange.lowerBound(0)),
      )
    } catch (error) {
      throw domError('list', this.location, error)
    }
  }

  async directory(number: number, options: { create: boolean }): Promise<Directory> {
    checkDirectoryNumber(number)
    if (!(await this.exists())) throw notFoundError(this.location)
    try {
      if (options.create) {
        await this.change(['directories'], 'strict', async (transaction) => {
          await transaction.objectStore('directories').put(number, number)
        })
      } else if (!(await this.#has(number))) throw notFoundError(String(number))
    } catch (error) {
      throw domError('open the directory', String(number), error)
    }
    return new IndexedDbDirectory(this, number)
  }

  async removeDirectory(number: number): Promise<void> {
    checkDirectoryNumber(number)
    if (!(await this.exists())) return
    try {
      const files = await this.connection.read(['files'], (transaction) =>
        transaction.objectStore('files').getAll(keysOf(number)),
      )
      await this.change(['directories', 'files'], 'relaxed', async (transaction) => {
        await Promise.all([
          transaction.objectStore('files').delete(keysOf(number)),
          transaction.objectStore('directories').delete(number),
        ])
      })
      for (const { id } of files) await this.removeChunks(id)
    } catch (error) {
      throw domError('remove the directory', String(number), error)
    }
  }

  async lock(options: WebLockOptions): Promise<WebLock> {
    const { location } = this
    if (!(await this.exists())) throw notFoundError(location)
    const lock = await acquireWebLock(indexedDbLockName(location), { ...options, location })
    try {
      // Whoever is the second to leave a mark is the writer: it must not be one whose lock was taken over before.
      await lock.confirm()
      const mark = randomName()
      await this.connection.change(['meta'], 'relaxed', async (transaction) => {
        await transaction.objectStore('meta').put(mark, 'writer')
      })
      this.#writer = { lock, mark }
      await this.#sweep()
      return lock
    } catch (error) {
      await lock.release()
      throw domError('lock', location, error)
    }
  }

  /**
   * Runs a transaction that changes something, unless the lock was taken over.
   *
   * @param options `happened`: see {@link Connection.change}; `writer`: who must still hold the lock, by default who does now
   */
  async change(
    stores: Stores,
    durability: IDBTransactionDurability,
    body: (transaction: WriteTransaction) => Promise<void>,
    options: { happened?: (transaction: ReadTransaction) => Promise<boolean>; writer?: Writer | undefined } = {},
  ): Promise<void> {
    const writer = 'writer' in options ? options.writer : this.writer
    if (writer === undefined) return this.connection.change(stores, durability, body, options.happened)
    if (writer.lock.state !== 'held') await writer.lock.confirm()
    const fenced = async (transaction: WriteTransaction): Promise<void> => {
      if ((await transaction.objectStore('meta').get('writer')) !== writer.mark) {
        throw new IsovecError('IO', `the lock of ${this.location} was taken over by another tab or worker`)
      }
      await body(transaction)
    }
    await this.connection.change([...stores, 'meta'], durability, fenced, options.happened)
  }

  /** Removes the bytes of a file that has no name any more, or leaves that to who reads it last, or to the next writer. */
  async removeChunks(id: number): Promise<void> {
    const open = openFiles.get(this.#idOf(id))
    if (open !== undefined) {
      open.isRemoved = true
      return
    }
    await unlessShared(this.#readerLockName(id), () =>
      this.connection.change(['chunks'], 'relaxed', (transaction) =>
        transaction.objectStore('chunks').delete(keysOf(id)),
      ),
    )
  }

  /** Keeps the bytes of a file from being removed until the function that it gives is called. */
  async keep(id: number): Promise<() => Promise<void>> {
    const key = this.#idOf(id)
    const open = openFiles.get(key) ?? { readers: 0, isRemoved: false }
    openFiles.set(key, open)
    open.readers++
    const end = await shareWebLock(this.#readerLockName(id))
    return async () => {
      end()
      if (--open.readers > 0) return
      openFiles.delete(key)
      if (open.isRemoved) await this.removeChunks(id)
    }
  }

  #idOf(id: number): string {
    return `${this.location}/${id}`
  }

  #readerLockName(id: number): string {
    return `isovec:indexeddb-file:${this.#idOf(id)}`
  }

  #has(number: number): Promise<boolean> {
    return this.connection.read(
      ['directories'],
      async (transaction) => (await transaction.objectStore('directories').getKey(number)) !== undefined,
    )
  }

  /** Removes bytes that no name leads to: whoever was to do so has ended before. */
  async #sweep(): Promise<void> {
    const orphans = await this.connection.read(['files', 'chunks'], async (transaction) => {
      const named = new Set((await transaction.objectStore('files').getAll()).map(({ id }) => id))
      const ids: number[] = []
      let cursor = await transaction.objectStore('chunks').openKeyCursor()
      while (cursor !== null) {
        const [id] = cursor.primaryKey
        if (!named.has(id)) ids.push(id)
        cursor = await cursor.continue([id, Number.POSITIVE_INFINITY])
      }
      return ids
    })
    for (const id of orphans) await this.removeChunks(id)
  }
}

class IndexedDbDirectory implements Directory {
  readonly #backend: IndexedDbBackend
  readonly #number: number | undefined
  /** Files of which a sync failed. */
  readonly #lost = new Map<string, unknown>()

  constructor(backend: IndexedDbBackend, number: number | undefined) {
    this.#backend = backend
    this.#number = number
  }

  async list(): Promise<string[]> {
    const name = this.#number === undefined ? this.#backend.location : String(this.#number)
    try {
      return await this.#backend.connection.read(['directories', 'files'], async (transaction) => {
        await this.#refuseRemoved(transaction)
        const keys = await transaction.objectStore('files').getAllKeys(keysOf(this.#key))
        return keys.map(([, file]) => file)
      })
    } catch (error) {
      throw domError('list', name, error)
    }
  }

  async create(name: string): Promise<WritableFile> {
    checkFileName(name)
    const file = filePath(this.#number, name)
    const key: FileKey = [this.#key, name]
    const id = randomId()
    const { writer } = this.#backend
    try {
      await this.#backend.change(
        ['directories', 'files'],
        'relaxed',
        async (transaction) => {
          await this.#refuseRemoved(transaction)
          await transaction.objectStore('files').add({ id, size: 0 }, key)
        },
        { happened: async (transaction) => (await transaction.objectStore('files').get(key))?.id === id },
      )
    } catch (error) {
      if (isDomError(error, 'ConstraintError')) throw fileExistsError(file, existsCause(error))
      throw domError('create', file, error)
    }
    this.#lost.delete(name)
    return new IndexedDbWritableFile(this.#backend, writer, key, id, file, (error) => this.#lost.set(name, error))
  }

  async open(name: string): Promise<RandomAccessFile> {
    checkFileName(name)
    const file = filePath(this.#number, name)
    try {
      for (;;) {
        const found = await this.#find(name)
        if (found === undefined) throw notFoundError(file)
        const end = await this.#backend.keep(found.id)
        // It may have been removed before it was kept.
        const kept = await this.#find(name)
        if (kept?.id === found.id) return new IndexedDbFile(this.#backend, kept, file, end)
        await end()
      }
    } catch (error) {
      throw domError('open', file, error)
    }
  }

  async sync(name: string): Promise<void> {
    checkFileName(name)
    const file = filePath(this.#number, name)
    const lost = this.#lost.get(name)
    if (lost !== undefined) {
      throw new IsovecError('IO', `cannot sync ${file} after an earlier failure`, { file, cause: lost })
    }
    try {
      await this.#backend.change(['files'], 'strict', async (transaction) => {
        const key: FileKey = [this.#key, name]
        const record = await transaction.objectStore('files').get(key)
        if (record === undefined) throw notFoundError(file)
        await transaction.objectStore('files').put(record, key)
      })
    } catch (error) {
      if (error instanceof IsovecError && error.code === 'NOT_FOUND') throw error
      this.#lost.set(name, error)
      throw domError('sync', file, error)
    }
  }

  async remove(name: string): Promise<void> {
    checkFileName(name)
    try {
      const found = await this.#find(name)
      if (found === undefined) return
      await this.#backend.change(['files'], 'relaxed', (transaction) =>
        transaction.objectStore('files').delete([this.#key, name]),
      )
      await this.#backend.removeChunks(found.id)
    } catch (error) {
      throw domError('remove', filePath(this.#number, name), error)
    }
  }

  get #key(): number {
    return this.#number ?? rootNumber
  }

  #find(name: string): Promise<FileRecord | undefined> {
    return this.#backend.connection.read(['files'], (transaction) =>
      transaction.objectStore('files').get([this.#key, name]),
    )
  }

  async #refuseRemoved(transaction: ReadTransaction | WriteTransaction): Promise<void> {
    const directories = transaction.objectStore('directories') as DirectoryStore
    if ((await directories.getKey(this.#key)) !== undefined) return
    throw notFoundError(this.#number === undefined ? this.#backend.location : String(this.#number))
  }
}

type FileKey = [directory: number, name: string]
type DirectoryStore = { getKey(key: number): Promise<number | undefined> }

/** Whole numbers below 2^53, by chance: no two files ever have the same. */
function randomId(): number {
  const [high = 0, low = 0] = crypto.getRandomValues(new Uint32Array(2))
  return (high & 0x1fffff) * 2 ** 32 + low
}

function existsCause(cause: unknown): Error {
  return Object.assign(new Error('file already exists', { cause }), { code: 'EEXIST' })
}

class IndexedDbWritableFile extends SequentialFile {
  readonly #backend: IndexedDbBackend
  readonly #writer: Writer | undefined
  readonly #key: FileKey
  readonly #id: number
  readonly #lose: (error: unknown) => void

  constructor(
    backend: IndexedDbBackend,
    writer: Writer | undefined,
    key: FileKey,
    id: number,
    file: string,
    lose: (error: unknown) => void,
  ) {
    super(file)
    this.#backend = backend
    this.#writer = writer
    this.#key = key
    this.#id = id
    this.#lose = lose
  }

  protected override async write(parts: readonly Uint8Array[], length: number, offset: number): Promise<void> {
    try {
      const source = new PartReader(parts)
      for (let done = 0; done < length; ) {
        const chunks: Uint8Array[] = []
        const end = Math.min(length, done + transactionBytesMax)
        for (let at = done; at < end; at += chunkBytes) chunks.push(source.take(Math.min(chunkBytes, end - at)))
        await this.#append(chunks, offset + done, offset + end)
        done = end
      }
    } catch (error) {
      throw domError('append to', this.file, error)
    }
  }

  async #append(chunks: readonly Uint8Array[], start: number, end: number): Promise<void> {
    await this.#backend.change(
      ['files', 'chunks'],
      'relaxed',
      async (transaction) => {
        const files = transaction.objectStore('files')
        await this.#refuseOther(await files.get(this.#key), start)
        const store = transaction.objectStore('chunks')
        let at = start
        const requests: Promise<unknown>[] = []
        for (const chunk of chunks) {
          requests.push(store.add(chunk, [this.#id, at]))
          at += chunk.byteLength
        }
        await Promise.all([...requests, files.put({ id: this.#id, size: end }, this.#key)])
      },
      {
        writer: this.#writer,
        happened: async (transaction) => {
          const record = await transaction.objectStore('files').get(this.#key)
          return record?.id === this.#id && record.size === end
        },
      },
    )
  }

  protected override async flush(): Promise<void> {
    const { size } = this
    try {
      await this.#backend.change(
        ['files'],
        'strict',
        async (transaction) => {
          const files = transaction.objectStore('files')
          const record = await files.get(this.#key)
          await this.#refuseOther(record, Math.max(size, record?.size ?? 0))
          await files.put(record!, this.#key)
        },
        { writer: this.#writer },
      )
    } catch (error) {
      this.#lose(error)
      throw domError('sync', this.file, error)
    }
  }

  protected override async free(): Promise<void> {}

  /** A browser that has lost its connection may have lost more. */
  async #refuseOther(record: FileRecord | undefined, size: number): Promise<void> {
    if (record?.id === this.#id && record.size === size) return
    const found = record?.id === this.#id ? `has ${record.size} bytes, not ${size}` : 'was removed'
    throw new IsovecError('IO', `${this.file} ${found}`, { file: this.file })
  }
}

class IndexedDbFile extends ReadFile {
  readonly #backend: IndexedDbBackend
  readonly #id: number
  readonly #end: () => Promise<void>

  constructor(backend: IndexedDbBackend, { id, size }: FileRecord, file: string, end: () => Promise<void>) {
    super(file, size)
    this.#backend = backend
    this.#id = id
    this.#end = end
  }

  protected override async fill(offset: number, target: Uint8Array): Promise<void> {
    let count: number
    try {
      count = await this.#backend.connection.read(['chunks'], (transaction) =>
        this.#readChunks(transaction, offset, target),
      )
    } catch (error) {
      throw domError('read', this.file, error, offset)
    }
    if (count === target.byteLength) return
    const message = `${this.file} ends at ${offset + count}, it had ${this.size} bytes when it was opened`
    throw new IsovecError('IO', message, { file: this.file, offset })
  }

  async #readChunks(transaction: ReadTransaction, offset: number, target: Uint8Array): Promise<number> {
    const store = transaction.objectStore('chunks')
    const before = IDBKeyRange.bound([this.#id, 0], [this.#id, offset])
    const first = await store.openKeyCursor(before, 'prev')
    if (first === null) return 0
    const end = offset + target.byteLength
    let at = first.primaryKey[1]
    while (at < end) {
      const range = IDBKeyRange.bound([this.#id, at], [this.#id, end], false, true)
      const keys = await store.getAllKeys(range, readCountMax)
      if (keys.length === 0) break
      const mean = keys.length === 1 ? largeBytes : (keys.at(-1)![1] - at) / (keys.length - 1)
      // Chromium takes several times as long for many large values at once as for each by itself.
      const chunks =
        mean < largeBytes
          ? await store.getAll(range, keys.length)
          : await Promise.all(keys.slice(0, Math.ceil(readBytesMax / mean)).map((key) => store.get(key)))
      for (const chunk of chunks) {
        if (chunk === undefined) return Math.max(0, at - offset)
        const from = Math.max(0, offset - at)
        target.set(chunk.subarray(from, Math.min(chunk.byteLength, end - at)), Math.max(0, at - offset))
        at += chunk.byteLength
      }
    }
    return Math.max(0, Math.min(at, end) - offset)
  }

  protected override async free(): Promise<void> {
    try {
      await this.#end()
    } catch (error) {
      throw domError('close', this.file, error)
    }
  }
}
