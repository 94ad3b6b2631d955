/**
 * The state of one open collection: its sources, its manifest, and the rules by which both change.
 *
 * Everything here that changes what a search sees is synchronous; awaits stand only where bytes move.
 */
import { viewOf } from './codec/bytes.ts'
import { assert, IsovecError, throwIfAborted } from './errors.ts'
import { Slice } from './slice.ts'
import { type IdKey, type SearchSource, Snapshot } from './snapshot.ts'
import { applyOperations, kill, locate, patch } from './storage/apply.ts'
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
import type { Manifest } from './storage/manifest.ts'
import { Memtable } from './storage/memtable.ts'
import { writePatches } from './storage/overlay.ts'
import { readOnlyError } from './storage/reader-directory.ts'
import { lacksRoom } from './storage/reserve.ts'
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

/** What stands in for the segments that the newest generation introduced. */
export type Spare = {
  /** Those of the generation before, with ids loaded; what is open already is the same object. */
  readonly segments: Segment[]
  /** What was written from then to the newest generation; undefined if that was nothing. */
  readonly memtable: Memtable | undefined
}

/** Whether a database may be written, and why it is written no more, if so. */
export type Fate = { poison?: IsovecError; readonly isReadOnly?: boolean }

/**
 * Refuses to write where that is not possible.
 * @throws IsovecError `READ_ONLY`, with the failure that stopped the writer as `cause` if there was one
 */
