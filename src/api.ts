/**
 * The public contract: every name that users of the package see, and what it promises.
 */
import type { JsonObject } from './codec/json.ts'
import type { StorageBackend } from './directory/directory.ts'
import type { IsovecError } from './errors.ts'
import type { Metric } from './kernel/index.ts'
import type { CompactionResult, Progress } from './maintenance.ts'
import type { Filter, Path } from './search/filter-types.ts'
import type { Plan } from './search/query.ts'
import type { VectorInput } from './storage/batch.ts'
import type { HnswOptions, ResolvedCollectionOptions } from './storage/collection-manifest.ts'
import type { FileReport } from './verify.ts'

export type { JsonObject, JsonValue } from './codec/json.ts'
export type { FieldOperators, Filter, Path, PathValue } from './search/filter-types.ts'
export type {
  CompactionResult,
  FileReport,
  HnswOptions,
  Metric,
  Plan,
  Progress,
  ResolvedCollectionOptions,
  VectorInput,
}

/** Something that happened without anybody waiting for it, or that somebody else has done. */
export type DatabaseEvent =
  /** Work in the background failed, or damage was made good. */
  | { readonly type: 'background-error'; readonly collection: string; readonly error: IsovecError }
  /** Documents of a collection have changed, by whatever handle or tab. */
  | { readonly type: 'write'; readonly collection: string }
  /** Collections were made, renamed or dropped. */
  | { readonly type: 'collections' }
  /** Another tab leads now, or this one does; see {@link DatabaseInfo}. */
  | { readonly type: 'role'; readonly role: DatabaseRole }

/**
 * The part that an open database plays: the one `writer`; a `reader`; in a browser the `leader` among tabs, or a `follower`, whose calls
 * the leader carries out.
 */
export type DatabaseRole = 'writer' | 'reader' | 'leader' | 'follower'

/** Options of {@link openDatabase}. */
export type OpenOptions = {
  /**
   * Only reads: takes no lock, makes and changes no file, and sees what was acknowledged when it was opened or last refreshed, also
   * beside a writer in another process and on media that can't be written. Default false; implies `mustExist`.
   */
  readOnly?: boolean
  /** Fails with `NOT_FOUND` instead of making a new database. Default false. */
  mustExist?: boolean
  /** Milliseconds to wait for another writer to let go of the database. Default 0. */
  lockTimeout?: number
  signal?: AbortSignal | undefined
  /** Is told of what happens in the background. */
  onEvent?: (event: DatabaseEvent) => void
  /**
   * In a browser: asks it to keep the data when room is short. It may ask the person, and is not waited for; `info()` tells what came of
   * it. Default false.
   */
  requestPersistence?: boolean
  /** The WASM kernel, for hosts that forbid compiling bytes of the bundle. Default: the one that is built in. */
  wasm?: WebAssembly.Module | BufferSource | URL
  /**
   * In a browser: the worker that holds the database, for pages whose policy forbids blob workers: the address of a copy of
   * `isovec/worker-script`, or what makes a worker of it. Default: one that is built in.
   */
  worker?: URL | (() => Worker)
}

/**
 * Options of a collection. `durability`, `compaction` and `index` can be changed by `configure`, `hnsw` by `buildIndex`; the others are
 * fixed for its life.
 */
export type CollectionOptions = {
  /** Components of every vector: 1 to 65,536. */
  dimension: number
  /** Default `cosine`. */
  metric?: Metric
  /**
   * `strict` (default): what is acknowledged survives power loss; writes that wait together share one sync. `buffered`: it survives
   * the end of the process, and is synced within a second or 8 MB.
   */
  durability?: 'strict' | 'buffered'
  /** Parameters of graphs. Default `M` 16, `efConstruction` 200. */
  hnsw?: { M?: number; efConstruction?: number }
  /**
   * What graphs are walked on, and scans read first: 7-bit codes where they pay (`auto`, default), always (`sq8`), or the vectors
   * (`none`). Exact vectors decide the final order in each case.
   */
  quantization?: 'auto' | 'sq8' | 'none'
  /** Where exact vectors are kept. Only `memory` (default) for now. */
  vectors?: 'memory'
  /** Whether small segments are merged in the background. Default `auto`. */
  compaction?: 'auto' | 'manual'
  /** Whether segments get their graphs in the background. Default `auto`. */
  index?: 'auto' | 'manual'
  /** Name of the embedding model. A collection isn't opened under another one. */
  model?: string
}

