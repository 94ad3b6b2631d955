/**
 * A collection as its users see it: checks and copies arguments within the call, wherever the data is.
 */
import type {
  Collection,
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
import type { CollectionCalls, Configuration, Loop, WriteTerms, Written } from './calls.ts'
import { abortError, IsovecError, throwIfAborted } from './errors.ts'
import { ingest } from './ingest.ts'
import { efMax } from './kernel/limits.ts'
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
import { parseFilter } from './search/filter.ts'
import type { Wanted } from './search/hydrate.ts'
import { BatchBuilder, checkId } from './storage/batch.ts'
import { readOnlyError } from './storage/reader-directory.ts'

/** A handle on a collection. */
export class CollectionHandle<P extends object = JsonObject> implements Collection<P> {
  readonly #calls: CollectionCalls
  #isClosed = false

  constructor(calls: CollectionCalls) {
    this.#calls = calls
  }

  get name(): string {
    return this.#calls.name
  }

  get options(): ResolvedCollectionOptions {
    const { options } = this.#calls
    return { ...options, hnsw: { ...options.hnsw } }
  }

  async write(operations: readonly WriteOperation<P>[], options?: WriteOptions): Promise<void> {
    const calls = this.#open()
    if (!Array.isArray(operations)) throw invalid('operations', 'is not an array')
    const batch = this.#builder()
    for (const [index, operation] of operations.entries()) addOperation(batch, operation, `operations[${index}]`)
    await this.#write(calls, batch, options)
  }

  async upsert(docs: Document<P> | readonly Document<P>[], options?: WriteOptions): Promise<void> {
    const calls = this.#open()
    const batch = this.#builder()
    if (Array.isArray(docs)) {
      for (const [index, doc] of docs.entries()) addDocument(batch, doc, `docs[${index}]`)
    } else {
      addDocument(batch, docs, 'docs')
    }
    await this.#write(calls, batch, options)
  }

  async delete(ids: string | readonly string[], options?: WriteOptions): Promise<number> {
    const calls = this.#open()
    const batch = this.#builder()
    if (Array.isArray(ids)) {
      for (const [index, id] of ids.entries()) batch.delete(id, `ids[${index}]`)
    } else {
      batch.delete(ids, 'ids')
    }
    return (await this.#write(calls, batch, options)).deleted
  }

  async deleteWhere(filter: Filter<P>, options?: WriteOptions): Promise<number> {
    const calls = this.#open()
    return calls.deleteWhere(parseFilter(filter, 'filter'), this.#checkWrite(options))
  }

  async patch(
    id: string,
    payload: Partial<P>,
    options?: WriteOptions & { unset?: readonly (keyof P)[] },
  ): Promise<boolean> {
    const calls = this.#open()
    const { unset, ...writeOptions } = checkOptions(options, ['signal', 'durability', 'unset'])
    const batch = this.#builder()
    batch.patch(id, payload, unset, 'patch')
    return (await this.#write(calls, batch, writeOptions)).patched > 0
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
    const calls = this.#open()
    return calls.has(id)
  }

  async count(filter?: Filter<P>, options?: { signal?: AbortSignal | undefined }): Promise<number> {
    const calls = this.#open()
    const node = checkFilter(filter, 'filter')
    checkOptions(options, ['signal'])
    return calls.count(node, checkSignal(options?.signal))
  }

  iterate<const I extends Include<P> = { vector: true }>(
    options: { filter?: Filter<P> | undefined; include?: I; batchSize?: number; signal?: AbortSignal | undefined } = {},
  ): AsyncIterableIterator<StoredDocument<P, I>> {
    return this.#iterate<I>(attempt(() => checkLoop(options)))
  }

  async *#iterate<I extends Include<P>>(asked: () => Loop): AsyncIterableIterator<StoredDocument<P, I>> {
    const loop = asked()
    for await (const documents of this.#open().loop(loop)) {
      this.#open()
      for (const document of documents) {
        throwIfAborted(loop.signal)
        yield document as unknown as StoredDocument<P, I>
        this.#open()
      }
    }
  }

  async search<const I extends Include<P> = { vector: false }>(
    request: SearchRequest<P, I>,
  ): Promise<SearchResult<P, I>> {
    const calls = this.#open()
    const checked = checkSearch(request, calls.options, 'request')
    return (await calls.search(checked)) as SearchResult<P, I>
  }

  async searchMany<const I extends Include<P> = { vector: false }>(
    requests: readonly SearchRequest<P, I>[],
    options?: { signal?: AbortSignal | undefined },
  ): Promise<SearchResult<P, I>[]> {
    const calls = this.#open()
    if (!Array.isArray(requests)) throw invalid('requests', 'is not an array')
    checkOptions(options, ['signal'])
    const signal = checkSignal(options?.signal)
    const all = requests.map((request, index) => checkSearch(request, calls.options, `requests[${index}]`))
    const signalled = all.map((checked) => ({ ...checked, signal: checked.signal ?? signal }))
    return (await calls.searchMany(signalled, signal)) as SearchResult<P, I>[]
  }

  async measureRecall(
    options: { samples?: number; k?: number; ef?: number; recall?: number; signal?: AbortSignal | undefined } = {},
  ): Promise<RecallReport> {
    const calls = this.#open()
    checkOptions(options, ['samples', 'k', 'ef', 'recall', 'signal'])
    const samples = checkWhole(options.samples, 100, 1, 100_000, 'options.samples')
    const k = checkWhole(options.k, 10, 1, kMax - 1, 'options.k')
    const ef = options.ef === undefined ? undefined : checkWhole(options.ef, 0, 1, efMax, 'options.ef')
    const recall = checkRecall(options.recall, 'options.recall')
    return calls.measureRecall({ samples, k, ef, recall, signal: checkSignal(options.signal) })
  }

  async flush(): Promise<void> {
    const calls = this.#openToWrite()
    await calls.flush()
  }

  async sync(): Promise<void> {
    await this.#openToWrite().sync()
  }

  async compact(
    options: { signal?: AbortSignal | undefined; onProgress?: (progress: Progress) => void } = {},
  ): Promise<CompactionResult> {
    const calls = this.#openToWrite()
    checkOptions(options, ['signal', 'onProgress'])
    const onProgress = checkCallback(options.onProgress, 'options.onProgress')
    const signal = checkSignal(options.signal)
    throwIfAborted(signal)
    return calls.compact({ signal, onProgress })
  }

  async buildIndex(
    options: {
      M?: number
      efConstruction?: number
      signal?: AbortSignal | undefined
      onProgress?: (progress: Progress) => void
    } = {},
  ): Promise<void> {
    const calls = this.#openToWrite()
    checkOptions(options, ['M', 'efConstruction', 'signal', 'onProgress'])
    const onProgress = checkCallback(options.onProgress, 'options.onProgress')
    checkHnsw(options, 'options')
    const signal = checkSignal(options.signal)
    throwIfAborted(signal)
    const { M, efConstruction } = options
    const hnsw = { ...(M === undefined ? {} : { M }), ...(efConstruction === undefined ? {} : { efConstruction }) }
    await calls.buildIndex(hnsw, { signal, onProgress })
  }

  async dropIndex(): Promise<void> {
    const calls = this.#openToWrite()
    await calls.dropIndex()
  }

  async hasIndex(): Promise<boolean> {
    const calls = this.#open()
    return calls.hasIndex()
  }

  async configure(options: Configuration): Promise<void> {
    const calls = this.#openToWrite()
    checkConfiguration(options, calls.options)
    await calls.configure({ ...options })
  }

  async stats(): Promise<CollectionStats> {
    const calls = this.#open()
    return calls.stats()
  }

  async close(): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    await this.#calls.settled()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  #open(): CollectionCalls {
    if (this.#isClosed || this.#calls.isClosed) {
      throw new IsovecError('CLOSED', `the collection ${this.name} is closed`, { collection: this.name })
    }
    return this.#calls
  }

  /** The calls for what changes files, even where there should be nothing to change. */
  #openToWrite(): CollectionCalls {
    const calls = this.#open()
    if (calls.isReadOnly) throw readOnlyError()
    return calls
  }

  #builder(): BatchBuilder {
    const { dimension, metric } = this.#calls.options
    return new BatchBuilder(dimension, metric === 'cosine')
  }

  #checkWrite(given: WriteOptions | undefined): WriteTerms {
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

  async #write(calls: CollectionCalls, builder: BatchBuilder, given: WriteOptions | undefined): Promise<Written> {
    const terms = this.#checkWrite(given)
    if (terms.signal?.aborted) throw abortError(terms.signal, 'none')
    if (builder.count === 0) {
      await calls.settled()
      return { deleted: 0, patched: 0 }
    }
    return calls.write(builder.pack(), terms)
  }

  async #getMany<I extends Include<P>>(
    ids: readonly string[],
    wanted: Wanted,
    signal: AbortSignal | undefined,
  ): Promise<(StoredDocument<P, I> | undefined)[]> {
    return (await this.#open().getMany(ids, wanted, signal)) as unknown as (StoredDocument<P, I> | undefined)[]
  }
}

function checkLoop(given: object): Loop {
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
