/**
 * Verifying what lies on disk, file by file, against what the kept generations say of it. Nothing is changed, and nothing that is in
 * memory counts.
 */
import type { Directory } from './directory/directory.ts'
import { IsovecError, throwIfAborted } from './errors.ts'
import type { Kernel } from './kernel/index.ts'
import { contextOf, type SharedContext } from './recovery.ts'
import { decodeBatch } from './storage/batch.ts'
import { type CollectionBody, collectionFormat, filesOf, type SegmentState } from './storage/collection-manifest.ts'
import { fileName, parseFileName } from './storage/file-names.ts'
import { type BodyFormat, Generations } from './storage/generations.ts'
import { checkGraphHeader, verifyGraph } from './storage/graph-file.ts'
import { readManifests } from './storage/manifest.ts'
import { readPatches } from './storage/overlay.ts'
import { Segment, type StorageContext, sectionName } from './storage/segment.ts'
import { readTombstones, Tombstones } from './storage/tombstones.ts'
import { readWalChain } from './storage/wal.ts'

/** What was found of a file, or of a section of it. */
export type FileReport = {
  /** Relative to the database, such as `1/5.seg`. */
  readonly file: string
  readonly section?: string
  readonly ok: boolean
  /** What is wrong, in words. */
  readonly problem?: string
}

/** How to go about it. */
export type VerifyWork = {
  /** Whether every byte is read, rather than headers and small files. */
  readonly isFull: boolean
  readonly signal: AbortSignal | undefined
  readonly add: (report: FileReport) => void
}

/** Manifests of a directory: reports each and gives back the kept generations; undefined if none is valid. */
export async function verifyManifests<T extends object>(
  kernel: Kernel,
  directory: Directory,
  format: BodyFormat<T>,
  prefix: string,
  { add }: VerifyWork,
): Promise<Generations<T> | undefined> {
  const { valid, damaged } = await readManifests(kernel, directory, format.kind, format.decode)
  for (const { generation } of valid) add({ file: prefix + fileName(generation, 'manifest'), ok: true })
  for (const error of damaged) add(failed(prefix, error.file ?? 'manifest', error))
  if (valid.length > 0) return Generations.load(kernel, directory, format)
  if (damaged.length === 0) add({ file: `${prefix}manifest`, ok: false, problem: 'there is no manifest' })
  return undefined
}

/**
 * All files of a collection that its kept generations name.
 * @param betweenCommits runs what must not meet a manifest that is being written
 */
export async function verifyCollection(
  shared: SharedContext,
  directory: Directory,
  prefix: string,
  work: VerifyWork,
  betweenCommits: <T>(run: () => Promise<T>) => Promise<T>,
): Promise<void> {
  const generations = await betweenCommits(() =>
    verifyManifests(shared.kernel, directory, collectionFormat, prefix, work),
  )
  if (generations === undefined) return
  const context = contextOf(shared, directory, generations)
  const seen = new Set<string>()
  for (const { body } of generations.kept) {
    for (const state of body.segments) {
      const isNew = (name: string): boolean => !seen.has(name)
      await verifySegment(context, state, prefix, isNew, work)
    }
    for (const name of filesOf(body)) seen.add(name)
  }
  await verifyLogs(
    context,
    generations.kept.map(({ body }) => body),
    prefix,
    work,
  )
}

async function verifySegment(
  context: StorageContext,
  { file, tombstones, patches, graph }: SegmentState,
  prefix: string,
  isNew: (name: string) => boolean,
  { isFull, signal, add }: VerifyWork,
): Promise<void> {
  const { kernel, directory, uuid } = context
  const check = async (name: string, run: () => Promise<unknown>): Promise<void> => {
    throwIfAborted(signal)
    if (isNew(name)) add(await reportOf(prefix, name, run))
  }
  if (isNew(fileName(file.number, 'seg'))) await verifySections(context, file, prefix, { isFull, signal, add })
  if (tombstones !== undefined) {
    await check(fileName(tombstones.number, 'del'), () =>
      readTombstones(kernel, directory, tombstones, uuid, file.number, file.rowCount),
    )
  }
  if (patches !== undefined) {
    await check(fileName(patches.number, 'patch'), () =>
      readPatches(kernel, directory, patches, uuid, file.number, file.rowCount),
    )
  }
  if (graph !== undefined) {
    await check(fileName(graph.number, 'graph'), () =>
      isFull ? verifyGraph(context, graph, file) : checkGraphHeader(context, graph, file),
    )
  }
}

async function verifySections(
  context: StorageContext,
  file: SegmentState['file'],
  prefix: string,
  { isFull, signal, add }: VerifyWork,
): Promise<void> {
  const name = fileName(file.number, 'seg')
  let segment: Segment | undefined
  const header = await reportOf(prefix, name, async () => {
    segment = await Segment.open(context, file, new Tombstones())
  })
  add(header)
  if (segment === undefined) return
  const opened = segment
  try {
    if (!isFull) return
    for (const id of opened.sections) {
      throwIfAborted(signal)
      const report = await reportOf(prefix, name, () => opened.verifySection(id))
      add({ ...report, section: sectionName(id) })
    }
  } finally {
    opened.release()
    await opened.closeFile()
  }
}

/** Logs that a kept generation needs. */
async function verifyLogs(
  { kernel, directory, uuid }: StorageContext,
  kept: readonly CollectionBody[],
  prefix: string,
  { signal, add }: VerifyWork,
): Promise<void> {
  throwIfAborted(signal)
  const numbers: number[] = []
  for (const name of await directory.list()) {
    const found = parseFileName(name)
    if (found?.kind === 'wal') numbers.push(found.number)
  }
  const { options } = kept[0]!
  const firstWal = Math.min(...kept.map((body) => body.firstWal))
  for (const needed of new Set(kept.map((body) => body.firstWal))) {
    if (needed === firstWal || numbers.includes(needed)) continue
    add({ file: prefix + fileName(needed, 'wal'), ok: false, problem: 'the log is missing' })
  }
  const chain = await reportOf(prefix, fileName(firstWal, 'wal'), async () => {
    for (const { number, records } of await readWalChain(kernel, directory, uuid, firstWal, numbers)) {
      const name = fileName(number, 'wal')
      add(
        await reportOf(prefix, name, async () => {
          for (const { bytes, offset } of records) decodeBatch(bytes, options.dimension, name, offset)
        }),
      )
    }
  })
  if (!chain.ok) add(chain)
}

/** Runs a check; what it fails with is the file's problem, unless that can't be told of the file. */
async function reportOf(prefix: string, name: string, run: () => Promise<unknown>): Promise<FileReport> {
  try {
    await run()
    return { file: prefix + name, ok: true }
  } catch (error) {
    if (!(error instanceof IsovecError)) throw error
    if (error.code === 'ABORTED' || error.code === 'STALE_READER' || error.code === 'OUT_OF_MEMORY') throw error
    return failed(prefix, error.code === 'CORRUPTION' ? (error.file ?? name) : name, error)
  }
}

function failed(prefix: string, name: string, error: IsovecError): FileReport {
  return { file: name.startsWith(prefix) ? name : prefix + name, ok: false, problem: error.message }
}
