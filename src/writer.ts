/**
 * The order of writes: every change of a collection passes through one queue, is logged, synced, applied and only then acknowledged.
 *
 * Batches that wait while the log is synced are logged and synced together.
 */
import { abortError, asIsovecError, IsovecError, withOutcome } from './errors.ts'
import { vectorStride } from './kernel/index.ts'
import { PendingPayloads } from './patch.ts'
import { Pace, Slice } from './slice.ts'
import type { CollectionState } from './state.ts'
import { type Batch, type Draft, waitingSizeMax } from './storage/batch.ts'
import { fileName } from './storage/file-names.ts'
import { isFull } from './storage/reserve.ts'
import { WalWriter, walHeaderSize } from './storage/wal.ts'

/** Log that makes a memtable due for a flush. */
const flushedWalSize = 64 * 1024 * 1024
/** Logs, one for each time that the database was opened and written to, that make a memtable due for a flush when it is opened again. */
const walCountMax = 8
/** Un-synced log that makes a sync due under `buffered`. */
const bufferedSizeMax = 8 * 1024 * 1024
/** Time after which what was written under `buffered` is synced. */
const bufferedDelayMs = 1000
/** Batches that are logged with one call hold at most this, so that a burst doesn't starve the first of its callers. */
const groupSizeMax = 8 * 1024 * 1024
/** Bytes of log that a patch is taken for before it is known what it comes to. */
const changeSizeGuess = 4096
/** Sealed memtables that may wait for their flush before writers wait too. */
const sealedCountMax = 2
/** Vectors of a full memtable: what a search scans beside its graphs. */
const memtableVectorBytesMax = 8 * 1024 * 1024
const memtableRowsMin = 1024
const memtableRowsMax = 16 * 1024

/** Rows at which a memtable of vectors of this dimension is full. */
export function memtableRowsFor(dimension: number): number {
  const rows = Math.floor(memtableVectorBytesMax / vectorStride(dimension))
  return Math.min(memtableRowsMax, Math.max(memtableRowsMin, rows))
}

type Durability = 'strict' | 'buffered'
/** What a write asks for. */
export type Asked =
  | Draft
  /** A batch that is made of what is there when its turn comes. */
  | (() => Promise<Batch>)
/** What a write came to. */
export type Written = {
  /** Documents that it deleted. */
  readonly deleted: number
  /** Patches that met a document. */
  readonly patched: number
}
type Write = {
  readonly kind: 'write'
  readonly asked: Asked
  /** Undefined as long as it hangs on the writes before. */
  batch: Batch | undefined
  patched: number
  /** Why it can't be done while others with it can. */
  failure: IsovecError | undefined
  /** Bytes of log, or a guess where they aren't known yet. */
  readonly size: number
  /** Rows that it brings. Without any it only frees room, so that a full disk must not keep it from happening. */
  readonly rowCount: number
  /** Undefined: as the collection is configured when the batch's turn comes. */
  readonly durability: Durability | undefined
  readonly resolve: (written: Written) => void
  readonly reject: (error: unknown) => void
  isSettled: boolean
  /** Whether it will be done, or fail, whoever gives up waiting for it. */
  isUnderWay: boolean
}
/** A write that changes something. */
type Resolved = Write & { readonly batch: Batch }
type Task = { readonly kind: 'task'; readonly run: () => Promise<void> }

/** The writer of one collection. */
export class Writer {
  readonly #state: CollectionState
  readonly #flush: () => Promise<void>
  readonly #report: (error: unknown) => void
  readonly #rowsMax: number
  #wal: WalWriter | undefined
  /** Begins the log that must hold what was replayed before anything new is acknowledged, where there was no room for it so far. */
  #restate: (() => Promise<WalWriter>) | undefined
  /** Whether the log ends in bytes of a failed append, so that it must be sealed before them. */
  #isWalBroken = false
  #unsyncedSize = 0
  #syncTimer: unknown
  #queue: (Write | Task)[] = []
  /** Bytes of the writes in the queue. */
  #waitingSize = 0
  #running: Promise<void> | undefined
  #isClosed = false
  readonly #pace = new Pace()

  /**
   * @param flush begins to flush sealed memtables, or joins the flush that runs; resolves when the one that waited longest is done
   * @param report is told failures that no caller waits for
   */
  constructor(state: CollectionState, flush: () => Promise<void>, report: (error: unknown) => void) {
    this.#state = state
    this.#flush = flush
    this.#report = report
    this.#rowsMax = memtableRowsFor(state.options.dimension)
  }

