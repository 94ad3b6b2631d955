/**
 * A database that is open in this thread: a folder with a root manifest, one numbered directory per collection, and one writer.
 */
import type {
  Database,
  DatabaseEvent,
  DatabaseInfo,
  ResolvedCollectionOptions,
  SnapshotReport,
  VerifyReport,
} from './api.ts'
import type { CollectionCalls, DatabaseCalls, SnapshotTerms, VerifyTerms } from './calls.ts'
import { copyStore } from './copy.ts'
import { CollectionCore, type Held } from './core.ts'
import type { Directory, Lock, StorageBackend } from './directory/directory.ts'
import { IsovecError, throwIfAborted } from './errors.ts'
import type { ImagePool, Kernel } from './kernel/index.ts'
import { LocalCollection } from './local-collection.ts'
import {
  createCollectionFiles,
  openCollectionFiles,
  type Recovered,
  readCollectionFiles,
  type SharedContext,
} from './recovery.ts'
import { readRoot } from './root.ts'
import { liveCountOf } from './snapshot.ts'
import { assertWritable } from './state.ts'
import { fileName } from './storage/file-names.ts'
import type { Generations } from './storage/generations.ts'
import { BlockCache } from './storage/payload-blocks.ts'
import { Reserve } from './storage/reserve.ts'
import type { RootBody } from './storage/root-manifest.ts'
import { type FileReport, isNamed, type VerifyWork, verifyCollection, verifyRoot } from './verify.ts'

/** Verified payload blocks kept in memory for all collections of a database. */
const blockCacheSize = 32 * 1024 * 1024

type OpenMs = DatabaseInfo['openMs']

/** What a database is made of once its root has been read. */
export type Opened = {
  readonly backend: StorageBackend
  readonly directory: Directory
  /** Undefined if it is only read. */
  readonly lock: Lock | undefined
  readonly kernel: Kernel
  readonly root: Generations<RootBody>
  readonly openMs: OpenMs
  readonly onEvent: ((event: DatabaseEvent) => void) | undefined
  readonly others: OtherDatabases
}

/** How this database was opened, for those that are to be made beside it. */
export type OtherDatabases = {
  backendOf(location: string | URL | StorageBackend, field: string): StorageBackend
  open(backend: StorageBackend): Promise<Database>
}

/** The database in this thread, on any backend. */
export class LocalDatabase implements DatabaseCalls {
  readonly #backend: StorageBackend
  readonly #directory: Directory
  readonly #lock: Lock | undefined
  readonly #kernel: Kernel
  readonly #pool: ImagePool
  readonly #shared: SharedContext
  #root: Generations<RootBody>
  readonly #openMs: OpenMs
  readonly #onEvent: ((event: DatabaseEvent) => void) | undefined
  readonly #others: OtherDatabases
  /** Long work on the whole database; closing ends it. */
  readonly #work = new Set<Promise<unknown>>()
  readonly #ending = new AbortController()
  readonly #cores = new Map<number, Promise<CollectionCore>>()
  #changes: Promise<unknown> = Promise.resolve()
  /** Next number for a directory, past those of attempts that failed. */
  #nextDirectory = 1
  #closing: Promise<void> | undefined

