/**
 * Verifying what lies on disk, file by file, against what the kept generations say of it. Nothing is changed, and nothing that is in
 * memory counts.
 *
 * Beside a writer what it has overtaken is begun anew, without the files that were found whole already: they never change, so that
 * each attempt has less to read.
 */
import type { Directory } from './directory/directory.ts'
import { IsovecError, throwIfAborted } from './errors.ts'
import type { Kernel } from './kernel/index.ts'
import { contextOf, type SharedContext } from './recovery.ts'
import { decodeBatch } from './storage/batch.ts'
import { type CollectionBody, collectionFormat, filesOf, type SegmentState } from './storage/collection-manifest.ts'
import { fileName, numbersOf } from './storage/file-names.ts'
import { type BodyFormat, Generations } from './storage/generations.ts'
import { checkGraphHeader, verifyGraph } from './storage/graph-file.ts'
import { readManifests } from './storage/manifest.ts'
import { readPatches } from './storage/overlay.ts'
import { ReaderDirectory, retryWhileStale } from './storage/reader-directory.ts'
import { type RootBody, rootFormat } from './storage/root-manifest.ts'
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
  /** Whether somebody else may write meanwhile. */
  readonly isBeside: boolean
  readonly signal: AbortSignal | undefined
  readonly add: (report: FileReport) => void
}

/** One attempt at it. */
type Attempt = VerifyWork & {
  /** What was reported of files that were found whole. */
  readonly whole: Map<string, readonly FileReport[]>
  /** Whether what may just be on its way is looked at once more, later. */
  readonly isPatient: boolean
}

/** Time until a manifest that is there but not whole is looked at again, so that its writer may end what it has begun. */
const patienceMs = 25

/** Verifies what one directory holds. */
async function attempt<T>(
  directory: Directory,
  work: VerifyWork,
  verify: (directory: Directory, attempt: Attempt) => Promise<T>,
): Promise<T> {
  const whole = new Map<string, readonly FileReport[]>()
  if (!work.isBeside) return verify(directory, { ...work, whole, isPatient: false })
  return retryWhileStale(async (isLast) => {
    const found: FileReport[] = []
    const add = (report: FileReport): void => void found.push(report)
    const result = await verify(await ReaderDirectory.of(directory), { ...work, add, whole, isPatient: !isLast })
    for (const report of found) work.add(report)
    return result
  })
}

/** Manifests of the root; gives back the collections that the newest one names, undefined if none is valid. */
export function verifyRoot(
  kernel: Kernel,
  directory: Directory,
  work: VerifyWork,
): Promise<RootBody['collections'] | undefined> {
  return attempt(directory, work, async (readable, each) => {
    const generations = await verifyManifests(kernel, readable, rootFormat, '', each)
    return generations?.current.body.collections
  })
}

/** Whether the newest manifest of the root that holds, if there is any, names a directory. */
export async function isNamed(kernel: Kernel, root: Directory, number: number): Promise<boolean> {
  const { valid } = await retryWhileStale(async () =>
    readManifests(kernel, await ReaderDirectory.of(root), rootFormat.kind, rootFormat.decode),
  )
  return valid[0]?.body.collections.some(({ directory }) => directory === number) ?? true
}

/** Manifests of a directory: reports each and gives back the kept generations; undefined if none is valid. */
async function verifyManifests<T extends object>(
  kernel: Kernel,
  directory: Directory,
  format: BodyFormat<T>,
  prefix: string,
  { isPatient, add }: Attempt,
): Promise<Generations<T> | undefined> {
  const { valid, damaged, highest } = await readManifests(kernel, directory, format.kind, format.decode)
  if (isPatient && highest !== (valid[0]?.generation ?? 0)) {
    await new Promise((resolve) => setTimeout(resolve, patienceMs))
    throw new IsovecError('STALE_READER', `${prefix}${fileName(highest, 'manifest')} may just be written`)
  }
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
  await attempt(directory, work, async (readable, each) => {
    const generations = await betweenCommits(() =>
      verifyManifests(shared.kernel, readable, collectionFormat, prefix, each),
    )
    if (generations === undefined) return
    const context = contextOf(shared, readable, generations)
    const bodies = generations.kept.map(({ body }) => body)
    const seen = new Set<string>()
    for (const body of bodies) {
      for (const state of body.segments) await verifySegment(context, state, prefix, seen, each)
      for (const name of filesOf(body)) seen.add(name)
    }
    await verifyLogs(context, bodies, prefix, each)
  })
}

async function verifySegment(
  context: StorageContext,
  { file, tombstones, patches, graph }: SegmentState,
  prefix: string,
  seen: ReadonlySet<string>,
  { isFull, signal, add, whole }: Attempt,
): Promise<void> {
  const { kernel, directory, uuid } = context
  const check = async (name: string, run: () => Promise<readonly FileReport[]>): Promise<void> => {
    throwIfAborted(signal)
    if (seen.has(name)) return
    const reports = whole.get(name) ?? (await run())
    if (reports.every(({ ok }) => ok)) whole.set(name, reports)
    for (const report of reports) add(report)
  }
  const checkAtOnce = (name: string, run: () => Promise<unknown>): Promise<void> =>
    check(name, async () => [await reportOf(prefix, name, run)])
  await check(fileName(file.number, 'seg'), () => verifySections(context, file, prefix, isFull, signal))
  if (tombstones !== undefined) {
    await checkAtOnce(fileName(tombstones.number, 'del'), () =>
      readTombstones(kernel, directory, tombstones, uuid, file.number, file.rowCount),
    )
  }
  if (patches !== undefined) {
    await checkAtOnce(fileName(patches.number, 'patch'), () =>
      readPatches(kernel, directory, patches, uuid, file.number, file.rowCount),
    )
  }
  if (graph !== undefined) {
    await checkAtOnce(fileName(graph.number, 'graph'), () =>
      isFull ? verifyGraph(context, graph, file) : checkGraphHeader(context, graph, file),
    )
  }
}

async function verifySections(
  context: StorageContext,
  file: SegmentState['file'],
  prefix: string,
  isFull: boolean,
  signal: AbortSignal | undefined,
): Promise<readonly FileReport[]> {
  const name = fileName(file.number, 'seg')
  let segment: Segment | undefined
  const header = await reportOf(prefix, name, async () => {
    segment = await Segment.open(context, file, new Tombstones())
  })
  const reports = [header]
  if (segment === undefined) return reports
  const opened = segment
  try {
    for (const id of isFull ? opened.sections : []) {
      throwIfAborted(signal)
      const report = await reportOf(prefix, name, () => opened.verifySection(id))
      reports.push({ ...report, section: sectionName(id) })
    }
    return reports
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
  { signal, add }: Attempt,
): Promise<void> {
  throwIfAborted(signal)
  const numbers = numbersOf(await directory.list(), 'wal')
  const { options } = kept[0]!
  const firstWal = Math.min(...kept.map((body) => body.firstWal))
  for (const needed of new Set(kept.map((body) => body.firstWal))) {
    if (needed === firstWal || numbers.includes(needed)) continue
    const name = fileName(needed, 'wal')
    const report = await reportOf(prefix, name, async () => (await directory.open(name)).close())
    if (!report.ok) add(report)
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