/** A document to be stored. */
export type Document<P extends object = JsonObject> = {
  /** 1 to 1,024 bytes of UTF-8 without lone surrogates. */
  id: string
  /** As many components as the collection's dimension, finite as 32-bit floats; not all zero under cosine. */
  vector: VectorInput
  /** A JSON object up to 1 MiB and 64 levels deep. */
  payload?: P
}

/** What reads return beside the id: the payload, or the parts of it that some paths lead to; and the vector. */
export type Include<P extends object = JsonObject> = { payload?: boolean | readonly Path<P>[]; vector?: boolean }

/** An `include` whose payload says nothing of paths. */
type AnyInclude = { payload?: boolean | readonly string[]; vector?: boolean }

/** Typed by `include`: what was not asked for is not there; of an `include` that is not known, either may be. */
type VectorPart<I extends AnyInclude, ByDefault extends boolean> = AnyInclude extends I
  ? { vector?: Float32Array }
  : (I extends { vector: boolean } ? I['vector'] : ByDefault) extends true
    ? { vector: Float32Array }
    : unknown
type PayloadPart<P extends object, I extends AnyInclude> = I extends { payload: false }
  ? unknown
  : I extends { payload: readonly string[] }
    ? { payload?: Projected<P> }
    : { payload?: P }

/** A payload of which only some parts were asked for. */
export type Projected<T> = T extends readonly (infer E)[]
  ? Projected<E>[]
  : T extends object
    ? { [K in keyof T]?: Projected<T[K]> }
    : T

/** A document as it is read: vector and payload unless `include` says otherwise; a document may have no payload. */
export type StoredDocument<P extends object = JsonObject, I extends AnyInclude = AnyInclude> = {
  id: string
} & VectorPart<I, true> &
  PayloadPart<P, I>

/** A change of top-level fields of a payload: some are set, others removed; the rest and the vector stay. */
export type Patch<P extends object = JsonObject> = { id: string; payload?: Partial<P>; unset?: readonly (keyof P)[] }

/** One operation of an atomic write. A patch of a document that doesn't exist does nothing. */
export type WriteOperation<P extends object = JsonObject> =
  | { upsert: Document<P> }
  | { patch: Patch<P> }
  | { delete: string }

/** Options of writes. */
export type WriteOptions = {
  /** Ends the wait with `ABORTED`; its `outcome` says whether the write may have happened all the same. */
  signal?: AbortSignal | undefined
  /** Other than the collection's. */
  durability?: 'strict' | 'buffered'
}

/** What to look for. */
export type SearchRequest<P extends object = JsonObject, I extends AnyInclude = AnyInclude> = {
  /** The question; or `near`. */
  vector?: VectorInput
  /** Id of a stored document whose vector is the question. The document itself is left out of the hits. */
  near?: string
  /**
   * Only documents that pass are found: as many as `k` whenever there are so many. The guide tells what filters mean.
   */
  filter?: Filter<P> | undefined
  /** Hits wanted: 1 to 10,000. Default 10. */
  k?: number
  /** `auto` (default) and `approximate` may walk a graph; `exact` leaves none of the true nearest out. */
  mode?: 'auto' | 'exact' | 'approximate'
  /**
   * Share of the true nearest that a walk is to find on average: above 0 up to 1, default 0.95. A table that was measured when the graph
   * was built turns it into a beam; more than the widest beam of the table reaches isn't promised.
   */
  recall?: number
  /** Beam of graph walks, 1 to 20,000; beyond 4,096, and where a walk would cost more, a scan is made. Overrides `recall`. */
  ef?: number
  /** Other than the collection's; searches exactly. */
  metric?: Metric
  /** Leaves out hits that score less. */
  minScore?: number
  /** Hits to skip. Default 0. */
  offset?: number
  /** Default: payload without vector. */
  include?: I
  signal?: AbortSignal | undefined
}

