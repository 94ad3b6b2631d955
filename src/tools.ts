/**
 * Tools for whole databases: a snapshot made a database again, two databases made one.
 */
import { createTarDecoder, type ParsedTarEntry } from 'modern-tar'
import type {
  Collection,
  CollectionOptions,
  Database,
  MergeReport,
  OpenOptions,
  RestoreOptions,
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
import { type Kernel, loadKernel } from './kernel/index.ts'
import type { WorkOptions } from './maintenance.ts'
import { backendOf, open, type PlatformBackend } from './open.ts'
import { checkCallback, checkOptions, checkSignal, checkWhole, invalid } from './options.ts'
import { sweepRoot } from './root.ts'
import { collectionFormat, filesOf } from './storage/collection-manifest.ts'
import { writeFile } from './storage/copy-file.ts'
import { parseFileName } from './storage/file-names.ts'
import { Generations } from './storage/generations.ts'
import { rootFormat } from './storage/root-manifest.ts'

type Place = string | URL | StorageBackend

/** What a tool works with. */
export type Tool = {
  readonly work: WorkOptions
  readonly kernel: Kernel
  open(place: StorageBackend, options: OpenOptions): Promise<Database>
}

/** Checks the options that all tools take, and gets ready for them. */
export async function prepareTool(
  options: ToolOptions | undefined,
  platformBackend: PlatformBackend,
  furtherKeys: readonly string[] = [],
): Promise<Tool> {
  const { wasm } = checkOptions(options, ['signal', 'onProgress', 'wasm', 'worker', ...furtherKeys])
  const signal = checkSignal(options?.signal)
  const onProgress = checkCallback(options?.onProgress, 'options.onProgress')
  throwIfAborted(signal)
  const given = wasm === undefined ? {} : { wasm }
  return {
    work: { signal, onProgress },
    kernel: await loadKernel(given),
    open: (place, rest) => open(place, { ...rest, ...given }, platformBackend),
  }
}

/** See `restore` in index.ts. */
export async function restore(
  source: Place | ReadableStream<Uint8Array>,
  destination: Place,
  options: RestoreOptions | undefined,
  platformBackend: PlatformBackend,
): Promise<SnapshotReport> {
  const whole = Number.MAX_SAFE_INTEGER
  const maxBytes = checkWhole(options?.maxBytes, whole, 0, whole, 'options.maxBytes')
  const target = backendOf(destination, platformBackend, 'destination')
  const from = source instanceof ReadableStream ? undefined : backendOf(source, platformBackend, 'source')
  const tool = await prepareTool(options, platformBackend, ['maxBytes'])
  if (source instanceof ReadableStream) {
    if (source.locked) throw invalid('source', 'is a stream that somebody else reads')
    try {
      return await restoreArchive(source, target, tool, maxBytes)
    } catch (error) {
      // Whoever sends it is not to wait for ever.
      await source.cancel(error).catch(() => {})
      throw error
    }
  }
  const database = await tool.open(from!, { readOnly: true })
  try {
    return await database.snapshot(target, optionsOf(tool.work))
  } finally {
    await database.close()
  }
}

async function restoreArchive(
  archive: ReadableStream<Uint8Array>,
  target: StorageBackend,
  { kernel, work, open }: Tool,
  maxBytes: number,
): Promise<SnapshotReport> {
  const started = performance.now()
  return createStore(target, async ({ root, backend }) => {
    const manifests = await unpack(archive, backend, work, maxBytes)
    if (manifests.length === 0) throw new IsovecError('CORRUPTION', 'the archive holds no database')
    // The root last: without it, what was cut short is no database.
    for (const [name, content] of manifests) await writeOnce(root, name, (file) => file.append(content))
    const bytes = await prune(kernel, root, backend)
    const database = await open(backend, { readOnly: true })
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

/** Removes what no manifest names. Returns the bytes of what stays. */
async function prune(kernel: Kernel, root: Directory, backend: StorageBackend): Promise<number> {
  const generations = await Generations.load(kernel, root, rootFormat)
  if (generations !== undefined) await sweepRoot(generations, root, backend)
  let size = await sizeOf(root)
  for (const number of await backend.directories()) {
    const directory = await backend.directory(number, { create: false })
    const bodies = (await Generations.load(kernel, directory, collectionFormat))?.kept.map(({ body }) => body) ?? []
    const named = new Set(bodies.flatMap(filesOf))
    const firstWal = Math.min(...bodies.map((body) => body.firstWal))
    for (const name of await directory.list()) {
      const file = parseFileName(name)
      if (file?.kind === 'manifest' || (file?.kind === 'wal' && file.number >= firstWal) || named.has(name)) continue
      await directory.remove(name)
    }
    size += await sizeOf(directory)
  }
  return size
}

async function sizeOf(directory: Directory): Promise<number> {
  let size = 0
  for (const name of await directory.list()) {
    const file = await directory.open(name)
    size += file.size
    await file.close()
  }
  return size
}

/** Writes the files of an archive, but for root manifests, which it gives back. */
async function unpack(
  archive: ReadableStream<Uint8Array>,
  backend: StorageBackend,
  { signal, onProgress }: WorkOptions,
  maxBytes: number,
): Promise<[name: string, bytes: Uint8Array][]> {
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
        // Read to its end: the decoder takes the cancelling of a body that it has whole for that of the next one, and waits for ever.
        await body.pipeTo(new WritableStream())
        continue
      }
      // The size that is declared is that of the body.
      if (total + header.size > maxBytes) {
        throw new IsovecError('QUOTA_EXCEEDED', `the archive holds more than ${maxBytes} bytes`, { file: header.name })
      }
      const pieces = body.getReader()
      const onPiece = (size: number): void => {
        throwIfAborted(signal)
        total += size
        onProgress?.({ phase: 'unpack', done: total, total })
      }
      await target.take(file, pieces, onPiece)
    }
    return await target.end()
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
    await writeOnce(directory, file.name, fill)
  }
}

/** Writes a file of an archive. @throws IsovecError `CORRUPTION` if the archive held it before */
async function writeOnce(
  directory: Directory,
  name: string,
  fill: (file: WritableFile) => Promise<unknown>,
): Promise<void> {
  try {
    await writeFile(directory, name, fill)
  } catch (error) {
    if (!isFileExists(error)) throw error
    throw new IsovecError('CORRUPTION', `the archive holds ${name} twice`, { file: name, cause: error })
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
  const places = [backendOf(base, platformBackend, 'base'), backendOf(other, platformBackend, 'other')] as const
  const target = backendOf(destination, platformBackend, 'destination')
  const { kernel, work, open } = await prepareTool(options, platformBackend)
  const sources: Database[] = []
  try {
    for (const place of places) sources.push(await open(place, { readOnly: true }))
    const plans = await planMerge(sources as [Database, Database])
    return await createStore(target, async ({ root, backend }) => {
      await createRoot(kernel, root, { nextDirectory: 1, collections: [] })
      return fillMerged(plans, () => open(backend, { mustExist: true }), work)
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
  work: WorkOptions,
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
  { signal, onProgress }: WorkOptions,
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

function optionsOf({ signal, onProgress }: WorkOptions): ToolOptions {
  return { signal, ...(onProgress === undefined ? {} : { onProgress }) }
}
