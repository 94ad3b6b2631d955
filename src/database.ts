/**
 * A database: a folder with a root manifest, one numbered directory per collection, and one writer.
 */
import type {
  Collection,
  CollectionOptions,
  Database,
  DatabaseEvent,
  DatabaseInfo,
  JsonObject,
  OpenOptions,
  ResolvedCollectionOptions,
} from './api.ts'
import { CollectionHandle } from './collection.ts'
import { CollectionCore } from './core.ts'
import type { Directory, Lock, StorageBackend } from './directory/directory.ts'
import { memoryBackend } from './directory/memory.ts'
import { IsovecError, throwIfAborted } from './errors.ts'
import { type ImagePool, type Kernel, loadKernel } from './kernel/index.ts'
import {
  checkCallback,
  checkChoice,
  checkCollectionName,
  checkFlag,
  checkModel,
  checkOptions,
  checkSignal,
  invalid,
  refuseUnsupported,
  resolveCollectionOptions,
} from './options.ts'
import { createCollectionFiles, openCollectionFiles, type SharedContext } from './recovery.ts'
import { fileName, parseFileName } from './storage/file-names.ts'
import { Generations } from './storage/generations.ts'
import { BlockCache } from './storage/payload-blocks.ts'
import { Reserve } from './storage/reserve.ts'
import { type RootBody, rootFormat } from './storage/root-manifest.ts'

/** Verified payload blocks kept in memory for all collections of a database. */
const blockCacheSize = 32 * 1024 * 1024

const openKeys = ['mustExist', 'lockTimeout', 'signal', 'onEvent', 'wasm']
const laterOpenKeys = ['readOnly', 'memoryLimit', 'requestPersistence', 'worker']

/**
 * Opens a database on a backend, and makes one if there is none. `platformBackend` turns a path or URL into a backend.
 * @throws IsovecError `NOT_FOUND`, `LOCKED`, `CORRUPTION`, `UNSUPPORTED`, `UNSUPPORTED_VERSION`, `ABORTED`, `IO`
 */
export async function open(
  location: string | URL | StorageBackend,
  given: OpenOptions | undefined,
  platformBackend: (location: string | URL) => StorageBackend,
): Promise<Database> {
  refuseUnsupported(given, laterOpenKeys, 'options')
  const options = checkOptions(given, [...openKeys, ...laterOpenKeys])
  const signal = checkSignal(options.signal)
  const lockTimeout = options.lockTimeout ?? 0
  if (typeof lockTimeout !== 'number' || !(lockTimeout >= 0))
    throw invalid('options.lockTimeout', 'is not a time in ms')
  checkCallback(options.onEvent, 'options.onEvent')
  const mustExist = checkFlag(options.mustExist, false, 'options.mustExist')
  throwIfAborted(signal)
  const backend = backendOf(location, platformBackend)

  const times = [performance.now()]
  const kernel = await loadKernel(options.wasm === undefined ? {} : { wasm: options.wasm })
  times.push(performance.now())
  const directory = await backend.open({ create: !mustExist })
  const lock = await backend.lock({ timeout: lockTimeout, signal })
  times.push(performance.now())
  try {
    throwIfAborted(signal)
    const root = await openRoot(kernel, directory, backend, mustExist)
    times.push(performance.now())
    await sweep(root, directory, backend)
    times.push(performance.now())
    const openMs = {
      kernel: times[1]! - times[0]!,
      lock: times[2]! - times[1]!,
      manifest: times[3]! - times[2]!,
      sweep: times[4]! - times[3]!,
    }
    return new LocalDatabase(backend, directory, lock, kernel, root, openMs, options.onEvent)
  } catch (error) {
    await lock.release()
    throw error
  }
}

function backendOf(
  location: string | URL | StorageBackend,
  platformBackend: (location: string | URL) => StorageBackend,
): StorageBackend {
  if (location === ':memory:') return memoryBackend()
  if (typeof location === 'string') {
    if (location.length === 0) throw invalid('location', 'is empty')
    return platformBackend(location)
  }
  if (location instanceof URL) return platformBackend(location)
  if (typeof location !== 'object' || location === null || typeof location.lock !== 'function') {
    throw invalid('location', 'is no path, URL or backend')
  }
  return location
}