  /** Bytes of log that no segment holds yet. */
  get walSize(): number {
    return this.#state.unflushedWalSize + (this.#wal?.size ?? 0)
  }

  /** All sequences up to this one are known to survive power loss. */
  get durableSequence(): number {
    return this.#wal?.durableSequence ?? this.#state.body.lastSequence
  }

  /** Gives the writer the log that recovery has begun, or has yet to begin. */
  adopt(wal: WalWriter | (() => Promise<WalWriter>)): void {
    if (typeof wal === 'function') this.#restate = wal
    else this.#wal = wal
  }

  /** Seals and flushes what recovery has brought back where it is too much to scan with each search, or to read with each opening. */
  trim(): void {
    if (!this.#state.isWritable) return
    if (!this.#isMemtableFull() && this.#state.unflushedWalCount < walCountMax) return
    void this.#task(() => this.#rotateFull())
  }

  /** Everything that was asked for before this call has taken effect or failed when the promise resolves; undefined if nothing is pending. */
  settled(): Promise<void> | undefined {
    if (this.#running === undefined) return undefined
    return this.#task(async () => {})
  }

  /** Whether nothing is pending, so that what is done in this turn comes after everything that was asked for. */
  get isIdle(): boolean {
    return this.#running === undefined
  }

  /** Runs a task after everything that was asked for before and before everything that is asked for later. */
  inTurn(run: () => Promise<void>): Promise<void> {
    return this.#task(run)
  }

  /**
   * Logs and applies a batch.
   * @param durability by default as the collection is configured when the batch's turn comes
   * @throws IsovecError with `outcome`
   */
  write(asked: Asked, durability: Durability | undefined, signal: AbortSignal | undefined): Promise<Written> {
    if (signal?.aborted) return Promise.reject(abortError(signal, 'none'))
    const size =
      typeof asked === 'function'
        ? 0
        : Math.max(asked.size, asked.operations.length * (asked.batch === undefined ? changeSizeGuess : 0))
    if (this.#waitingSize > 0 && this.#waitingSize + size > waitingSizeMax) {
      const message = `writes of ${this.#waitingSize} bytes wait already: await some of them before the next`
      return Promise.reject(new IsovecError('OUT_OF_MEMORY', message, { outcome: 'none' }))
    }
    return new Promise((resolve, reject) => {
      const onAbort = (): void => {
        if (item.isSettled) return
        item.isSettled = true
        reject(abortError(signal!, item.isUnderWay ? 'unknown' : 'none'))
      }
      const settle = (action: () => void): void => {
        signal?.removeEventListener('abort', onAbort)
        if (item.isSettled) return
        item.isSettled = true
        action()
      }
      const item: Write = {
        kind: 'write',
        asked,
        batch: typeof asked === 'function' ? undefined : asked.batch,
        patched: 0,
        failure: undefined,
        size,
        rowCount: typeof asked === 'function' ? 0 : rowCountOf(asked.operations),
        durability,
        resolve: (written) => settle(() => resolve(written)),
        reject: (error) => settle(() => reject(error)),
        isSettled: false,
        isUnderWay: false,
      }
      signal?.addEventListener('abort', onAbort, { once: true })
      this.#waitingSize += size
      this.#enqueue(item)
    })
  }

  /** Makes everything acknowledged survive power loss. */
  sync(): Promise<void> {
    return this.#task(() => this.#syncWal())
  }

  /** Seals what is in memory, to be flushed by the caller. */
  seal(): Promise<void> {
    return this.#task(async () => {
      const { lastSequence, sealed, body } = this.#state
      if (lastSequence === (sealed.at(-1)?.lastSequence ?? body.lastSequence)) return
      this.#state.assertWritable()
      await this.#rotate()
    })
  }

  /** Waits for what is under way, ends the log cleanly and takes nothing more. */
  async close(): Promise<void> {
    await this.#task(async () => {
      this.#isClosed = true
      this.#cancelSyncTimer()
      const wal = this.#wal
      if (wal === undefined) return this.#syncReplayed()
      try {
        if (this.#state.poison === undefined) return await this.#endWal()
        await wal.abandon()
      } finally {
        this.#wal = undefined
      }
      // What was acknowledged under `buffered` and can't be synced any more must not pass for safe.
      if (wal.durableSequence < this.#state.lastSequence) this.#state.assertWritable()
    })
  }

  /** Ends the log cleanly. Where there is no room for that, what was acknowledged is synced, and the next opening does the rest. */
  async #endWal(): Promise<void> {
    try {
      await this.#state.context.reserve.spend(async () => {
        await this.#ensureWal()
        try {
          await this.#wal!.end()
        } catch (error) {
          if (isFull(error)) this.#isWalBroken = true
          throw error
        }
      })
    } catch (error) {
      await this.#wal!.abandon().catch(() => {})
      if (!isFull(error)) throw error
      return
    }
    await this.#wal!.abandon()
  }

  #task(run: () => Promise<void>): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#enqueue({ kind: 'task', run: () => run().then(resolve, reject) })
    })
  }

  #enqueue(item: Write | Task): void {
    this.#queue.push(item)
    this.#running ??= this.#drain()
  }

  async #drain(): Promise<void> {
    // Whatever is asked for in the same turn joins the first group.
    await undefined
    while (this.#queue.length > 0) {
      // Where storage answers within the turn, writes that are made one after the other would keep everything else from running.
      if (this.#pace.isOver) await this.#pace.next()
      const first = this.#queue[0]!
      if (first.kind === 'task') {
        this.#queue.shift()
        await first.run()
        continue
      }
      await this.#writeGroup(this.#takeGroup())
    }
    // In the turn in which the queue was seen empty: what comes later finds that it must begin anew.
    this.#running = undefined
  }

  /** Where a group can't be written, what brings no rows must still be done: on its own, and on a full disk from the reserve. */
  async #writeGroup(group: readonly Write[]): Promise<void> {
    if (group.length === 0) return
    const { reserve } = this.#state.context
    try {
      await this.#commitGroup(group)
    } catch (error) {
      if (isFull(error)) reserve.noteShortage()
      const isUntouched = error instanceof IsovecError && error.outcome === 'none' && this.#state.poison === undefined
      const rest = isUntouched ? group.filter((item) => item.rowCount === 0 && !item.isSettled) : []
      for (const item of group) if (!rest.includes(item)) item.reject(error)
      if (rest.length === 0) return
      try {
        await reserve.spend(() => this.#commitGroup(rest))
      } catch (failure) {
        for (const item of rest) item.reject(failure)
      }
    }
  }

  #takeGroup(): Write[] {
    const group: Write[] = []
    let size = 0
    while (this.#queue.length > 0) {
      const item = this.#queue[0]!
      if (item.kind !== 'write' || (group.length > 0 && size + item.size > groupSizeMax)) break
      // What is made of the state needs everything before it applied.
      if (typeof item.asked === 'function' && group.length > 0) break
      this.#queue.shift()
      this.#waitingSize -= item.size
      if (item.isSettled) continue
      size += item.size
      group.push(item)
      if (typeof item.asked === 'function') break
    }
    return group
  }

  async #commitGroup(group: readonly Write[]): Promise<void> {
    const taken = await this.#prepare(group)
    const live = taken.filter(isLive)
    let sequence = this.#state.lastSequence
    if (live.length > 0) {
      const wal = await this.#append(live)
      sequence = wal.lastSequence - live.length
    }
    const { durability } = this.#state.options
    const isStrict = taken.some((item) => (item.durability ?? durability) === 'strict')
    try {
      // What comes to nothing tells of the writes before.
      if (isStrict || this.#unsyncedSize >= bufferedSizeMax) await this.#syncWal()
      else if (live.length > 0) this.#startSyncTimer()
    } catch (error) {
      // The records are in the log, whatever it was that failed: they may come back when it's read again.
      throw withOutcome(error, 'unknown')
    }
    await this.#apply(taken, sequence)
    // What waits for its flush is bounded: rows that come wait for it, but not what brings none.
    if (this.#isMemtableFull() && this.#state.sealed.length < sealedCountMax) await this.#rotateFull()
  }

  /**
   * Applies what is in the log, each batch within one turn, and tells everybody in their order what became of it. Between batches others
   * may run: reads that were asked for since wait for the whole group.
   */
  async #apply(taken: readonly Write[], lastSequence: number): Promise<void> {
    const slice = new Slice()
    let sequence = lastSequence
    for (const item of taken) {
      if (item.failure !== undefined) {
        item.reject(item.failure)
        continue
      }
      if (slice.isOver) await slice.next()
      let deleted = 0
      try {
        if (isLive(item)) deleted = this.#state.apply(item.batch.operations, ++sequence)
      } catch (cause) {
        // From here on memory and log say different things.
        const failure = new IsovecError('IO', 'a batch that is in the log could not be applied', { cause })
        this.#state.poisonWith(failure)
        throw withOutcome(failure, 'unknown')
      }
      item.resolve({ deleted, patched: item.patched })
    }
  }

  /** Everything that can fail before the log is touched. Returns the writes that nobody has given up. */
  async #prepare(group: readonly Write[]): Promise<Write[]> {
    const state = this.#state
    if (this.#isClosed) throw new IsovecError('CLOSED', 'the database is closed', { outcome: 'none' })
    state.assertWritable()
    const rows = group.reduce((sum, { rowCount }) => sum + rowCount, 0)
    try {
      if (rows > 0) while (state.sealed.length >= sealedCountMax) await this.#flush()
      if (group.some(hasPatches)) await state.provePatchable()
      await state.loadIds()
      const taken = await this.#resolve(group)
      const live = taken.filter(isLive)
      if (live.length > 0) {
        if (rows > 0) await state.context.reserve.ensure(this.#dataSize(live))
        state.active.reserve(rows)
        await this.#ensureWal()
      }
      return taken
    } catch (error) {
      state.assertWritable()
      throw withOutcome(error, 'none')
    }
  }

  /** Makes batches of what was asked for, but for what was given up by now. What can't be done fails alone. */
  async #resolve(group: readonly Write[]): Promise<Write[]> {
    const pending = new PendingPayloads(this.#state)
    const taken: Write[] = []
    for (const item of group) {
      if (item.isSettled) continue
      item.failure = undefined
      try {
        if (typeof item.asked === 'function') {
          item.batch ??= await item.asked()
          if (item.isSettled) continue
          item.isUnderWay = true
        } else {
          // Others are made to come after it, so that it can't be left out any more.
          item.isUnderWay = true
          Object.assign(item, await pending.resolve(item.asked))
        }
      } catch (error) {
        item.failure = withOutcome(error, 'none')
      }
      taken.push(item)
    }
    return taken
  }

  /** Bytes of the collection on disk once a group is written. */
  #dataSize(group: readonly Write[]): number {
    let size = this.walSize
    for (const { batch } of group) size += batch?.bytes.length ?? 0
    for (const { file } of this.#state.segments) size += file.length
    return size
  }

  async #append(group: readonly Resolved[]): Promise<WalWriter> {
    const wal = this.#wal!
    const before = wal.size
    try {
      await wal.append(group.map(({ batch }) => batch.bytes))
    } catch (error) {
      throw await this.#failAppend(error)
    }
    this.#unsyncedSize += wal.size - before
    return wal
  }

  /** A full disk seals the log before the bad record and the collection goes on; anything else stops the writer. */
  async #failAppend(error: unknown): Promise<IsovecError> {
    const failure = asIsovecError(error)
    if (failure.code !== 'QUOTA_EXCEEDED') {
      this.#state.poisonWith(failure)
      return withOutcome(failure, 'unknown')
    }
    this.#isWalBroken = true
    try {
      await this.#state.context.reserve.spend(() => this.#ensureWal())
      return withOutcome(failure, 'none')
    } catch {
      // Until the log is sealed, a record that reached the disk whole would come back at the next open.
      return withOutcome(failure, 'unknown')
    }
  }

  async #syncWal(): Promise<void> {
    this.#cancelSyncTimer()
    const wal = this.#wal
    if (wal === undefined || this.#state.poison !== undefined) {
      this.#state.assertWritable()
      return this.#syncReplayed()
    }
    if (wal.durableSequence === wal.lastSequence) return
    try {
      await wal.sync()
    } catch (error) {
      // The kernel may have marked the pages clean, so another sync would prove nothing.
      const failure = asIsovecError(error)
      this.#state.poisonWith(failure)
      throw withOutcome(failure, 'unknown')
    }
    this.#unsyncedSize = 0
    try {
      await wal.mark()
    } catch (error) {
      // What was synced stands; only the log cannot be continued behind the bytes of a half-written mark.
      const failure = asIsovecError(error)
      if (failure.code === 'QUOTA_EXCEEDED') this.#isWalBroken = true
      else this.#state.poisonWith(failure)
    }
  }

  /**
   * Where there was no room to restate what was replayed, it may lie in the page cache of a process that has ended: the logs that hold it
   * are synced as they are, which takes no room.
   */
  async #syncReplayed(): Promise<void> {
    const { context, walSizes, body } = this.#state
    if (this.#restate === undefined) return
    this.#state.assertWritable()
    try {
      for (const number of walSizes.keys()) {
        if (number >= body.firstWal) await context.directory.sync(fileName(number, 'wal'))
      }
    } catch (error) {
      const failure = asIsovecError(error)
      this.#state.poisonWith(failure)
      throw failure
    }
  }

  /** Makes sure that there is a log to append to, which seals the one before. */
  async #ensureWal(): Promise<void> {
    if (this.#restate !== undefined) {
      this.#wal = await this.#restate()
      this.#restate = undefined
    }
    if (this.#wal !== undefined && !this.#isWalBroken) return
    await this.#nextWal()
  }

  async #nextWal(): Promise<void> {
    const state = this.#state
    const old = this.#wal
    if (old !== undefined) {
      try {
        await old.sync()
      } catch (error) {
        const failure = asIsovecError(error)
        state.poisonWith(failure)
        throw failure
      }
    }
    const number = state.takeFileNumber()
    const seal = old?.seal ?? state.pendingSeal
    const { kernel, directory, uuid } = state.context
    try {
      this.#wal = await WalWriter.create(kernel, directory, number, uuid, state.lastSequence, seal)
    } catch (error) {
      const failure = asIsovecError(error)
      // A log whose header is not whole is no log, so a full disk leaves nothing behind that matters.
      if (failure.code === 'QUOTA_EXCEEDED') await state.discard([`${number}.wal`])
      else state.poisonWith(failure)
      throw failure
    }
    if (old !== undefined) state.walSizes.set(old.number, old.size)
    state.walSizes.set(number, 0)
    state.pendingSeal = undefined
    this.#isWalBroken = false
    this.#unsyncedSize = 0
    await old?.abandon()
  }

  /** Bytes of log that belong to the active memtable alone. */
  get #activeWalSize(): number {
    return this.#state.sealed.length > 0 ? (this.#wal?.size ?? 0) : this.walSize
  }

  #isMemtableFull(): boolean {
    const { active } = this.#state
    return active.rowCount >= this.#rowsMax || this.#activeWalSize >= flushedWalSize
  }

  /** Rotates behind acknowledged writes. */
  async #rotateFull(): Promise<void> {
    try {
      this.#state.assertWritable()
      await this.#rotate()
    } catch (error) {
      this.#report(error)
      return
    }
    // Its failures are reported where it runs.
    void this.#flush().catch(() => {})
  }

  /** Seals the active memtable, and the log with it. */
  async #rotate(): Promise<void> {
    await this.#state.context.reserve.spend(async () => {
      await this.#ensureWal()
      if (this.#wal!.size > walHeaderSize) await this.#nextWal()
    })
    this.#state.seal(this.#wal!.number)
  }

  #startSyncTimer(): void {
    if (this.#syncTimer !== undefined) return
    const timer: unknown = setTimeout(() => {
      this.#syncTimer = undefined
      this.sync().catch(this.#report)
    }, bufferedDelayMs)
    if (typeof timer === 'object' && timer !== null && 'unref' in timer) (timer as { unref(): void }).unref()
    this.#syncTimer = timer
  }

  #cancelSyncTimer(): void {
    if (this.#syncTimer === undefined) return
    clearTimeout(this.#syncTimer as Parameters<typeof clearTimeout>[0])
    this.#syncTimer = undefined
  }
}

/** Rows that operations may bring: a patched document may move to another row. */
function rowCountOf(operations: readonly { readonly kind: string }[]): number {
  return operations.reduce((sum, { kind }) => sum + Number(kind !== 'delete'), 0)
}

function isLive(item: Write): item is Resolved {
  return item.failure === undefined && item.batch !== undefined && item.batch.operations.length > 0
}

function hasPatches({ asked }: Write): boolean {
  return typeof asked !== 'function' && asked.operations.some(({ kind }) => kind === 'patch' || kind === 'change')
}
