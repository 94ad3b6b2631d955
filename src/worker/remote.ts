/**
 * A database and its collections that are held elsewhere: the calls of `calls.ts` as messages.
 */
import type {
  CollectionStats,
  CompactionResult,
  DatabaseEvent,
  DatabaseInfo,
  RecallReport,
  ResolvedCollectionOptions,
  SnapshotReport,
  VerifyReport,
} from '../api.ts'
import type {
  AnyDocument,
  AnyResult,
  CollectionCalls,
  Configuration,
  DatabaseCalls,
  Loop,
  RecallTerms,
  SnapshotTerms,
  VerifyTerms,
  WorkOptions,
  WriteTerms,
  Written,
} from '../calls.ts'
import { IsovecError, throwIfAborted } from '../errors.ts'
import type { CheckedSearch } from '../request.ts'
import type { FilterNode } from '../search/filter.ts'
import type { Wanted } from '../search/hydrate.ts'
import { type PackedBatch, waitingSizeMax } from '../storage/batch.ts'
import { type CallOptions, Connection, type Notice, type Port } from './connection.ts'
import { type CollectionFacts, decodeError, decodeEvent, type ErrorMessage, type Target } from './protocol.ts'

const database: Target = { kind: 'database' }

/** What a remote database is made with. */
export type RemoteOptions = {
  readonly location: string
  readonly onEvent: ((event: DatabaseEvent) => void) | undefined
  /** Called once, when it was closed. */
  readonly onClose: () => void
}

/** A database at the other end of a port. */
export class RemoteDatabase implements DatabaseCalls {
  readonly location: string
  readonly #connection: Connection
  readonly #onEvent: ((event: DatabaseEvent) => void) | undefined
  readonly #onClose: () => void
  readonly #collections = new Set<WeakRef<RemoteCollection>>()
  #closing: Promise<void> | undefined
  /** Bytes of writes that were not acknowledged yet. */
  waitingSize = 0

  constructor(port: Port, { location, onEvent, onClose }: RemoteOptions) {
    this.location = location
    this.#onEvent = onEvent
    this.#onClose = onClose
    this.#connection = new Connection(port, (notice) => this.#hear(notice))
  }

  /** Whether it was closed, or its worker is gone. */
  get isClosed(): boolean {
    return this.#closing !== undefined
  }

  /** Nothing more is heard of the worker. */
  disconnect(error?: () => IsovecError): void {
    this.#connection.end(error)
  }

  call<T>(target: Target, name: string, args: readonly unknown[], options?: CallOptions): Promise<T> {
    if (this.#closing !== undefined) return Promise.reject(closedError())
    return this.#connection.call(target, name, args, options)
  }

  async createCollection(
    name: string,
    options: ResolvedCollectionOptions,
    ifExists: 'error' | 'open',
  ): Promise<CollectionCalls> {
    return this.#collection(await this.call(database, 'createCollection', [name, options, ifExists]))
  }

  async openCollection(name: string, model: string | undefined): Promise<CollectionCalls> {
    return this.#collection(await this.call(database, 'openCollection', [name, model]))
  }

  hasCollection(name: string): Promise<boolean> {
    return this.call(database, 'hasCollection', [name])
  }

  listCollections(): Promise<string[]> {
    return this.call(database, 'listCollections', [])
  }

  renameCollection(from: string, to: string, replace: boolean): Promise<void> {
    return this.call(database, 'renameCollection', [from, to, replace])
  }

  dropCollection(name: string): Promise<void> {
    return this.call(database, 'dropCollection', [name])
  }

  async snapshot({ destination, isCompact, signal, onProgress }: SnapshotTerms): Promise<SnapshotReport> {
    if (typeof destination !== 'string' && !(destination instanceof URL)) {
      throw new IsovecError('UNSUPPORTED', 'a backend of this thread is out of reach of the worker: name a place', {
        field: 'destination',
      })
    }
    return this.call(database, 'snapshot', [String(destination), isCompact], { signal, onProgress })
  }

  verify({ isFull, signal, onProgress }: VerifyTerms): Promise<VerifyReport> {
    return this.call(database, 'verify', [isFull], { signal, onProgress })
  }

  info(): Promise<DatabaseInfo> {
    return this.call(database, 'info', [])
  }

  refresh(): Promise<void> {
    return this.call(database, 'refresh', [])
  }

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    try {
      if (this.#connection.isOpen) await this.#connection.call(database, 'close', [])
    } finally {
      this.#connection.end(closedError)
      this.#onClose()
    }
  }

  #collection(facts: CollectionFacts): RemoteCollection {
    const collection = new RemoteCollection(this, facts)
    for (const ref of this.#collections) if (ref.deref() === undefined) this.#collections.delete(ref)
    this.#collections.add(new WeakRef(collection))
    return collection
  }

  #hear(notice: Notice): void {
    if (notice.type === 'facts') {
      for (const ref of this.#collections) {
        const collection = ref.deref()
        if (collection === undefined) this.#collections.delete(ref)
        else collection.learn(notice.names, notice.options)
      }
      return
    }
    try {
      this.#onEvent?.(decodeEvent(notice.event))
    } catch {
      // What a listener gets wrong must not end what comes behind it.
    }
  }
}

function closedError(): IsovecError {
  return new IsovecError('CLOSED', 'the database is closed')
}

