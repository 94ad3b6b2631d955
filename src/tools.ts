/**
 * Tools for whole databases: a snapshot made a database again, two databases made one.
 */
import { createTarDecoder, type ParsedTarEntry } from 'modern-tar'
import type {
  Collection,
  CollectionOptions,
  Database,
  MergeReport,
  Progress,
  SnapshotReport,
  ToolOptions,
} from './api.ts'
import { concatenate } from './codec/bytes.ts'
import { compactStore, createRoot, createStore } from './copy.ts'
import {
  type Directory,
  directoryNumberOf,
  isFileExists,
  type StorageBackend,
  type WritableFile,
} from './directory/directory.ts'
import { abortable, IsovecError, throwIfAborted } from './errors.ts'
import { loadKernel } from './kernel/index.ts'
import { backendOf, open, type PlatformBackend } from './open.ts'
import { checkCallback, checkOptions, checkSignal, invalid } from './options.ts'
import { parseFileName } from './storage/file-names.ts'
import { syncFile } from './storage/sync-file.ts'

type Place = string | URL | StorageBackend
type Work = {
  readonly signal: AbortSignal | undefined
  readonly onProgress: ((progress: Progress) => void) | undefined
}

/** Checks the options that all tools take. */
export function checkTool(options: ToolOptions | undefined): Work {
  checkOptions(options, ['signal', 'onProgress'])
  const signal = checkSignal(options?.signal)
  throwIfAborted(signal)
  return { signal, onProgress: checkCallback(options?.onProgress, 'options.onProgress') }
}

/** See `restore` in index.ts. */
export async function restore(
  source: Place | ReadableStream<Uint8Array>,
  destination: Place,
  options: ToolOptions | undefined,
  platformBackend: PlatformBackend,
): Promise<SnapshotReport> {
  const work = checkTool(options)
  const target = backendOf(destination, platformBackend, 'destination')
  if (source instanceof ReadableStream) {
    if (source.locked) throw invalid('source', 'is a stream that somebody else reads')
    try {
      return await restoreArchive(source, target, work, platformBackend)
    } catch (error) {
      // Whoever sends it is not to wait for ever.
      await source.cancel(error).catch(() => {})
      throw error
    }
  }
  const database = await open(backendOf(source, platformBackend, 'source'), { readOnly: true }, platformBackend)
  try {
    return await database.snapshot(target, optionsOf(work))
  } finally {
    await database.close()
  }
}

async function restoreArchive(
  archive: ReadableStream<Uint8Array>,
  target: StorageBackend,
  work: Work,
  platformBackend: PlatformBackend,
): Promise<SnapshotReport> {
  const started = performance.now()
  return createStore(target, async ({ root, backend }) => {
    const manifests: [name: string, bytes: Uint8Array][] = []
    const bytes = await unpack(archive, backend, manifests, work)
    if (manifests.length === 0) throw new IsovecError('CORRUPTION', 'the archive holds no database')
    // The root last: without it, what was cut short is no database.
    for (const [name, content] of manifests) await writeFile(root, name, (file) => file.append(content))
    const database = await open(backend, { readOnly: true }, platformBackend)
    try {
      const { ok, files } = await database.verify({ full: true, ...optionsOf(work) })
      const bad = files.find((file) => !file.ok)
      if (!ok) {
        throw new IsovecError(
          'CORRUPTION',
          `${bad?.file}: ${bad?.problem}`,
          bad === undefined ? {} : { file: bad.file },
        )
      }
      let docs = 0
      const names = await database.listCollections()
      for (const name of names) docs += await (await database.openCollection(name)).count()
      return { collections: names.length, docs, bytes, elapsedMs: performance.now() - started }
    } finally {
      await database.close()
    }
  })
}

/** Bytes of manifests that are kept in memory until it is known where they belong. */
const manifestsSizeMax = 64 * 1024 * 1024

/** Writes the files of an archive, but for root manifests. Returns their bytes. */
async function unpack(
  archive: ReadableStream<Uint8Array>,
  backend: StorageBackend,
  manifests: [name: string, bytes: Uint8Array][],
  { signal, onProgress }: Work,
): Promise<number> {
  const source = new ArchiveSource(archive, signal)
  const target = new ArchiveTarget(backend)
  let total = 0
  try {
    const decoder = createTarDecoder({ strict: true }) as unknown as TransformStream<Uint8Array, ParsedTarEntry>
    const reader = (await source.plain()).pipeThrough(decoder).getReader()
    for (let step = await reader.read(); !step.done; step = await reader.read()) {
      throwIfAborted(signal)
      const { header, body } = step.value
      const file = header.type === 'file' || header.type === undefined ? archivedFile(header.name) : undefined
      if (file === undefined) {
        await body.cancel()
        continue
      }
      const pieces = body.getReader()
      const onPiece = (size: number): void => {
        throwIfAborted(signal)
        total += size
        onProgress?.({ phase: 'unpack', done: total, total })
      }
      await target.take(file, pieces, onPiece)
    }
    manifests.push(...(await target.end()))
    return total
  } catch (error) {
    throwIfAborted(signal)
    if (error instanceof IsovecError) throw error
    if (source.failure !== undefined)
      throw new IsovecError('IO', 'the archive broke off', { cause: source.failure.cause })
    throw new IsovecError('CORRUPTION', 'the archive cannot be read', { cause: error })
  }
}