/** A document that was found. */
export type Hit<P extends object = JsonObject, I extends AnyInclude = AnyInclude> = {
  id: string
  /** Higher is better: cosine similarity, inner product or negated euclidean distance of the 32-bit vectors. */
  score: number
} & VectorPart<I, false> &
  PayloadPart<P, I>

/** Hits, best first; equal scores by id in the order of UTF-16 code units. */
export type SearchResult<P extends object = JsonObject, I extends AnyInclude = AnyInclude> = {
  hits: Hit<P, I>[]
  /** Whether this is what scoring every vector exactly would give. */
  exact: boolean
  plan: Plan
  /** Vectors that were compared with the query. */
  visited: number
  elapsedMs: number
}

/** Outcome of {@link Collection.measureRecall}. */
export type RecallReport = {
  /** Share of the true `k` nearest that approximate search found, averaged over the samples. */
  recall: number
  samples: number
  k: number
  /** Vectors that an approximate search visited, on average. */
  visited: number
  /** Median time of an approximate search. */
  approximateMs: number
  /** Median time of an exact search. */
  exactMs: number
}

/** Sizes and counts of a collection. */
export type CollectionStats = {
  /** Documents. */
  docs: number
  /** Of these, not in a segment yet. */
  memtableDocs: number
  segments: number
  /** Documents in segments. */
  segmentDocs: number
  /** Dead rows that segments still hold. */
  deleted: number
  /** Share of dead rows among the rows of segments. */
  deletedRatio: number
  /** Bytes of segments with their graphs and tombstones. */
  bytes: number
  /** Bytes of log that no segment holds yet. */
  walBytes: number
  /** Bytes of the attribute columns that filters are answered from, as part of `bytes`. */
  columnBytes: number
  /** Bytes of graphs, as part of `bytes`. */
  indexBytes: number
  /** Bytes in memory: vectors, codes, graphs, ids. */
  memoryBytes: number
  /** `memoryBytes` for each document. */
  memoryBytesPerDoc: number
  /** The last failure of background work. */
  lastBackgroundError?: IsovecError
}

