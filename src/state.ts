/**
 * The state of one open collection: its sources, its manifest, and the rules by which both change.
 *
 * Everything here that changes what a search sees is synchronous; awaits stand only where bytes move.
 */
import { viewOf } from './codec/bytes.ts'
import { assert, IsovecError } from './errors.ts'
import { type SearchSource, Snapshot } from './snapshot.ts'
import type { Operation } from './storage/batch.ts'
import {
  type CollectionBody,
  filesOf,
  type ResolvedCollectionOptions,
  type SegmentState,
} from './storage/collection-manifest.ts'
import { fileName } from './storage/file-names.ts'
import type { Generations } from './storage/generations.ts'
import { idKey } from './storage/id-table.ts'
import { Memtable } from './storage/memtable.ts'
import type { Segment, StorageContext } from './storage/segment.ts'
import { writeTombstones } from './storage/tombstones.ts'
import type { Seal } from './storage/wal.ts'

/** A memtable that takes no more writes and waits to become a segment. */
export type SealedMemtable = {
  readonly memtable: Memtable
  /** The last sequence in it. */
  readonly lastSequence: number
  /** The log that begins after it. */
  readonly nextWal: number
}

/** The hash seed of a collection's ids: part of its identity, so nothing more is stored for it. */
export function hashSeedOf(uuid: Uint8Array): number {
  return viewOf(uuid).getUint32(0, true)
}

/** One open collection. */
export class CollectionState {
  readonly context: StorageContext
  readonly generations: Generations<CollectionBody>
  /** Oldest data first. */
  segments: Segment[]
  /** Oldest first. */
  sealed: SealedMemtable[] = []
  active: Memtable
  /** The newest sequence that searches see. */
  lastSequence: number
  /** Why the writer stopped for good, if it did: an I/O failure after which the files can't be trusted to match the memory. */
  poison: IsovecError | undefined
  /** Sizes of the logs on disk by number; of the one being written as of its last rotation. */
  readonly walSizes: Map<number, number>
  /** Where the newest log on disk ended, if this process has not begun one of its own. */
  pendingSeal: Seal | undefined

  #nextFile: number
  readonly #open = new Map<number, Segment>()
  readonly #removable = new Set<string>()
  #committing: Promise<unknown> = Promise.resolve()
  #isEnded = false

  constructor(
    context: StorageContext,
    generations: Generations<CollectionBody>,
    segments: Segment[],
    walSizes: Map<number, number>,
    nextFile: number,
  ) {
    this.context = context
    this.generations = generations
    this.segments = segments
    this.walSizes = walSizes
    this.#nextFile = nextFile
    this.lastSequence = this.body.lastSequence
    for (const segment of segments) this.register(segment)
    this.active = this.#newMemtable()
  }

  /** What is committed. */
  get body(): CollectionBody {
    return this.generations.current.body
  }

  get options(): ResolvedCollectionOptions {
    return this.body.options
  }

  /** A number for a new file. */
  takeFileNumber(): number {
    return this.#nextFile++
  }

  /** Bytes of finished logs whose writes no segment holds yet. */
  get unflushedWalSize(): number {
    let size = 0
    for (const [number, walSize] of this.walSizes) if (number >= this.body.firstWal) size += walSize
    return size
  }

  /** Number of logs on disk with writes that no segment holds yet. */
  get unflushedWalCount(): number {
    let count = 0
    for (const number of this.walSizes.keys()) if (number >= this.body.firstWal) count++
    return count
  }

  /** Sources of everything that was written, newest data last. */
  get sources(): SearchSource[] {
    return [...this.segments, ...this.sealed.map(({ memtable }) => memtable), this.active]
  }

  /** The state as of now, for as long as it's held. */
  snapshot(): Snapshot {
    return new Snapshot(this.sources, this.lastSequence)
  }

  /** @throws IsovecError `READ_ONLY` with the failure that stopped the writer */
  assertWritable(): void {
    if (this.poison === undefined) return
    throw new IsovecError('READ_ONLY', 'an earlier I/O failure has made the database read-only until it is reopened', {
      cause: this.poison,
      outcome: 'none',
    })
  }

  /** Brings the ids of all segments into memory, so that writes can be applied without an await. */
  async loadIds(): Promise<void> {
    for (const segment of this.segments) if (!segment.areIdsLoaded) await segment.loadIds()
  }

  /**
   * Applies a logged batch. Room must have been reserved in the active memtable and ids be loaded.
   * @returns how many of the documents that it deletes existed
   */
  apply(operations: readonly Operation[], sequence: number): number {
    assert(sequence === this.lastSequence + 1, 'batches are applied in order')
    let deleted = 0
    for (const operation of operations) {
      const existed = this.#kill(operation.id, sequence)
      if (operation.kind === 'upsert') {
        this.active.append(operation.id, operation.vector, operation.payload, sequence)
      } else if (existed) {
        deleted++
      }
    }
    this.lastSequence = sequence
    return deleted
  }

  /** The live row of an id at the newest sequence. */
  locate(id: string): { source: SearchSource; row: number } | undefined {
    const key = idKey(id, this.context.hashSeed)
    for (const source of this.#newestFirst()) {
      const row = source.find(key)
      if (row >= 0 && source.isVisible(row, this.lastSequence)) return { source, row }
    }
    return undefined
  }

  /** Puts an empty memtable in place of the active one, which waits to be flushed from then on. */
  seal(nextWal: number): void {
    this.sealed = [...this.sealed, { memtable: this.active, lastSequence: this.lastSequence, nextWal }]
    this.active = this.#newMemtable()
  }

  /** Makes a segment known, so that its files stay while anybody uses it. */
  register(segment: Segment): void {
    this.#open.set(segment.number, segment)
    segment.onDispose = () => {
      this.#open.delete(segment.number)
      void this.removeObsolete()
    }
  }

