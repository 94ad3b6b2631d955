/**
 * A collection as its users see it: checks arguments, puts calls in order, and leaves the work to writer, maintenance and query.
 */
import type {
  Collection,
  CollectionOptions,
  CollectionStats,
  CompactionResult,
  Document,
  Hit,
  Include,
  JsonObject,
  Progress,
  RecallReport,
  ResolvedCollectionOptions,
  SearchRequest,
  SearchResult,
  StoredDocument,
  WriteOperation,
  WriteOptions,
} from './api.ts'
import { abortable, abortError, IsovecError, throwIfAborted } from './errors.ts'
import { ingest } from './ingest.ts'
import { fileBytes, Maintenance } from './maintenance.ts'
import {
  checkCallback,
  checkChoice,
  checkConfiguration,
  checkHnsw,
  checkOptions,
  checkSignal,
  checkWhole,
  durabilities,
  invalid,
  refuseUnsupported,
} from './options.ts'
import type { Recovered } from './recovery.ts'
import { addDocument, addOperation, allWanted, type CheckedSearch, checkInclude, checkSearch, kMax } from './request.ts'
import { hydrate, type Wanted } from './search/hydrate.ts'
import { type Answer, answer, efMax, inSlices } from './search/query.ts'
import { Slice } from './slice.ts'
import { liveCountOf, type SearchSource, type Snapshot } from './snapshot.ts'
import type { CollectionState } from './state.ts'
import { type Batch, BatchBuilder, checkId } from './storage/batch.ts'
import { Writer } from './writer.ts'

/** One open collection with everything that works on it; handles share it. */
export class CollectionCore {
  name: string
  readonly state: CollectionState
  readonly writer: Writer
  readonly maintenance: Maintenance
  isClosed = false
  readonly #reads = new Set<Promise<unknown>>()

  /** @param report is told failures of background work and damage that was made good, with the collection's name */
  constructor(name: string, recovered: Recovered, report: (error: IsovecError, name: string) => void) {
    this.name = name
    this.state = recovered.state
    this.maintenance = new Maintenance(this.state, (error) => report(error, this.name))
    this.writer = new Writer(
      this.state,
      () => this.maintenance.flushOldest(),
      (error) => this.maintenance.noteFailure(error),
    )
    this.state.onFault = (error) => this.#noteFault(error)
    if (recovered.damage !== undefined) this.maintenance.noteFailure(recovered.damage)
    if (recovered.wal !== undefined) this.writer.adopt(recovered.wal)
    this.writer.trim()
    this.maintenance.schedule()
  }