/** A set of documents with vectors of one dimension. Calls take effect in the order in which they were made. */
export interface Collection<P extends object = JsonObject> extends AsyncDisposable {
  readonly name: string
  readonly options: ResolvedCollectionOptions
  /**
   * Writes atomically: all operations or none, in order; a later one on an id wins. Inputs are copied before the call returns.
   * @throws IsovecError `INVALID_ARGUMENT`, `WRONG_DIMENSION` before anything is stored; `QUOTA_EXCEEDED`, `IO`, `READ_ONLY`,
   * `ABORTED`, `OUT_OF_MEMORY` with `outcome`. Writes of 256 MiB may wait for their turn; more are refused with `OUT_OF_MEMORY`
   */
  write(operations: readonly WriteOperation<P>[], options?: WriteOptions): Promise<void>
  /** Inserts or replaces documents, atomically, like {@link write}. */
  upsert(docs: Document<P> | readonly Document<P>[], options?: WriteOptions): Promise<void>
  /** Stores any number of documents in atomic batches, taking no more from the source than can be stored. */
  ingest(
    docs: Iterable<Document<P>> | AsyncIterable<Document<P>>,
    options?: WriteOptions & { onProgress?: (progress: { count: number }) => void },
  ): Promise<{ count: number }>
  /**
   * Changes top-level fields of a document's payload; the vector isn't touched, and neither is any graph.
   * @param payload fields to set; those that are `undefined` stay as they are
   * @param options `unset`: fields to remove
   * @returns whether there is such a document
   * @throws IsovecError as {@link write}; `INVALID_ARGUMENT` also if the payload would become larger than 1 MiB
   */
  patch(id: string, payload: Partial<P>, options?: WriteOptions & { unset?: readonly (keyof P)[] }): Promise<boolean>
  /**
   * Deletes all documents that pass a filter, atomically, as of when its turn among the writes comes; returns how many. Their ids must
   * fit one atomic batch of 64 MiB: more than a million of usual length.
   * @throws IsovecError as {@link write}; `INVALID_ARGUMENT`, and nothing is deleted, if they don't
   */
  deleteWhere(filter: Filter<P>, options?: WriteOptions): Promise<number>
  /** Deletes documents; returns how many existed. */
  delete(ids: string | readonly string[], options?: WriteOptions): Promise<number>
  /**
   * A document, with payload and vector unless `include` says otherwise; undefined if there is none. The vector is what was put in, bit
   * for bit.
   * @throws IsovecError `INVALID_ARGUMENT`, `CORRUPTION`
   */
  get<const I extends Include<P> = { vector: true }>(
    id: string,
    options?: { include?: I },
  ): Promise<StoredDocument<P, I> | undefined>
  /** Documents in the order asked, `undefined` for those that don't exist; all of one moment. */
  getMany<const I extends Include<P> = { vector: true }>(
    ids: readonly string[],
    options?: { include?: I; signal?: AbortSignal | undefined },
  ): Promise<(StoredDocument<P, I> | undefined)[]>
  /** Whether there is a document of this id. Reads no payload and no vector. */
  has(id: string): Promise<boolean>
  /** Number of documents, or of those that pass a filter. Without a filter it takes no longer for more documents. */
  count(filter?: Filter<P>, options?: { signal?: AbortSignal | undefined }): Promise<number>
  /**
   * All documents, or those that pass a filter, of the moment in which the loop begins, in no particular order. Leaving the loop frees
   * what it holds. Options are checked and copied by the call itself; what is wrong with them is told by the loop.
   * @throws IsovecError `INVALID_ARGUMENT`, `CLOSED`, `ABORTED`, `CORRUPTION`
   */
  iterate<const I extends Include<P> = { vector: true }>(options?: {
    /** Only documents that pass. */
    filter?: Filter<P> | undefined
    include?: I
    batchSize?: number
    signal?: AbortSignal | undefined
  }): AsyncIterableIterator<StoredDocument<P, I>>
  /**
   * The nearest documents to a vector, best first. Sees everything that was written before the call.
   * @throws IsovecError `INVALID_ARGUMENT`, `WRONG_DIMENSION`; `NOT_FOUND` if there is no document to be `near`; `ABORTED`, `CORRUPTION`
   */
  search<const I extends Include<P> = { vector: false }>(request: SearchRequest<P, I>): Promise<SearchResult<P, I>>
  /**
   * Several searches of one state, one after the other; results in the order of the requests. A signal of a request takes the place of the
   * common one.
   * @throws IsovecError as {@link search}; nothing is searched if any request is refused
   */
  searchMany<const I extends Include<P> = { vector: false }>(
    requests: readonly SearchRequest<P, I>[],
    options?: { signal?: AbortSignal | undefined },
  ): Promise<SearchResult<P, I>[]>
  /**
   * Compares approximate with exact search on one state, with stored vectors as queries, each left out of its own hits.
   * @param options `samples` (default 100) vectors, evenly spread; `k` (default 10); `ef` and `recall` as in a search
   */
  measureRecall(options?: {
    samples?: number
    k?: number
    ef?: number
    recall?: number
    signal?: AbortSignal | undefined
  }): Promise<RecallReport>
  /** Moves what is in memory into a segment. */
  flush(): Promise<void>
  /** Makes everything acknowledged survive power loss, also what was written under `buffered`. */
  sync(): Promise<void>
  /**
   * Merges all segments into as few as memory allows, each with its graph, and drops deleted documents for good. An abort before the
   * merge is committed changes nothing; behind it only graphs are missing, which are built later.
   */
  compact(options?: {
    signal?: AbortSignal | undefined
    onProgress?: (progress: Progress) => void
  }): Promise<CompactionResult>
  /** Flushes, and builds the graphs that are missing or were built with other parameters. Parameters given here stay. */
  buildIndex(options?: {
    M?: number
    efConstruction?: number
    signal?: AbortSignal | undefined
    onProgress?: (progress: Progress) => void
  }): Promise<void>
  /** Drops the graphs; none is built again until {@link buildIndex}. */
  dropIndex(): Promise<void>
  /** Whether every flushed segment that is large enough for a graph has one. */
  hasIndex(): Promise<boolean>
  /**
   * Changes options that may change; what was asked for later goes by them.
   * @throws IsovecError `INVALID_ARGUMENT`, and as {@link write}
   */
  configure(options: Partial<Pick<CollectionOptions, 'durability' | 'compaction' | 'index'>>): Promise<void>
  /** Sizes and counts, after everything that was asked for before has taken effect. O(segments). */
  stats(): Promise<CollectionStats>
  /** Ends the use of this handle; the collection stays open for others and for work in the background. */
  close(): Promise<void>
}

