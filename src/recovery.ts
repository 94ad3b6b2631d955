/**
 * Making and opening a collection: from the files on disk to a state that is as if the process had never ended.
 */
import type { Directory } from './directory/directory.ts'
import { IsovecError } from './errors.ts'
import { Slice } from './slice.ts'
import { CollectionState, type Fate, hashSeedOf, type Spare } from './state.ts'
import { applyAgain, locateMoved } from './storage/apply.ts'
import { decodeBatch, type Operation } from './storage/batch.ts'
import {
  type CollectionBody,
  collectionFormat,
  filesOf,
  type ResolvedCollectionOptions,
} from './storage/collection-manifest.ts'
import { fileName, parseFileName } from './storage/file-names.ts'
import { Generations } from './storage/generations.ts'
import { idKey } from './storage/id-table.ts'
import { Memtable } from './storage/memtable.ts'
import { Overlay, readPatches } from './storage/overlay.ts'
import { ReaderDirectory, retryWhileStale } from './storage/reader-directory.ts'
import { isFull } from './storage/reserve.ts'
import { Segment, type StorageContext } from './storage/segment.ts'
import { readTombstones, Tombstones } from './storage/tombstones.ts'
import { readWalChain, type WalContent, type WalRecord, WalWriter } from './storage/wal.ts'

/** What every collection of a database shares. */
export type SharedContext = Pick<StorageContext, 'kernel' | 'pool' | 'cache' | 'reserve'> & { readonly fate: Fate }

/** An opened collection and, where recovery had to begin one, its log, or how to begin it once there is room. */
export type Recovered = {
  readonly state: CollectionState
  readonly wal: WalWriter | (() => Promise<WalWriter>) | undefined
  /** What was wrong with the newest generation, if the one before stands in for it. */
  readonly damage?: IsovecError | undefined
}

/** Log bytes that are restated with one call. */
const restateSizeMax = 4 * 1024 * 1024

/** Makes a collection in an empty directory: an empty log and two manifests. Nothing refers to it yet. */
export async function createCollectionFiles(
  shared: SharedContext,
  directory: Directory,
  options: ResolvedCollectionOptions,
): Promise<Recovered> {
  const body: CollectionBody = {
    options,
    nextFile: 2,
    firstWal: 1,
    lastSequence: 0,
    isIndexDropped: false,
    segments: [],
  }
  const uuid = crypto.getRandomValues(new Uint8Array(16))
  const wal = await WalWriter.create(shared.kernel, directory, 1, uuid, 0, undefined)
  try {
    const generations = await Generations.create(shared.kernel, directory, collectionFormat, uuid, body)
    const context = contextOf(shared, directory, generations)
    const state = new CollectionState(context, generations, [], new Map([[1, 0]]), body.nextFile)
    state.fate = shared.fate
    return { state, wal }
  } catch (error) {
    await wal.abandon().catch(() => {})
    throw error
  }
}

/**
 * Opens a collection: the newest generation whose files hold, then the log. If the newest one introduced something that is damaged,
 * the one before is taken, and the log brings back what lies between. What is not read now is verified when it is first needed, and
 * falls back in the same way then.
 * @throws IsovecError `CORRUPTION` if acknowledged writes can't be had back
 */
export async function openCollectionFiles(shared: SharedContext, directory: Directory): Promise<Recovered> {
  const { state, replayed, isClean, damage } = await openState(shared, directory)
  try {
    const wal = isClean ? undefined : await takeUpLog(state, replayed)
    // A fall-back that could not be committed must not be swept behind: it may have to be done again.
    if (typeof wal !== 'function') await sweep(state)
    state.fate = shared.fate
    return { state, wal, damage }
  } catch (error) {
    await state.dispose()
    throw error
  }
}

/**
 * The same for those who only read, beside a writer that may go on meanwhile: nothing is changed, and the log is replayed in memory.
 * @throws IsovecError `CORRUPTION`; `STALE_READER` if the writer was always quicker
 */
export async function readCollectionFiles(shared: SharedContext, directory: Directory): Promise<Recovered> {
  const { state, damage } = await retryWhileStale(async () => openState(shared, await ReaderDirectory.of(directory)))
  state.fate = shared.fate
  return { state, wal: undefined, damage }
}