  /** Damage that costs nothing is told all the same, and what stands in for it is written as soon as possible. */
  #noteFault(error: IsovecError): void {
    this.maintenance.noteFailure(error)
    const flush = (): Promise<void> => this.maintenance.flush()
    // The flush that runs may be one of what was given up. Failures are reported where it runs.
    flush()
      .catch(flush)
      .catch(() => {})
      .finally(() => this.maintenance.schedule())
  }

  /** Waits for writes and reads under way, ends background work, closes the log and lets go of every source. */
  async close(): Promise<void> {
    if (this.isClosed) return
    this.isClosed = true
    try {
      await this.writer.close()
    } finally {
      await this.maintenance.close()
      await Promise.allSettled(this.#reads)
      await this.state.endCommits()
      await this.state.dispose()
    }
  }

  /**
   * Reads from the state as of this call: what was asked for before has taken effect, what is asked for later has not. `use` begins in
   * the turn in which the snapshot is taken: until its first await the newest rows and tombstones are those of the snapshot.
   * @param images whether vectors will be needed; ids always are
   */
  read<T>(signal: AbortSignal | undefined, images: boolean, use: (snapshot: Snapshot) => T | Promise<T>): Promise<T> {
    return this.#inTurn(signal, images, async () => {
      const snapshot = this.state.snapshot()
      try {
        return await use(snapshot)
      } finally {
        snapshot.release()
      }
    })
  }

  /**
   * The same with all images if it can begin at once, else undefined and `use` is not called. A read that needs no await ends in
   * this turn and leaves nothing to be waited for.
   */
  readNow<T>(signal: AbortSignal | undefined, use: (snapshot: Snapshot) => T | Promise<T>): T | Promise<T> | undefined {
    throwIfAborted(signal)
    if (this.isClosed) throw new IsovecError('CLOSED', 'the database is closed')
    if (!this.writer.isIdle || this.#isCold(true)) return undefined
    const snapshot = this.state.snapshot()
    let result: T | Promise<T> | undefined
    try {
      result = use(snapshot)
      return result instanceof Promise ? this.#track(result.finally(() => snapshot.release())) : result
    } finally {
      if (!(result instanceof Promise)) snapshot.release()
    }
  }

  /** Holds the state as of this call, until the snapshot is released. */
  async hold(signal: AbortSignal | undefined, images: boolean): Promise<Snapshot> {
    let snapshot: Snapshot | undefined
    try {
      return await this.#inTurn(signal, images, async () => {
        throwIfAborted(signal)
        snapshot = this.state.snapshot()
        return snapshot
      })
    } catch (error) {
      // An abort may come between its taking and its handing over.
      snapshot?.release()
      throw error
    }
  }

  /**
   * Begins a read once everything that was asked for before has taken effect and every source can be read without an await. Later
   * writes wait for sources to be loaded, since the read must not see them, but not for the read itself.
   */
  async #inTurn<T>(signal: AbortSignal | undefined, images: boolean, begin: () => Promise<T>): Promise<T> {
    throwIfAborted(signal)
    if (this.isClosed) throw new IsovecError('CLOSED', 'the database is closed')
    const start = (): Promise<T> => this.#track(begin())
    if (this.writer.isIdle && !this.#isCold(images)) return start()
    const started = new Promise<T>((resolve, reject) => {
      const turn = this.writer.inTurn(async () => {
        if (signal?.aborted) return
        while (this.#isCold(images)) await this.state.load(images, signal)
        resolve(start())
      })
      turn.catch(reject)
    })
    return abortable(started, signal)
  }

  /** Closing waits for reads under way. */
  #track<T>(reading: Promise<T>): Promise<T> {
    const end = (): unknown => this.#reads.delete(reading)
    this.#reads.add(reading)
    reading.then(end, end)
    return reading
  }

  #isCold(images: boolean): boolean {
    for (const source of this.state.sources) {
      if (!source.areIdsLoaded || (images && !source.isImageLoaded)) return true
    }
    return false
  }
}

/** A handle on a collection. */
export class CollectionHandle<P extends object = JsonObject> implements Collection<P> {
  readonly #core: CollectionCore
  #isClosed = false

  constructor(core: CollectionCore) {
    this.#core = core
  }

  get name(): string {
    return this.#core.name
  }

  get options(): ResolvedCollectionOptions {
    const { options } = this.#core.state
    return { ...options, hnsw: { ...options.hnsw } }
  }

  async write(operations: readonly WriteOperation<P>[], options?: WriteOptions): Promise<void> {
    const core = this.#open()
    if (!Array.isArray(operations)) throw invalid('operations', 'is not an array')
    const batch = this.#builder()
    for (const [index, operation] of operations.entries()) addOperation(batch, operation, `operations[${index}]`)
    await this.#write(core, batch, options)
  }

  async upsert(docs: Document<P> | readonly Document<P>[], options?: WriteOptions): Promise<void> {
    const core = this.#open()
    const batch = this.#builder()
    if (Array.isArray(docs)) {
      for (const [index, doc] of docs.entries()) addDocument(batch, doc, `docs[${index}]`)
    } else {
      addDocument(batch, docs, 'docs')
    }
    await this.#write(core, batch, options)
  }

