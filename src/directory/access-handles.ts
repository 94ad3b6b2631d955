/**
 * Access handles of the origin private file system, of which browsers allow few: those of all files that are open in a worker, at most 32
 * at a time. Using one takes no time, so that any of them can be closed between two uses and opened again for the next one.
 */

import { isDomError } from './dom-error.ts'

/** What browsers call `FileSystemSyncAccessHandle`. */
export interface AccessHandle {
  read(target: Uint8Array, options: { at: number }): number
  write(source: Uint8Array, options: { at: number }): number
  getSize(): number
  flush(): void
  close(): void
}

type Mode = 'read-only' | 'readwrite'

interface AccessFile extends FileSystemFileHandle {
  createSyncAccessHandle(options: { mode: Mode }): Promise<AccessHandle>
}

/** Safari allows 252 in a whole process. */
const handlesMax = 32
/** A tab or worker that has ended may hold on to its handles for a moment. */
const retryDelay = 50
const retriesMax = 100
/** After that time a writer may have to open its file again, in ms. */
const writerIdleTime = 100

/** Whether this is a place where access handles can be had: a dedicated worker of a browser that knows them. */
export function hasAccessHandles(): boolean {
  return typeof FileSystemFileHandle === 'function' && 'createSyncAccessHandle' in FileSystemFileHandle.prototype
}

/** Whether several can read a file at a time: where browsers know no modes, every handle keeps everybody else out. */
export function canShareHandles(): boolean {
  const { FileSystemSyncAccessHandle: type } = globalThis as { FileSystemSyncAccessHandle?: { prototype: object } }
  return type !== undefined && 'mode' in type.prototype
}

/** Files that are open in this worker, by path. */
const files = new Map<string, SharedFile>()

/** A file that is open in this worker, for any number of readers and at most one writer, who share one access handle. */
export class SharedFile {
  readonly path: string
  /** What the handle is had from; set before the first use. */
  fileHandle: FileSystemFileHandle | undefined
  #hasWriter = false
  #readerCount = 0
  #handle: { readonly access: AccessHandle; readonly mode: Mode; usedAt: number | undefined } | undefined
  #opening: Promise<void> | undefined

  private constructor(path: string) {
    this.path = path
    files.set(path, this)
  }

  /** Opens a file for one more reader, until {@link endReading}. */
  static toRead(path: string): SharedFile {
    const file = files.get(path) ?? new SharedFile(path)
    file.#readerCount++
    return file
  }

