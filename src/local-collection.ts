/**
 * The calls on a collection that is open in this thread: put in order, and left to writer, maintenance and query.
 */
import type { CollectionStats, CompactionResult, RecallReport, ResolvedCollectionOptions } from './api.ts'
import type {
  AnyDocument,
  AnyResult,
  CollectionCalls,
  Configuration,
  Loop,
  RecallTerms,
  WorkOptions,
  WriteTerms,
  Written,
} from './calls.ts'
import type { CollectionCore } from './core.ts'
import { throwIfAborted } from './errors.ts'
import { checkConfiguration, checkHnsw } from './options.ts'
import { countOf, documentAt, rowsOf, search, searchAll } from './reading.ts'
import { measureRecall } from './recall.ts'
import type { CheckedSearch } from './request.ts'
import type { FilterNode } from './search/filter.ts'
import { openRows } from './search/filtering.ts'
import type { Wanted } from './search/hydrate.ts'
import { mapInSlices, Slice } from './slice.ts'
import { liveCountOf } from './snapshot.ts'
import { statsOf } from './stats.ts'
import { BatchBuilder, draftOf, type PackedBatch } from './storage/batch.ts'
import type { Asked } from './writer.ts'

/** A collection that is open here. */
export class LocalCollection implements CollectionCalls {
  readonly number: number
  readonly #core: CollectionCore
  readonly #onWrite: (() => void) | undefined

  /**
   * @param number of its directory
   * @param onWrite is told of writes that have taken effect
   */
  constructor(number: number, core: CollectionCore, onWrite?: () => void) {
    this.number = number
    this.#core = core
    this.#onWrite = onWrite
  }

  get name(): string {
    return this.#core.name
  }

  get options(): ResolvedCollectionOptions {
    return this.#core.state.options
  }

  get isClosed(): boolean {
    return this.#core.isClosed
  }

  get isReadOnly(): boolean {
    return this.#core.state.fate.isReadOnly === true
  }

  write(batch: PackedBatch, { durability, signal }: WriteTerms): Promise<Written> {
    return this.#told(this.#core.writer.write(draftOf(batch, this.options.dimension), durability, signal))
  }

  async deleteWhere(filter: FilterNode, { durability, signal }: WriteTerms): Promise<number> {
    const { state, writer } = this.#core
    const { dimension, metric } = state.options
    const matching: Asked = async () => {
      const snapshot = state.snapshot()
      try {
        const batch = new BatchBuilder(dimension, metric === 'cosine')
        const slice = new Slice({ signal })
        for (const [source, rows] of await openRows(snapshot, filter, slice)) {
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
    return (await this.#told(writer.write(matching, durability, signal))).deleted
  }

  #told(writing: Promise<Written>): Promise<Written> {
    const onWrite = this.#onWrite
    if (onWrite === undefined) return writing
    return writing.then((written) => {
      onWrite()
      return written
    })
  }

  getMany(
    ids: readonly string[],
    wanted: Wanted,
    signal: AbortSignal | undefined,
  ): Promise<(AnyDocument | undefined)[]> {
    const core = this.#core
    return core.read(signal, wanted.vector, ({ sequence }) => {
      // All of them in this turn, so that they are of one moment.
      const places = ids.map((id) => core.state.locate(id))
      return mapInSlices(
        places,
        (place) => place && documentAt(place.source, place.row, sequence, wanted),
        new Slice({ signal }),
      )
    })
  }

  has(id: string): Promise<boolean> {
    const core = this.#core
    return core.read(undefined, false, () => core.state.locate(id) !== undefined)
  }

  count(filter: FilterNode | undefined, signal: AbortSignal | undefined): Promise<number> {
    return this.#core.read(signal, false, async (snapshot) => {
      if (filter === undefined) return liveCountOf(snapshot.sources)
      const open = await openRows(snapshot, filter, new Slice({ signal }))
      throwIfAborted(signal)
      return countOf(open)
    })
  }

  async *loop({ filter, wanted, batchSize, signal }: Loop): AsyncIterableIterator<readonly AnyDocument[]> {
    const snapshot = await this.#core.hold(signal, wanted.vector)
    const slice = new Slice({ signal })
    try {
      const { sequence } = snapshot
      for await (const { source, rows } of rowsOf(snapshot, filter, batchSize, slice)) {
        yield await mapInSlices(rows, (row) => documentAt(source, row, sequence, wanted), slice)
      }
    } finally {
      snapshot.release()
    }
  }

  search(asked: CheckedSearch): Promise<AnyResult> {
    return search(this.#core, asked)
  }

  searchMany(asked: readonly CheckedSearch[], signal: AbortSignal | undefined): Promise<AnyResult[]> {
    return searchAll(this.#core, asked, signal)
  }

  measureRecall(asked: RecallTerms): Promise<RecallReport> {
    return measureRecall(this.#core, asked)
  }

  async flush(): Promise<void> {
    const { writer, state, maintenance } = this.#core
    await writer.seal()
    await state.prove()
    await maintenance.flush()
  }

  async sync(): Promise<void> {
    await this.#core.writer.sync()
  }

  async compact(terms: WorkOptions): Promise<CompactionResult> {
    const { writer, state, maintenance } = this.#core
    await writer.seal()
    await state.prove()
    return maintenance.compact(terms)
  }

  async buildIndex(hnsw: { M?: number; efConstruction?: number }, terms: WorkOptions): Promise<void> {
    const wanted = checkHnsw(hnsw, 'options', this.options.hnsw)
    await this.flush()
    await this.#core.maintenance.buildIndex(wanted, terms)
  }

  async dropIndex(): Promise<void> {
    await this.#core.writer.settled()
    await this.#core.maintenance.dropIndex()
  }

  async hasIndex(): Promise<boolean> {
    await this.#core.writer.settled()
    return this.#core.maintenance.hasIndex
  }

  async configure(options: Configuration): Promise<void> {
    const { writer, state, maintenance } = this.#core
    await writer.inTurn(async () => {
      await state.commit(
        (body) => ({ ...body, options: checkConfiguration(options, body.options) }),
        () => {},
        { twice: true },
      )
    })
    maintenance.schedule()
  }

  async stats(): Promise<CollectionStats> {
    await this.#core.writer.settled()
    return statsOf(this.#core)
  }

  async settled(): Promise<void> {
    await this.#core.writer.settled()
  }
}
