/** Files on disk through `node:fs`, in Node, Deno and Bun. */

import nodeFs from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { IsovecError } from '../errors.ts'
import {
  checkDirectoryNumber,
  checkFileName,
  type Directory,
  directoryNumberOf,
  fileExistsError,
  filePath,
  type Lock,
  notFoundError,
  type RandomAccessFile,
  type StorageBackend,
  type WritableFile,
} from './directory.ts'
import { tryFileLock } from './file-lock.ts'
import {
  errorCode,
  type FileStatus,
  type FileSystem,
  ioError,
  type NodeFileSystem,
  promised,
  readAll,
  syncDirectory,
  writeAll,
} from './file-system.ts'
import { claim, waitForLock } from './lock.ts'
import { ReadFile, SequentialFile } from './open-file.ts'

export type { NodeFileSystem } from './file-system.ts'

/** The lock's file in the root. It stays when the lock is given back and is never listed. */
const lockName = 'lock'

/**
 * A folder on disk. Nothing is touched before the first call.
 *
 * `sync` is fdatasync of the file and, once for a new file, fsync of its directory. The writer's lock is held by the operating
 * system (see `file-lock.ts`).
 *
 * @param path the folder, a relative one seen from the working directory of now; a URL must be `file:`
 * @param options `fs`: what to use in place of `node:fs`: a file system that no other process can reach, such as memfs's. The writer's
 * lock then keeps out others in this process only
 * @throws `INVALID_ARGUMENT` for a path that can't be one
 */
export function nodeBackend(path: string | URL, options: { fs?: NodeFileSystem } = {}): StorageBackend {
  return new NodeBackend(pathOf(path), (options.fs ?? nodeFs) as FileSystem)
}

function pathOf(path: string | URL): string {
  const isText = typeof path === 'string'
  if (isText ? path !== '' && !path.includes('\0') : path instanceof URL && path.protocol === 'file:') {
    return resolve(isText ? path : fileURLToPath(path))
  }
  throw new IsovecError('INVALID_ARGUMENT', `not a folder: ${JSON.stringify(path)}`, { field: 'location' })
}

class NodeBackend implements StorageBackend {
  readonly kind = 'node'
  readonly location: string
  readonly #fs: FileSystem

  constructor(path: string, fs: FileSystem) {
    this.location = path
    this.#fs = fs
  }

  async exists(): Promise<boolean> {
    return this.#isDirectory(this.location)
  }

