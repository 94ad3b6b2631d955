/**
 * An open collection: what holds its state, and the order in which calls on it take effect.
 */
import { abortable, IsovecError, throwIfAborted } from './errors.ts'
import { Maintenance } from './maintenance.ts'
import type { Recovered } from './recovery.ts'
import { Pace } from './slice.ts'
import type { Snapshot } from './snapshot.ts'
import type { CollectionState } from './state.ts'
import { Writer } from './writer.ts'

/** One open collection with everything that works on it; handles share it. */
export class CollectionCore {
  name: string
  readonly state: CollectionState
  readonly writer: Writer
  readonly maintenance: Maintenance
  isClosed = false
  readonly #reads = new Set<Promise<unknown>>()
  readonly #pace = new Pace()

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