/** What a database is made of and how it was opened. */
export type DatabaseInfo = {
  readonly location: string
  /** `memory`, `node`, … */
  readonly backend: string
  /** What keeps a second writer out; `none` for a reader. */
  readonly lock: string
  readonly role: DatabaseRole
  /** The build of the kernel in use; results don't depend on it. */
  readonly kernel: 'simd128' | 'relaxed-simd'
  readonly collections: number
  /** Bytes of linear memory that vectors, codes and graphs take. */
  readonly memoryBytes: number
  /** Bytes that the origin takes in a browser, all of its data together, and may take; not told where the browser doesn't. */
  readonly usage?: number
  readonly quota?: number
  /** Whether the browser keeps the data when room is short. */
  readonly persisted?: boolean
  /** Milliseconds spent in the parts of opening. */
  readonly openMs: { readonly kernel: number; readonly lock: number; readonly manifest: number; readonly sweep: number }
}

/** What {@link Database.snapshot} has written. */
export type SnapshotReport = {
  readonly collections: number
  readonly docs: number
  /** Bytes of segments and graphs. */
  readonly bytes: number
  readonly elapsedMs: number
}

/** What `mergeDatabases` has made. */
export type MergeReport = {
  readonly collections: number
  readonly docs: number
  /** Documents of the first database whose place one of the second has taken. */
  readonly replaced: number
  readonly elapsedMs: number
}

/** What `salvage` could take of one collection. */
export type SalvagedCollection = {
  readonly name: string
  readonly docs: number
  /**
   * Documents that are known to be there and could not be read, or are not taken any more (`problems` says why), and those that were
   * deleted or replaced at a time of which rows could not be read: nothing tells which.
   */
  readonly lost: number
  /** The first 1,000 of their ids. */
  readonly lostIds: readonly string[]
  /** Rows of segments of which ids or vectors could not be read; other files may have held some of them. */
  readonly unreadableRows: number
}

/** What `salvage` found. */
export type SalvageReport = {
  /** Whether nothing was wrong at all. */
  readonly ok: boolean
  readonly collections: readonly SalvagedCollection[]
  readonly problems: readonly FileReport[]
}

/** Options of tools for whole databases. */
export type ToolOptions = {
  signal?: AbortSignal | undefined
  onProgress?: (progress: Progress) => void
  /** As in {@link OpenOptions}. */
  wasm?: WebAssembly.Module | BufferSource | URL
  /** As in {@link OpenOptions}. */
  worker?: URL | (() => Worker)
}

