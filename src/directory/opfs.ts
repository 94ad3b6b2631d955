/** Files in the origin private file system of a browser, in a dedicated worker. */

import { IsovecError } from '../errors.ts'
import { type AccessHandle, canShareHandles, hasAccessHandles, SharedFile } from './access-handles.ts'
import {
  checkDirectoryNumber,
  checkFileName,
  type Directory,
  directoryNumberOf,
  fileExistsError,
  filePath,
  notFoundError,
  type RandomAccessFile,
  type WritableFile,
} from './directory.ts'
import { domError, isDomError } from './dom-error.ts'
import { ReadFile, SequentialFile } from './open-file.ts'
import { checkDatabaseName } from './place-name.ts'
import {
  acquireWebLock,
  fenced,
  shareWebLock,
  unlessShared,
  type WebBackend,
  type WebLock,
  type WebLockOptions,
} from './web-lock.ts'

/** The folder of the origin that holds all databases. */
const topName = 'isovec'

/**
 * A database in the origin private file system: the folder `isovec/<name>`. Nothing is touched before the first call. It works in
 * dedicated workers only; elsewhere every call is `UNSUPPORTED`.
 *
 * `sync` is `flush` of an access handle, which browsers turn into an fsync of the file. Nothing makes names durable but what the
 * browser does by itself. A name is created once among all tabs: whoever makes a file holds it exclusively and finds it empty. The
 * writer's lock is a Web Lock, `isovec:opfs:<name>`; one that was taken over lets no call be acknowledged any more.
 *
 * At most 32 access handles are open at a time, those of all databases of a worker together. A file that somebody else keeps (a
 * writer in another tab, or a tab that has just ended) is read without one. A file that is open is not removed (`IO`), whatever tab
 * has it open, unless that tab was the writer and lost its lock.
 *
 * @throws `INVALID_ARGUMENT` for a name that {@link checkDatabaseName} refuses
 */
export function opfsBackend(name: string): WebBackend {
  checkDatabaseName(name)
  return new OpfsBackend(name)
}

/**
 * Whether the origin private file system is there. In a dedicated worker: whether {@link opfsBackend} works; elsewhere nothing tells
 * whether workers have access handles.
 */
export async function hasOpfs(): Promise<boolean> {
  if (typeof navigator?.storage?.getDirectory !== 'function') return false
  if (isDedicatedWorker() && !hasAccessHandles()) return false
  try {
    await navigator.storage.getDirectory()
    return true
  } catch {
    // Private windows of some browsers have the function and refuse its use.
    return false
  }
}

/** Whether there is a database of that name. Creates nothing, and works wherever {@link hasOpfs} holds. */
export async function opfsHolds(name: string): Promise<boolean> {
  checkDatabaseName(name)
  if (!(await hasOpfs())) return false
  const root = await rootHandle(name, false)
  if (root === undefined) return false
  for await (const _ of root.keys()) return true
  return false
}

function isDedicatedWorker(): boolean {
  const { DedicatedWorkerGlobalScope: type } = globalThis as { DedicatedWorkerGlobalScope?: unknown }
  return typeof type === 'function' && globalThis instanceof type
}

/** @returns `undefined` if it isn't there */
async function rootHandle(name: string, create: boolean): Promise<FileSystemDirectoryHandle | undefined> {
  try {
    const origin = await navigator.storage.getDirectory()
    const top = await origin.getDirectoryHandle(topName, { create })
    return await top.getDirectoryHandle(name, { create })
  } catch (error) {
    if (isDomError(error, 'NotFoundError')) return undefined
    throw domError('open', name, error)
  }
}

class OpfsBackend implements WebBackend {
  readonly kind = 'opfs'
  readonly location: string
  /** Files that are being written. */
  readonly writers = new Set<OpfsWritableFile>()
  #lock: WebLock | undefined

  constructor(name: string) {
    this.location = name
  }

  /** The writer's lock, while it is held and from when it was taken over on. */
  get writerLock(): WebLock | undefined {
    return this.#lock?.state === 'released' ? undefined : this.#lock
  }

