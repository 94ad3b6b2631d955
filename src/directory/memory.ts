/** Files in memory: the reference for every other backend, and the home of `':memory:'`. */

import { IsovecError } from '../errors.ts'
import {
  checkDirectoryNumber,
  checkFileName,
  type Directory,
  fileExistsError,
  filePath,
  type Lock,
  notFoundError,
  type RandomAccessFile,
  type StorageBackend,
  type WritableFile,
} from './directory.ts'
import { lockInProcess } from './lock.ts'
import { ReadFile, SequentialFile } from './open-file.ts'

/** All bytes of a store: files by name. The arrays are shared, not copied: treat them as read-only. */
export type StoreImage = {
  /** Files of the root; `undefined` if there is no root, and then there are no directories either. */
  readonly root: ReadonlyMap<string, Uint8Array> | undefined
  readonly directories: ReadonlyMap<number, ReadonlyMap<string, Uint8Array>>
}

/** A {@link StorageBackend} in memory. */
export interface MemoryBackend extends StorageBackend {
  /** What it holds at this moment. Costs a copy of every file that was written through this backend. */
  image(): StoreImage
}

/**
 * A new store in memory. The object *is* the store: opening a database on it again finds the same bytes, and they are gone with it.
 * Nothing in it survives the process, so `sync` only keeps order.
 *
 * @param image what it holds at first, by default nothing, not even a root
 */
export function memoryBackend(image?: StoreImage): MemoryBackend {
  return new MemoryStore(image)
}

/** A directory's files, shared by all who have it open. */
type Files = { readonly byName: Map<string, Bytes>; removed: boolean }

class MemoryStore implements MemoryBackend {
  readonly kind = 'memory'
  readonly location = ':memory:'
  #root: Files | undefined
  readonly #directories = new Map<number, Files>()

  constructor(image: StoreImage | undefined) {
    if (image?.root === undefined) return
    this.#root = filesOf(image.root)
    for (const [number, files] of image.directories) this.#directories.set(number, filesOf(files))
  }

  async exists(): Promise<boolean> {
    return this.#root !== undefined
  }