  async delete(ids: string | readonly string[], options?: WriteOptions): Promise<number> {
    const core = this.#open()
    const batch = this.#builder()
    if (Array.isArray(ids)) {
      for (const [index, id] of ids.entries()) batch.delete(id, `ids[${index}]`)
    } else {
      batch.delete(ids, 'ids')
    }
    return this.#write(core, batch, options)
  }

  async ingest(
    docs: Iterable<Document<P>> | AsyncIterable<Document<P>>,
    options?: WriteOptions & { onProgress?: (progress: { count: number }) => void },
  ): Promise<{ count: number }> {
    this.#open()
    const { onProgress, ...writeOptions } = checkOptions(options, ['signal', 'durability', 'onProgress'])
    const { signal } = this.#checkWrite(writeOptions)
    return ingest(docs, {
      signal,
      onProgress: checkCallback(onProgress, 'options.onProgress'),
      begin: () => this.#builder(),
      write: (batch) => this.#write(this.#open(), batch, writeOptions),
    })
  }

  async get<const I extends Include = { vector: true }>(
    id: string,
    options?: { include?: I },
  ): Promise<StoredDocument<P, I> | undefined> {
    checkId(id, 'id')
    checkOptions(options, ['include'])
    const [document] = await this.#getMany<I>([id], checkInclude(options?.include, allWanted), undefined)
    return document
  }

  async getMany<const I extends Include = { vector: true }>(
    ids: readonly string[],
    options?: { include?: I; signal?: AbortSignal | undefined },
  ): Promise<(StoredDocument<P, I> | undefined)[]> {
    if (!Array.isArray(ids)) throw invalid('ids', 'is not an array')
    for (const [index, id] of ids.entries()) checkId(id, `ids[${index}]`)
    checkOptions(options, ['include', 'signal'])
    return this.#getMany<I>([...ids], checkInclude(options?.include, allWanted), checkSignal(options?.signal))
  }

  async has(id: string): Promise<boolean> {
    checkId(id, 'id')
    const core = this.#open()
    return core.read(undefined, false, () => core.state.locate(id) !== undefined)
  }

  async count(filter?: undefined, options?: { signal?: AbortSignal | undefined }): Promise<number> {
    refuseUnsupported({ filter }, ['filter'], 'count')
    checkOptions(options, ['signal'])
    return this.#open().read(checkSignal(options?.signal), false, ({ sources }) => liveCountOf(sources))
  }

  async *iterate<const I extends Include = { vector: true }>(
    options: { include?: I; batchSize?: number; signal?: AbortSignal | undefined } = {},
  ): AsyncIterableIterator<StoredDocument<P, I>> {
    refuseUnsupported(options, ['filter'], 'options')
    checkOptions(options, ['include', 'batchSize', 'signal'])
    const wanted = checkInclude(options.include, allWanted)
    const batchSize = checkWhole(options.batchSize, 100, 1, 10_000, 'options.batchSize')
    const signal = checkSignal(options.signal)
    const snapshot = await this.#open().hold(signal, wanted.vector)
    const slice = new Slice({ signal })
    try {
      for (const source of snapshot.sources) {
        const rowCount = source.rowCount
        for (let from = 0; from < rowCount; from += batchSize) {
          const rows: number[] = []
          for (let row = from; row < Math.min(rowCount, from + batchSize); row++) {
            if (source.isVisible(row, snapshot.sequence)) rows.push(row)
          }
          for (const document of await Promise.all(rows.map((row) => documentAt<P, I>(source, row, wanted)))) {
            throwIfAborted(signal)
            yield document
            this.#open()
          }
          if (slice.isOver) await slice.next()
          this.#open()
        }
      }
    } finally {
      snapshot.release()
    }
  }

  async search<const I extends Include = { vector: false }>(request: SearchRequest<P, I>): Promise<SearchResult<P, I>> {
    const core = this.#open()
    const checked = checkSearch(request, core.state.options, 'request')
    return this.#search(core, checked)
  }

