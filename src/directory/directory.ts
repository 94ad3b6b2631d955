/**
 * The contract between isovec and a place that keeps bytes.
 *
 * A backend holds one directory of named files, the root, and beside it directories that are known by a number. **Every file is
 * written once, front to back, synced, and from then on only read.** There is no rename, overwrite, truncate or append to an
 * existing file. All promises that a backend makes are on this page; `conformance.ts` checks them, `faulty.ts` shows what may
 * be left after a crash, and nothing above may rely on more.
 *
 * **Errors.** Everything that fails rejects with an `IsovecError`; nothing throws synchronously.
 * - `INVALID_ARGUMENT`: a name or number that is never allowed ({@link checkFileName}, {@link checkDirectoryNumber}).
 * - `NOT_FOUND`: where a method says so.
 * - `QUOTA_EXCEEDED`: there is no room left.
 * - `CLOSED`: the file was closed before.
 * - `IO`: everything else, with `file` (relative to the database, such as `3/17.wal`) and the platform's error as `cause`.
 *
 * **Bytes handed over** may be views of WASM memory or of buffers that are used again, so a caller leaves them alone, and does
 * not let that memory grow, until the promise settles; no backend keeps them after that or detaches them.
 */

import { IsovecError } from '../errors.ts'

/** One store of files. Objects are cheap and hold nothing open until they are asked to. */
export interface StorageBackend {
  /** What it is made of. The word is shown to people and never branched on. */
  readonly kind: 'memory' | 'node' | 'opfs' | 'indexeddb' | (string & {})
  /** Where it is, for messages and `Database.location`. */
  readonly location: string
  /** Whether the root is there, even if empty. Creates nothing. */
  exists(): Promise<boolean>
  /**
   * Opens the root. With `create` a missing one is made and, once this resolves, survives power loss as far as the platform
   * can promise it.
   *
   * Each call gives a fresh object; several may be used at once.
   *
   * @throws `NOT_FOUND` if it isn't there and `create` is false
   */
  open(options: { create: boolean }): Promise<Directory>
  /** The numbered directories that exist, ascending; none if there is no root. Whatever else lies there is left out. */
  directories(): Promise<number[]>
  /**
   * Opens a numbered directory. With `create` a missing one is made under the root, which must exist, and survives power loss
   * once this resolves.
   *
   * @throws `NOT_FOUND` if it isn't there and `create` is false, or if there is no root
   */
  directory(number: number, options: { create: boolean }): Promise<Directory>
  /**
   * Removes a numbered directory with all files in it; one that is gone is fine. Not atomic: if it fails or the process ends,
   * some of the files may be gone. After power loss the directory may be back, with any of its files.
   */
  removeDirectory(number: number): Promise<void>
  /**
   * Takes the writer's lock of the whole store; the root must exist. At most one holder exists at any time, whatever process,
   * copy of the package or backend object asks, and the lock falls with its process, however that ends.
   *
   * @param options `timeout`: milliseconds to wait for another holder, 0 to try once, `Infinity` to wait for good; `steal`: take it at
   * once from whoever holds it, where the platform can, for one who knows that the holder no longer answers
   * @throws `LOCKED` with `pid` where known, `ABORTED` with the signal's reason, `NOT_FOUND` without a root, `UNSUPPORTED` where
   * nothing on this platform can exclude a second writer
   */
  lock(options: { timeout: number; signal?: AbortSignal | undefined; steal?: boolean }): Promise<Lock>
}

/** The writer's lock, held until {@link Lock.release} or the end of the process. */
export interface Lock {
  /** What excludes others: `in-process`, `flock`, `open-exclusive`, … For `Database.info()`. */
  readonly primitive: string
  /** Gives the lock back. A second call does nothing. */
  release(): Promise<void>
  /**
   * Takes what the lock has left in the store away, such as an empty file, for a store that is to be as it was. The lock is still held.
   * Not there where nothing is left, or it can't be taken away while others try for the lock.
   */
  forget?(): Promise<void>
}

/** A flat set of files. Of a directory that was removed, `list`, `create`, `open` and `sync` fail with `NOT_FOUND`. */
export interface Directory {
  /**
   * Names of all files, also of unfinished and foreign ones, sorted by code units. Not the lock's own file and not the numbered
   * directories.
   */
  list(): Promise<string[]>
  /**
   * Makes a new, empty file, which is listed from then on.
   *
   * @throws `IO` for which {@link isFileExists} holds if the name is taken: a file is never opened for writing twice
   */
  create(name: string): Promise<WritableFile>
  /**
   * Opens a file for reading, also while its writer is still at it: every append that had resolved is then seen, synced or not.
   *
   * @throws `NOT_FOUND`
   */
  open(name: string): Promise<RandomAccessFile>
  /**
   * Makes bytes and name of an existing file survive power loss, as `WritableFile.sync` does: for a file that was written
   * and closed un-synced.
   *
   * @throws `NOT_FOUND`; `IO` if it was not possible or a sync of this file has failed before through this object
   */
  sync(name: string): Promise<void>
  /**
   * Removes a file; one that is gone is fine. After power loss it may be back, whole or in part.
   *
   * A file should be closed first. One that is open may be refused with `IO` (Windows, OPFS); where it's not refused, those who
   * have it open go on undisturbed (POSIX, memory).
   */
  remove(name: string): Promise<void>
}

