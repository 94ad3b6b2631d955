/**
 * Making and opening a collection: from the files on disk to a state that is as if the process had never ended.
 */
import type { Directory } from './directory/directory.ts'
import { IsovecError } from './errors.ts'
import { CollectionState, hashSeedOf } from './state.ts'
import { type Batch, decodeBatch } from './storage/batch.ts'
import {
  type CollectionBody,
  collectionFormat,
  filesOf,
  type ResolvedCollectionOptions,
} from './storage/collection-manifest.ts'
import { fileName, parseFileName } from './storage/file-names.ts'
import { Generations } from './storage/generations.ts'
import { Segment, type StorageContext } from './storage/segment.ts'
import { readTombstones, Tombstones } from './storage/tombstones.ts'
import { readWalChain, type WalContent, type WalRecord, WalWriter } from './storage/wal.ts'

/** What every collection of a database shares. */
export type SharedContext = Pick<StorageContext, 'kernel' | 'pool' | 'cache'>

/** An opened collection and, where recovery had to begin one, its log. */
export type Recovered = { readonly state: CollectionState; readonly wal: WalWriter | undefined }

/** Log bytes that are restated with one call. */
const restateSizeMax = 8 * 1024 * 1024

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
  let generations: Generations<CollectionBody>
  try {
    generations = await Generations.create(shared.kernel, directory, collectionFormat, uuid, body)
  } catch (error) {
    await wal.abandon().catch(() => {})
    throw error
  }
  const state = new CollectionState(
    contextOf(shared, directory, generations),
    generations,
    [],
    new Map([[1, 0]]),
    body.nextFile,
  )
  return { state, wal }
}

/**
 * Opens a collection: the newest generation whose files hold, then the log. If the newest one introduced something that is damaged,
 * the one before is taken, and the log brings back what lies between.
 * @throws IsovecError `CORRUPTION` if acknowledged writes can't be had back
 */
export async function openCollectionFiles(shared: SharedContext, directory: Directory): Promise<Recovered> {
  const generations = await Generations.load(shared.kernel, directory, collectionFormat)
  if (generations === undefined) throw new IsovecError('CORRUPTION', 'the collection has no manifest')
  const context = contextOf(shared, directory, generations)
  const files = (await directory.list()).map(parseFileName).filter((file) => file !== undefined)
  const opened = await openNewest(context, generations, files)
  const walNumbers = files.filter(({ kind }) => kind === 'wal').map(({ number }) => number)
  const walSizes = new Map(walNumbers.map((number) => [number, 0]))
  for (const { number, size } of opened.logs) walSizes.set(number, size)
  const nextFile = Math.max(generations.current.body.nextFile, ...files.map(({ number }) => number + 1))
  const state = new CollectionState(context, generations, opened.segments, walSizes, nextFile)
  const replayed = await replay(state, opened.logs)
  const last = opened.logs.at(-1)!
  let wal: WalWriter | undefined
  if (last.closed && last.number === Math.max(...walNumbers) && !opened.isFallback) state.pendingSeal = last.seal
  else wal = await restate(state, replayed)
  await sweep(state)
  return { state, wal }
}

function contextOf(
  shared: SharedContext,
  directory: Directory,
  generations: Generations<CollectionBody>,
): StorageContext {
  const { dimension, metric } = generations.current.body.options
  const { uuid } = generations
  return { ...shared, directory, uuid, hashSeed: hashSeedOf(uuid), dimension, metric }
}

type Opened = { readonly segments: Segment[]; readonly logs: readonly WalContent[]; readonly isFallback: boolean }

async function openNewest(
  context: StorageContext,
  generations: Generations<CollectionBody>,
  files: readonly { number: number; kind: string }[],
): Promise<Opened> {
  try {
    return await openGeneration(context, generations.current.body, files, false)
  } catch (error) {
    const isDamage = error instanceof IsovecError && (error.code === 'CORRUPTION' || error.code === 'NOT_FOUND')
    const previous = generations.kept[1]
    if (!isDamage || previous === undefined) throw asCorruption(error)
    let opened: Opened
    try {
      opened = await openGeneration(context, previous.body, files, true)
    } catch {
      // The first damage is the one to report: what the older generation lacks may just be what the newest one had replaced.
      throw asCorruption(error)
    }
    // The logs must reach to where the newest generation began to log, or what came after it is missing.
    const { firstWal } = generations.current.body
    if (!opened.logs.some(({ number }) => number === firstWal)) {
      for (const segment of opened.segments) segment.release()
      throw asCorruption(error)
    }
    generations.fallBack()
    return opened
  }
}

/** A file that a manifest names and that isn't there is damage, not a wrong argument. */
function asCorruption(error: unknown): unknown {
  if (!(error instanceof IsovecError) || error.code !== 'NOT_FOUND') return error
  return new IsovecError('CORRUPTION', `a file is missing: ${error.message}`, {
    cause: error,
    ...(error.file === undefined ? {} : { file: error.file }),
  })
}

async function openGeneration(
  context: StorageContext,
  body: CollectionBody,
  files: readonly { number: number; kind: string }[],
  isFallback: boolean,
): Promise<Opened> {
  const { kernel, directory, uuid } = context
  const segments: Segment[] = []
  try {
    for (const { file, tombstones, graph } of body.segments) {
      const dead =
        tombstones === undefined
          ? new Tombstones()
          : await readTombstones(kernel, directory, tombstones, uuid, file.number, file.rowCount)
      const segment = await Segment.open(context, file, dead)
      segment.tombstoneFile = tombstones
      segment.graphFile = graph
      segments.push(segment)
    }
    const numbers = files.filter(({ kind }) => kind === 'wal').map(({ number }) => number)
    const logs = await readWalChain(kernel, directory, uuid, body.firstWal, numbers)
    return { segments, logs, isFallback }
  } catch (error) {
    for (const segment of segments) segment.release()
    throw error
  }
}

/** Applies what the segments don't hold yet, in order and without gaps. Returns the records that were applied. */
async function replay(state: CollectionState, logs: readonly WalContent[]): Promise<WalRecord[]> {
  const pending: { record: WalRecord; batch: Batch }[] = []
  let lastSequence = state.lastSequence
  let rowCount = 0
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
      const operations = decodeBatch(record.bytes, state.options.dimension, name, record.offset)
      for (const { kind } of operations) if (kind === 'upsert') rowCount++
      pending.push({ record, batch: { bytes: record.bytes, operations } })
      lastSequence = record.sequence
    }
  }
  if (pending.length === 0) return []
  await state.loadIds()
  // Once for all: room that grows with every batch would be copied with every batch.
  state.active.reserve(rowCount)
  return pending.map(({ record, batch }) => {
    state.apply(batch.operations, record.sequence)
    return record
  })
}

/**
 * After an unclean end: writes what was replayed to a log of its own, synced and named by a new generation, before anything new is
 * acknowledged. What was only in the page cache of the old log could otherwise be lost from under later writes.
 */
async function restate(state: CollectionState, records: readonly WalRecord[]): Promise<WalWriter> {
  const { kernel, directory, uuid } = state.context
  const number = state.takeFileNumber()
  const wal = await WalWriter.create(kernel, directory, number, uuid, state.body.lastSequence, undefined)
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
  state.walSizes.set(number, 0)
  await state.commit(
    (body) => ({ ...body, firstWal: number }),
    () => {},
  )
  return wal
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
