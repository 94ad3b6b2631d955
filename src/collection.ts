/**
 * A collection as its users see it: checks arguments, puts calls in order, and leaves the work to writer, maintenance and query.
 */
import type {
  Collection,
  CollectionOptions,
  CollectionStats,
  CompactionResult,
  Document,
  Filter,
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
import type { CollectionCore } from './core.ts'
import { abortError, IsovecError, throwIfAborted } from './errors.ts'
import { ingest } from './ingest.ts'
import { efMax } from './kernel/index.ts'
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
} from './options.ts'
import { countOf, documentAt, rowsOf, search, searchAll } from './reading.ts'
import { measureRecall } from './recall.ts'
import {
  addDocument,
  addOperation,
  allWanted,
  checkFilter,
  checkInclude,
  checkRecall,
  checkSearch,
  kMax,
} from './request.ts'
import { type FilterNode, parseFilter } from './search/filter.ts'
import { openRows } from './search/filtering.ts'
import type { Wanted } from './search/hydrate.ts'
import { mapInSlices, Slice } from './slice.ts'
import { liveCountOf } from './snapshot.ts'
import { statsOf } from './stats.ts'
import { BatchBuilder, checkId } from './storage/batch.ts'
import { readOnlyError } from './storage/reader-directory.ts'
import type { Asked, Written } from './writer.ts'

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
    return (await this.#write(core, batch, options)).deleted
  }

  async deleteWhere(filter: Filter<P>, options?: WriteOptions): Promise<number> {
    const core = this.#open()
    const node = parseFilter(filter, 'filter')
    const { durability, signal } = this.#checkWrite(options)
    const matching: Asked = async () => {
      const snapshot = core.state.snapshot()
      try {
        const batch = this.#builder()
        const slice = new Slice({ signal })
        for (const [source, rows] of await openRows(snapshot, node, slice)) {
          for (const row of rows.rows()) {
            batch.delete(source.idAt(row), 'filter')
            if (batch.count % 1024 === 0 && slice.isOver) await slice.next()
          }
        }
        return batch.build().batch!
      } finally {
        snapshot.release()
      }
    }
    return (await core.writer.write(matching, durability, signal)).deleted
  }

  async patch(
    id: string,
    payload: Partial<P>,
    options?: WriteOptions & { unset?: readonly (keyof P)[] },
  ): Promise<boolean> {
    const core = this.#open()
    const { unset, ...writeOptions } = checkOptions(options, ['signal', 'durability', 'unset'])
    const batch = this.#builder()
    batch.patch(id, payload, unset, 'patch')
    return (await this.#write(core, batch, writeOptions)).patched > 0
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

  async get<const I extends Include<P> = { vector: true }>(
    id: string,
    options?: { include?: I },
  ): Promise<StoredDocument<P, I> | undefined> {
    checkId(id, 'id')
    checkOptions(options, ['include'])
    const [document] = await this.#getMany<I>([id], checkInclude(options?.include, allWanted), undefined)
    return document
  }

  async getMany<const I extends Include<P> = { vector: true }>(
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

  async count(filter?: Filter<P>, options?: { signal?: AbortSignal | undefined }): Promise<number> {
    const core = this.#open()
    const node = checkFilter(filter, 'filter')
    checkOptions(options, ['signal'])
    const signal = checkSignal(options?.signal)
    return core.read(signal, false, async (snapshot) => {
      if (node === undefined) return liveCountOf(snapshot.sources)
      const open = await openRows(snapshot, node, new Slice({ signal }))
      throwIfAborted(signal)
      return countOf(open)
    })
  }

  iterate<const I extends Include<P> = { vector: true }>(
    options: { filter?: Filter<P> | undefined; include?: I; batchSize?: number; signal?: AbortSignal | undefined } = {},
  ): AsyncIterableIterator<StoredDocument<P, I>> {
    return this.#iterate<I>(attempt(() => checkLoop(options)))
  }

  async *#iterate<I extends Include<P>>(asked: () => CheckedLoop): AsyncIterableIterator<StoredDocument<P, I>> {
    const { filter, wanted, batchSize, signal } = asked()
    const snapshot = await this.#open().hold(signal, wanted.vector)
    const slice = new Slice({ signal })
    try {
      const { sequence } = snapshot
      for await (const { source, rows } of rowsOf(snapshot, filter, batchSize, slice)) {
        this.#open()
        const documents = mapInSlices(rows, (row) => documentAt<P, I>(source, row, sequence, wanted), slice)
        for (const document of await documents) {
          throwIfAborted(signal)
          yield document
          this.#open()
        }
      }
    } finally {
      snapshot.release()
    }
  }

  async search<const I extends Include<P> = { vector: false }>(
    request: SearchRequest<P, I>,
  ): Promise<SearchResult<P, I>> {
    const core = this.#open()
    const checked = checkSearch(request, core.state.options, 'request')
    return search<P, I>(core, checked)
  }

  async searchMany<const I extends Include<P> = { vector: false }>(
    requests: readonly SearchRequest<P, I>[],
    options?: { signal?: AbortSignal | undefined },
  ): Promise<SearchResult<P, I>[]> {
    const core = this.#open()
    if (!Array.isArray(requests)) throw invalid('requests', 'is not an array')
    checkOptions(options, ['signal'])
    const signal = checkSignal(options?.signal)
    const all = requests.map((request, index) => checkSearch(request, core.state.options, `requests[${index}]`))
    const signalled = all.map((checked) => ({ ...checked, signal: checked.signal ?? signal }))
    return searchAll<P, I>(core, signalled, signal)
  }

  async measureRecall(
    options: { samples?: number; k?: number; ef?: number; recall?: number; signal?: AbortSignal | undefined } = {},
  ): Promise<RecallReport> {
    const core = this.#open()
    checkOptions(options, ['samples', 'k', 'ef', 'recall', 'signal'])
    const samples = checkWhole(options.samples, 100, 1, 100_000, 'options.samples')
    const k = checkWhole(options.k, 10, 1, kMax - 1, 'options.k')
    const ef = options.ef === undefined ? undefined : checkWhole(options.ef, 0, 1, efMax, 'options.ef')
    const recall = checkRecall(options.recall, 'options.recall')
    return measureRecall(core, { samples, k, ef, recall, signal: checkSignal(options.signal) })
  }

  async flush(): Promise<void> {
    const core = this.#openToWrite()
    await core.writer.seal()
    await core.state.prove()
    await core.maintenance.flush()
  }

  async sync(): Promise<void> {
    await this.#openToWrite().writer.sync()
  }

  async compact(
    options: { signal?: AbortSignal | undefined; onProgress?: (progress: Progress) => void } = {},
  ): Promise<CompactionResult> {
    const core = this.#openToWrite()
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
    const core = this.#openToWrite()
    checkOptions(options, ['M', 'efConstruction', 'signal', 'onProgress'])
    checkCallback(options.onProgress, 'options.onProgress')
    const hnsw = checkHnsw(options, 'options', core.state.options.hnsw)
    const signal = checkSignal(options.signal)
    throwIfAborted(signal)
    await this.flush()
    await core.maintenance.buildIndex(hnsw, { signal, onProgress: options.onProgress })
  }

  async dropIndex(): Promise<void> {
    const core = this.#openToWrite()
    await core.writer.settled()
    await core.maintenance.dropIndex()
  }

  async hasIndex(): Promise<boolean> {
    const core = this.#open()
    await core.writer.settled()
    return core.maintenance.hasIndex
  }

  async configure(options: Partial<Pick<CollectionOptions, 'durability' | 'compaction' | 'index'>>): Promise<void> {
    const core = this.#openToWrite()
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

  /** The core for what changes files, even where there should be nothing to change. */
  #openToWrite(): CollectionCore {
    const core = this.#open()
    if (core.state.fate.isReadOnly === true) throw readOnlyError()
    return core
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

  async #write(core: CollectionCore, builder: BatchBuilder, given: WriteOptions | undefined): Promise<Written> {
    const { durability, signal } = this.#checkWrite(given)
    if (signal?.aborted) throw abortError(signal, 'none')
    if (builder.count === 0) return { deleted: 0, patched: 0 }
    return core.writer.write(builder.build(), durability, signal)
  }

  async #getMany<I extends Include<P>>(
    ids: readonly string[],
    wanted: Wanted,
    signal: AbortSignal | undefined,
  ): Promise<(StoredDocument<P, I> | undefined)[]> {
    const core = this.#open()
    return core.read(signal, wanted.vector, ({ sequence }) => {
      // All of them in this turn, so that they are of one moment.
      const places = ids.map((id) => core.state.locate(id))
      return mapInSlices(
        places,
        (place) => place && documentAt<P, I>(place.source, place.row, sequence, wanted),
        new Slice({ signal }),
      )
    })
  }
}

type CheckedLoop = {
  readonly filter: FilterNode | undefined
  readonly wanted: Wanted
  readonly batchSize: number
  readonly signal: AbortSignal | undefined
}

function checkLoop(given: object): CheckedLoop {
  const options: { [key: string]: unknown } = { ...checkOptions(given, ['filter', 'include', 'batchSize', 'signal']) }
  return {
    filter: checkFilter(options.filter, 'options.filter'),
    wanted: checkInclude(options.include, allWanted),
    batchSize: checkWhole(options.batchSize, 100, 1, 10_000, 'options.batchSize'),
    signal: checkSignal(options.signal),
  }
}

/** Does something now and gives, or throws, what comes of it when it is asked for. */
function attempt<T>(run: () => T): () => T {
  try {
    const result = run()
    return () => result
  } catch (error) {
    return () => {
      throw error
    }
  }
}