  async exists(): Promise<boolean> {
    return (await this.#root(false)) !== undefined
  }

  async open(options: { create: boolean }): Promise<Directory> {
    const root = await this.#root(options.create)
    if (root === undefined) throw notFoundError(this.location)
    return new OpfsDirectory(this, root, undefined)
  }

  async directories(): Promise<number[]> {
    const root = await this.#root(false)
    if (root === undefined) return []
    const numbers: number[] = []
    try {
      for await (const [name, { kind }] of root.entries()) {
        const number = kind === 'directory' ? directoryNumberOf(name) : undefined
        if (number !== undefined) numbers.push(number)
      }
    } catch (error) {
      throw domError('list', this.location, error)
    }
    return numbers.sort((a, b) => a - b)
  }

  async directory(number: number, options: { create: boolean }): Promise<Directory> {
    checkDirectoryNumber(number)
    const { create } = options
    const root = await this.#root(false)
    if (root === undefined) throw notFoundError(this.location)
    const lock = create ? this.writerLock : undefined
    try {
      const handle = await fenced(lock, () => root.getDirectoryHandle(String(number), { create }))
      return new OpfsDirectory(this, handle, number)
    } catch (error) {
      if (isDomError(error, 'NotFoundError')) throw notFoundError(String(number), error)
      throw domError(create ? 'create the directory' : 'open the directory', String(number), error)
    }
  }

  async removeDirectory(number: number): Promise<void> {
    checkDirectoryNumber(number)
    const root = await this.#root(false)
    const handle = await root?.getDirectoryHandle(String(number)).catch(unlessNotFound)
    if (root === undefined || handle === undefined) return
    if (SharedFile.isOpen(`${this.location}/${number}`)) throw openError(String(number))
    const directory = new OpfsDirectory(this, handle, number)
    try {
      for (const name of await directory.names()) await directory.removeEntry(name)
      await fenced(this.writerLock, () => removed(root, String(number), { recursive: true }))
    } catch (error) {
      throw domError('remove the directory', String(number), error)
    }
  }

  async lock(options: WebLockOptions): Promise<WebLock> {
    const { location } = this
    if ((await this.#root(false)) === undefined) throw notFoundError(location)
    const lock = await acquireWebLock(opfsLockName(location), { ...options, location })
    this.#lock = lock
    lock.whenLost.then(() => {
      for (const file of [...this.writers]) file.abandon(lock)
    })
    return lock
  }

  async #root(create: boolean): Promise<FileSystemDirectoryHandle | undefined> {
    if (typeof navigator?.storage?.getDirectory !== 'function') {
      throw new IsovecError('UNSUPPORTED', 'there is no origin private file system here: it needs https or localhost')
    }
    if (!hasAccessHandles()) {
      const advice = isDedicatedWorker()
        ? 'this browser has no access handles for files: use IndexedDB'
        : 'files are reached from dedicated workers only: open the database in one, or by its name'
      throw new IsovecError('UNSUPPORTED', `cannot open ${this.location} in the origin private file system: ${advice}`)
    }
    return rootHandle(this.location, create)
  }
}

/** The name of the Web Lock of a database's writer. */
export function opfsLockName(name: string): string {
  return `isovec:opfs:${name}`
}

/** Shared by those who read a file without being its database's writer, so that it isn't removed. */
function readerLockName(path: string): string {
  return `isovec:opfs-file:${path}`
}

function openError(file: string): IsovecError {
  return new IsovecError('IO', `cannot remove ${file}: it is open`, { file })
}

function unlessNotFound(error: unknown): undefined {
  if (!isDomError(error, 'NotFoundError')) throw error
}

const removalDelay = 50
const removalAttempts = 5

/** Removes an entry, if it is there. One whose last handle was closed only now may still be kept for a moment. */
async function removed(
  directory: FileSystemDirectoryHandle,
  name: string,
  options: FileSystemRemoveOptions = {},
): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await directory.removeEntry(name, options).catch(unlessNotFound)
      return
    } catch (error) {
      if (!isDomError(error, 'NoModificationAllowedError') || attempt === removalAttempts) throw error
      await new Promise((resolve) => setTimeout(resolve, removalDelay))
    }
  }
}

class OpfsDirectory implements Directory {
  readonly #backend: OpfsBackend
  readonly #handle: FileSystemDirectoryHandle
  readonly #number: number | undefined
  /** Files of which a sync failed. */
  readonly #lost = new Map<string, unknown>()

  constructor(backend: OpfsBackend, handle: FileSystemDirectoryHandle, number: number | undefined) {
    this.#backend = backend
    this.#handle = handle
    this.#number = number
  }