/** Statistics as they are sent. */
type SentStats = Omit<CollectionStats, 'lastBackgroundError'> & { readonly lastBackgroundError?: ErrorMessage }

class RemoteCollection implements CollectionCalls {
  readonly number: number
  readonly isReadOnly: boolean
  readonly #database: RemoteDatabase
  readonly #target: Target
  #name: string
  #options: ResolvedCollectionOptions
  #isDropped = false

  constructor(owner: RemoteDatabase, { number, name, options, isReadOnly }: CollectionFacts) {
    this.#database = owner
    this.number = number
    this.isReadOnly = isReadOnly
    this.#target = { kind: 'collection', number }
    this.#name = name
    this.#options = options
  }

  get name(): string {
    return this.#name
  }

  get options(): ResolvedCollectionOptions {
    return this.#options
  }

  get isClosed(): boolean {
    return this.#isDropped || this.#database.isClosed
  }

  learn(names: ReadonlyMap<number, string>, options: ReadonlyMap<number, ResolvedCollectionOptions>): void {
    const name = names.get(this.number)
    if (name === undefined) this.#isDropped = true
    else this.#name = name
    this.#options = options.get(this.number) ?? this.#options
  }

  #call<T>(name: string, args: readonly unknown[], options?: CallOptions): Promise<T> {
    return this.#database.call(this.#target, name, args, options)
  }

  async write(batch: PackedBatch, { durability, signal }: WriteTerms): Promise<Written> {
    const owner = this.#database
    const { byteLength } = batch.bytes
    if (owner.waitingSize > 0 && owner.waitingSize + byteLength > waitingSizeMax) {
      const message = `writes of ${owner.waitingSize} bytes wait already: await some of them before the next`
      throw new IsovecError('OUT_OF_MEMORY', message, { outcome: 'none' })
    }
    owner.waitingSize += byteLength
    try {
      const transfer = [batch.bytes.buffer as ArrayBuffer]
      return await this.#call<Written>('write', [batch, durability], { signal, transfer })
    } finally {
      owner.waitingSize -= byteLength
    }
  }

  deleteWhere(filter: FilterNode, { durability, signal }: WriteTerms): Promise<number> {
    return this.#call('deleteWhere', [filter, durability], { signal })
  }

  getMany(
    ids: readonly string[],
    wanted: Wanted,
    signal: AbortSignal | undefined,
  ): Promise<(AnyDocument | undefined)[]> {
    return this.#call('getMany', [ids, wanted], { signal })
  }

  has(id: string): Promise<boolean> {
    return this.#call('has', [id])
  }

  count(filter: FilterNode | undefined, signal: AbortSignal | undefined): Promise<number> {
    return this.#call('count', [filter], { signal })
  }

  async *loop({ signal, ...asked }: Loop): AsyncIterableIterator<readonly AnyDocument[]> {
    const number = await this.#call<number>('loop', [asked], { signal })
    const target: Target = { kind: 'loop', number }
    let isOver = false
    try {
      throwIfAborted(signal)
      for (;;) {
        const batch = await this.#database.call<AnyDocument[] | undefined>(target, 'next', [], { signal })
        isOver = batch === undefined
        if (batch === undefined) return
        yield batch
      }
    } finally {
      // A worker that is gone holds nothing.
      if (!isOver) this.#database.call(target, 'leave', []).catch(() => {})
    }
  }

  search({ signal, ...asked }: CheckedSearch): Promise<AnyResult> {
    return this.#call('search', [asked], { signal })
  }

  searchMany(asked: readonly CheckedSearch[], signal: AbortSignal | undefined): Promise<AnyResult[]> {
    const signals = new Set([signal, ...asked.map((each) => each.signal)].filter((each) => each !== undefined))
    const plain = asked.map(({ signal: _, ...each }) => each)
    // Any of them ends the call as a whole, as the first one that fires would.
    return this.#call('searchMany', [plain], {
      signal: signals.size > 1 ? AbortSignal.any([...signals]) : [...signals][0],
    })
  }

  measureRecall({ signal, ...asked }: RecallTerms): Promise<RecallReport> {
    return this.#call('measureRecall', [asked], { signal })
  }

  flush(): Promise<void> {
    return this.#call('flush', [])
  }

  sync(): Promise<void> {
    return this.#call('sync', [])
  }

  compact(terms: WorkOptions): Promise<CompactionResult> {
    return this.#call('compact', [], terms)
  }

  buildIndex(hnsw: { M?: number; efConstruction?: number }, terms: WorkOptions): Promise<void> {
    return this.#call('buildIndex', [hnsw], terms)
  }

  dropIndex(): Promise<void> {
    return this.#call('dropIndex', [])
  }

  hasIndex(): Promise<boolean> {
    return this.#call('hasIndex', [])
  }

  configure(options: Configuration): Promise<void> {
    return this.#call('configure', [options])
  }

  async stats(): Promise<CollectionStats> {
    const { lastBackgroundError: sent, ...stats } = await this.#call<SentStats>('stats', [])
    return sent === undefined ? stats : { ...stats, lastBackgroundError: decodeError(sent) as IsovecError }
  }

  async settled(): Promise<void> {
    // Closing has waited for everything.
    if (!this.isClosed) await this.#call('settled', [])
  }
}
