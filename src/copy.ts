/**
 * Copying collections, as of a moment, into another store: what `Database.snapshot` writes.
 *
 * Segments and graphs are copied byte for byte and read back, so that what arrives is what their checksums say; what lies over
 * segments and in memtables is written anew. Manifests come last: until then the store holds no database.
 */
import type { Database } from './api.ts'
import type { Held } from './core.ts'
import type { Directory, Lock, StorageBackend } from './directory/directory.ts'
import { IsovecError, throwIfAborted } from './errors.ts'
import type { Kernel } from './kernel/index.ts'
import type { WorkOptions } from './maintenance.ts'
import { invalid } from './options.ts'
import { Slice } from './slice.ts'
import type { Snapshot } from './snapshot.ts'
import type { CollectionState } from './state.ts'
import { type CollectionBody, collectionFormat, type SegmentState } from './storage/collection-manifest.ts'
import { rowsVisibleAt } from './storage/copied-rows.ts'
import { copyFile } from './storage/copy-file.ts'
import { fileName, parseFileName } from './storage/file-names.ts'
import { Generations } from './storage/generations.ts'
import { verifyGraph } from './storage/graph-file.ts'
import { Memtable } from './storage/memtable.ts'
import { writePatches } from './storage/overlay.ts'
import { type CollectionPlace, type RootBody, rootFormat } from './storage/root-manifest.ts'
import { Segment, type StorageContext } from './storage/segment.ts'
import { type RowRun, writeSegment } from './storage/segment-writer.ts'
import { Tombstones, writeTombstones } from './storage/tombstones.ts'
import { WalWriter } from './storage/wal.ts'

type CopyOptions = {
  readonly signal: AbortSignal | undefined
  /** Is told how many bytes more were copied. */
  readonly onBytes: (count: number) => void
}

/**
 * Copies collections into an empty store.
 * @param compactBy opens the copy, for it to be compacted; undefined to leave it as it is
 * @returns bytes of segments and graphs
 * @throws IsovecError `INVALID_ARGUMENT` if the store isn't empty, `LOCKED`, and as {@link copyCollection}
 */
export function copyStore(
  kernel: Kernel,
  held: readonly Held[],
  backend: StorageBackend,
  compactBy: ((backend: StorageBackend) => Promise<Database>) | undefined,
  { signal, onProgress }: WorkOptions,
): Promise<number> {
  const total = held.reduce((sum, each) => sum + sizeOf(each), 0)
  let done = 0
  const onBytes = (count: number): void => {
    done += count
    onProgress?.({ phase: 'copy', done, total })
  }
  return createStore(backend, async ({ root, backend: store }) => {
    const collections: CollectionPlace[] = []
    for (const each of held) {
      const number = collections.length + 1
      await copyCollection(each, await store.directory(number, { create: true }), { signal, onBytes })
      collections.push({ name: each.name, directory: number })
    }
    await createRoot(kernel, root, { nextDirectory: collections.length + 1, collections })
    return compactBy === undefined ? done : await compactStore(await compactBy(store), { signal, onProgress })
  })
}

/**
 * Compacts every collection of a database that was just made, lets go of what came before, and closes it.
 * @returns bytes of all files
 */
export async function compactStore(database: Database, { signal, onProgress }: WorkOptions): Promise<number> {
  try {
    let bytes = 0
    for (const name of await database.listCollections()) {
      const collection = await database.openCollection(name)
      await collection.compact({ signal, ...(onProgress === undefined ? {} : { onProgress }) })
      // Two more generations, so that neither of those that are kept names what was merged.
      await collection.configure({})
      bytes += (await collection.stats()).bytes
    }
    return bytes
  } finally {
    await database.close()
  }
}

/**
 * Removes what was made in a store that holds no whole database, the lock's file too. What can't be removed is told by the failure that is
 * on its way.
 */
async function emptyStore(
  backend: StorageBackend,
  root: Directory,
  made: ReadonlySet<number>,
  lock: Lock,
): Promise<void> {
  for (const name of await root.list().catch(() => [])) {
    if (parseFileName(name) !== undefined) await root.remove(name).catch(() => {})
  }
  for (const number of made) await backend.removeDirectory(number).catch(() => {})
  await lock.forget?.().catch(() => {})
}

/** Bytes that copying a collection will at least write. */
function sizeOf({ snapshot }: Held): number {
  let size = 0
  for (const source of snapshot.sources) {
    if (source instanceof Segment) size += source.file.length + (source.graphFile?.length ?? 0)
  }
  return size
}

/** An empty store that is being filled. */
export type NewStore = {
  readonly root: Directory
  /** The store itself; whoever asks for its lock is lent the one that is held. */
  readonly backend: StorageBackend
}

/**
 * Makes a database in an empty store: takes its lock and lets `fill` write whatever belongs in it. If anything fails, all that was written
 * goes again before the lock is given back.
 * @throws IsovecError `INVALID_ARGUMENT` if the store isn't empty, `LOCKED`, and what `fill` throws
 */
export async function createStore<T>(backend: StorageBackend, fill: (store: NewStore) => Promise<T>): Promise<T> {
  const root = await backend.open({ create: true })
  const lock = await backend.lock({ timeout: 0 })
  try {
    const names = await root.list()
    if (names.length > 0 || (await backend.directories()).length > 0) {
      // The lock's file of a database that is there already belongs to it.
      if (!names.some(parseFileName)) await lock.forget?.().catch(() => {})
      throw invalid('destination', `${backend.location} is not empty`)
    }
    const made = new Set<number>()
    try {
      return await fill({ root, backend: lending(backend, lock, made) })
    } catch (error) {
      // What lacks its end is of no use.
      await emptyStore(backend, root, made, lock)
      throw error
    }
  } finally {
    await lock.release()
  }
}