  async list(): Promise<string[]> {
    try {
      return await this.names()
    } catch (error) {
      if (isDomError(error, 'NotFoundError')) throw notFoundError(this.#name, error)
      throw domError('list', this.#name, error)
    }
  }

  async create(name: string): Promise<WritableFile> {
    checkFileName(name)
    const file = filePath(this.#number, name)
    const shared = SharedFile.toWrite(this.#pathOf(name))
    if (shared === undefined) throw fileExistsError(file)
    const lock = this.#backend.writerLock
    try {
      await fenced(lock, async () => {
        if ((await this.#handle.getFileHandle(name).catch(unlessNotFound)) !== undefined) throw fileExistsError(file)
        shared.fileHandle = await this.#handle.getFileHandle(name, { create: true })
        // Another tab may have come between; whoever is second finds the file kept, or grown if it was written.
        if ((await shared.write((access) => access.getSize())) > 0) throw fileExistsError(file)
      })
    } catch (error) {
      shared.endWriting()
      if (!(error instanceof IsovecError) && (await this.#isGone())) throw notFoundError(this.#name, error)
      throw domError('create', file, error)
    }
    this.#lost.delete(name)
    return new OpfsWritableFile(this.#backend, lock, shared, file, (error) => this.#lost.set(name, error))
  }

  async open(name: string): Promise<RandomAccessFile> {
    checkFileName(name)
    const file = filePath(this.#number, name)
    const path = this.#pathOf(name)
    const isWriter = this.#backend.writerLock !== undefined
    const endSharing = isWriter ? undefined : await shareWebLock(readerLockName(path))
    const shared = SharedFile.toRead(path)
    const end = (): void => {
      endSharing?.()
      shared.endReading()
    }
    try {
      shared.fileHandle ??= await this.#handle.getFileHandle(name)
      return new OpfsFile(shared, file, await sizeOf(shared), isWriter, end)
    } catch (error) {
      end()
      if (isDomError(error, 'NotFoundError')) throw notFoundError(file, error)
      throw domError('open', file, error)
    }
  }

  async sync(name: string): Promise<void> {
    checkFileName(name)
    const file = filePath(this.#number, name)
    const lost = this.#lost.get(name)
    if (lost !== undefined) {
      throw new IsovecError('IO', `cannot sync ${file} after an earlier failure`, { file, cause: lost })
    }
    const shared = SharedFile.toRead(this.#pathOf(name))
    try {
      shared.fileHandle ??= await this.#handle.getFileHandle(name)
      await fenced(this.#backend.writerLock, () => shared.write((access) => access.flush()))
    } catch (error) {
      if (isDomError(error, 'NotFoundError')) throw notFoundError(file, error)
      this.#lost.set(name, error)
      throw domError('sync', file, error)
    } finally {
      // It keeps readers in other tabs out.
      if (!shared.hasWriter) shared.closeHandle()
      shared.endReading()
    }
  }

  async remove(name: string): Promise<void> {
    checkFileName(name)
    try {
      await this.removeEntry(name)
    } catch (error) {
      throw domError('remove', filePath(this.#number, name), error)
    }
  }

  async removeEntry(name: string): Promise<void> {
    const path = this.#pathOf(name)
    const file = filePath(this.#number, name)
    await fenced(this.#backend.writerLock, async () => {
      if (SharedFile.isOpen(path)) throw openError(file)
      if (!(await unlessShared(readerLockName(path), () => removed(this.#handle, name)))) throw openError(file)
    })
  }

  /** Names of all files, sorted. Rejects with the platform's error. */
  async names(): Promise<string[]> {
    const names: string[] = []
    for await (const [name, { kind }] of this.#handle.entries()) if (kind === 'file') names.push(name)
    return names.sort()
  }

  get #name(): string {
    return this.#number === undefined ? this.#backend.location : String(this.#number)
  }

  #pathOf(name: string): string {
    return `${this.#backend.location}/${filePath(this.#number, name)}`
  }

  /** Not every browser says so when a file is to be made in a directory that was removed. */
  async #isGone(): Promise<boolean> {
    try {
      await this.#handle.keys().next()
      return false
    } catch (error) {
      return isDomError(error, 'NotFoundError')
    }
  }
}

async function sizeOf(shared: SharedFile): Promise<number> {
  if (shared.hasHandle || shared.hasWriter || canShareHandles()) {
    const found = await shared.read((access) => access.getSize())
    if (found !== undefined) return found.result
  }
  return (await shared.fileHandle!.getFile()).size
}

class OpfsWritableFile extends SequentialFile {
  readonly #backend: OpfsBackend
  readonly #lock: WebLock | undefined
  readonly #shared: SharedFile
  readonly #lose: (error: unknown) => void
  #isOver = false

  constructor(
    backend: OpfsBackend,
    lock: WebLock | undefined,
    shared: SharedFile,
    file: string,
    lose: (error: unknown) => void,
  ) {
    super(file)
    this.#backend = backend
    this.#lock = lock
    this.#shared = shared
    this.#lose = lose
    backend.writers.add(this)
  }

  /** Gives the file free for whoever has taken the lock over; nothing can be written any more. */
  abandon(lock: WebLock): void {
    if (lock === this.#lock) this.#end()
  }

  protected override async write(parts: readonly Uint8Array[], _length: number, offset: number): Promise<void> {
    try {
      await fenced(this.#lock, () => this.#shared.write((access) => writeAll(access, parts, offset)))
    } catch (error) {
      throw domError('append to', this.file, error)
    }
  }

  protected override async flush(): Promise<void> {
    try {
      await fenced(this.#lock, () => this.#shared.write((access) => access.flush()))
    } catch (error) {
      this.#lose(error)
      throw domError('sync', this.file, error)
    }
  }

  protected override async free(): Promise<void> {
    try {
      this.#end()
    } catch (error) {
      throw domError('close', this.file, error)
    }
  }

  #end(): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#backend.writers.delete(this)
    this.#shared.endWriting()
  }
}

/** Writes all of `parts`, however few bytes the platform takes at a time. */
function writeAll(access: AccessHandle, parts: readonly Uint8Array[], offset: number): void {
  for (const part of parts) {
    for (let done = 0; done < part.byteLength; ) {
      const count = access.write(part.subarray(done), { at: offset })
      if (!(count > 0)) throw new Error(`the browser wrote ${count} bytes and gave no reason`)
      done += count
      offset += count
    }
  }
}

/** Reads until `target` is full or the file ends, and returns how many bytes that were. */
function readAll(access: AccessHandle, target: Uint8Array, offset: number): number {
  let done = 0
  while (done < target.byteLength) {
    const count = access.read(target.subarray(done), { at: offset + done })
    if (!(count > 0)) break
    done += count
  }
  return done
}

/** Reads without an access handle before one is taken that would keep all others out. */
const looseReadsMax = 8
/** Attempts at reading a file that somebody else goes on writing: in some browsers each write ends the reads under way. */
const looseAttempts = 10
const looseBytesMax = 1 << 24

class OpfsFile extends ReadFile {
  readonly #shared: SharedFile
  readonly #isWriter: boolean
  readonly #end: () => void
  #looseReads = 0

  constructor(shared: SharedFile, file: string, size: number, isWriter: boolean, end: () => void) {
    super(file, size)
    this.#shared = shared
    this.#isWriter = isWriter
    this.#end = end
  }

  protected override async fill(offset: number, target: Uint8Array): Promise<void> {
    let count: number | undefined
    try {
      if (this.#mayHaveHandle()) count = (await this.#shared.read((access) => readAll(access, target, offset)))?.result
      count ??= await this.#readLoose(offset, target)
    } catch (error) {
      throw domError('read', this.file, error, offset)
    }
    if (count === target.byteLength) return
    const message = `${this.file} ends at ${offset + count}, it had ${this.size} bytes when it was opened`
    throw new IsovecError('IO', message, { file: this.file, offset })
  }

  protected override async free(): Promise<void> {
    try {
      this.#end()
    } catch (error) {
      throw domError('close', this.file, error)
    }
  }

  /** A handle that keeps others out is for the writer only, and for files that are read again and again. */
  #mayHaveHandle(): boolean {
    if (canShareHandles() || this.#shared.hasHandle || this.#shared.hasWriter) return true
    return this.#isWriter && this.#looseReads >= looseReadsMax
  }

  /** Reads as anybody can, whoever has an access handle. */
  async #readLoose(offset: number, target: Uint8Array): Promise<number> {
    this.#looseReads++
    let done = 0
    for (let attempt = 1; done < target.byteLength; ) {
      const start = offset + done
      try {
        const file = await this.#shared.fileHandle!.getFile()
        const end = Math.min(start + looseBytesMax, offset + target.byteLength)
        const bytes = new Uint8Array(await file.slice(start, end).arrayBuffer())
        if (bytes.byteLength === 0) break
        target.set(bytes, done)
        done += bytes.byteLength
      } catch (error) {
        if (!isDomError(error, 'NotReadableError', 'AbortError') || ++attempt > looseAttempts) throw error
      }
    }
    return done
  }
}
