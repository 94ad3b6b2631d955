/**
 * A backend in memory that fails, fills up or stops where it is told to, and shows what a crash would leave.
 *
 * ```ts
 * const backend = faultyBackend()
 * await workload(backend)
 * for (let at = 0; at <= backend.changes.length; at++) {
 *   const image = backend.crashImage({ kind: 'power', at, choose: seededChoice(seed) })
 *   await recover(memoryBackend(image))
 * }
 * ```
 */

import { IsovecError } from '../errors.ts'
import { type Change, type Choice, CrashModel } from './crash-image.ts'
import {
  checkDirectoryNumber,
  checkFileName,
  type Directory,
  filePath,
  type Lock,
  type RandomAccessFile,
  type StorageBackend,
  type WritableFile,
} from './directory.ts'
import { type MemoryBackend, memoryBackend, type StoreImage } from './memory.ts'
import { ReadFile, SequentialFile } from './open-file.ts'

/** A call that changes nothing. */
export type Look = {
  readonly kind: 'list' | 'open-file' | 'read'
  readonly directory: number | undefined
  readonly name?: string
}

/** One failure, or one of a lasting kind. */
export type Fault = {
  /** Number of the call, counted from 0, from which on the fault strikes: the first one that it fits. */
  readonly at: number
  /** Which calls are counted: those that change something (default) or those that don't. */
  readonly among?: 'changes' | 'looks'
  /** `EIO` becomes `IO`, `ENOSPC` becomes `QUOTA_EXCEEDED`. */
  readonly error: 'EIO' | 'ENOSPC'
  /**
   * The kinds of call that it fits. By default all with `EIO`, and those that need room with `ENOSPC`. A sync that fails gives up what
   * it should have made durable: readers still see it, power loss takes it whatever is synced later.
   */
  readonly on?: readonly (Change['kind'] | Look['kind'])[]
  /** The share of a failing append's bytes that gets in, from 0 (default) to less than 1: a short write. */
  readonly part?: number
  /** Whether later calls that it fits fail too. */
  readonly lasting?: boolean
}

/** How a {@link FaultyBackend} misbehaves. By default it doesn't. */
export type FaultyOptions = {
  /** What it holds at first. By default nothing, not even a root. */
  readonly image?: StoreImage
  /** The number of the change, counted from 0, at which the process ends: it may have happened in part, and nothing happens later. */
  readonly stopAt?: number
  /** After the stop calls reject with an error for which {@link isStopped} holds (default), or never settle, as nothing does in truth. */
  readonly onStop?: 'reject' | 'hang'
  readonly fault?: Fault
  /** Bytes that fit in all files together. An append beyond writes as many as fit and fails with `ENOSPC`; removing gives room. */
  readonly capacity?: number
  /** Awaited before a call is carried out, for shuffling calls that are under way at the same time. */
  readonly beforeCall?: (call: { readonly kind: string }) => Promise<void> | void
}

/** Which crash, and when. */
export type CrashOptions = {
  /** The end of the process, or power loss. */
  readonly kind: 'process' | 'power'
  /**
   * Number of changes that were over. By default those before the stop, and whatever of the stopped one makes for more images; without a
   * stop all. Of a call in flight power loss leaves nothing that isn't an image before or after it.
   */
  readonly at?: number
  /** Decides what survives. Required for `power`; with `process` it decides how far the call that was in flight got. */
  readonly choose?: Choice
  /** At how many lengths an append may be cut, by default at every byte. Few make full enumeration possible. */
  readonly cuts?: number
}

/** A {@link StorageBackend} with the record of its calls. */
export interface FaultyBackend extends StorageBackend {
  /** All calls that changed something or tried to, in the order in which they took effect. */
  readonly changes: readonly Change[]
  /** Number of calls that changed nothing. */
  readonly lookCount: number
  /** Number of calls that failed by `fault` or `capacity`. */
  readonly faultCount: number
  /** Whether `stopAt` was reached. */
  readonly stopped: boolean
  /** Resolves when it is reached. */
  readonly whenStopped: Promise<void>
  /** What it holds now, to those who read it. */
  image(): StoreImage
  /** What a crash leaves, to be opened with `memoryBackend` or `faultyBackend`. Asking in ascending order of `at` is fastest. */
  crashImage(options: CrashOptions): StoreImage
}

/** A new store in memory that misbehaves as told. */
export function faultyBackend(options: FaultyOptions = {}): FaultyBackend {
  return new FaultyStore(options)
}

/** Whether an error comes from the stop of a {@link FaultyBackend}, directly or as a cause. */
export function isStopped(error: unknown): boolean {
  for (let at: unknown = error; at instanceof Error; at = at.cause) {
    if ((at as { code?: unknown }).code === 'STOPPED') return true
  }
  return false
}

