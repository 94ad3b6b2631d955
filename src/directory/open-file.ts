/** What the open files of every backend have in common: the order of calls, and what is possible after a failure or the end. */

import { IsovecError } from '../errors.ts'
import { checkReadRange, type RandomAccessFile, type WritableFile } from './directory.ts'

/**
 * A {@link WritableFile} over three primitives. It keeps appends in order, lets a sync wait for the appends before it but not
 * for those after it, refuses appends after a failed append and everything after a failed sync, and closes once.
 */
export abstract class SequentialFile implements WritableFile {
  /** The file's name in errors, relative to the database. */
  protected readonly file: string
  #size = 0
  #closed: Promise<void> | undefined
  #appendFailure: unknown
  #syncFailure: unknown
  #appends: Promise<void> = Promise.resolve()
  #syncs: Promise<void> = Promise.resolve()

  protected constructor(file: string) {
    this.file = file
  }

  /** Hands `parts`, none of them empty and `length` bytes together, to the platform from byte `offset` on. Never twice at once. */
  protected abstract write(parts: readonly Uint8Array[], length: number, offset: number): Promise<void>
  /** Makes what was written and the file's name survive power loss. May run beside `write`, never twice at once. */
  protected abstract flush(): Promise<void>
  /** Gives back what the platform holds for the file. Called once, after everything else. */
  protected abstract free(): Promise<void>

  get size(): number {
    return this.#size
  }

  append(bytes: Uint8Array | readonly Uint8Array[]): Promise<void> {
    if (this.#closed !== undefined) return Promise.reject(closedError(this.file))
    const parts = (bytes instanceof Uint8Array ? [bytes] : bytes).filter((part) => part.byteLength > 0)
    const length = parts.reduce((sum, part) => sum + part.byteLength, 0)
    const appended = this.#appends.then(async () => {
      this.#refuseAfter(this.#syncFailure ?? this.#appendFailure, 'append to')
      if (length === 0) return
      try {
        await this.write(parts, length, this.#size)
      } catch (error) {
        this.#appendFailure = error
        throw error
      }
      this.#size += length
    })
    this.#appends = appended.catch(settled)
    return appended
  }

  sync(): Promise<void> {
    if (this.#closed !== undefined) return Promise.reject(closedError(this.file))
    const appends = this.#appends
    const synced = this.#syncs.then(async () => {
      await appends
      this.#refuseAfter(this.#syncFailure, 'sync')
      try {
        await this.flush()
      } catch (error) {
        this.#syncFailure = error
        throw error
      }
    })
    this.#syncs = synced.catch(settled)
    return synced
  }

  close(): Promise<void> {
    this.#closed ??= Promise.all([this.#appends, this.#syncs]).then(() => this.free())
    return this.#closed
  }

  #refuseAfter(failure: unknown, action: string): void {
    if (failure === undefined) return
    throw new IsovecError('IO', `cannot ${action} ${this.file} after an earlier failure`, {
      file: this.file,
      cause: failure,
    })
  }
}

/** A {@link RandomAccessFile} over two primitives. It checks ranges, lets reads run side by side, and closes once, after them. */
export abstract class ReadFile implements RandomAccessFile {
  readonly size: number
  /** The file's name in errors, relative to the database. */
  protected readonly file: string
  readonly #reads = new Set<Promise<void>>()
  #closed: Promise<void> | undefined

  protected constructor(file: string, size: number) {
    this.file = file
    this.size = size
  }

  /** Fills `target`, which is not empty, from a range that is within `size`. May run several times at once. */
  protected abstract fill(offset: number, target: Uint8Array): Promise<void>
  /** Gives back what the platform holds for the file. Called once, after everything else. */
  protected abstract free(): Promise<void>

  async read(offset: number, target: Uint8Array): Promise<void> {
    if (this.#closed !== undefined) throw closedError(this.file)
    checkReadRange(this.file, this.size, offset, target.byteLength)
    if (target.byteLength === 0) return
    const reading = this.fill(offset, target)
    this.#reads.add(reading)
    try {
      await reading
    } finally {
      this.#reads.delete(reading)
    }
  }

  close(): Promise<void> {
    this.#closed ??= Promise.allSettled(this.#reads).then(() => this.free())
    return this.#closed
  }
}

function closedError(file: string): IsovecError {
  return new IsovecError('CLOSED', `${file} is closed`, { file })
}

/** For a chain that only keeps order: the caller has the promise that rejects. */
function settled(): void {}