async function openState(shared: SharedContext, directory: Directory): Promise<Opened> {
  const generations = await Generations.load(shared.kernel, directory, collectionFormat)
  if (generations === undefined) throw new IsovecError('CORRUPTION', 'the collection has no manifest')
  const context = contextOf(shared, directory, generations)
  const files = (await directory.list()).map(parseFileName).filter((file) => file !== undefined)
  return openNewest(context, generations, files)
}

/** Restates the log. Where there is no room for that, reading needs none: it is left to the first write. */
async function takeUpLog(state: CollectionState, replayed: readonly WalRecord[]): Promise<Recovered['wal']> {
  try {
    return await state.context.reserve.spend(() => restate(state, replayed))
  } catch (error) {
    if (!isFull(error)) throw error
    return () => restate(state, replayed)
  }
}

/** What all sources of a collection share. */
export function contextOf(
  { kernel, pool, cache, reserve }: SharedContext,
  directory: Directory,
  generations: Generations<CollectionBody>,
): StorageContext {
  const { dimension, metric } = generations.current.body.options
  const { uuid } = generations
  return { kernel, pool, cache, reserve, directory, uuid, hashSeed: hashSeedOf(uuid), dimension, metric }
}

type FoundFile = { readonly number: number; readonly kind: string }

type Opened = {
  readonly state: CollectionState
  readonly replayed: readonly WalRecord[]
  /** Whether the log ended cleanly and may be sealed as it is. */
  readonly isClean: boolean
  readonly damage?: IsovecError | undefined
}

async function openNewest(
  context: StorageContext,
  generations: Generations<CollectionBody>,
  files: readonly FoundFile[],
): Promise<Opened> {
  const [newest, previous] = generations.kept
  try {
    return await openCurrent(context, generations, files, undefined)
  } catch (error) {
    if (!isDamage(error)) throw error
    if (previous === undefined) throw asCorruption(error)
    generations.fallBack()
    // What the newest one says of the collection is not to be trusted either.
    const { dimension, metric } = generations.current.body.options
    try {
      const opened = await openCurrent({ ...context, dimension, metric }, generations, files, newest!.body)
      return { ...opened, damage: asCorruption(error) }
    } catch (second) {
      // The first damage is the one to report: what the older generation lacks may just be what the newest one had replaced.
      throw isDamage(second) ? asCorruption(error) : second
    }
  }
}

function isDamage(error: unknown): error is IsovecError {
  return error instanceof IsovecError && (error.code === 'CORRUPTION' || error.code === 'NOT_FOUND')
}

/** @param givenUp what is fallen back from */
async function openCurrent(
  context: StorageContext,
  generations: Generations<CollectionBody>,
  files: readonly FoundFile[],
  givenUp: CollectionBody | undefined,
): Promise<Opened> {
  const { body } = generations.current
  const segments = await openSegments(context, body, [])
  let state: CollectionState | undefined
  try {
    const numbers = files.filter(({ kind }) => kind === 'wal').map(({ number }) => number)
    const logs = await readWalChain(context.kernel, context.directory, context.uuid, body.firstWal, numbers)
    // They must reach to where the newest generation began to log, or what came after it is missing.
    if (givenUp !== undefined && !logs.some(({ number }) => number === givenUp.firstWal)) {
      throw new IsovecError('CORRUPTION', `the log ${givenUp.firstWal} is missing`)
    }
    const walSizes = new Map(numbers.map((number) => [number, 0]))
    for (const { number, size } of logs) walSizes.set(number, size)
    const nextFile = Math.max(body.nextFile, ...files.map(({ number }) => number + 1))
    state = new CollectionState(context, generations, segments, walSizes, nextFile)
    const last = logs.at(-1)!
    const isClean = givenUp === undefined && last.closed && last.number === Math.max(...numbers)
    if (isClean) state.pendingSeal = last.seal
    markUnproven(state)
    const slice = new Slice()
    const pending = await pendingIn(logs, body.lastSequence, body.options.dimension, slice)
    // Restating commits a generation, after which there is nothing to fall back to; what is patched must be proven, too.
    const isPatched = state.isSpareLogged && pending.some(({ operations }) => operations.some(isPatch))
    if (!isClean || isPatched) for (const segment of segments) if (!segment.isProven) await segment.verify()
    await replay(state, pending, slice)
    const replayed = pending.map(({ record }) => record)
    state.setSpare(segments.some(({ isProven }) => !isProven) ? spareOf(state) : undefined)
    return { state, replayed, isClean }
  } catch (error) {
    if (state === undefined) await closeAll(segments)
    else await state.dispose()
    throw error
  }
}