/** @param made is told the numbers of directories that are made */
function lending(backend: StorageBackend, { primitive }: Lock, made: Set<number>): StorageBackend {
  return {
    kind: backend.kind,
    location: backend.location,
    exists: () => backend.exists(),
    open: (options) => backend.open(options),
    directories: () => backend.directories(),
    directory: (number, options) => {
      if (options.create) made.add(number)
      return backend.directory(number, options)
    },
    removeDirectory: (number) => backend.removeDirectory(number),
    lock: async () => ({ primitive, release: async () => {} }),
  }
}

/** Writes the first two root manifests. */
export async function createRoot(kernel: Kernel, root: Directory, body: RootBody): Promise<void> {
  await Generations.create(kernel, root, rootFormat, crypto.getRandomValues(new Uint8Array(16)), body)
}

/**
 * Writes a collection into an empty directory.
 * @throws IsovecError `CORRUPTION` if something in it is damaged, `STALE_READER`, `ABORTED`, `QUOTA_EXCEEDED`, `IO`
 */
async function copyCollection(
  { state, body: { options, isIndexDropped }, snapshot }: Held,
  directory: Directory,
  { signal, onBytes }: CopyOptions,
): Promise<void> {
  const { kernel, uuid } = state.context
  const target: StorageContext = { ...state.context, directory }
  const slice = new Slice({ signal })
  let nextFile = Math.max(1, ...snapshot.sources.map((source) => (source instanceof Segment ? lastFileOf(source) : 0)))
  const takeFileNumber = (): number => ++nextFile
  const segments: SegmentState[] = []
  for (const source of snapshot.sources) {
    throwIfAborted(signal)
    if (source instanceof Segment) {
      segments.push(await copySegment(source, state, target, snapshot.sequence, takeFileNumber, { signal, onBytes }))
    }
  }
  const fresh = await writeMemtables(snapshot, options.quantization, target, takeFileNumber, slice)
  if (fresh !== undefined) segments.push(fresh)
  const firstWal = takeFileNumber()
  const wal = await WalWriter.create(kernel, directory, firstWal, uuid, snapshot.sequence, undefined)
  try {
    await wal.end()
  } finally {
    await wal.abandon()
  }
  const body: CollectionBody = {
    options,
    nextFile: Math.max(nextFile, ...segments.map(({ graph }) => graph?.number ?? 0)) + 1,
    firstWal,
    lastSequence: snapshot.sequence,
    isIndexDropped,
    segments,
  }
  await Generations.create(kernel, directory, collectionFormat, uuid, body)
}

/** The highest number among the files of a segment that are copied under their own. */
function lastFileOf({ number, graphFile }: Segment): number {
  return Math.max(number, graphFile?.number ?? 0)
}

async function copySegment(
  source: Segment,
  state: CollectionState,
  target: StorageContext,
  sequence: number,
  takeFileNumber: () => number,
  { signal, onBytes }: CopyOptions,
): Promise<SegmentState> {
  const { kernel, directory, uuid } = target
  await source.copyTo(directory, signal, onBytes)
  const copy = await Segment.open(target, source.file, new Tombstones())
  try {
    await copy.verify(signal)
  } finally {
    copy.release()
    await copy.closeFile()
  }
  let copied: SegmentState = { file: source.file }
  if (source.tombstones.countUpTo(sequence) > 0) {
    const number = takeFileNumber()
    const { tombstones: dead } = source
    const tombstones = await writeTombstones(kernel, directory, number, uuid, source.number, dead, sequence)
    copied = { ...copied, tombstones }
  }
  const rows = await source.overlay.versionsAt(sequence, new Slice({ signal }))
  if (rows.length > 0) {
    copied = { ...copied, patches: await writePatches(kernel, directory, takeFileNumber(), uuid, source.number, rows) }
  }
  return copyGraph(copied, source, state, target, { signal, onBytes })
}

/** What a graph may fail with that is damaged, lost, or was taken away by a writer elsewhere. */
const graphLosses = new Set(['CORRUPTION', 'NOT_FOUND', 'STALE_READER'])

/** Takes the graph along, whichever the segment has when its turn comes: another may be built meanwhile. */
async function copyGraph(
  copied: SegmentState,
  source: Segment,
  { context }: CollectionState,
  target: StorageContext,
  { signal, onBytes }: CopyOptions,
): Promise<SegmentState> {
  for (let graph = source.graphFile; graph !== undefined; ) {
    const name = fileName(graph.number, 'graph')
    try {
      await copyFile(await context.directory.open(name), target.directory, name, signal, onBytes)
      await verifyGraph(target, graph, source.file)
      return { ...copied, graph }
    } catch (error) {
      const isReplaced = source.graphFile !== graph
      if (!isReplaced && !(error instanceof IsovecError && graphLosses.has(error.code))) throw error
      await target.directory.remove(name)
      // A copy can do without: it is built again.
      if (!isReplaced) return copied
      graph = source.graphFile
    }
  }
  return copied
}

/** Makes one segment of what no segment holds; undefined if that is nothing. */
async function writeMemtables(
  { sources, sequence }: Snapshot,
  quantization: CollectionBody['options']['quantization'],
  target: StorageContext,
  takeFileNumber: () => number,
  slice: Slice,
): Promise<SegmentState | undefined> {
  const runs: RowRun[] = []
  for (const source of sources) {
    if (!(source instanceof Memtable)) continue
    const rows = await rowsVisibleAt(source, sequence, slice)
    if (rows.length > 0) runs.push({ source, rows, sequence })
  }
  if (runs.length === 0) return undefined
  const segment = await writeSegment(target, takeFileNumber(), runs, quantization, slice)
  segment.release()
  await segment.closeFile()
  return { file: segment.file }
}