  constructor({ backend, directory, lock, kernel, root, openMs, onEvent, others }: Opened) {
    this.#others = others
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
      fate: { isReadOnly: lock === undefined },
    }
    this.#root = root
    this.#openMs = openMs
    this.#onEvent = onEvent
  }

  get location(): string {
    return this.#backend.location
  }

  createCollection(
    name: string,
    options: ResolvedCollectionOptions,
    ifExists: 'error' | 'open',
  ): Promise<CollectionCalls> {
    return this.#change(async (body) => {
      const place = placeOf(body, name)
      if (place === undefined) return this.#create(name, options, body)
      if (ifExists === 'error') {
        throw new IsovecError('COLLECTION_EXISTS', `there is a collection ${name} already`, { collection: name })
      }
      const core = await this.#coreAt(place.directory, name)
      checkAgreement(name, core.state.options, options)
      return this.#callsOf(place.directory, core)
    })
  }

  async #create(name: string, options: ResolvedCollectionOptions, body: RootBody): Promise<CollectionCalls> {
    assertWritable(this.#shared.fate)
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
    this.#tell({ type: 'collections' })
    return this.#callsOf(number, core)
  }

  #callsOf(number: number, core: CollectionCore): CollectionCalls {
    const onWrite = (): void => this.#tell({ type: 'write', collection: core.name })
    return new LocalCollection(number, core, this.#onEvent && onWrite)
  }

  openCollection(name: string, model: string | undefined): Promise<CollectionCalls> {
    return this.#change(async (body) => {
      const place = placeOf(body, name)
      if (place === undefined) throw collectionNotFound(name)
      const core = await this.#coreAt(place.directory, name)
      checkModelAgreement(name, core.state.options.model, model)
      return this.#callsOf(place.directory, core)
    })
  }

  /**
   * The collection in a numbered directory, whatever its name.
   * @throws IsovecError `CLOSED` if it was dropped
   */
  collectionAt(number: number): Promise<CollectionCalls> {
    return this.#change(async (body) => {
      const place = body.collections.find(({ directory }) => directory === number)
      if (place === undefined) throw new IsovecError('CLOSED', 'the collection was dropped')
      return this.#callsOf(number, await this.#coreAt(number, place.name))
    })
  }

  /** Names by the numbers of their directories. */
  collectionNames(): Promise<Map<number, string>> {
    return this.#change(async (body) => new Map(body.collections.map(({ directory, name }) => [directory, name])))
  }

  hasCollection(name: string): Promise<boolean> {
    return this.#change(async (body) => placeOf(body, name) !== undefined)
  }

  listCollections(): Promise<string[]> {
    return this.#change(async (body) => body.collections.map((place) => place.name).sort())
  }

  async renameCollection(from: string, to: string, replace: boolean): Promise<void> {
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
      this.#tell({ type: 'collections' })
    })
  }

  async dropCollection(name: string): Promise<void> {
    await this.#change(async (body) => {
      const place = placeOf(body, name)
      if (place === undefined) throw collectionNotFound(name)
      await this.#commit({ ...body, collections: body.collections.filter((other) => other !== place) })
      await this.#discard(place.directory)
      this.#tell({ type: 'collections' })
    })
  }

  async snapshot({ destination, isCompact, signal: given, onProgress }: SnapshotTerms): Promise<SnapshotReport> {
    const backend = this.#others.backendOf(destination, 'destination')
    return this.#longWork(given, async (signal) => {
      const started = performance.now()
      const held = await this.#holdAll()
      try {
        const docs = held.reduce((sum, { snapshot }) => sum + liveCountOf(snapshot.sources), 0)
        const compactBy = isCompact ? this.#others.open : undefined
        const bytes = await copyStore(this.#kernel, held, backend, compactBy, { signal, onProgress })
        return { collections: held.length, docs, bytes, elapsedMs: performance.now() - started }
      } catch (error) {
        const isDropped = error instanceof IsovecError && error.code === 'CLOSED' && !this.#ending.signal.aborted
        if (!isDropped) throw error
        throw new IsovecError('COLLECTION_NOT_FOUND', 'a collection was dropped while it was copied', { cause: error })
      } finally {
        for (const { snapshot } of held) snapshot.release()
      }
    })
  }

  /** All collections as of one moment. */
  #holdAll(): Promise<Held[]> {
    return this.#change(async ({ collections }) => {
      const cores: CollectionCore[] = []
      for (const { name, directory } of collections) {
        const core = await this.#coreAt(directory, name)
        // What is damaged is copied from what stands in for it.
        await core.state.prove()
        cores.push(core)
      }
      let arrived = 0
      let begin = (): void => {}
      const all = new Promise<void>((resolve) => {
        begin = resolve
      })
      const arrive = (): void => {
        if (++arrived === cores.length) begin()
      }
      return Promise.all(cores.map((core) => core.holdWith(arrive, all)))
    })
  }

  async verify({ isFull, signal: given, onProgress }: VerifyTerms): Promise<VerifyReport> {
    return this.#longWork(given, async (signal) => {
      const files: FileReport[] = []
      const isBeside = this.#lock === undefined
      const work = { isFull, isBeside, signal, add: (report: FileReport) => void files.push(report) }
      const collections = await this.#change(async (body) => {
        const found = await verifyRoot(this.#kernel, this.#directory, work)
        return isBeside && found !== undefined ? found : body.collections
      })
      for (const [done, place] of collections.entries()) {
        onProgress?.({ phase: 'verify', done, total: collections.length })
        await this.#verifyAt(place.directory, work)
      }
      onProgress?.({ phase: 'verify', done: collections.length, total: collections.length })
      return { ok: files.every(({ ok }) => ok), files }
    })
  }

  /** What an open collection needs stays for as long as this takes; one that isn't is not opened, which might mend it, nor meanwhile. */
  async #verifyAt(number: number, work: VerifyWork): Promise<void> {
    const found: FileReport[] = []
    const isHeld = (body: RootBody): boolean => body.collections.some(({ directory }) => directory === number)
    const verify = async (betweenCommits: <T>(run: () => Promise<T>) => Promise<T>): Promise<void> => {
      const prefix = `${number}/`
      const add = (report: FileReport): void => void found.push(report)
      try {
        const directory = await this.#backend.directory(number, { create: false })
        await verifyCollection(this.#shared, directory, prefix, { ...work, add }, betweenCommits)
      } catch (error) {
        if (!(error instanceof IsovecError) || error.code !== 'NOT_FOUND') throw error
        add({ file: prefix, ok: false, problem: error.message })
      }
    }
    const open = await this.#change(async (body) => {
      if (work.isBeside || !isHeld(body)) return undefined
      const opening = this.#cores.get(number)
      if (opening === undefined) return verify((run) => run())
      const { state } = await opening
      return { state, letGo: state.holdFiles() }
    })
    try {
      if (work.isBeside) await verify((run) => run())
      else if (open !== undefined) await verify((run) => open.state.betweenCommits(run))
    } finally {
      open?.letGo()
    }
    // What was dropped meanwhile is missing rightly.
    const isThere = work.isBeside ? isNamed(this.#kernel, this.#directory, number) : isHeld(this.#root.current.body)
    if (await isThere) for (const report of found) work.add(report)
  }

  /** Runs work that closing the database ends. */
  async #longWork<T>(given: AbortSignal | undefined, run: (signal: AbortSignal) => Promise<T>): Promise<T> {
    throwIfAborted(given)
    const { signal: ending } = this.#ending
    const running = run(given === undefined ? ending : AbortSignal.any([given, ending]))
    this.#work.add(running)
    try {
      return await running
    } catch (error) {
      const isEnded = ending.aborted && error instanceof IsovecError && error.code === 'ABORTED'
      throw isEnded ? new IsovecError('CLOSED', 'the database is closed', { cause: error }) : error
    } finally {
      this.#work.delete(running)
    }
  }

  async refresh(): Promise<void> {
    // Whoever holds the lock sees everything anyway.
    if (this.#lock !== undefined) return this.#change(async () => {})
    await this.#change(async () => {
      const root = await readRoot(this.#kernel, this.#directory, this.#backend)
      const named = new Map(root.current.body.collections.map(({ name, directory }) => [directory, name]))
      const read: { core: CollectionCore; name: string; recovered: Recovered }[] = []
      const gone: [number, CollectionCore][] = []
      try {
        for (const [number, opening] of this.#cores) {
          const core = await opening
          const name = named.get(number)
          if (name === undefined) gone.push([number, core])
          else read.push({ core, name, recovered: await this.#readFiles(number, name) })
        }
      } catch (error) {
        // All of them move on, or none.
        for (const { recovered } of read) await recovered.state.dispose()
        throw error
      }
      this.#root = root
      for (const [number, core] of gone) {
        this.#cores.delete(number)
        await core.close()
      }
      for (const { core, name, recovered } of read) {
        await core.refresh(recovered)
        core.name = name
      }
    })
  }

  async info(): Promise<DatabaseInfo> {
    return this.#change(async (body) => ({
      location: this.location,
      backend: this.#backend.kind,
      lock: this.#lock?.primitive ?? 'none',
      role: this.#lock === undefined ? 'reader' : 'writer',
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

  async #close(): Promise<void> {
    this.#ending.abort()
    await Promise.allSettled([...this.#work, this.#changes])
    const cores = await Promise.allSettled(this.#cores.values())
    const results = await Promise.allSettled(
      cores.map((opened) => (opened.status === 'fulfilled' ? opened.value.close() : undefined)),
    )
    this.#pool.close()
    await this.#lock?.release()
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
    assertWritable(this.#shared.fate)
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
    return new CollectionCore(name, await this.#readFiles(number, name), this.#report)
  }

  async #readFiles(number: number, name: string): Promise<Recovered> {
    try {
      const directory = await this.#backend.directory(number, { create: false })
      const isReader = this.#lock === undefined
      return await (isReader ? readCollectionFiles : openCollectionFiles)(this.#shared, directory)
    } catch (error) {
      if (!(error instanceof IsovecError) || error.code !== 'NOT_FOUND') throw error
      const { generation } = this.#root.current
      if (
        this.#lock === undefined &&
        (await readRoot(this.#kernel, this.#directory, this.#backend)).current.generation !== generation
      ) {
        throw new IsovecError(
          'STALE_READER',
          `the collection ${name} was dropped; refresh() moves to the present state`,
          {
            collection: name,
            cause: error,
          },
        )
      }
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
    this.#tell({ type: 'background-error', collection, error })
  }

  #tell(event: DatabaseEvent): void {
    try {
      this.#onEvent?.(event)
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