  /** Opens a file for its writer, until {@link endWriting}; `undefined` if it has one. */
  static toWrite(path: string): SharedFile | undefined {
    const file = files.get(path) ?? new SharedFile(path)
    if (file.#hasWriter) return undefined
    file.#hasWriter = true
    return file
  }

  /** Whether a file of this path, or of one that goes on from it, is open in this worker. */
  static isOpen(path: string): boolean {
    if (files.has(path)) return true
    for (const other of files.keys()) if (other.startsWith(`${path}/`)) return true
    return false
  }

  /**
   * For how long its handle has been of no use, in ms; negative while somebody who has had it opened is about to use it: who
   * opens one must come to use it, or nobody gets anywhere where many want one.
   */
  get idleTime(): number {
    const usedAt = this.#handle?.usedAt
    return usedAt === undefined ? -1 : performance.now() - usedAt
  }

  get hasHandle(): boolean {
    return this.#handle !== undefined
  }

  get hasWriter(): boolean {
    return this.#hasWriter
  }

  endReading(): void {
    this.#readerCount--
    this.#forgetUnused()
  }

  /** Also closes the handle, which keeps others out as long as it's open; readers take one that doesn't. */
  endWriting(): void {
    this.#hasWriter = false
    try {
      this.closeHandle()
    } finally {
      this.#forgetUnused()
    }
  }

  #forgetUnused(): void {
    if (this.#hasWriter || this.#readerCount > 0) return
    files.delete(this.path)
    this.closeHandle()
  }

  /**
   * Hands over an access handle for reading. Nothing is waited for while it is used.
   *
   * @returns `undefined` if somebody else keeps the file
   * @throws the platform's error
   */
  async read<T>(use: (access: AccessHandle) => T): Promise<{ result: T } | undefined> {
    while (this.#handle === undefined) {
      try {
        await this.#open(this.#hasWriter ? 'readwrite' : 'read-only')
      } catch (error) {
        if (isKept(error)) return undefined
        throw error
      }
    }
    return { result: this.#use(use) }
  }

  /**
   * Hands over an access handle for writing. If somebody else keeps the file, waits up to 5 seconds.
   *
   * @throws the platform's error
   */
  async write<T>(use: (access: AccessHandle) => T): Promise<T> {
    for (let retries = 0; this.#handle?.mode !== 'readwrite'; ) {
      this.closeHandle()
      try {
        await this.#open('readwrite')
      } catch (error) {
        if (!isKept(error) || ++retries > retriesMax) throw error
        await new Promise((resolve) => setTimeout(resolve, retryDelay))
      }
    }
    return this.#use(use)
  }

  #use<T>(use: (access: AccessHandle) => T): T {
    const handle = this.#handle!
    markUsed(this)
    if (handle.usedAt === undefined) wakeNext()
    handle.usedAt = performance.now()
    return use(handle.access)
  }

  /** Opens a handle, whoever asks for it how often; of two who want other modes one has to come again. */
  #open(mode: Mode): Promise<void> {
    this.#opening ??= this.#openOnce(mode).finally(() => {
      this.#opening = undefined
    })
    return this.#opening
  }

  async #openOnce(mode: Mode): Promise<void> {
    await takePlace()
    try {
      const file = this.fileHandle as AccessFile
      const access = await file.createSyncAccessHandle({ mode })
      // Whoever wanted it may have closed the file meanwhile.
      if (files.get(this.path) === this) this.#handle = { access, mode, usedAt: undefined }
      else access.close()
    } catch (error) {
      givePlace()
      throw error
    }
    if (this.#handle === undefined) {
      givePlace()
      throw new DOMException(`${this.path} was closed`, 'AbortError')
    }
    markUsed(this)
  }

  closeHandle(): void {
    if (this.#handle === undefined) return
    const { access } = this.#handle
    this.#handle = undefined
    open.delete(this)
    try {
      access.close()
    } finally {
      givePlace()
    }
  }
}

function isKept(error: unknown): boolean {
  return isDomError(error, 'NoModificationAllowedError', 'InvalidStateError')
}

/** Files with an open handle, those first that were not used for the longest time. */
const open = new Set<SharedFile>()
/** Handles that are open or being opened. */
let placesTaken = 0
const waiting: (() => void)[] = []

function markUsed(file: SharedFile): void {
  open.delete(file)
  open.add(file)
}

async function takePlace(): Promise<void> {
  while (placesTaken >= handlesMax) {
    const victim = leastUsed()
    if (victim !== undefined) victim.closeHandle()
    // All of them are being opened, or were used only now by writers, who mostly go on.
    else await new Promise<void>((resolve) => waiting.push(resolve)).finally(lookAgain())
  }
  placesTaken++
}

/** Wakes somebody after a while. Returns what keeps that from happening. */
function lookAgain(): () => void {
  const timer = setTimeout(wakeNext, writerIdleTime)
  return () => clearTimeout(timer)
}

function givePlace(): void {
  placesTaken--
  wakeNext()
}

function wakeNext(): void {
  waiting.shift()?.()
}

/** Writers keep theirs as long as there are others: nobody can come between then. */
function leastUsed(): SharedFile | undefined {
  let oldest: SharedFile | undefined
  for (const file of open) {
    if (file.idleTime < 0) continue
    if (!file.hasWriter) return file
    if (file.idleTime >= writerIdleTime) oldest ??= file
  }
  return oldest
}