  async searchMany<const I extends Include = { vector: false }>(
    requests: readonly SearchRequest<P, I>[],
    options?: { signal?: AbortSignal | undefined },
  ): Promise<SearchResult<P, I>[]> {
    const core = this.#open()
    if (!Array.isArray(requests)) throw invalid('requests', 'is not an array')
    checkOptions(options, ['signal'])
    const signal = checkSignal(options?.signal)
    const all = requests.map((request, index) => checkSearch(request, core.state.options, `requests[${index}]`))
    const slice = new Slice({ signal })
    const results: SearchResult<P, I>[] = []
    for (const checked of all) {
      throwIfAborted(signal)
      results.push(await this.#search(core, { ...checked, signal: checked.signal ?? signal }))
      if (slice.isOver) await slice.next()
    }
    return results
  }

  async measureRecall(
    options: { samples?: number; k?: number; ef?: number; signal?: AbortSignal | undefined } = {},
  ): Promise<RecallReport> {
    const core = this.#open()
    refuseUnsupported(options, ['recall'], 'options')
    checkOptions(options, ['samples', 'k', 'ef', 'signal'])
    const samples = checkWhole(options.samples, 100, 1, 100_000, 'options.samples')
    const k = checkWhole(options.k, 10, 1, kMax - 1, 'options.k')
    const ef = options.ef === undefined ? undefined : checkWhole(options.ef, 0, 1, efMax, 'options.ef')
    return measureRecall(core, { samples, k, ef, signal: checkSignal(options.signal) }, (checked) =>
      this.#search(core, checked),
    )
  }

  async flush(): Promise<void> {
    const core = this.#open()
    await core.writer.seal()
    await core.state.prove()
    await core.maintenance.flush()
  }

  async sync(): Promise<void> {
    await this.#open().writer.sync()
  }

  async compact(
    options: { signal?: AbortSignal | undefined; onProgress?: (progress: Progress) => void } = {},
  ): Promise<CompactionResult> {
    const core = this.#open()
    checkOptions(options, ['signal', 'onProgress'])
    checkCallback(options.onProgress, 'options.onProgress')
    const signal = checkSignal(options.signal)
    throwIfAborted(signal)
    await core.writer.seal()
    await core.state.prove()
    return core.maintenance.compact({ signal, onProgress: options.onProgress })
  }

  async buildIndex(
    options: {
      M?: number
      efConstruction?: number
      signal?: AbortSignal | undefined
      onProgress?: (progress: Progress) => void
    } = {},
  ): Promise<void> {
    const core = this.#open()
    checkOptions(options, ['M', 'efConstruction', 'signal', 'onProgress'])
    checkCallback(options.onProgress, 'options.onProgress')
    const hnsw = checkHnsw(options, 'options', core.state.options.hnsw)
    const signal = checkSignal(options.signal)
    throwIfAborted(signal)
    await this.flush()
    await core.maintenance.buildIndex(hnsw, { signal, onProgress: options.onProgress })
  }

  async dropIndex(): Promise<void> {
    const core = this.#open()
    await core.writer.settled()
    await core.maintenance.dropIndex()
  }

  async hasIndex(): Promise<boolean> {
    const core = this.#open()
    await core.writer.settled()
    return core.maintenance.hasIndex
  }

  async configure(options: Partial<Pick<CollectionOptions, 'durability' | 'compaction' | 'index'>>): Promise<void> {
    const core = this.#open()
    checkConfiguration(options, core.state.options)
    const given = { ...options }
    await core.writer.inTurn(async () => {
      await core.state.commit(
        (body) => ({ ...body, options: checkConfiguration(given, body.options) }),
        () => {},
        { twice: true },
      )
    })
    core.maintenance.schedule()
  }

  async stats(): Promise<CollectionStats> {
    const core = this.#open()
    await core.writer.settled()
    return statsOf(core)
  }

  async close(): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    await this.#core.writer.settled()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  #open(): CollectionCore {
    if (this.#isClosed || this.#core.isClosed) {
      throw new IsovecError('CLOSED', `the collection ${this.name} is closed`, { collection: this.name })
    }
    return this.#core
  }