async function openRoot(
  kernel: Kernel,
  directory: Directory,
  backend: StorageBackend,
  mustExist: boolean,
): Promise<Generations<RootBody>> {
  const found = await Generations.load(kernel, directory, rootFormat)
  if (found !== undefined) return found
  // Collections without a manifest that names them are a database that was damaged, not an empty folder.
  if ((await backend.directories()).length > 0) {
    throw new IsovecError('CORRUPTION', `${backend.location} holds collections but no manifest`)
  }
  if (mustExist) throw new IsovecError('NOT_FOUND', `there is no database at ${backend.location}`)
  for (const name of await directory.list()) if (parseFileName(name)?.kind === 'manifest') await directory.remove(name)
  const uuid = crypto.getRandomValues(new Uint8Array(16))
  return Generations.create(kernel, directory, rootFormat, uuid, { nextDirectory: 1, collections: [] })
}

/**
 * Removes manifests and directories that no kept generation names: leftovers of work that was cut short. They are a waste of space and
 * no danger, so what can't be removed stays until the next opening.
 */
async function sweep(root: Generations<RootBody>, directory: Directory, backend: StorageBackend): Promise<void> {
  const kept = new Set(root.kept.map(({ generation }) => fileName(generation, 'manifest')))
  const named = new Set(root.kept.flatMap(({ body }) => body.collections.map((place) => place.directory)))
  for (const name of await directory.list()) {
    if (parseFileName(name)?.kind === 'manifest' && !kept.has(name)) await directory.remove(name).catch(() => {})
  }
  for (const number of await backend.directories()) {
    if (!named.has(number)) await backend.removeDirectory(number).catch(() => {})
  }
}

type OpenMs = DatabaseInfo['openMs']

/** The database in this process, on any backend. */
class LocalDatabase implements Database {
  readonly #backend: StorageBackend
  readonly #directory: Directory
  readonly #lock: Lock
  readonly #kernel: Kernel
  readonly #pool: ImagePool
  readonly #shared: SharedContext
  readonly #root: Generations<RootBody>
  readonly #openMs: OpenMs
  readonly #onEvent: ((event: DatabaseEvent) => void) | undefined
  readonly #cores = new Map<number, Promise<CollectionCore>>()
  #changes: Promise<unknown> = Promise.resolve()
  /** Next number for a directory, past those of attempts that failed. */
  #nextDirectory = 1
  #closing: Promise<void> | undefined