export function assertWritable({ poison, isReadOnly }: Fate): void {
  if (isReadOnly === true) throw readOnlyError()
  if (poison === undefined) return
  throw new IsovecError('READ_ONLY', 'an earlier I/O failure has made the database read-only until it is reopened', {
    cause: poison,
    outcome: 'none',
  })
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
  /** Sizes of the logs on disk by number; of the one being written as of its last rotation. */
  readonly walSizes: Map<number, number>
  /** What all collections of a database share once they are open: a failed attempt to open one can be made again. */
  fate: Fate = {}
  /** Is told of damage that was made good and costs nothing. */
  onFault: (error: IsovecError) => void = () => {}
  /** Opens what the newest generation is replaced by if something that it introduced is damaged; set until that is proven whole. */
  openSpare: (() => Promise<Spare>) | undefined = undefined
  /** Where the newest log on disk ended, if this process has not begun one of its own. */
  pendingSeal: Seal | undefined

  #nextFile: number
  #sources: { segments: unknown; sealed: unknown; active: unknown; list: readonly SearchSource[] } | undefined
  readonly #open = new Map<number, Segment>()
  readonly #removable = new Set<string>()
  /** Users who need all files of the kept generations to stay. */
  #fileUsers = 0
  #removing: Promise<void> = Promise.resolve()
  #committing: Promise<unknown> = Promise.resolve()
  #fallingBack: Promise<void> | undefined
  /** Segments that were given up, and what was being made of them: none is ever committed. */
  #stale: ReadonlySet<Segment> = new Set()
  /** Deletes that met no document, for as long as there may be something to fall back to. */
  #unmet: { readonly key: IdKey; readonly sequence: number }[] | undefined = []
  #isEnded = false
  #isDisposed = false
  #isRetired = false

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

  /** Sets {@link openSpare}, once what was logged has been applied. */
  setSpare(openSpare: (() => Promise<Spare>) | undefined): void {
    this.openSpare = openSpare
    if (openSpare === undefined) this.#unmet = undefined
  }

  /**
   * Why nothing is written any more, if so: an I/O failure, of any collection of the database, after which its files can't be trusted to
   * match the memory.
   */
  get poison(): IsovecError | undefined {
    return this.fate.poison
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

  /** Sources of everything that was written, newest data last. The same list for as long as they are the same. */
  get sources(): readonly SearchSource[] {
    const { segments, sealed, active } = this
    const known = this.#sources
    if (known?.segments === segments && known.sealed === sealed && known.active === active) return known.list
    const list = [...segments, ...sealed.map(({ memtable }) => memtable), active]
    this.#sources = { segments, sealed, active, list }
    return list
  }

  /** Whether any segment is open, in use or not. */
  get hasOpenFiles(): boolean {
    return this.#open.size > 0
  }

  /** The state as of now, for as long as it's held. */
  snapshot(): Snapshot {
    return new Snapshot(this.sources, this.lastSequence)
  }

  /** @throws IsovecError `READ_ONLY` */
  assertWritable(): void {
    assertWritable(this.fate)
  }

  /** Whether anything can be written. */
  get isWritable(): boolean {
    return this.poison === undefined && this.fate.isReadOnly !== true
  }

  /** Brings the ids of all segments into memory, so that writes can be applied without an await. */
  async loadIds(): Promise<void> {
    await this.load(false, undefined)
  }

  /**
   * Brings ids, and with `images` vectors and graphs, of all sources into memory. Falls back if what the newest generation introduced
   * turns out to be damaged.
   * @throws IsovecError `CORRUPTION` if the damage costs something, `ABORTED`
   */
  async load(images: boolean, signal: AbortSignal | undefined): Promise<void> {
    const isCold = (source: SearchSource): boolean => !source.areIdsLoaded || (images && !source.isImageLoaded)
    for (let cold = this.sources.find(isCold); cold !== undefined; cold = this.sources.find(isCold)) {
      const source = cold
      source.retain()
      try {
        await (source.areIdsLoaded ? source.loadImage() : source.loadIds())
      } catch (error) {
        await this.#survive(source, error)
      } finally {
        source.release()
      }
      throwIfAborted(signal)
    }
  }

  /**
   * Verifies what only the newest generation names, and falls back if that is damaged: once another generation is committed, there is
   * nothing left to fall back to. Reads nothing the second time.
   */
  async prove(): Promise<void> {
    while (this.openSpare !== undefined) {
      if (this.#fallingBack !== undefined) {
        await this.#fallingBack
        continue
      }
      const segment = this.segments.find(({ isProven }) => !isProven)
      if (segment === undefined) {
        this.setSpare(undefined)
        return
      }
      segment.retain()
      try {
        await segment.verify()
      } catch (error) {
        await this.#survive(segment, error)
      } finally {
        segment.release()
      }
    }
  }

  /**
   * The same where a memtable would stand in for what is damaged: it would take no rows for patches. So nothing that is not proven is
   * patched then.
   */
  async provePatchable(): Promise<void> {
    if (this.isSpareLogged) await this.prove()
  }

  /** Whether what the generation before lacks is brought back from logs, rather than held by segments of its own. */
  get isSpareLogged(): boolean {
    const previous = this.generations.kept[1]
    return previous !== undefined && previous.body.lastSequence !== this.body.lastSequence
  }

  /** Falls back if a source that failed can be done without, and passes the failure on if not. */
  async #survive(source: SearchSource, error: unknown): Promise<void> {
    // Whoever met the damage first has fallen back by now.
    if (!this.sources.includes(source)) return
    const isDamage = error instanceof IsovecError && error.code === 'CORRUPTION'
    const isSpared = this.segments.some((segment) => segment === source && !segment.isProven)
    const { openSpare } = this
    if (!isDamage || !isSpared || openSpare === undefined) throw error
    this.#fallingBack ??= this.#fallBack(error, openSpare).finally(() => {
      this.#fallingBack = undefined
    })
    await this.#fallingBack
  }

  async #fallBack(damage: IsovecError, openSpare: () => Promise<Spare>): Promise<void> {
    let spare: Spare
    try {
      spare = await openSpare()
    } catch (error) {
      // The first damage is the one to report: what the older generation lacks may just be what the newest one had replaced. Other
      // failures may pass.
      const isDamage = error instanceof IsovecError && (error.code === 'CORRUPTION' || error.code === 'NOT_FOUND')
      throw isDamage ? damage : error
    }
    const { segments, memtable } = spare
    if (this.#isDisposed) {
      for (const segment of segments) if (!this.#open.has(segment.number)) segment.release()
      memtable?.release()
      throw new IsovecError('CLOSED', 'the database is closed')
    }
    const { lastSequence, firstWal } = this.body
    const gone = this.segments.filter((segment) => !segments.includes(segment))
    const newestFirst = [...segments, ...(memtable === undefined ? [] : [memtable])].reverse()
    const patches = gone.flatMap((segment) =>
      segment.overlay.since(lastSequence).map((patch) => ({ ...patch, key: this.#keyAt(segment, patch.row) })),
    )
    assert(
      memtable === undefined || patches.length === 0,
      'what a memtable stands in for is proven before it is patched',
    )
    this.#stale = new Set([...this.#open.values()].filter((segment) => !segments.includes(segment)))
    for (const segment of segments) if (!this.#open.has(segment.number)) this.register(segment)
    // Patches and deaths after the newest generation are known to its rows alone.
    for (const { key, sequence, payload } of patches.sort((a, b) => a.sequence - b.sequence)) {
      patch(newestFirst, key, payload, sequence)
    }
    for (const segment of gone) {
      for (const [row, sequence] of segment.tombstones.entries()) {
        if (sequence > lastSequence) kill(newestFirst, this.#keyAt(segment, row), sequence)
      }
    }
    if (memtable !== undefined) this.#killLeftOut(newestFirst)
    this.segments = segments
    if (memtable !== undefined) this.sealed = [{ memtable, lastSequence, nextWal: firstWal }, ...this.sealed]
    this.generations.fallBack()
    this.setSpare(undefined)
    for (const segment of gone) segment.release()
    this.onFault(damage)
  }

  /**
   * A flush on a full disk leaves rows out that were deleted or replaced since: what came in their place, or met no row when it deleted
   * them, is known to memtables and {@link #unmet} alone.
   */
  #killLeftOut(newestFirst: readonly (Segment | Memtable)[]): void {
    for (const { key, sequence } of this.#unmet ?? []) kill(newestFirst, key, sequence)
    for (const { memtable } of [...this.sealed, { memtable: this.active }]) {
      for (let row = 0; row < memtable.rowCount; row++) {
        kill(newestFirst, idKey(memtable.idAt(row), this.context.hashSeed), memtable.sequenceAt(row))
      }
    }
  }

  /**
   * Applies a logged batch. Room must have been reserved in the active memtable and ids be loaded.
   * @returns how many of the documents that it deletes existed
   */
  apply(operations: readonly Operation[], sequence: number): number {
    assert(sequence === this.lastSequence + 1, 'batches are applied in order')
    const newestFirst = [...this.#newestFirst()]
    const note = (key: IdKey): void => void this.#unmet?.push({ key, sequence })
    const deleted = applyOperations(newestFirst, this.active, operations, sequence, this.context.hashSeed, note)
    this.lastSequence = sequence
    return deleted
  }

  /** The live row of an id at the newest sequence. */
  locate(id: string): { source: SearchSource; row: number } | undefined {
    return locate(this.#newestFirst(), idKey(id, this.context.hashSeed), this.lastSequence)
  }

  #keyAt(segment: Segment, row: number): IdKey {
    return idKey(segment.idAt(row), this.context.hashSeed)
  }

  /** Puts an empty memtable in place of the active one, which waits to be flushed from then on. */
  seal(nextWal: number): void {
    this.sealed = [...this.sealed, { memtable: this.active, lastSequence: this.lastSequence, nextWal }]
    this.active = this.#newMemtable()
  }

  /** Makes a segment known, so that its files stay while anybody uses it. */
  register(segment: Segment): void {
    this.#open.set(segment.number, segment)
    segment.onFault = (error) => this.onFault(error)
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
   * @param options `twice`: so that the generation to fall back to says the same. The first time decides; a disk that is full at the
   * second one costs no more than that safety
   */
  commit(
    change: (body: CollectionBody) => CollectionBody | undefined,
    publish: () => void,
    options: { twice?: boolean } = {},
  ): Promise<boolean> {
    if (this.#isEnded) return Promise.reject(new IsovecError('CLOSED', 'the database is closed'))
    const turn = this.#committing.then(() => this.#commit(change, publish, options.twice === true))
    this.#committing = turn.catch(() => {})
    return turn
  }

  /** Stops the writer for good after a failure. The first one counts. */
  poisonWith(error: IsovecError): void {
    this.fate.poison ??= error
  }

  /** Removes what no kept generation names and nobody uses. What cannot be removed now is tried again after the next commit. */
  removeObsolete(): Promise<void> {
    this.#removing = this.#removing.then(() => this.#removeObsolete())
    return this.#removing
  }

  /** Keeps every file that a kept generation names, or named meanwhile, until the result is called. */
  holdFiles(): () => void {
    this.#fileUsers++
    let isHeld = true
    return () => {
      if (!isHeld) return
      isHeld = false
      this.#fileUsers--
      void this.removeObsolete()
    }
  }

  /** Runs something while no generation is being committed. */
  betweenCommits<T>(run: () => Promise<T>): Promise<T> {
    const turn = this.#committing.then(run)
    this.#committing = turn.catch(() => {})
    return turn
  }

  async #removeObsolete(): Promise<void> {
    for (const name of [...this.#removable]) {
      // What a failed commit has left on disk is not known, so whatever it may have named stays. Once disposed, the lock may be gone.
      if (!this.isWritable || this.#isDisposed || this.#fileUsers > 0) return
      if (this.#isPinned(name)) continue
      this.#removable.delete(name)
      try {
        await this.context.directory.remove(name)
      } catch {
        // A file that stays is a waste of space and no danger: it is tried again, and swept when the database is next opened.
        this.#removable.add(name)
      }
    }
  }

  #isPinned(name: string): boolean {
    for (const segment of this.#open.values()) {
      if (segment.name === name) return true
      if (segment.graphFile !== undefined && fileName(segment.graphFile.number, 'graph') === name) return true
    }
    return false
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

  /** Lets go of every source; snapshots that are held keep theirs, and their files, until they are released. Again is harmless. */
  retire(): void {
    if (this.#isRetired) return
    this.#isRetired = true
    for (const source of this.sources) source.release()
    this.segments = []
    this.sealed = []
  }

  /**
   * Lets go of every source and closes every file, also those of snapshots that are still held. Nothing is read, and nothing removed,
   * when this resolves.
   */
  async dispose(): Promise<void> {
    this.#isDisposed = true
    const open = [...this.#open.values()]
    this.retire()
    await Promise.all(open.map((segment) => segment.closeFile()))
    await this.#removing
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

  async #commit(
    change: (body: CollectionBody) => CollectionBody | undefined,
    publish: () => void,
    isTwice: boolean,
  ): Promise<boolean> {
    this.assertWritable()
    await this.prove()
    const wanted = change(this.body)
    if (wanted === undefined) return false
    this.#assertFresh(wanted)
    try {
      const { body, dropped } = await this.context.reserve.spend(() => this.#write(wanted))
      for (const state of body.segments) {
        const segment = this.#open.get(state.file.number)
        if (segment === undefined) continue
        segment.tombstoneFile = state.tombstones
        segment.patchFile = state.patches
        segment.forgetPatches(body.lastSequence)
      }
      publish()
      this.#retire(dropped)
      if (isTwice) await this.#commitAgain()
    } catch (error) {
      if (error instanceof IsovecError && !lacksRoom(error)) this.poisonWith(error)
      throw error
    }
    await this.removeObsolete()
    return true
  }

  /** Writes a generation. Where it finds no room, nothing of it stays. */
  async #write(
    wanted: CollectionBody,
  ): Promise<{ body: CollectionBody; dropped: Manifest<CollectionBody> | undefined }> {
    const written: string[] = []
    try {
      const segments = await this.#settlePatches(await this.#settleTombstones(wanted, written), wanted, written)
      const body = { ...wanted, segments, nextFile: this.#nextFile }
      return { body, dropped: await this.generations.commit(body) }
    } catch (error) {
      if (lacksRoom(error)) await this.discard(written)
      throw error
    }
  }

  async #commitAgain(): Promise<void> {
    try {
      this.#retire(await this.generations.commit(this.body))
    } catch (error) {
      if (!lacksRoom(error)) throw error
    }
  }

  /** What was made of segments that were given up meanwhile, or comes before what they held, is not committed. */
  #assertFresh(wanted: CollectionBody): void {
    const isStale = wanted.segments.some(({ file }) => {
      const segment = this.#open.get(file.number)
      return segment !== undefined && this.#stale.has(segment)
    })
    const isEarly =
      wanted.lastSequence !== this.body.lastSequence && wanted.lastSequence !== this.sealed[0]?.lastSequence
    if (!isStale && !isEarly) return
    throw new IsovecError('CORRUPTION', 'a damaged segment was replaced meanwhile by what it was made of; try again')
  }

  async #settleTombstones(wanted: CollectionBody, written: string[]): Promise<SegmentState[]> {
    const segments: SegmentState[] = []
    for (const state of wanted.segments) {
      const segment = this.#open.get(state.file.number)
      assert(segment !== undefined, 'a committed segment is open')
      const settledCount = state.tombstones?.count ?? 0
      const { tombstones } = segment
      // Tombstones only come, so as many as before are the same as before.
      if (tombstones.count === settledCount || tombstones.countUpTo(wanted.lastSequence) === settledCount) {
        segments.push(state)
        continue
      }
      const number = this.takeFileNumber()
      written.push(fileName(number, 'del'))
      const { kernel, directory, uuid } = this.context
      const file = await writeTombstones(
        kernel,
        directory,
        number,
        uuid,
        segment.number,
        tombstones,
        wanted.lastSequence,
      )
      segments.push({ ...state, tombstones: file })
    }
    return segments
  }

  async #settlePatches(
    states: readonly SegmentState[],
    { lastSequence }: CollectionBody,
    written: string[],
  ): Promise<SegmentState[]> {
    const segments: SegmentState[] = []
    for (const state of states) {
      const { overlay } = this.#open.get(state.file.number)!
      const last = overlay.lastUpTo(lastSequence)
      // Patches only come, so that with none after the last one they are the same as before. After a fall-back there may be fewer: the
      // segment's were read from a later generation's file, which has no more of a row than its newest.
      if (last <= (state.patches?.lastSequence ?? 0)) {
        segments.push(state)
        continue
      }
      const number = this.takeFileNumber()
      written.push(fileName(number, 'patch'))
      const { kernel, directory, uuid } = this.context
      const rows = await overlay.versionsAt(lastSequence, new Slice())
      const patches = await writePatches(kernel, directory, number, uuid, state.file.number, rows)
      segments.push({ ...state, patches })
    }
    return segments
  }

  /** Notes what may go once a generation is no longer kept. */
  #retire(dropped: Manifest<CollectionBody> | undefined): void {
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