  async open(options: { create: boolean }): Promise<Directory> {
    if (!(await this.#isDirectory(this.location))) {
      if (!options.create) throw notFoundError(this.location)
      await this.#createRoot(this.location)
    } else if (options.create && (await this.#entries(this.location)).length === 0) {
      await this.#syncAgain()
    }
    return new NodeDirectory(this.#fs, this.location, undefined)
  }

  async directories(): Promise<number[]> {
    if (!(await this.#isDirectory(this.location))) return []
    const numbers: number[] = []
    for (const entry of await this.#entries(this.location)) {
      const number = entry.isDirectory() ? directoryNumberOf(String(entry.name)) : undefined
      if (number !== undefined) numbers.push(number)
    }
    return numbers.sort((a, b) => a - b)
  }

  async directory(number: number, options: { create: boolean }): Promise<Directory> {
    checkDirectoryNumber(number)
    const path = join(this.location, String(number))
    if (options.create) {
      try {
        await promised<void>((callback) => this.#fs.mkdir(path, callback)).catch(unless('EEXIST'))
        // Also where it was there already: its maker may have ended before this.
        await syncDirectory(this.#fs, this.location, process.platform)
      } catch (error) {
        if (errorCode(error) === 'ENOENT') throw notFoundError(this.location, error)
        throw ioError('create the directory', String(number), error)
      }
    }
    if (!(await this.#isDirectory(path))) throw notFoundError(String(number))
    return new NodeDirectory(this.#fs, path, number)
  }

  async removeDirectory(number: number): Promise<void> {
    checkDirectoryNumber(number)
    const path = join(this.location, String(number))
    if (!(await this.#isDirectory(path))) return
    try {
      for (const { name } of await this.#entries(path)) {
        await promised<void>((callback) => this.#fs.unlink(join(path, String(name)), callback)).catch(unless('ENOENT'))
      }
      await promised<void>((callback) => this.#fs.rmdir(path, callback)).catch(unless('ENOENT'))
    } catch (error) {
      throw ioError('remove the directory', String(number), error)
    }
  }

  async lock(options: { timeout: number; signal?: AbortSignal | undefined }): Promise<Lock> {
    const fs = this.#fs
    let root: string
    try {
      root = await promised<string>((callback) => fs.realpath(this.location, callback))
    } catch (error) {
      if (errorCode(error) === 'ENOENT') throw notFoundError(this.location, error)
      throw ioError('lock', this.location, error)
    }
    // `import * as fs` and the default import are two objects for the same file system.
    const isPlatform = fs.open === nodeFs.open
    return waitForLock(this.location, options, async () => {
      const unclaim = claim(isPlatform ? nodeFs : fs, root)
      if (unclaim === undefined) return { pid: process.pid }
      if (!isPlatform) return { lock: { primitive: 'in-process', release: async () => unclaim() } }
      try {
        const attempt = await tryFileLock(join(root, lockName))
        if (attempt.lock === undefined) unclaim()
        if (attempt.lock === undefined) return attempt
        const lock = releasedOnce(attempt.lock, unclaim)
        // By flock(2) whoever has the file open meanwhile sees that it is another's, and opens the one that takes its place.
        return { lock: lock.primitive === 'flock' ? { ...lock, forget: () => this.#unlink(root, lockName) } : lock }
      } catch (error) {
        unclaim()
        throw error
      }
    })
  }

  async #unlink(root: string, name: string): Promise<void> {
    try {
      await promised<void>((callback) => this.#fs.unlink(join(root, name), callback)).catch(unless('ENOENT'))
    } catch (error) {
      throw ioError('remove', name, error)
    }
  }

  async #isDirectory(path: string): Promise<boolean> {
    try {
      const status = await promised<FileStatus>((callback) => this.#fs.stat(path, { bigint: true }, callback))
      if (status.isDirectory()) return true
    } catch (error) {
      if (errorCode(error) === 'ENOENT') return false
      throw ioError('open', path, error)
    }
    throw new IsovecError('IO', `${path} is not a directory`, { file: path })
  }

  async #entries(path: string) {
    try {
      return await readEntries(this.#fs, path)
    } catch (error) {
      throw ioError('list', path, error)
    }
  }

  /** Makes the root and what is missing above it, from the top, each name made durable before the next. */
  async #createRoot(path: string): Promise<void> {
    try {
      const parent = dirname(path)
      if (parent !== path && !(await this.#isDirectory(parent))) await this.#createRoot(parent)
      await promised<void>((callback) => this.#fs.mkdir(path, callback)).catch(unless('EEXIST'))
      await syncDirectory(this.#fs, parent, process.platform)
    } catch (error) {
      throw ioError('create', path, error)
    }
  }

  /**
   * For a root that is there and empty: whoever made it may have ended before its name was durable. If it was made by somebody else,
   * above it may be a directory that can't be read, and its name is theirs to care for.
   */
  async #syncAgain(): Promise<void> {
    try {
      await syncDirectory(this.#fs, dirname(this.location), process.platform).catch(unless('EACCES', 'EPERM'))
    } catch (error) {
      throw ioError('sync', dirname(this.location), error)
    }
  }
}

/** A handler for rejections that lets those with one of `codes` pass as done. */
function unless(...codes: string[]): (error: unknown) => void {
  return (error) => {
    if (!codes.includes(errorCode(error) ?? '')) throw error
  }
}

function readEntries(fs: FileSystem, path: string) {
  return promised<{ name: unknown; isDirectory(): boolean }[]>((callback) =>
    fs.readdir(path, { withFileTypes: true }, callback),
  )
}

function releasedOnce(lock: Lock, unclaim: () => void): Lock {
  let released: Promise<void> | undefined
  return {
    primitive: lock.primitive,
    release() {
      released ??= lock
        .release()
        .catch((error) => Promise.reject(ioError('release', lockName, error)))
        .finally(unclaim)
      return released
    },
  }
}

class NodeDirectory implements Directory {
  readonly #fs: FileSystem
  readonly #path: string
  readonly #number: number | undefined
  /** The first sync of this directory that failed. Later ones would report success for names that are lost. */
  #syncFailure: unknown
  /** Files of which a sync failed. */
  readonly #lost = new Map<string, unknown>()

  constructor(fs: FileSystem, path: string, number: number | undefined) {
    this.#fs = fs
    this.#path = path
    this.#number = number
  }

  async list(): Promise<string[]> {
    try {
      const entries = await readEntries(this.#fs, this.#path)
      const names = entries.filter((entry) => !entry.isDirectory()).map((entry) => String(entry.name))
      return names.filter((name) => this.#number !== undefined || name !== lockName).sort()
    } catch (error) {
      const what = this.#number === undefined ? this.#path : String(this.#number)
      if (errorCode(error) === 'ENOENT') throw notFoundError(what, error)
      throw ioError('list', what, error)
    }
  }

  async create(name: string): Promise<WritableFile> {
    checkFileName(name)
    const file = filePath(this.#number, name)
    let fd: number
    try {
      fd = await promised<number>((callback) => this.#fs.open(join(this.#path, name), 'wx', 0o666, callback))
    } catch (error) {
      if (errorCode(error) === 'EEXIST') throw fileExistsError(file, error)
      if (errorCode(error) === 'ENOENT') throw notFoundError(dirname(file), error)
      throw ioError('create', file, error)
    }
    this.#lost.delete(name)
    return new NodeWritableFile(this.#fs, fd, file, {
      syncName: () => this.#syncName(),
      lose: (error) => this.#lost.set(name, error),
    })
  }

  async open(name: string): Promise<RandomAccessFile> {
    checkFileName(name)
    const file = filePath(this.#number, name)
    const fd = await this.#openExisting(name, file, 'r')
    try {
      const status = await promised<FileStatus>((callback) => this.#fs.fstat(fd, { bigint: true }, callback))
      if (status.isDirectory()) throw new IsovecError('IO', `${file} is a directory`, { file })
      return new NodeFile(this.#fs, fd, file, Number(status.size))
    } catch (error) {
      await promised<void>((callback) => this.#fs.close(fd, callback))
      throw ioError('open', file, error)
    }
  }

  async sync(name: string): Promise<void> {
    checkFileName(name)
    const file = filePath(this.#number, name)
    const lost = this.#lost.get(name)
    if (lost !== undefined) {
      throw new IsovecError('IO', `cannot sync ${file} after an earlier failure`, { file, cause: lost })
    }
    // Not 'r': Windows syncs only what could be written.
    const fd = await this.#openExisting(name, file, 'r+')
    try {
      await promised<void>((callback) => this.#fs.fdatasync(fd, callback))
      await this.#syncName()
    } catch (error) {
      this.#lost.set(name, error)
      throw ioError('sync', file, error)
    } finally {
      await promised<void>((callback) => this.#fs.close(fd, callback))
    }
  }

  async remove(name: string): Promise<void> {
    checkFileName(name)
    try {
      await promised<void>((callback) => this.#fs.unlink(join(this.#path, name), callback)).catch(unless('ENOENT'))
    } catch (error) {
      throw ioError('remove', filePath(this.#number, name), error)
    }
  }

  async #openExisting(name: string, file: string, flags: string): Promise<number> {
    try {
      return await promised<number>((callback) => this.#fs.open(join(this.#path, name), flags, 0o666, callback))
    } catch (error) {
      if (errorCode(error) === 'ENOENT') throw notFoundError(file, error)
      throw ioError('open', file, error)
    }
  }

  async #syncName(): Promise<void> {
    if (this.#syncFailure !== undefined) throw this.#syncFailure
    try {
      await syncDirectory(this.#fs, this.#path, process.platform)
    } catch (error) {
      this.#syncFailure = error
      throw error
    }
  }
}

class NodeWritableFile extends SequentialFile {
  readonly #fs: FileSystem
  readonly #fd: number
  readonly #directory: { syncName(): Promise<void>; lose(error: unknown): void }
  #nameSynced = false

  constructor(
    fs: FileSystem,
    fd: number,
    file: string,
    directory: { syncName(): Promise<void>; lose(error: unknown): void },
  ) {
    super(file)
    this.#fs = fs
    this.#fd = fd
    this.#directory = directory
  }

  protected override async write(parts: readonly Uint8Array[], _length: number, offset: number): Promise<void> {
    try {
      await writeAll(this.#fs, this.#fd, parts, offset)
    } catch (error) {
      throw ioError('append to', this.file, error)
    }
  }

  protected override async flush(): Promise<void> {
    try {
      await promised<void>((callback) => this.#fs.fdatasync(this.#fd, callback))
      if (!this.#nameSynced) await this.#directory.syncName()
      this.#nameSynced = true
    } catch (error) {
      this.#directory.lose(error)
      throw ioError('sync', this.file, error)
    }
  }

  protected override async free(): Promise<void> {
    try {
      await promised<void>((callback) => this.#fs.close(this.#fd, callback))
    } catch (error) {
      throw ioError('close', this.file, error)
    }
  }
}

class NodeFile extends ReadFile {
  readonly #fs: FileSystem
  readonly #fd: number

  constructor(fs: FileSystem, fd: number, file: string, size: number) {
    super(file, size)
    this.#fs = fs
    this.#fd = fd
  }

  protected override async fill(offset: number, target: Uint8Array): Promise<void> {
    let count: number
    try {
      count = await readAll(this.#fs, this.#fd, target, offset)
    } catch (error) {
      throw ioError('read', this.file, error, offset)
    }
    if (count === target.byteLength) return
    const message = `${this.file} ends at ${offset + count}, it had ${this.size} bytes when it was opened`
    throw new IsovecError('IO', message, { file: this.file, offset })
  }

  protected override async free(): Promise<void> {
    try {
      await promised<void>((callback) => this.#fs.close(this.#fd, callback))
    } catch (error) {
      throw ioError('close', this.file, error)
    }
  }
}
