/**
 * An open collection: what holds its state, and the order in which calls on it take effect.
 */
import { abortable, IsovecError, throwIfAborted } from './errors.ts'
import { Maintenance } from './maintenance.ts'
import type { Recovered } from './recovery.ts'
import { Pace } from './slice.ts'
import type { Snapshot } from './snapshot.ts'
import type { CollectionState } from './state.ts'
import type { CollectionBody } from './storage/collection-manifest.ts'
import { Writer } from './writer.ts'

/** A collection as of a moment, to be copied. */
export type Held = {
  readonly name: string
  readonly state: CollectionState
  readonly body: CollectionBody
  readonly snapshot: Snapshot
}

/** One open collection with everything that works on it; handles share it. */
export class CollectionCore {
  name: string
  #state: CollectionState
  #writer: Writer
  #maintenance: Maintenance
  isClosed = false
  /** States that were replaced and of which somebody still holds a snapshot. */
  #retired: readonly CollectionState[] = []
  readonly #report: (error: IsovecError, name: string) => void
  readonly #reads = new Set<Promise<unknown>>()
  readonly #pace = new Pace()

  /** @param report is told failures of background work and damage that was made good, with the collection's name */
  constructor(name: string, recovered: Recovered, report: (error: IsovecError, name: string) => void) {
    this.name = name
    this.#report = report
    const { state, writer, maintenance } = this.#adopt(recovered)
    this.#state = state
    this.#writer = writer
    this.#maintenance = maintenance
  }

  get state(): CollectionState {
    return this.#state
  }

  get writer(): Writer {
    return this.#writer
  }

  get maintenance(): Maintenance {
    return this.#maintenance
  }

  #adopt({ state, wal, damage }: Recovered): Pick<CollectionCore, 'state' | 'writer' | 'maintenance'> {
    const maintenance: Maintenance = new Maintenance(
      state,
      (error) => this.#report(error, this.name),
      () => writer.durableSequence,
    )
    const writer: Writer = new Writer(
      state,
      () => maintenance.flushOldest(),
      (error) => maintenance.noteFailure(error),
    )
    state.onFault = (error) => this.#noteFault(error, maintenance)
    if (damage !== undefined) maintenance.noteFailure(damage)
    if (wal !== undefined) writer.adopt(wal)
    writer.trim()
    maintenance.schedule()
    return { state, writer, maintenance }
  }

  /**
   * Puts a later state of the files, which another process writes, in place of this one. Reads under way end on the old one.
   */
  refresh(recovered: Recovered): Promise<void> {
    return this.writer.inTurn(async () => {
      if (this.isClosed) return recovered.state.dispose()
      const before = this.#state
      const { state, writer, maintenance } = this.#adopt(recovered)
      this.#state = state
      this.#writer = writer
      this.#maintenance = maintenance
      before.retire()
      this.#retired = [...this.#retired, before].filter(({ hasOpenFiles }) => hasOpenFiles)
    })
  }

  /** Damage that costs nothing is told all the same, and what stands in for it is written as soon as possible. */
  #noteFault(error: IsovecError, maintenance: Maintenance): void {
    maintenance.noteFailure(error)
    if (!this.state.isWritable) return
    const flush = (): Promise<void> => maintenance.flush()
    // The flush that runs may be one of what was given up. Failures are reported where it runs.
    flush()
      .catch(flush)
      .catch(() => {})
      .finally(() => maintenance.schedule())
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
      for (const state of this.#retired) await state.dispose()
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
    if (!this.writer.isIdle || this.#isCold(true) || this.#pace.isOver) return undefined
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
   * Holds the state of the moment in which others have arrived as well: several collections as of one moment.
   * @param arrive is called once everything that was asked for before has taken effect; later writes wait from then on
   */
  holdWith(arrive: () => void, others: Promise<unknown>): Promise<Held> {
    return new Promise((resolve, reject) => {
      const turn = this.writer.inTurn(async () => {
        arrive()
        await others
        const { state, name } = this
        resolve({ name, state, body: state.body, snapshot: state.snapshot() })
      })
      turn.catch(reject)
    })
  }

  /**
   * Begins a read once everything that was asked for before has taken effect and every source can be read without an await. Later
   * writes wait for sources to be loaded, since the read must not see them, but not for the read itself.
   */
  async #inTurn<T>(signal: AbortSignal | undefined, images: boolean, begin: () => Promise<T>): Promise<T> {
    throwIfAborted(signal)
    if (this.isClosed) throw new IsovecError('CLOSED', 'the database is closed')
    const start = (): Promise<T> => this.#track(begin())
    const isDue = this.#pace.isOver
    if (this.writer.isIdle && !this.#isCold(images) && !isDue) return start()
    const started = new Promise<T>((resolve, reject) => {
      const turn = this.writer.inTurn(async () => {
        if (signal?.aborted) return
        if (isDue) await this.#pace.next()
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