/** The bytes of an archive as they come, until the signal fires. */
class ArchiveSource {
  /** What the stream failed with, if it did. */
  failure: { readonly cause: unknown } | undefined
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>
  readonly #signal: AbortSignal | undefined

  constructor(archive: ReadableStream<Uint8Array>, signal: AbortSignal | undefined) {
    this.#reader = archive.getReader()
    this.#signal = signal
  }

  /** The archive without the compression that it may have. */
  async plain(): Promise<ReadableStream<Uint8Array>> {
    let first: Uint8Array | undefined = await this.#next()
    const isGzip = first?.[0] === 0x1f && first[1] === 0x8b
    const all = new ReadableStream<Uint8Array>({
      pull: async (controller) => {
        const piece = first ?? (await this.#next())
        first = undefined
        if (piece === undefined) controller.close()
        else controller.enqueue(piece)
      },
      cancel: (reason) => this.#reader.cancel(reason),
    })
    return isGzip
      ? all.pipeThrough(new DecompressionStream('gzip') as unknown as TransformStream<Uint8Array, Uint8Array>)
      : all
  }

  async #next(): Promise<Uint8Array | undefined> {
    let step: ReadableStreamReadResult<Uint8Array>
    try {
      do step = await abortable(this.#reader.read(), this.#signal)
      while (!step.done && step.value.length === 0)
    } catch (cause) {
      await this.#reader.cancel(cause).catch(() => {})
      if (!this.#signal?.aborted) this.failure = { cause }
      throw cause
    }
    return step.done ? undefined : step.value
  }
}

/** A file of a database in an archive. */
type ArchivedFile = { readonly folders: readonly string[]; readonly name: string; readonly isManifest: boolean }

/** What a path in an archive stands for; undefined for what is no file of a database. */
function archivedFile(path: string): ArchivedFile | undefined {
  const folders = path.split('/').filter((part) => part !== '' && part !== '.')
  const name = folders.pop() ?? ''
  const file = parseFileName(name)
  if (file === undefined || file.kind === 'reserve') return undefined
  return { folders, name, isManifest: file.kind === 'manifest' }
}

/**
 * Where the files of an archive go. Folders above the database may be named in it, and have any name: where the database begins is seen
 * by files that lie in collections alone. Until then, and since the root must come last, manifests wait.
 */
class ArchiveTarget {
  readonly #backend: StorageBackend
  readonly #directories = new Map<number, Directory>()
  readonly #manifests: { readonly file: ArchivedFile; readonly bytes: Uint8Array }[] = []
  #manifestsSize = 0
  /** The folders above the database. */
  #above: string | undefined

  constructor(backend: StorageBackend) {
    this.#backend = backend
  }

  async take(
    file: ArchivedFile,
    pieces: ReadableStreamDefaultReader<Uint8Array>,
    onPiece: (size: number) => void,
  ): Promise<void> {
    if (!file.isManifest) {
      await this.#write(file, async (target) => {
        for (let piece = await pieces.read(); !piece.done; piece = await pieces.read()) {
          await target.append(piece.value)
          onPiece(piece.value.length)
        }
      })
      return
    }
    const parts: Uint8Array[] = []
    for (let piece = await pieces.read(); !piece.done; piece = await pieces.read()) {
      this.#manifestsSize += piece.value.length
      if (this.#manifestsSize > manifestsSizeMax)
        throw new IsovecError('CORRUPTION', 'the archive is full of manifests')
      parts.push(piece.value)
      onPiece(piece.value.length)
    }
    this.#manifests.push({ file, bytes: concatenate(parts) })
  }

  /** Writes the manifests of collections and gives back those of the root. */
  async end(): Promise<[name: string, bytes: Uint8Array][]> {
    const depth = Math.min(...this.#manifests.map(({ file }) => file.folders.length))
    const above =
      this.#above ?? this.#manifests.find(({ file }) => file.folders.length === depth)?.file.folders.join('/')
    this.#above = above
    const root: [name: string, bytes: Uint8Array][] = []
    for (const { file, bytes } of this.#manifests) {
      if (file.folders.join('/') === above) root.push([file.name, bytes])
      else await this.#write(file, (target) => target.append(bytes))
    }
    return root
  }

  async #write(file: ArchivedFile, fill: (target: WritableFile) => Promise<unknown>): Promise<void> {
    const folders = [...file.folders]
    const number = directoryNumberOf(folders.pop() ?? '')
    const above = folders.join('/')
    this.#above ??= above
    if (number === undefined || above !== this.#above) {
      throw new IsovecError('CORRUPTION', 'the archive holds more than one database', { file: file.name })
    }
    const directory = this.#directories.get(number) ?? (await this.#backend.directory(number, { create: true }))
    this.#directories.set(number, directory)
    try {
      await writeFile(directory, file.name, fill)
    } catch (error) {
      if (!isFileExists(error)) throw error
      throw new IsovecError('CORRUPTION', `the archive holds ${file.name} twice`, { file: file.name, cause: error })
    }
  }
}

async function writeFile(
  directory: Directory,
  name: string,
  fill: (file: WritableFile) => Promise<unknown>,
): Promise<void> {
  const file = await directory.create(name)
  try {
    await fill(file)
    await syncFile(file)
  } finally {
    await file.close()
  }
}

/** See `mergeDatabases` in index.ts. */
export async function mergeDatabases(
  base: Place,
  other: Place,
  destination: Place,
  options: ToolOptions | undefined,
  platformBackend: PlatformBackend,
): Promise<MergeReport> {
  const work = checkTool(options)
  const places = [backendOf(base, platformBackend, 'base'), backendOf(other, platformBackend, 'other')] as const
  const target = backendOf(destination, platformBackend, 'destination')
  const sources: Database[] = []
  try {
    for (const place of places) sources.push(await open(place, { readOnly: true }, platformBackend))
    const plans = await planMerge(sources as [Database, Database])
    const kernel = await loadKernel()
    return await createStore(target, async ({ root, backend }) => {
      await createRoot(kernel, root, { nextDirectory: 1, collections: [] })
      return fillMerged(plans, () => open(backend, { mustExist: true }, platformBackend), work)
    })
  } finally {
    for (const source of sources) await source.close()
  }
}

type MergePlan = { readonly name: string; readonly parts: readonly Collection[] }

/** What goes into each collection, the part that wins last. Parts that don't fit together are refused before anything is written. */
async function planMerge(sources: readonly [Database, Database]): Promise<MergePlan[]> {
  const parts = new Map<string, Collection[]>()
  for (const source of sources) {
    for (const name of await source.listCollections()) {
      parts.set(name, [...(parts.get(name) ?? []), await source.openCollection(name)])
    }
  }
  const plans = [...parts].map(([name, collections]) => ({ name, parts: collections }))
  for (const { name, parts } of plans) {
    const [first, second] = parts
    if (second !== undefined) checkAlike(name, first!, second)
  }
  return plans
}

function checkAlike(collection: string, { options: one }: Collection, { options: two }: Collection): void {
  const differ = (
    code: 'WRONG_DIMENSION' | 'INVALID_ARGUMENT' | 'MODEL_MISMATCH',
    field: 'dimension' | 'metric' | 'model',
  ) => {
    const [expected, actual] = [one[field], two[field]]
    if (expected === actual || expected === undefined || actual === undefined) return
    throw new IsovecError(
      code,
      `the collection ${collection} has the ${field} ${expected} in one database and ${actual} in the other`,
      {
        collection,
        field,
        expected,
        actual,
      },
    )
  }
  differ('WRONG_DIMENSION', 'dimension')
  differ('INVALID_ARGUMENT', 'metric')
  differ('MODEL_MISMATCH', 'model')
}

async function fillMerged(
  plans: readonly MergePlan[],
  openTarget: () => Promise<Database>,
  work: Work,
): Promise<MergeReport> {
  const started = performance.now()
  const database = await openTarget()
  let docs = 0
  let replaced = 0
  try {
    for (const { name, parts } of plans) {
      const merged = await mergeParts(database, name, parts, work)
      docs += merged.docs
      replaced += merged.replaced
    }
  } finally {
    await database.close()
  }
  await compactStore(await openTarget(), work)
  return { collections: plans.length, docs, replaced, elapsedMs: performance.now() - started }
}

async function mergeParts(
  database: Database,
  name: string,
  parts: readonly Collection[],
  { signal, onProgress }: Work,
): Promise<{ docs: number; replaced: number }> {
  const [first, second] = parts
  const model = first!.options.model ?? second?.options.model
  const options: CollectionOptions = {
    ...first!.options,
    vectors: 'memory',
    ...(model === undefined ? {} : { model }),
    // What is cut short is thrown away, so that nothing of it needs to be synced or built before the end.
    durability: 'buffered',
    compaction: 'manual',
    index: 'manual',
  }
  const merged = await database.createCollection(name, options)
  let replaced = 0
  const total = (await first!.count({}, { signal })) + ((await second?.count({}, { signal })) ?? 0)
  let before = 0
  for (const part of parts) {
    const stored = await merged.count()
    const { count } = await merged.ingest(documentsOf(part, signal), {
      signal,
      onProgress: ({ count }) => onProgress?.({ phase: 'merge', done: before + count, total }),
    })
    replaced += stored + count - (await merged.count())
    before += count
  }
  const { durability, compaction, index } = first!.options
  await merged.configure({ durability, compaction, index })
  await merged.flush()
  return { docs: await merged.count(), replaced }
}

async function* documentsOf(collection: Collection, signal: AbortSignal | undefined) {
  for await (const { id, vector, payload } of collection.iterate({ signal })) {
    yield { id, vector: vector!, ...(payload === undefined ? {} : { payload }) }
  }
}

function optionsOf({ signal, onProgress }: Work): ToolOptions {
  return { signal, ...(onProgress === undefined ? {} : { onProgress }) }
}
