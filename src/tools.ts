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
import { compactStore, createRoot, createStore } from './copy.ts'
import type { Directory, StorageBackend } from './directory/directory.ts'
import { IsovecError, throwIfAborted } from './errors.ts'
import { loadKernel } from './kernel/index.ts'
import { backendOf, open, type PlatformBackend } from './open.ts'
import { checkCallback, checkOptions, checkSignal } from './options.ts'
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
  if (source instanceof ReadableStream) return restoreArchive(source, target, work, platformBackend)
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

/** Largest manifest that is kept in memory until all else is there. */
const manifestSizeMax = 1024 * 1024

/** Writes the files of an archive, but for root manifests. Returns their bytes. */
async function unpack(
  archive: ReadableStream<Uint8Array>,
  backend: StorageBackend,
  manifests: [name: string, bytes: Uint8Array][],
  { signal, onProgress }: Work,
): Promise<number> {
  const directories = new Map<number, Directory>()
  let total = 0
  const entries = (await plain(archive)).pipeThrough(createTarDecoder({ strict: true }) as TransformStream, {
    ...(signal === undefined ? {} : { signal }),
  }) as ReadableStream<ParsedTarEntry>
  const reader = entries.getReader()
  try {
    for (let step = await reader.read(); !step.done; step = await reader.read()) {
      throwIfAborted(signal)
      const { header, body } = step.value
      const place = header.type === 'file' || header.type === undefined ? placeOf(header.name) : undefined
      if (place === undefined) {
        await body.cancel()
        continue
      }
      const { number, name } = place
      if (number === undefined) {
        if (header.size > manifestSizeMax) throw new IsovecError('CORRUPTION', `${name} is no manifest`, { file: name })
        manifests.push([name, new Uint8Array(await new Response(body).arrayBuffer())])
        continue
      }
      const directory = directories.get(number) ?? (await backend.directory(number, { create: true }))
      directories.set(number, directory)
      await writeFile(directory, name, async (file) => {
        const pieces = body.getReader()
        for (let piece = await pieces.read(); !piece.done; piece = await pieces.read()) {
          throwIfAborted(signal)
          await file.append(piece.value)
          total += piece.value.length
          onProgress?.({ phase: 'unpack', done: total, total })
        }
      })
    }
  } catch (error) {
    await reader.cancel(error).catch(() => {})
    throwIfAborted(signal)
    if (error instanceof IsovecError) throw error
    throw new IsovecError('CORRUPTION', 'the archive cannot be read', { cause: error })
  }
  return total
}

/** An archive without the compression that it may have. */
async function plain(archive: ReadableStream<Uint8Array>): Promise<ReadableStream<Uint8Array>> {
  const reader = archive.getReader()
  const first = await reader.read()
  const all = new ReadableStream<Uint8Array>({
    start(controller) {
      if (first.value !== undefined) controller.enqueue(first.value)
    },
    async pull(controller) {
      const { done, value } = await reader.read()
      if (done) controller.close()
      else controller.enqueue(value)
    },
    cancel: (reason) => reader.cancel(reason),
  })
  const isGzip = first.value?.[0] === 0x1f && first.value[1] === 0x8b
  return isGzip ? all.pipeThrough(new DecompressionStream('gzip') as TransformStream<Uint8Array, Uint8Array>) : all
}

/** Where a path of an archive belongs; undefined for what is no file of a database. Folders above the database may be named. */
function placeOf(path: string): { number: number | undefined; name: string } | undefined {
  const parts = path.split('/')
  const name = parts.pop() ?? ''
  const file = parseFileName(name)
  if (file === undefined || file.kind === 'reserve') return undefined
  const folder = parts.pop() ?? ''
  const number = /^[1-9]\d{0,14}$/.test(folder) ? Number(folder) : undefined
  if (number === undefined && file.kind !== 'manifest') return undefined
  return { number, name }
}

async function writeFile(
  directory: Directory,
  name: string,
  fill: (file: Awaited<ReturnType<Directory['create']>>) => Promise<unknown>,
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