  /**
   * Commits a change of the manifest. Commits follow one another; `change` sees the outcome of the one before and runs right before
   * the manifest is written, when the tombstones of every segment that it names are settled too.
   *
   * @param change returns the new body, or undefined to leave everything as it is
   * @param publish runs in the same turn in which the commit is known to have succeeded
   */
  commit(change: (body: CollectionBody) => CollectionBody | undefined, publish: () => void): Promise<boolean> {
    if (this.#isEnded) return Promise.reject(new IsovecError('CLOSED', 'the database is closed'))
    const turn = this.#committing.then(() => this.#commit(change, publish))
    this.#committing = turn.catch(() => {})
    return turn
  }

  /** Stops the writer for good after a failure. The first one counts. */
  poisonWith(error: IsovecError): void {
    this.poison ??= error
  }

  /** Removes what no kept generation names and nobody uses. What cannot be removed now is tried again after the next commit. */
  async removeObsolete(): Promise<void> {
    // What a failed commit has left on disk is not known, so whatever it may have named stays.
    if (this.poison !== undefined) return
    const pinned = new Set<string>()
    for (const segment of this.#open.values()) {
      pinned.add(segment.name)
      if (segment.graphFile !== undefined) pinned.add(fileName(segment.graphFile.number, 'graph'))
    }
    for (const name of [...this.#removable]) {
      if (pinned.has(name)) continue
      this.#removable.delete(name)
      try {
        await this.context.directory.remove(name)
      } catch {
        // A file that stays is a waste of space and no danger: it is tried again, and swept when the database is next opened.
        this.#removable.add(name)
      }
    }
  }

  /** Gives up files that never became part of a generation. */
  async discard(names: readonly string[]): Promise<void> {
    for (const name of names) this.#removable.add(name)
    await this.removeObsolete()
  }

  /** Waits for commits under way and takes no more: nothing may be written once another writer can hold the lock. */
  async endCommits(): Promise<void> {
    this.#isEnded = true
    await this.#committing
  }

  /** Lets go of every source. */
  dispose(): void {
    for (const source of this.sources) source.release()
    this.segments = []
    this.sealed = []
  }

  #newMemtable(): Memtable {
    const newest = this.segments.findLast((segment) => segment.isImageLoaded && segment.image.quantizer !== null)
    return new Memtable(this.context, this.options.quantization, newest?.image.quantizer ?? undefined)
  }

  *#newestFirst(): Generator<Segment | Memtable> {
    yield this.active
    for (let i = this.sealed.length - 1; i >= 0; i--) yield this.sealed[i]!.memtable
    for (let i = this.segments.length - 1; i >= 0; i--) yield this.segments[i]!
  }

  #kill(id: string, sequence: number): boolean {
    const key = idKey(id, this.context.hashSeed)
    for (const source of this.#newestFirst()) {
      const row = source.find(key)
      if (row >= 0 && source.kill(row, sequence)) return true
    }
    return false
  }

  async #commit(change: (body: CollectionBody) => CollectionBody | undefined, publish: () => void): Promise<boolean> {
    this.assertWritable()
    const wanted = change(this.body)
    if (wanted === undefined) return false
    const written: string[] = []
    try {
      const segments = await this.#settleTombstones(wanted, written)
      const body = { ...wanted, segments, nextFile: this.#nextFile }
      const dropped = await this.generations.commit(body)
      for (const state of segments) {
        const segment = this.#open.get(state.file.number)
        if (segment !== undefined) segment.tombstoneFile = state.tombstones
      }
      publish()
      this.#retire(dropped)
    } catch (error) {
      await this.#failCommit(error, written)
    }
    await this.removeObsolete()
    return true
  }

  async #settleTombstones(wanted: CollectionBody, written: string[]): Promise<SegmentState[]> {
    const segments: SegmentState[] = []
    for (const state of wanted.segments) {
      const segment = this.#open.get(state.file.number)
      assert(segment !== undefined, 'a committed segment is open')
      const settledCount = state.tombstones?.count ?? 0
      const isSettled = segment.tombstones.count === settledCount
      const entries = isSettled ? [] : segment.tombstones.upTo(wanted.lastSequence)
      // Tombstones only come, so as many as before are the same as before.
      if (isSettled || entries.length === settledCount) {
        segments.push(state)
        continue
      }
      const number = this.takeFileNumber()
      written.push(fileName(number, 'del'))
      const { kernel, directory, uuid } = this.context
      const tombstones = await writeTombstones(kernel, directory, number, uuid, segment.number, entries)
      segments.push({ ...state, tombstones })
    }
    return segments
  }

  async #failCommit(error: unknown, written: readonly string[]): Promise<never> {
    const isFull = error instanceof IsovecError && error.code === 'QUOTA_EXCEEDED'
    if (isFull) {
      await this.discard(written)
    } else if (error instanceof IsovecError) {
      this.poisonWith(error)
    }
    throw error
  }

  /** Notes what may go once a generation is no longer kept. */
  #retire(dropped: { generation: number; body: CollectionBody } | undefined): void {
    if (dropped === undefined) return
    const { kept } = this.generations
    const needed = new Set(kept.flatMap(({ body }) => filesOf(body)))
    for (const name of filesOf(dropped.body)) if (!needed.has(name)) this.#removable.add(name)
    this.#removable.add(fileName(dropped.generation, 'manifest'))
    const firstWal = Math.min(...kept.map(({ body }) => body.firstWal))
    for (const number of this.walSizes.keys()) {
      if (number >= firstWal) continue
      this.#removable.add(fileName(number, 'wal'))
      this.walSizes.delete(number)
    }
  }
}