  #builder(): BatchBuilder {
    const { dimension, metric } = this.#core.state.options
    return new BatchBuilder(dimension, metric === 'cosine')
  }

  #checkWrite(given: WriteOptions | undefined): {
    durability: 'strict' | 'buffered' | undefined
    signal: AbortSignal | undefined
  } {
    const options = checkOptions(given, ['signal', 'durability'])
    return {
      // Not what is configured now: a change that was asked for before this write may be under way.
      durability:
        options.durability === undefined
          ? undefined
          : checkChoice(options.durability, durabilities, 'strict', 'options.durability'),
      signal: checkSignal(options.signal),
    }
  }

  async #write(core: CollectionCore, builder: BatchBuilder, given: WriteOptions | undefined): Promise<number> {
    const { durability, signal } = this.#checkWrite(given)
    if (signal?.aborted) throw abortError(signal, 'none')
    if (builder.count === 0) return 0
    const batch: Batch = builder.build()
    return core.writer.write(batch, durability, signal)
  }

  async #getMany<I extends Include>(
    ids: readonly string[],
    wanted: Wanted,
    signal: AbortSignal | undefined,
  ): Promise<(StoredDocument<P, I> | undefined)[]> {
    const core = this.#open()
    return core.read(signal, wanted.vector, () =>
      Promise.all(
        ids.map((id) => {
          const place = core.state.locate(id)
          return place === undefined ? undefined : documentAt<P, I>(place.source, place.row, wanted)
        }),
      ),
    )
  }

  async #search<I extends Include>(core: CollectionCore, checked: CheckedSearch): Promise<SearchResult<P, I>> {
    const started = performance.now()
    const find = (snapshot: Snapshot): SearchResult<P, I> | Promise<SearchResult<P, I>> => {
      const count = Math.min(checked.offset + checked.k, liveCountOf(snapshot.sources))
      const slice = new Slice({ signal: checked.signal })
      // Nothing lies beyond the last document.
      const found = count <= checked.offset ? nothing : inSlices(answer(snapshot, { ...checked, count }, slice), slice)
      return found instanceof Promise
        ? found.then((late) => resultOf<P, I>(late, checked, started))
        : resultOf<P, I>(found, checked, started)
    }
    return core.readNow(checked.signal, find) ?? core.read(checked.signal, true, find)
  }
}

/** The answer where there is nothing to be had. */
const nothing: Answer = { candidates: [], exact: true, plan: 'scan', visited: 0 }

/** What a search returns. A promise only where payloads must be fetched. */
function resultOf<P extends object, I extends Include>(
  { candidates, exact, plan, visited }: Answer,
  { offset, k, wanted }: CheckedSearch,
  started: number,
): SearchResult<P, I> | Promise<SearchResult<P, I>> {
  const found = offset === 0 ? candidates : candidates.slice(offset, offset + k)
  const hits: (object | Promise<object>)[] = []
  let isLate = false
  for (const { source, row, id, score } of found) {
    const hit = hitOf(source, row, id, score, wanted)
    if (hit instanceof Promise) isLate = true
    hits.push(hit)
  }
  // What is there is what `include` asked for, which is what the type says.
  const result = (all: unknown): SearchResult<P, I> => ({
    hits: all as Hit<P, I>[],
    exact,
    plan,
    visited,
    elapsedMs: performance.now() - started,
  })
  return isLate ? Promise.all(hits).then(result) : result(hits)
}

function hitOf(source: SearchSource, row: number, id: string, score: number, wanted: Wanted): object | Promise<object> {
  if (!wanted.payload && !wanted.vector) return { id, score }
  const parts = hydrate(source, row, wanted)
  return parts instanceof Promise ? parts.then((read) => ({ id, score, ...read })) : { id, score, ...parts }
}

function documentAt<P extends object, I extends Include>(
  source: SearchSource,
  row: number,
  wanted: Wanted,
): StoredDocument<P, I> | Promise<StoredDocument<P, I>> {
  const id = source.idAt(row)
  const parts = hydrate<P>(source, row, wanted)
  if (parts instanceof Promise) return parts.then((read) => ({ id, ...read }) as StoredDocument<P, I>)
  return { id, ...parts } as StoredDocument<P, I>
}