  constructor(
    backend: StorageBackend,
    directory: Directory,
    lock: Lock,
    kernel: Kernel,
    root: Generations<RootBody>,
    openMs: OpenMs,
    onEvent: ((event: DatabaseEvent) => void) | undefined,
  ) {
    this.#backend = backend
    this.#directory = directory
    this.#lock = lock
    this.#kernel = kernel
    this.#pool = kernel.createPool()
    this.#shared = {
      kernel,
      pool: this.#pool,
      cache: new BlockCache(blockCacheSize),
      reserve: new Reserve(directory),
      fate: {},
    }
    this.#root = root
    this.#openMs = openMs
    this.#onEvent = onEvent
  }

  get location(): string {
    return this.#backend.location
  }

  async createCollection<P extends object = JsonObject>(
    name: string,
    options: CollectionOptions & { ifExists?: 'error' | 'open' },
  ): Promise<Collection<P>> {
    checkCollectionName(name)
    const resolved = resolveCollectionOptions(options)
    const ifExists = checkChoice(options.ifExists, ['error', 'open'], 'error', 'options.ifExists')
    return this.#change(async (body) => {
      const place = placeOf(body, name)
      if (place !== undefined) {
        if (ifExists === 'error') {
          throw new IsovecError('COLLECTION_EXISTS', `there is a collection ${name} already`, { collection: name })
        }
        const core = await this.#coreAt(place.directory, name)
        checkAgreement(name, core.state.options, resolved)
        return new CollectionHandle<P>(core)
      }
      const core = await this.#create(name, resolved, body)
      return new CollectionHandle<P>(core)
    })
  }

  async #create(name: string, options: ResolvedCollectionOptions, body: RootBody): Promise<CollectionCore> {
    // Past those of attempts that failed: their files may be there still.
    const number = Math.max(body.nextDirectory, this.#nextDirectory)
    this.#nextDirectory = number + 1
    let core: CollectionCore | undefined
    try {
      const directory = await this.#backend.directory(number, { create: true })
      const recovered = await createCollectionFiles(this.#shared, directory, options)
      core = new CollectionCore(name, recovered, this.#report)
      await this.#commit({
        nextDirectory: number + 1,
        collections: [...body.collections, { name, directory: number }],
      })
    } catch (error) {
      await core?.close().catch(() => {})
      // After a failed sync the manifest that names the directory may be on disk all the same.
      if (this.#shared.fate.poison === undefined) await this.#removeDirectory(number)
      throw error
    }
    this.#cores.set(number, Promise.resolve(core))
    return core
  }

  async openCollection<P extends object = JsonObject>(
    name: string,
    options?: { model?: string },
  ): Promise<Collection<P>> {
    checkCollectionName(name)
    refuseUnsupported(options, ['vectors'], 'options')
    checkOptions(options, ['model', 'vectors'])
    const model = checkModel(options?.model, 'options.model')
    return this.#change(async (body) => {
      const place = placeOf(body, name)
      if (place === undefined) throw collectionNotFound(name)
      const core = await this.#coreAt(place.directory, name)
      checkModelAgreement(name, core.state.options.model, model)
      return new CollectionHandle<P>(core)
    })
  }

  async hasCollection(name: string): Promise<boolean> {
    checkCollectionName(name)
    return this.#change(async (body) => placeOf(body, name) !== undefined)
  }

  async listCollections(): Promise<string[]> {
    return this.#change(async (body) => body.collections.map((place) => place.name).sort())
  }

  async renameCollection(from: string, to: string, options?: { replace?: boolean }): Promise<void> {
    checkCollectionName(from)
    checkCollectionName(to)
    checkOptions(options, ['replace'])
    const replace = checkFlag(options?.replace, false, 'options.replace')
    await this.#change(async (body) => {
      const place = placeOf(body, from)
      if (place === undefined) throw collectionNotFound(from)
      if (from === to) return
      const target = placeOf(body, to)
      if (target !== undefined && !replace) {
        throw new IsovecError('COLLECTION_EXISTS', `there is a collection ${to} already`, { collection: to })
      }
      const others = body.collections.filter((other) => other !== place && other !== target)
      await this.#commit({ ...body, collections: [...others, { ...place, name: to }] })
      const core = await this.#cores.get(place.directory)
      if (core !== undefined) core.name = to
      if (target !== undefined) await this.#discard(target.directory)
    })
  }

  async dropCollection(name: string): Promise<void> {
    checkCollectionName(name)
    await this.#change(async (body) => {
      const place = placeOf(body, name)
      if (place === undefined) throw collectionNotFound(name)
      await this.#commit({ ...body, collections: body.collections.filter((other) => other !== place) })
      await this.#discard(place.directory)
    })
  }

  async info(): Promise<DatabaseInfo> {
    return this.#change(async (body) => ({
      location: this.location,
      backend: this.#backend.kind,
      lock: this.#lock.primitive,
      role: 'writer',
      kernel: this.#kernel.variant,
      collections: body.collections.length,
      memoryBytes: this.#pool.bytes,
      openMs: this.#openMs,
    }))
  }

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  async #close(): Promise<void> {
    await this.#changes
    const cores = await Promise.allSettled(this.#cores.values())
    const results = await Promise.allSettled(
      cores.map((opened) => (opened.status === 'fulfilled' ? opened.value.close() : undefined)),
    )
    this.#pool.close()
    await this.#lock.release()
    const failure = results.find((result) => result.status === 'rejected')
    if (failure !== undefined) throw failure.reason
  }

  /** Runs what concerns the set of collections one after the other. */
  #change<T>(run: (body: RootBody) => Promise<T>): Promise<T> {
    if (this.#closing !== undefined) return Promise.reject(new IsovecError('CLOSED', 'the database is closed'))
    const turn = this.#changes.then(() => run(this.#root.current.body))
    this.#changes = turn.catch(() => {})
    return turn
  }

  /**
   * Commits twice, so that the generation to fall back to knows of the change too: no acknowledged collection is lost with one file.
   * The first time decides; a disk that is full at the second one costs no more than that safety.
   */
  async #commit(body: RootBody): Promise<void> {
    if (this.#shared.fate.poison !== undefined) {
      throw new IsovecError(
        'READ_ONLY',
        'an earlier I/O failure has made the database read-only until it is reopened',
        {
          cause: this.#shared.fate.poison,
        },
      )
    }
    for (let time = 0; time < 2; time++) {
      try {
        const dropped = await this.#shared.reserve.spend(() => this.#root.commit(body))
        if (dropped !== undefined) await this.#removeManifest(dropped.generation)
      } catch (error) {
        const isFull = error instanceof IsovecError && error.code === 'QUOTA_EXCEEDED'
        if (isFull && time > 0) return
        if (!isFull && error instanceof IsovecError && error.code !== 'UNSUPPORTED') this.#shared.fate.poison ??= error
        throw error
      }
    }
  }

  async #removeManifest(generation: number): Promise<void> {
    try {
      await this.#directory.remove(fileName(generation, 'manifest'))
    } catch {
      // A manifest that stays is older than those that count, and swept when the database is next opened.
    }
  }

  #coreAt(number: number, name: string): Promise<CollectionCore> {
    const found = this.#cores.get(number)
    if (found !== undefined) return found
    const opening = this.#openCore(number, name)
    this.#cores.set(number, opening)
    opening.catch(() => this.#cores.delete(number))
    return opening
  }

  async #openCore(number: number, name: string): Promise<CollectionCore> {
    try {
      const directory = await this.#backend.directory(number, { create: false })
      return new CollectionCore(name, await openCollectionFiles(this.#shared, directory), this.#report)
    } catch (error) {
      if (!(error instanceof IsovecError) || error.code !== 'NOT_FOUND') throw error
      throw new IsovecError('CORRUPTION', `the directory ${number} of the collection ${name} is missing`, {
        collection: name,
        cause: error,
      })
    }
  }

  /** Closes a collection that is no longer named and removes its files. */
  async #discard(number: number): Promise<void> {
    const opened = this.#cores.get(number)
    this.#cores.delete(number)
    // It is no longer named, which is all that was asked for: how its log ends is of no interest.
    if (opened !== undefined) await (await opened).close().catch(() => {})
    await this.#removeDirectory(number)
  }

  async #removeDirectory(number: number): Promise<void> {
    try {
      await this.#backend.removeDirectory(number)
    } catch {
      // Files that stay are a waste of space and no danger: they are swept when the database is next opened.
    }
  }

  readonly #report = (error: IsovecError, collection: string): void => {
    try {
      this.#onEvent?.({ type: 'background-error', collection, error })
    } catch {
      // What a listener gets wrong must not end the work that tells it; the failure itself stays in `stats()`.
    }
  }
}