const needRoom: readonly string[] = ['open', 'directory', 'create', 'append']

class FaultyStore implements FaultyBackend {
  readonly kind = 'faulty'
  readonly location = ':faulty:'
  readonly changes: Change[] = []
  lookCount = 0
  faultCount = 0
  stopped = false
  readonly whenStopped: Promise<void>
  readonly #live: MemoryBackend
  readonly #options: FaultyOptions
  #model: CrashModel
  #endStop: () => void = () => {}
  #hasStruck = false
  #fileCount = 0
  #hasRoot: boolean
  readonly #numbers: Set<number>
  /** Of each file that is there, by its path, the number that tells it from others of its name, and its bytes. */
  readonly #files = new Map<string, { id: number; size: number }>()

  constructor(options: FaultyOptions) {
    const { image } = options
    this.#options = options
    this.#live = memoryBackend(image)
    this.#model = new CrashModel(image)
    this.whenStopped = new Promise((resolve) => {
      this.#endStop = resolve
    })
    this.#hasRoot = image?.root !== undefined
    this.#numbers = new Set(image?.directories.keys())
    for (const [number, files] of [[undefined, image?.root ?? new Map()] as const, ...(image?.directories ?? [])]) {
      for (const [name, { length }] of files) {
        this.#files.set(filePath(number, name), { id: this.#fileCount++, size: length })
      }
    }
  }