type RecallOptions = { samples: number; k: number; ef: number | undefined; signal: AbortSignal | undefined }

/** Recall of approximate search for stored vectors, spread evenly over all rows. */
async function measureRecall(
  core: CollectionCore,
  { samples, k, ef, signal }: RecallOptions,
  search: (checked: CheckedSearch) => Promise<SearchResult<object>>,
): Promise<RecallReport> {
  const snapshot = await core.hold(signal, true)
  const queries: { id: string; vector: Float32Array }[] = []
  try {
    const total = liveCountOf(snapshot.sources)
    const step = Math.max(1, total / samples)
    let seen = 0
    for (const source of snapshot.sources) {
      for (let row = 0; row < source.rowCount && queries.length < samples; row++) {
        if (!source.isVisible(row, snapshot.sequence)) continue
        if (seen++ < queries.length * step) continue
        const vector = source.image.vectorAt(row)
        // A zero vector has no neighbours to speak of under cosine, and none is stored there.
        queries.push({ id: source.idAt(row), vector })
      }
    }
  } finally {
    snapshot.release()
  }
  const { metric } = core.state.options
  const base = {
    metric,
    k: k + 1,
    offset: 0,
    minScore: Number.NEGATIVE_INFINITY,
    signal,
    wanted: { payload: false, vector: false },
  }
  let found = 0
  let wanted = 0
  let visited = 0
  const approximateMs: number[] = []
  const exactMs: number[] = []
  for (const { id, vector } of queries) {
    const approximate = await search({ ...base, vector, isExact: false, ef })
    const exact = await search({ ...base, vector, isExact: true, ef: undefined })
    const truth = new Set(
      exact.hits
        .map((hit) => hit.id)
        .filter((other) => other !== id)
        .slice(0, k),
    )
    const answers = approximate.hits.map((hit) => hit.id).filter((other) => other !== id)
    found += answers.slice(0, k).filter((other) => truth.has(other)).length
    wanted += truth.size
    visited += approximate.visited
    approximateMs.push(approximate.elapsedMs)
    exactMs.push(exact.elapsedMs)
  }
  return {
    recall: wanted === 0 ? 1 : found / wanted,
    samples: queries.length,
    k,
    visited: queries.length === 0 ? 0 : visited / queries.length,
    approximateMs: median(approximateMs),
    exactMs: median(exactMs),
  }
}

function median(values: number[]): number {
  values.sort((a, b) => a - b)
  return values[values.length >> 1] ?? 0
}

function statsOf(core: CollectionCore): CollectionStats {
  const { state, maintenance, writer } = core
  const { segments, sealed, active } = state
  const memtables = [...sealed.map(({ memtable }) => memtable), active]
  const segmentRows = segments.reduce((sum, { rowCount }) => sum + rowCount, 0)
  const segmentDocs = liveCountOf(segments)
  const memtableDocs = liveCountOf(memtables)
  const docs = segmentDocs + memtableDocs
  const memoryBytes = [...segments, ...memtables].reduce((sum, { memorySize }) => sum + memorySize, 0)
  const { lastBackgroundError } = maintenance
  return {
    docs,
    memtableDocs,
    segments: segments.length,
    segmentDocs,
    deleted: segmentRows - segmentDocs,
    deletedRatio: segmentRows === 0 ? 0 : (segmentRows - segmentDocs) / segmentRows,
    bytes: fileBytes(segments),
    walBytes: writer.walSize,
    indexBytes: segments.reduce((sum, { graphFile }) => sum + (graphFile?.length ?? 0), 0),
    memoryBytes,
    memoryBytesPerDoc: docs === 0 ? 0 : memoryBytes / docs,
    ...(lastBackgroundError === undefined ? {} : { lastBackgroundError }),
  }
}
