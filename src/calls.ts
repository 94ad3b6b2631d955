/**
 * The calls on databases and collections with arguments that were checked and copied: the seam between what users see and the
 * place where the data is, which may be another thread. Everything but signals and callbacks can be cloned into a message.
 */
import type {
  CollectionOptions,
  CollectionStats,
  CompactionResult,
  DatabaseInfo,
  RecallReport,
  ResolvedCollectionOptions,
  SnapshotReport,
  VerifyReport,
} from './api.ts'
import type { StorageBackend } from './directory/directory.ts'
import type { WorkOptions } from './maintenance.ts'
import type { CheckedSearch } from './request.ts'
import type { FilterNode } from './search/filter.ts'
import type { Wanted } from './search/hydrate.ts'
import type { Plan } from './search/query.ts'
import type { PackedBatch } from './storage/batch.ts'
import type { Written } from './writer.ts'

export type { WorkOptions, Written }

/** How a write is to be made. */
export type WriteTerms = {
  /** By default as the collection is configured when the turn of the write comes. */
  readonly durability: 'strict' | 'buffered' | undefined
  readonly signal: AbortSignal | undefined
}

/** A document or hit as it is read, of whatever type. */
export type AnyDocument = {
  readonly id: string
  readonly score?: number
  readonly payload?: object
  readonly vector?: Float32Array
}

/** The outcome of a search, of whatever type. */
export type AnyResult = { hits: AnyDocument[]; exact: boolean; plan: Plan; visited: number; elapsedMs: number }

/** What a loop over documents reads. */
export type Loop = {
  readonly filter: FilterNode | undefined
  readonly wanted: Wanted
  readonly batchSize: number
  readonly signal: AbortSignal | undefined
}

/** What a comparison with exact search is made of. */
export type RecallTerms = {
  readonly samples: number
  readonly k: number
  readonly ef: number | undefined
  readonly recall: number
  readonly signal: AbortSignal | undefined
}

/** Options that may change. */
export type Configuration = Partial<Pick<CollectionOptions, 'durability' | 'compaction' | 'index'>>

/** The calls on one collection. They take effect in the order in which they are made. Failures are those of `Collection`. */
export interface CollectionCalls {
  /** Of its directory: the same for as long as it exists, whatever its name. */
  readonly number: number
  readonly name: string
  readonly options: ResolvedCollectionOptions
  /** Whether the collection was dropped or its database closed. */
  readonly isClosed: boolean
  readonly isReadOnly: boolean
  write(batch: PackedBatch, terms: WriteTerms): Promise<Written>
  deleteWhere(filter: FilterNode, terms: WriteTerms): Promise<number>
  getMany(ids: readonly string[], wanted: Wanted, signal: AbortSignal | undefined): Promise<(AnyDocument | undefined)[]>
  has(id: string): Promise<boolean>
  count(filter: FilterNode | undefined, signal: AbortSignal | undefined): Promise<number>
  /** Documents of one moment, a batch at a time. */
  loop(asked: Loop): AsyncIterableIterator<readonly AnyDocument[]>
  search(asked: CheckedSearch): Promise<AnyResult>
  searchMany(asked: readonly CheckedSearch[], signal: AbortSignal | undefined): Promise<AnyResult[]>
  measureRecall(asked: RecallTerms): Promise<RecallReport>
  flush(): Promise<void>
  sync(): Promise<void>
  compact(terms: WorkOptions): Promise<CompactionResult>
  /** @param hnsw what isn't given stays as it is */
  buildIndex(hnsw: { M?: number; efConstruction?: number }, terms: WorkOptions): Promise<void>
  dropIndex(): Promise<void>
  hasIndex(): Promise<boolean>
  configure(options: Configuration): Promise<void>
  stats(): Promise<CollectionStats>
  /** Resolves when everything that was asked for before has taken effect. */
  settled(): Promise<void>
}

/** Terms of {@link DatabaseCalls.snapshot}. */
export type SnapshotTerms = WorkOptions & {
  readonly destination: string | URL | StorageBackend
  readonly isCompact: boolean
}

/** Terms of {@link DatabaseCalls.verify}. */
export type VerifyTerms = WorkOptions & { readonly isFull: boolean }

/** The calls on a database. Failures are those of `Database`. */
export interface DatabaseCalls {
  readonly location: string
  createCollection(
    name: string,
    options: ResolvedCollectionOptions,
    ifExists: 'error' | 'open',
  ): Promise<CollectionCalls>
  openCollection(name: string, model: string | undefined): Promise<CollectionCalls>
  hasCollection(name: string): Promise<boolean>
  listCollections(): Promise<string[]>
  renameCollection(from: string, to: string, replace: boolean): Promise<void>
  dropCollection(name: string): Promise<void>
  snapshot(terms: SnapshotTerms): Promise<SnapshotReport>
  verify(terms: VerifyTerms): Promise<VerifyReport>
  info(): Promise<DatabaseInfo>
  refresh(): Promise<void>
  close(): Promise<void>
}