  exists(): Promise<boolean> {
    return this.look({ kind: 'list', directory: undefined }, () => this.#live.exists())
  }

  async open(options: { create: boolean }): Promise<Directory> {
    const root = await this.call<Directory>(
      'open',
      () => (options.create && !this.#hasRoot ? { kind: 'open' } : { kind: 'list', directory: undefined }),
      async () => {
        const opened = await this.#live.open(options)
        this.#hasRoot = true
        return opened
      },
    )
    return new FaultyDirectory(this, root, undefined)
  }

  directories(): Promise<number[]> {
    return this.look({ kind: 'list', directory: undefined }, () => this.#live.directories())
  }

  async directory(number: number, options: { create: boolean }): Promise<Directory> {
    checkDirectoryNumber(number)
    const directory = await this.call<Directory>(
      'directory',
      () => {
        const creates = options.create && this.#hasRoot && !this.#numbers.has(number)
        return { kind: creates ? 'directory' : 'list', directory: number }
      },
      async () => {
        if (options.create && this.#hasRoot) this.#numbers.add(number)
        return this.#live.directory(number, options)
      },
    )
    return new FaultyDirectory(this, directory, number)
  }

  removeDirectory(number: number): Promise<void> {
    return this.call(
      'remove-directory',
      () => (this.#numbers.has(number) ? { kind: 'remove-directory', directory: number } : undefined),
      async () => {
        this.#numbers.delete(number)
        for (const path of [...this.#files.keys()]) if (path.startsWith(`${number}/`)) this.#files.delete(path)
        await this.#live.removeDirectory(number)
      },
    )
  }

  lock(options: { timeout: number; signal?: AbortSignal | undefined }): Promise<Lock> {
    return this.#live.lock(options)
  }

  image(): StoreImage {
    return this.#live.image()
  }

  crashImage({ kind, at, choose, cuts }: CrashOptions): StoreImage {
    if (kind === 'process') {
      const count = at ?? this.changes.length - Number(this.stopped)
      return this.#modelAt(count).processImage(choose && this.changes[count], choose)
    }
    if (choose === undefined) {
      throw new IsovecError('INVALID_ARGUMENT', 'an image of power loss takes somebody who chooses', {
        field: 'choose',
      })
    }
    return this.#modelAt(at ?? this.#stopCount(choose)).powerImage(choose, cuts)
  }

  /** The number of changes to apply after a stop: with the last one where that only adds images, without it where it only takes some. */
  #stopCount(choose: Choice): number {
    const count = this.changes.length
    if (!this.stopped) return count
    const { kind } = this.changes.at(-1)!
    if (kind === 'sync' || kind === 'close') return count - 1
    return kind === 'open' || kind === 'directory' ? count - 1 + choose(2) : count
  }

  #modelAt(count: number): CrashModel {
    if (!Number.isInteger(count) || count < 0 || count > this.changes.length) {
      throw new IsovecError('INVALID_ARGUMENT', `there were ${this.changes.length} changes, not ${count}`, {
        field: 'at',
      })
    }
    if (this.#model.count > count) this.#model = new CrashModel(this.#options.image)
    while (this.#model.count < count) this.#model.apply(this.changes[this.#model.count]!)
    return this.#model
  }

  look<Result>(look: Look, effect: () => Promise<Result>): Promise<Result> {
    return this.call(look.kind, () => look, effect)
  }

  /**
   * Carries out a call as `decide` says at the moment at which it takes effect: a change, which is recorded, a look, or `undefined` for
   * what has nothing to do or will be refused. `effect` gets the change as it is recorded.
   */
  async call<Result>(
    kind: Change['kind'] | Look['kind'],
    decide: () => Change | Look | undefined,
    effect: (change: Change) => Promise<Result>,
  ): Promise<Result> {
    await this.#options.beforeCall?.({ kind })
    if (this.stopped) return this.#stop()
    const call = decide()
    if (call === undefined || isLook(call)) {
      const fault = call && this.#faultFor('looks', call, this.lookCount++)
      if (fault !== undefined) throw faultError(fault.error, call!)
      return (effect as () => Promise<Result>)()
    }
    const index = this.changes.length
    if (index === this.#options.stopAt) {
      this.changes.push(call)
      this.stopped = true
      this.#endStop()
      return this.#stop()
    }
    const fault = this.#faultFor('changes', call, index)
    if (call.kind === 'append') return this.#append(call, fault, effect)
    this.changes.push(fault === undefined ? call : { ...call, failed: true })
    if (fault !== undefined) throw faultError(fault.error, call)
    return effect(call)
  }

  /** An append, of which a part may get in. */
  async #append<Result>(
    append: Extract<Change, { kind: 'append' }>,
    fault: Fault | undefined,
    effect: (change: Change) => Promise<Result>,
  ): Promise<Result> {
    const { length } = append.bytes
    const fits = Math.min(length, fault === undefined ? this.#room() : Math.floor(length * (fault.part ?? 0)))
    const failed = fault !== undefined || fits < length
    if (failed && fault === undefined) this.faultCount++
    const entry = this.#files.get(filePath(append.directory, append.name))
    if (entry?.id === append.file) entry.size += fits
    const done = failed ? { ...append, bytes: append.bytes.subarray(0, fits), failed } : append
    this.changes.push(done)
    const result = await effect(done)
    if (failed) throw faultError(fault?.error ?? 'ENOSPC', append)
    return result
  }

  /** The number of the file that has a name now. */
  fileAt(directory: number | undefined, name: string): number | undefined {
    return this.#files.get(filePath(directory, name))?.id
  }

  /** A number for a new file. */
  nextFile(): number {
    return this.#fileCount++
  }

  /** Whether a directory can take new files. */
  hasDirectory(number: number | undefined): boolean {
    return number === undefined ? this.#hasRoot : this.#numbers.has(number)
  }

  setFile(directory: number | undefined, name: string, id: number | undefined): void {
    if (id === undefined) this.#files.delete(filePath(directory, name))
    else this.#files.set(filePath(directory, name), { id, size: 0 })
  }

  #room(): number {
    const { capacity } = this.#options
    if (capacity === undefined) return Number.POSITIVE_INFINITY
    let used = 0
    for (const { size } of this.#files.values()) used += size
    return Math.max(0, capacity - used)
  }

  #faultFor(among: 'changes' | 'looks', { kind }: Change | Look, index: number): Fault | undefined {
    const { fault } = this.#options
    if (fault === undefined || (fault.among ?? 'changes') !== among || index < fault.at) return undefined
    if (this.#hasStruck && !fault.lasting) return undefined
    const fits = fault.on ?? (fault.error === 'ENOSPC' && among === 'changes' ? needRoom : undefined)
    if (fits !== undefined && !(fits as readonly string[]).includes(kind)) return undefined
    this.#hasStruck = true
    this.faultCount++
    return fault
  }

  #stop(): Promise<never> {
    if (this.#options.onStop === 'hang') return new Promise(() => {})
    const cause = Object.assign(new Error('the process has ended'), { code: 'STOPPED' })
    return Promise.reject(new IsovecError('IO', 'the process has ended, as it was told to', { cause }))
  }
}

function isLook(call: Change | Look): call is Look {
  return call.kind === 'list' || call.kind === 'open-file' || call.kind === 'read'
}

function faultError(code: Fault['error'], call: Change | Look): IsovecError {
  const place = call as { directory?: number | undefined; name?: string }
  const file = place.name === undefined ? String(place.directory ?? 'the root') : filePath(place.directory, place.name)
  const cause = Object.assign(new Error(`${code}: a fault, as it was told to`), { code })
  const message = `cannot ${call.kind} ${file}: ${cause.message}`
  return new IsovecError(code === 'ENOSPC' ? 'QUOTA_EXCEEDED' : 'IO', message, { file, cause })
}

class FaultyDirectory implements Directory {
  readonly #store: FaultyStore
  readonly #live: Directory
  readonly #number: number | undefined
  /** Files of which a sync failed. */
  readonly #lost = new Map<string, unknown>()

  constructor(store: FaultyStore, live: Directory, number: number | undefined) {
    this.#store = store
    this.#live = live
    this.#number = number
  }

  list(): Promise<string[]> {
    return this.#store.look({ kind: 'list', directory: this.#number }, () => this.#live.list())
  }

  async create(name: string): Promise<WritableFile> {
    checkFileName(name)
    const place = { directory: this.#number, name }
    return this.#store.call<WritableFile>(
      'create',
      () => {
        const isFree = this.#store.hasDirectory(this.#number) && this.#store.fileAt(this.#number, name) === undefined
        return isFree ? { kind: 'create', ...place, file: this.#store.nextFile() } : undefined
      },
      async (change) => {
        const live = await this.#live.create(name)
        const { file } = change as Extract<Change, { kind: 'create' }>
        this.#store.setFile(this.#number, name, file)
        this.#lost.delete(name)
        return new FaultyWritableFile(this.#store, live, { ...place, file }, (error) => this.#lost.set(name, error))
      },
    )
  }

  open(name: string): Promise<RandomAccessFile> {
    const place = { directory: this.#number, name }
    return this.#store.look(
      { kind: 'open-file', ...place },
      async () => new FaultyReadFile(this.#store, await this.#live.open(name), place),
    )
  }

  async sync(name: string): Promise<void> {
    checkFileName(name)
    const lost = this.#lost.get(name)
    if (lost !== undefined) {
      const file = filePath(this.#number, name)
      throw new IsovecError('IO', `cannot sync ${file} after an earlier failure`, { file, cause: lost })
    }
    let isSync = false
    const decide = (): Change | undefined => {
      const file = this.#store.fileAt(this.#number, name)
      isSync = file !== undefined
      return file === undefined ? undefined : { kind: 'sync', directory: this.#number, name, file }
    }
    try {
      await this.#store.call('sync', decide, () => this.#live.sync(name))
    } catch (error) {
      if (isSync) this.#lost.set(name, error)
      throw error
    }
  }

  async remove(name: string): Promise<void> {
    checkFileName(name)
    const decide = (): Change | undefined => {
      const isThere = this.#store.fileAt(this.#number, name) !== undefined
      return isThere ? { kind: 'remove', directory: this.#number, name } : undefined
    }
    await this.#store.call('remove', decide, async () => {
      this.#store.setFile(this.#number, name, undefined)
      await this.#live.remove(name)
    })
  }
}

/** A file on its way to the live store, with each step recorded. */
class FaultyWritableFile extends SequentialFile {
  readonly #store: FaultyStore
  readonly #live: WritableFile
  readonly #place: { directory: number | undefined; name: string; file: number }
  readonly #lose: (error: unknown) => void

  constructor(
    store: FaultyStore,
    live: WritableFile,
    place: { directory: number | undefined; name: string; file: number },
    lose: (error: unknown) => void,
  ) {
    super(filePath(place.directory, place.name))
    this.#store = store
    this.#live = live
    this.#place = place
    this.#lose = lose
  }

  protected override write(parts: readonly Uint8Array[], length: number): Promise<void> {
    const bytes = new Uint8Array(length)
    let offset = 0
    for (const part of parts) {
      bytes.set(part, offset)
      offset += part.length
    }
    return this.#store.call(
      'append',
      () => ({ kind: 'append', ...this.#place, bytes }),
      (change) => this.#live.append((change as Extract<Change, { kind: 'append' }>).bytes),
    )
  }

  protected override async flush(): Promise<void> {
    try {
      await this.#store.call(
        'sync',
        () => ({ kind: 'sync', ...this.#place }),
        () => this.#live.sync(),
      )
    } catch (error) {
      this.#lose(error)
      throw error
    }
  }

  protected override free(): Promise<void> {
    return this.#store.call(
      'close',
      () => ({ kind: 'close', ...this.#place }),
      () => this.#live.close(),
    )
  }
}

/** A file of the live store, with each read counted. */
class FaultyReadFile extends ReadFile {
  readonly #store: FaultyStore
  readonly #live: RandomAccessFile
  readonly #place: { directory: number | undefined; name: string }

  constructor(store: FaultyStore, live: RandomAccessFile, place: { directory: number | undefined; name: string }) {
    super(filePath(place.directory, place.name), live.size)
    this.#store = store
    this.#live = live
    this.#place = place
  }

  protected override fill(offset: number, target: Uint8Array): Promise<void> {
    return this.#store.look({ kind: 'read', ...this.#place }, () => this.#live.read(offset, target))
  }

  protected override free(): Promise<void> {
    return this.#live.close()
  }
}