/** Options of `restore`. */
export type RestoreOptions = ToolOptions & {
  /**
   * Bytes that the files of an archive may have together, so that a small archive from somewhere can't fill the disk: nothing is written
   * of a file that would be too large. By default there is no limit.
   */
  maxBytes?: number
}

/** What {@link Database.verify} found. */
export type VerifyReport = {
  /** Whether nothing is wrong anywhere. */
  readonly ok: boolean
  readonly files: readonly FileReport[]
}

/** An open database. */
export interface Database extends AsyncDisposable {
  readonly location: string
  /**
   * Makes a collection.
   * @throws IsovecError `COLLECTION_EXISTS`, unless `ifExists` is `open`; then `WRONG_DIMENSION`, `INVALID_ARGUMENT` or `MODEL_MISMATCH`
   * where dimension, metric or model don't agree
   */
  createCollection<P extends object = JsonObject>(
    name: string,
    options: CollectionOptions & { ifExists?: 'error' | 'open' },
  ): Promise<Collection<P>>
  /** @throws IsovecError `COLLECTION_NOT_FOUND`, `MODEL_MISMATCH` */
  openCollection<P extends object = JsonObject>(name: string, options?: { model?: string }): Promise<Collection<P>>
  /** Whether there is a collection of this name. */
  hasCollection(name: string): Promise<boolean>
  /** Names, sorted. */
  listCollections(): Promise<string[]>
  /** Renames atomically; with `replace` a collection that has the new name is dropped by the same step. */
  renameCollection(from: string, to: string, options?: { replace?: boolean }): Promise<void>
  /**
   * Drops a collection atomically, then removes its files. Handles on it are closed.
   * @throws IsovecError `COLLECTION_NOT_FOUND`
   */
  dropCollection(name: string): Promise<void>
  /** What the database is made of and how it was opened. */
  info(): Promise<DatabaseInfo>
  /**
   * Of a database that was opened `readOnly`: moves to what is acknowledged now, after everything that was asked for before. Reads under
   * way, and loops over `iterate`, end on the old state. Handles on collections that were dropped are closed. A writer sees everything
   * anyway.
   * @throws IsovecError `CORRUPTION`; `STALE_READER` if the writer commits faster than can be read
   */
  refresh(): Promise<void>
  /**
   * Copies the database as of one moment, all collections together, into an empty folder or backend, while reads and writes go on. The
   * copy is an ordinary database; every byte of it was verified. If anything fails, the destination is left empty.
   * @param options `compact`: merges each collection of the copy, so that it is as small as it can be; `onProgress` is told bytes
   * (`copy`), then what `compact` tells
   * @throws IsovecError `INVALID_ARGUMENT` if the destination isn't empty, `LOCKED`, `CORRUPTION`, `STALE_READER`, `ABORTED`,
   * `QUOTA_EXCEEDED`, `IO`; `CLOSED` if the database is closed meanwhile
   */
  snapshot(
    destination: string | URL | StorageBackend,
    options?: { compact?: boolean; signal?: AbortSignal | undefined; onProgress?: (progress: Progress) => void },
  ): Promise<SnapshotReport>
  /**
   * Compares what lies on disk with what the kept generations say of it, and reports every file. Damage is no error here. Beside a
   * writer that is what its newest manifests say, whatever this database was opened on.
   * @param options `full` reads every byte, section by section; else headers, manifests, logs, tombstones and patches. `onProgress` is
   * told collections
   * @throws IsovecError `ABORTED`, `IO`; `CLOSED` if the database is closed meanwhile; `STALE_READER` if a writer is always quicker
   */
  verify(options?: {
    full?: boolean
    signal?: AbortSignal | undefined
    onProgress?: (progress: Progress) => void
  }): Promise<VerifyReport>
  /** Waits for writes under way, ends background work and lets go of the lock. */
  close(): Promise<void>
}

/** Opens a database, and makes one if there is none. */
export type OpenDatabase = (location: string | URL | StorageBackend, options?: OpenOptions) => Promise<Database>