/** Notes which segments can be done without: those that the generation before doesn't name. */
function markUnproven(state: CollectionState): void {
  const previous = state.generations.kept[1]
  if (previous === undefined) return
  const known = new Set(previous.body.segments.map(({ file }) => file.number))
  for (const segment of state.segments) segment.isProven = known.has(segment.number)
}

/** Opens the segments that a generation names; those that are open already stay the same objects. */
async function openSegments(
  context: StorageContext,
  body: CollectionBody,
  open: readonly Segment[],
): Promise<Segment[]> {
  const { kernel, directory, uuid } = context
  const segments: Segment[] = []
  try {
    for (const { file, tombstones, patches, graph } of body.segments) {
      const known = open.find(({ number }) => number === file.number)
      if (known !== undefined) {
        segments.push(known)
        continue
      }
      const dead =
        tombstones === undefined
          ? new Tombstones()
          : await readTombstones(kernel, directory, tombstones, uuid, file.number, file.rowCount)
      const overlay =
        patches === undefined
          ? new Overlay()
          : await readPatches(kernel, directory, patches, uuid, file.number, file.rowCount)
      const segment = await Segment.open(context, file, dead)
      segment.tombstoneFile = tombstones
      segment.overlay = overlay
      segment.patchFile = patches
      segment.graphFile = graph
      segments.push(segment)
    }
    return segments
  } catch (error) {
    await closeAll(segments.filter((segment) => !open.includes(segment)))
    throw error
  }
}

async function closeAll(segments: readonly Segment[]): Promise<void> {
  for (const segment of segments) segment.release()
  await Promise.all(segments.map((segment) => segment.closeFile()))
}

/** What opens the state of the generation before, brought up to where the newest one stands. Changes nothing that is open. */
function spareOf(state: CollectionState): () => Promise<Spare> {
  return async () => {
    const { context, generations } = state
    const newest = generations.current.body
    const previous = generations.kept[1]!.body
    const segments = await openSegments(context, previous, state.segments)
    try {
      for (const segment of segments) if (!segment.areIdsLoaded) await segment.loadIds()
      return { segments, memtable: await memtableBetween(state, segments, previous, newest) }
    } catch (error) {
      await closeAll(segments.filter((segment) => !state.segments.includes(segment)))
      throw error
    }
  }
}

/** Brings what was written between two generations back from the logs. */
async function memtableBetween(
  state: CollectionState,
  segments: readonly Segment[],
  previous: CollectionBody,
  newest: CollectionBody,
): Promise<Memtable | undefined> {
  const { context } = state
  const { kernel, directory, uuid, hashSeed } = context
  if (previous.firstWal === newest.firstWal) return undefined
  const numbers = [...state.walSizes.keys()].filter((number) => number < newest.firstWal)
  const logs = await readWalChain(kernel, directory, uuid, previous.firstWal, numbers)
  const slice = new Slice()
  const pending = await pendingIn(logs, previous.lastSequence, newest.options.dimension, slice)
  const wanted = pending.filter(({ record }) => record.sequence <= newest.lastSequence)
  if (previous.lastSequence + wanted.length !== newest.lastSequence) {
    throw new IsovecError('CORRUPTION', `the logs before ${fileName(newest.firstWal, 'wal')} end too early`)
  }
  if (wanted.length === 0) return undefined
  const memtable = new Memtable(context, newest.options.quantization, undefined)
  try {
    memtable.reserve(rowCountOf(wanted))
    for (const { record, operations } of wanted) {
      for (const operation of operations.filter(isPatch)) {
        const moved = locateMoved(segments, idKey(operation.id, hashSeed), record.sequence)
        if (moved?.source.isImageLoaded === false) await moved.source.loadImage()
      }
      applyAgain(segments, memtable, operations, record.sequence, hashSeed)
      if (slice.isOver) await slice.next()
    }
    return memtable
  } catch (error) {
    memtable.release()
    throw error
  }
}