function placeOf(body: RootBody, name: string): RootBody['collections'][number] | undefined {
  return body.collections.find((place) => place.name === name)
}

function collectionNotFound(name: string): IsovecError {
  return new IsovecError('COLLECTION_NOT_FOUND', `there is no collection ${name}`, { collection: name })
}

function checkAgreement(name: string, stored: ResolvedCollectionOptions, wanted: ResolvedCollectionOptions): void {
  if (stored.dimension !== wanted.dimension) {
    throw new IsovecError('WRONG_DIMENSION', `the collection ${name} has ${stored.dimension} dimensions`, {
      collection: name,
      expected: stored.dimension,
      actual: wanted.dimension,
    })
  }
  if (stored.metric !== wanted.metric) {
    throw new IsovecError('INVALID_ARGUMENT', `the collection ${name} has the metric ${stored.metric}`, {
      collection: name,
      field: 'options.metric',
      expected: stored.metric,
      actual: wanted.metric,
    })
  }
  checkModelAgreement(name, stored.model, wanted.model)
}

function checkModelAgreement(name: string, stored: string | undefined, wanted: string | undefined): void {
  if (stored === undefined || wanted === undefined || stored === wanted) return
  throw new IsovecError('MODEL_MISMATCH', `the collection ${name} holds embeddings of ${stored}, not ${wanted}`, {
    collection: name,
    expected: stored,
    actual: wanted,
  })
}