/**
 * A new file on its way to disk. Calls take effect in the order in which they are made; none has to be awaited before the next.
 *
 * The first append that fails ends the writing: later appends are refused with that failure as `cause`, and behind
 * `size` the file may hold any part of the bytes that failed. `sync` still makes the first `size` bytes durable.
 * The first sync that fails ends everything but `close` (and, with it, `Directory.sync` of this name): the platform may have
 * dropped the bytes and would call a second attempt a success.
 */
export interface WritableFile {
  /** Bytes appended so far, without appends that are pending or failed. */
  readonly size: number
  /**
   * Adds bytes at the end, an array of parts as if they were one. When it resolves they are with the platform: readers see them
   * and they survive the end of the process, not yet power loss.
   *
   * @throws `QUOTA_EXCEEDED` if there is no room, `IO`, `CLOSED`
   */
  append(bytes: Uint8Array | readonly Uint8Array[]): Promise<void>
  /**
   * When it resolves, all bytes of the appends made before and the file's name survive power loss, as far as the
   * platform can. Appends made meanwhile may go on beside it and are not covered.
   *
   * @throws `IO`, `QUOTA_EXCEEDED`, `CLOSED`
   */
  sync(): Promise<void>
  /** Ends writing after all calls made before. Does not sync. A second call does nothing. */
  close(): Promise<void>
}

/** A file that is read. */
export interface RandomAccessFile {
  /** Bytes it had when it was opened. */
  readonly size: number
  /**
   * Fills all of `target` from byte `offset` on. Reads may run side by side.
   *
   * @throws `IO` with `offset` if that goes beyond `size` or the file has become shorter (`target` is then undefined), `CLOSED`
   */
  read(offset: number, target: Uint8Array): Promise<void>
  /** Waits for reads that are under way. A second call does nothing. */
  close(): Promise<void>
}

const fileName = /^[a-z0-9][a-z0-9_-]{0,63}\.[a-z0-9]{1,15}$/
const deviceName = /^(con|prn|aux|nul|com[0-9]|lpt[0-9])\./

/**
 * Refuses names that mean something else on some platform: allowed are lower-case letters, digits, `-` and `_`, then one dot and
 * an extension (`17.wal`), without the device names of Windows. So no name is a path, hidden, the lock file or a numbered
 * directory, or equal to another one but for case.
 *
 * @throws `INVALID_ARGUMENT`
 */
export function checkFileName(name: string): void {
  if (typeof name !== 'string' || !fileName.test(name) || deviceName.test(name)) {
    throw new IsovecError('INVALID_ARGUMENT', `not a file name that every backend can keep: ${JSON.stringify(name)}`, {
      field: 'name',
    })
  }
}

/**
 * Refuses what is no number of a directory: whole numbers from 0 to 2^53 - 1 are allowed.
 *
 * @throws `INVALID_ARGUMENT`
 */
export function checkDirectoryNumber(number: number): void {
  if (!Number.isSafeInteger(number) || number < 0) {
    throw new IsovecError('INVALID_ARGUMENT', `not a directory number: ${number}`, { field: 'number' })
  }
}

/** The directory number that a platform's name stands for, `undefined` for any other name. */
export function directoryNumberOf(name: string): number | undefined {
  if (!/^(0|[1-9][0-9]{0,15})$/.test(name)) return undefined
  const number = Number(name)
  return Number.isSafeInteger(number) ? number : undefined
}

/** The name of a file as it stands in errors: relative to the database. `directory` is `undefined` for the root. */
export function filePath(directory: number | undefined, name: string): string {
  return directory === undefined ? name : `${directory}/${name}`
}

/**
 * Refuses to read beyond the end of a file.
 *
 * @throws `IO` with `offset`
 */
export function checkReadRange(file: string, size: number, offset: number, length: number): void {
  if (Number.isSafeInteger(offset) && offset >= 0 && offset + length <= size) return
  throw new IsovecError('IO', `cannot read ${length} bytes at ${offset} of ${file}: it has ${size}`, { file, offset })
}

/** The error of `Directory.create` for a name that is taken. */
export function fileExistsError(file: string, cause?: unknown): IsovecError {
  return new IsovecError('IO', `cannot create ${file}: it exists`, {
    file,
    cause: cause ?? Object.assign(new Error('file already exists'), { code: 'EEXIST' }),
  })
}

/** Whether `error` says that `Directory.create` found the name taken. */
export function isFileExists(error: unknown): boolean {
  return (error as { cause?: { code?: unknown } } | undefined)?.cause?.code === 'EEXIST'
}

/** The error for a file or directory that isn't there. */
export function notFoundError(file: string, cause?: unknown): IsovecError {
  return new IsovecError('NOT_FOUND', `${file} does not exist`, { file, cause })
}