/** A file that a manifest names and that isn't there is damage, not a wrong argument. */
function asCorruption(error: IsovecError): IsovecError {
  if (error.code !== 'NOT_FOUND') return error
  return new IsovecError('CORRUPTION', `a file is missing: ${error.message}`, {
    cause: error,
    ...(error.file === undefined ? {} : { file: error.file }),
  })
}

type Pending = { readonly record: WalRecord; readonly operations: readonly Operation[] }

/** The batches of logs that come after a sequence, in order and without gaps. */
async function pendingIn(
  logs: readonly WalContent[],
  after: number,
  dimension: number,
  slice: Slice,
): Promise<Pending[]> {
  const pending: Pending[] = []
  let lastSequence = after
  for (const log of logs) {
    const name = fileName(log.number, 'wal')
    for (const record of log.records) {
      if (record.sequence <= lastSequence) continue
      if (record.sequence !== lastSequence + 1) {
        throw new IsovecError('CORRUPTION', `${name}: sequence ${record.sequence} follows ${lastSequence}`, {
          file: name,
          offset: record.offset,
        })
      }
      pending.push({ record, operations: decodeBatch(record.bytes, dimension, name, record.offset) })
      lastSequence = record.sequence
      if (slice.isOver) await slice.next()
    }
  }
  return pending
}

function rowCountOf(pending: readonly Pending[]): number {
  let count = 0
  for (const { operations } of pending) for (const { kind } of operations) if (kind !== 'delete') count++
  return count
}

const isPatch = ({ kind }: Operation): boolean => kind === 'patch'

/** Applies what the segments don't hold yet. */
async function replay(state: CollectionState, pending: readonly Pending[], slice: Slice): Promise<void> {
  if (pending.length === 0) return
  await state.loadIds()
  // Once for all: room that grows with every batch would be copied with every batch.
  state.active.reserve(rowCountOf(pending))
  for (const { record, operations } of pending) {
    state.apply(operations, record.sequence)
    if (slice.isOver) await slice.next()
  }
}

/**
 * After an unclean end: writes what was replayed to a log of its own, synced and named by a new generation, before anything new is
 * acknowledged. What was only in the page cache of the old log could otherwise be lost from under later writes.
 */
async function restate(state: CollectionState, records: readonly WalRecord[]): Promise<WalWriter> {
  const { kernel, directory, uuid } = state.context
  const number = state.takeFileNumber()
  let wal: WalWriter | undefined
  try {
    wal = await WalWriter.create(kernel, directory, number, uuid, state.body.lastSequence, undefined)
    await copyRecords(wal, records)
    await state.commit(
      (body) => ({ ...body, firstWal: number }),
      () => state.walSizes.set(number, 0),
    )
    return wal
  } catch (error) {
    // It is read-only from here on, and how it closes is of no interest.
    await wal?.abandon().catch(() => {})
    // Without room nothing was committed, so that nothing names it.
    if (isFull(error)) await state.discard([fileName(number, 'wal')])
    throw error
  }
}

async function copyRecords(wal: WalWriter, records: readonly WalRecord[]): Promise<void> {
  let group: Uint8Array[] = []
  let size = 0
  for (const { bytes } of records) {
    group.push(bytes)
    size += bytes.length
    if (size < restateSizeMax) continue
    await wal.append(group)
    group = []
    size = 0
  }
  if (group.length > 0) await wal.append(group)
  await wal.sync()
  if (records.length > 0) await wal.mark()
}

/** Removes files of isovec's that no kept generation needs: leftovers of work that an end of the process cut short. */
async function sweep(state: CollectionState): Promise<void> {
  const { kept } = state.generations
  const needed = new Set(kept.flatMap(({ body }) => filesOf(body)))
  for (const { generation } of kept) needed.add(fileName(generation, 'manifest'))
  const firstWal = Math.min(...kept.map(({ body }) => body.firstWal))
  const stray = (await state.context.directory.list()).filter((name) => {
    const file = parseFileName(name)
    if (file === undefined || needed.has(name)) return false
    return file.kind !== 'wal' || file.number < firstWal
  })
  await state.discard(stray)
}