  async open(options: { create: boolean }): Promise<Directory> {
    if (this.#root === undefined && !options.create) throw notFoundError(this.location)
    this.#root ??= { byName: new Map(), removed: false }
    return new MemoryDirectory(undefined, this.#root)
  }

  async directories(): Promise<number[]> {
    return [...this.#directories.keys()].sort((a, b) => a - b)
  }

  async directory(number: number, options: { create: boolean }): Promise<Directory> {
    checkDirectoryNumber(number)
    if (this.#root === undefined) throw notFoundError(this.location)
    let files = this.#directories.get(number)
    if (files === undefined) {
      if (!options.create) throw notFoundError(String(number))
      files = { byName: new Map(), removed: false }
      this.#directories.set(number, files)
    }
    return new MemoryDirectory(number, files)
  }

  async removeDirectory(number: number): Promise<void> {
    checkDirectoryNumber(number)
    const files = this.#directories.get(number)
    if (files === undefined) return
    files.removed = true
    files.byName.clear()
    this.#directories.delete(number)
  }

  async lock(options: { timeout: number; signal?: AbortSignal | undefined }): Promise<Lock> {
    if (this.#root === undefined) throw notFoundError(this.location)
    return lockInProcess(this, '', this.location, options)
  }

  image(): StoreImage {
    const copy = ({ byName }: Files) => new Map([...byName].map(([name, bytes]) => [name, bytes.toArray()]))
    return {
      root: this.#root && copy(this.#root),
      directories: new Map([...this.#directories].map(([number, files]) => [number, copy(files)])),
    }
  }
}

class MemoryDirectory implements Directory {
  readonly #number: number | undefined
  readonly #files: Files

  constructor(number: number | undefined, files: Files) {
    this.#number = number
    this.#files = files
  }

  async list(): Promise<string[]> {
    this.#refuseRemoved()
    return [...this.#files.byName.keys()].sort()
  }

  async create(name: string): Promise<WritableFile> {
    checkFileName(name)
    const file = filePath(this.#number, name)
    this.#refuseRemoved()
    if (this.#files.byName.has(name)) throw fileExistsError(file)
    const bytes = new Bytes()
    this.#files.byName.set(name, bytes)
    return new MemoryWritableFile(file, bytes)
  }

  async open(name: string): Promise<RandomAccessFile> {
    return new MemoryFile(filePath(this.#number, name), this.#find(name))
  }

  async sync(name: string): Promise<void> {
    this.#find(name)
  }

  async remove(name: string): Promise<void> {
    checkFileName(name)
    this.#files.byName.delete(name)
  }

  #find(name: string): Bytes {
    checkFileName(name)
    const bytes = this.#files.byName.get(name)
    if (bytes === undefined) throw notFoundError(filePath(this.#number, name))
    return bytes
  }

  #refuseRemoved(): void {
    if (this.#files.removed) throw notFoundError(String(this.#number))
  }
}

class MemoryWritableFile extends SequentialFile {
  readonly #bytes: Bytes

  constructor(file: string, bytes: Bytes) {
    super(file)
    this.#bytes = bytes
  }

  protected override async write(parts: readonly Uint8Array[], length: number): Promise<void> {
    try {
      this.#bytes.reserve(length)
    } catch (cause) {
      throw new IsovecError('OUT_OF_MEMORY', `no memory for ${length} bytes of ${this.file}`, {
        file: this.file,
        cause,
      })
    }
    for (const part of parts) this.#bytes.append(part)
  }

  protected override async flush(): Promise<void> {}

  protected override async free(): Promise<void> {}
}

class MemoryFile extends ReadFile {
  readonly #bytes: Bytes

  constructor(file: string, bytes: Bytes) {
    super(file, bytes.size)
    this.#bytes = bytes
  }

  protected override async fill(offset: number, target: Uint8Array): Promise<void> {
    this.#bytes.read(offset, target)
  }

  protected override async free(): Promise<void> {}
}

const chunkSizeMin = 4096
const chunkSizeMax = 1 << 20

/** Bytes that only grow, in chunks that never move, so that appending copies nothing twice. */
class Bytes {
  size = 0
  readonly #chunks: { start: number; bytes: Uint8Array }[] = []
  #capacity = 0

  static of(bytes: Uint8Array): Bytes {
    const whole = new Bytes()
    if (bytes.byteLength === 0) return whole
    whole.#chunks.push({ start: 0, bytes })
    whole.#capacity = whole.size = bytes.byteLength
    return whole
  }

  /** Makes room for `length` more bytes: all or, if there is no memory, nothing changes. */
  reserve(length: number): void {
    const missing = this.size + length - this.#capacity
    if (missing <= 0) return
    const chunk = new Uint8Array(Math.max(missing, Math.min(chunkSizeMax, Math.max(chunkSizeMin, this.size))))
    this.#chunks.push({ start: this.#capacity, bytes: chunk })
    this.#capacity += chunk.byteLength
  }

  /** Appends what room was reserved for. */
  append(bytes: Uint8Array): void {
    let done = 0
    for (let i = this.#chunkAt(this.size); done < bytes.byteLength; i++) {
      const chunk = this.#chunks[i]!
      const from = this.size - chunk.start
      const count = Math.min(chunk.bytes.byteLength - from, bytes.byteLength - done)
      chunk.bytes.set(bytes.subarray(done, done + count), from)
      done += count
      this.size += count
    }
  }

  /** Fills `target` from bytes that are there. O(log chunks + length). */
  read(offset: number, target: Uint8Array): void {
    let done = 0
    for (let i = this.#chunkAt(offset); done < target.byteLength; i++) {
      const chunk = this.#chunks[i]!
      const from = offset + done - chunk.start
      const count = Math.min(chunk.bytes.byteLength - from, target.byteLength - done)
      target.set(chunk.bytes.subarray(from, from + count), done)
      done += count
    }
  }

  toArray(): Uint8Array {
    const bytes = new Uint8Array(this.size)
    this.read(0, bytes)
    return bytes
  }

  /** Index of the last chunk that starts at or before `offset`. */
  #chunkAt(offset: number): number {
    let low = 0
    let high = this.#chunks.length - 1
    while (low < high) {
      const middle = (low + high + 1) >>> 1
      if (this.#chunks[middle]!.start <= offset) low = middle
      else high = middle - 1
    }
    return low
  }
}

function filesOf(image: ReadonlyMap<string, Uint8Array>): Files {
  return { byName: new Map([...image].map(([name, bytes]) => [name, Bytes.of(bytes)])), removed: false }
}
