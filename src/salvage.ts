/**
 * Salvage: copies out whatever still verifies of a database that can't be opened, or not be trusted, any more.
 *
 * Documents are gathered from all that both kept generations and the logs hold, each with the sequence at which it was written; the
 * newest version of each id counts, unless something says that it was deleted later. So what one file has lost another may still have:
 * the inputs of a compaction, the log of a flush. Nothing that fails its checksum is taken.
 */
import type { CollectionOptions, Database, JsonObject, SalvagedCollection, SalvageReport, ToolOptions } from './api.ts'
import { utf8Decode } from './codec/bytes.ts'
import { createRoot, createStore } from './copy.ts'
import type { Directory, StorageBackend } from './directory/directory.ts'
import { IsovecError, throwIfAborted } from './errors.ts'
import type { Kernel } from './kernel/index.ts'
import { backendOf, type PlatformBackend } from './open.ts'
import { contextOf } from './recovery.ts'
import { addDocument } from './request.ts'
import { BatchBuilder, decodeBatch } from './storage/batch.ts'
import { type CollectionBody, collectionFormat, type SegmentState } from './storage/collection-manifest.ts'
import { fileName, numbersOf } from './storage/file-names.ts'
import { type BodyFormat, Generations } from './storage/generations.ts'
import { readManifests } from './storage/manifest.ts'
import { readPatches } from './storage/overlay.ts'
import { BlockCache } from './storage/payload-blocks.ts'
import { Reserve } from './storage/reserve.ts'
import { rootFormat } from './storage/root-manifest.ts'
import { Segment, type StorageContext, sectionIds, sectionName } from './storage/segment.ts'
import { readTombstones, Tombstones } from './storage/tombstones.ts'
import { salvageWal } from './storage/wal.ts'
import { prepareTool } from './tools.ts'
import type { FileReport } from './verify.ts'

/** Ids of documents that are named in a report, of those that are known to be lost. */
const namedMax = 1000
const blockCacheSize = 8 * 1024 * 1024

/** A version of a document: where its vector and payload are to be had. */
type Version = {
  readonly sequence: number
  readonly vector: () => Promise<Float32Array>
  readonly payload: () => Promise<Uint8Array | undefined>
}

/** What is known of an id. */
type Known = {
  /** Versions of the newest sequence that was found, any of which will do. */
  versions: Version[]
  /** Versions before this sequence are deleted or replaced. */
  deadBefore: number
  /** Whether a log says that what came before was deleted, rather than a tombstone that something took its place or nothing. */
  isDeleted: boolean
  patch: { readonly sequence: number; readonly payload: Uint8Array | undefined } | undefined
}

/** See `salvage` in index.ts. */
export async function salvage(
  source: string | URL | StorageBackend,
  destination: string | URL | StorageBackend,
  options: ToolOptions | undefined,
  platformBackend: PlatformBackend,
): Promise<SalvageReport> {
  const from = backendOf(source, platformBackend, 'source')
  const target = backendOf(destination, platformBackend, 'destination')
  const { kernel, work, open } = await prepareTool(options, platformBackend)
  const { signal, onProgress } = work
  const problems: FileReport[] = []
  const places = await findCollections(kernel, from, problems)
  return createStore(target, async ({ root, backend }) => {
    await createRoot(kernel, root, { nextDirectory: 1, collections: [] })
    const database = await open(backend, { mustExist: true })
    try {
      const collections: SalvagedCollection[] = []
      for (const [done, { name, number }] of places.entries()) {
        throwIfAborted(signal)
        onProgress?.({ phase: 'salvage', done, total: places.length })
        const work = { kernel, from, database, signal, problems }
        const salvaged = await salvageCollection(name, number, work)
        if (salvaged !== undefined) collections.push(salvaged)
      }
      return { ok: problems.length === 0, collections, problems }
    } finally {
      await database.close()
    }
  })
}

type Place = { readonly name: string; readonly number: number }

/** The collections that the root names; where nothing can be read of it, the directories that are there, under names of their own. */
async function findCollections(kernel: Kernel, from: StorageBackend, problems: FileReport[]): Promise<Place[]> {
  const root = await from.open({ create: false })
  const generations = await survey(kernel, root, rootFormat, '', problems)
  const directories = await from.directories()
  if (generations === undefined) {
    if (directories.length === 0) throw new IsovecError('NOT_FOUND', `there is no database at ${from.location}`)
    return directories.map((number) => ({ name: `salvaged-${number}`, number }))
  }
  const { collections } = generations.current.body
  return collections.map(({ name, directory }) => ({ name, number: directory }))
}

/** Generations whose manifests hold; what is wrong with others is noted. */
async function survey<T extends object>(
  kernel: Kernel,
  directory: Directory,
  format: BodyFormat<T>,
  prefix: string,
  problems: FileReport[],
): Promise<Generations<T> | undefined> {
  const { valid, damaged } = await readManifests(kernel, directory, format.kind, format.decode)
  for (const error of damaged) problems.push(problemOf(prefix, error.file ?? 'manifest', error))
  return valid.length === 0 ? undefined : await Generations.load(kernel, directory, format)
}

type Work = {
  readonly kernel: Kernel
  readonly from: StorageBackend
  readonly database: Database
  readonly signal: AbortSignal | undefined
  readonly problems: FileReport[]
}

async function salvageCollection(name: string, number: number, work: Work): Promise<SalvagedCollection | undefined> {
  const { kernel, from, database, signal, problems } = work
  const prefix = `${number}/`
  let directory: Directory
  try {
    directory = await from.directory(number, { create: false })
  } catch (error) {
    if (!(error instanceof IsovecError) || error.code !== 'NOT_FOUND') throw error
    problems.push(problemOf(prefix, '', error))
    return undefined
  }
  const generations = await survey(kernel, directory, collectionFormat, prefix, problems)
  if (generations === undefined) {
    // Without one nothing tells which of the files that are there hold what counts.
    problems.push({ file: prefix, ok: false, problem: 'no manifest of the collection can be read' })
    return undefined
  }
  const pool = kernel.createPool()
  const cache = new BlockCache(blockCacheSize)
  const context = contextOf({ kernel, pool, cache, reserve: new Reserve(directory), fate: {} }, directory, generations)
  const gathering = new Gathering(context, prefix, problems, signal)
  try {
    await gathering.gather(generations.kept.map(({ body }) => body))
    const { options } = generations.current.body
    const collection = await database.createCollection(name, {
      ...(options as CollectionOptions),
      durability: 'buffered',
    })
    const lost: string[] = []
    const { count } = await collection.ingest(gathering.documents(lost), { signal })
    await collection.configure({ durability: options.durability })
    await collection.flush()
    return {
      name,
      docs: count,
      lost: lost.length,
      lostIds: lost.slice(0, namedMax),
      unreadableRows: gathering.unreadableRows,
    }
  } finally {
    await gathering.close()
    pool.close()
  }
}

/** What the files of one collection hold. */
class Gathering {
  /** Rows of segments that could not be read at all, of which other files may hold some. */
  unreadableRows = 0
  readonly #context: StorageContext
  readonly #prefix: string
  readonly #problems: FileReport[]
  readonly #signal: AbortSignal | undefined
  readonly #known = new Map<string, Known>()
  readonly #segments: Segment[] = []
  /** Sequences of batches that logs hold, the last one that is known to have been written, and the logs that others have sealed. */
  readonly #sequences = new Set<number>()
  #lastSequence = 0
  readonly #sealed = new Set<number>()
  /** Sequences of rows that could not be read at all. */
  readonly #unreadable: { readonly first: number; readonly last: number }[] = []
  /** Everything up to this sequence is in segments that could be read. */
  #readableUpTo = 0
  #refusedCount = 0

  constructor(context: StorageContext, prefix: string, problems: FileReport[], signal: AbortSignal | undefined) {
    this.#context = context
    this.#prefix = prefix
    this.#problems = problems
    this.#signal = signal
  }

  async gather(bodies: readonly CollectionBody[]): Promise<void> {
    const states = new Map<number, SegmentState[]>()
    for (const { segments } of bodies) {
      for (const state of segments) states.set(state.file.number, [...(states.get(state.file.number) ?? []), state])
    }
    const readable = new Set<number>()
    for (const [number, named] of states) if (await this.#takeSegment(named)) readable.add(number)
    for (const { segments, lastSequence } of bodies) {
      if (!segments.every(({ file }) => readable.has(file.number))) continue
      this.#readableUpTo = Math.max(this.#readableUpTo, lastSequence)
    }
    const firstWal = Math.min(...bodies.map((body) => body.firstWal))
    const numbers = numbersOf(await this.#context.directory.list(), 'wal').filter((number) => number >= firstWal)
    for (const number of numbers.sort((a, b) => a - b)) await this.#takeLog(number)
    this.#noteMissing(bodies, numbers)
  }

  /** Notes logs that are not there, and batches that no log holds though later ones, or seals, say that they were written. */
  #noteMissing(bodies: readonly CollectionBody[], numbers: readonly number[]): void {
    for (const number of new Set([...bodies.map(({ firstWal }) => firstWal), ...this.#sealed])) {
      if (numbers.includes(number) || number < Math.min(...bodies.map(({ firstWal }) => firstWal))) continue
      this.#problems.push({ file: this.#prefix + fileName(number, 'wal'), ok: false, problem: 'the log is missing' })
    }
    const from = Math.min(...bodies.map(({ lastSequence }) => lastSequence))
    let missing = Math.max(0, this.#lastSequence - from)
    for (const sequence of this.#sequences) if (sequence > from) missing--
    if (missing === 0) return
    this.#problems.push({ file: this.#prefix, ok: false, problem: `${missing} batches of the logs are missing` })
  }

  /** Documents that are alive and whole; the ids of those that are not are added to `lost`. */
  async *documents(lost: string[]): AsyncGenerator<{ id: string; vector: Float32Array; payload?: JsonObject }> {
    for (const [id, known] of this.#known) {
      const { versions, deadBefore, patch } = known
      const sequence = versions[0]?.sequence ?? -1
      if (sequence < deadBefore || versions.length === 0) {
        if (this.#mayLive(known)) lost.push(id)
        continue
      }
      const found = await this.#read(versions, patch !== undefined && patch.sequence >= sequence ? patch : undefined)
      if (found !== undefined && this.#isTaken({ id, ...found })) yield { id, ...found }
      else lost.push(id)
    }
  }

  /** Whether a document, no version of which that could be read is alive, may have had one that could not be read. */
  #mayLive({ deadBefore, isDeleted, patch }: Known): boolean {
    // What does not live is not patched.
    if (patch !== undefined && patch.sequence >= deadBefore) return true
    // A document that is known by its deletion alone is none.
    if (isDeleted || deadBefore <= this.#readableUpTo || this.#sequences.has(deadBefore)) return false
    return this.#unreadable.some(({ first, last }) => first <= deadBefore && deadBefore <= last)
  }

  /** Whether a document keeps to the limits of now. */
  #isTaken(document: { readonly id: string }): boolean {
    const { dimension, metric } = this.#context
    try {
      addDocument(new BatchBuilder(dimension, metric === 'cosine'), document, 'document')
      return true
    } catch (error) {
      const isRefusal = error instanceof IsovecError && ['INVALID_ARGUMENT', 'WRONG_DIMENSION'].includes(error.code)
      if (!isRefusal) throw error
      const problem = `${JSON.stringify(document.id)} is not taken any more: ${error.message}`
      if (++this.#refusedCount <= namedMax) this.#problems.push({ file: this.#prefix, ok: false, problem })
      return false
    }
  }

  async close(): Promise<void> {
    for (const segment of this.#segments) {
      segment.release()
      await segment.closeFile()
    }
  }

  async #read(
    versions: readonly Version[],
    patch: Known['patch'],
  ): Promise<{ vector: Float32Array; payload?: JsonObject } | undefined> {
    for (const version of versions) {
      const found = await this.#attempt('', async () => {
        const vector = await version.vector()
        const bytes = patch === undefined ? await version.payload() : patch.payload
        return { vector, ...(bytes === undefined ? {} : { payload: JSON.parse(utf8Decode(bytes)) as JsonObject }) }
      })
      if (found !== undefined) return found
    }
    return undefined
  }

  /** Takes a segment with everything that any generation says of it. Returns whether its ids could be read. */
  async #takeSegment(named: readonly SegmentState[]): Promise<boolean> {
    const { file } = named[0]!
    const name = fileName(file.number, 'seg')
    const segment = await this.#attempt(name, () => Segment.open(this.#context, file, new Tombstones()))
    if (segment !== undefined) this.#segments.push(segment)
    const isReadable =
      segment !== undefined &&
      (await this.#attempt(name, async () => {
        await segment.loadRows()
        return true
      })) === true
    if (isReadable) await this.#takeRows(segment)
    else {
      this.unreadableRows += file.rowCount
      this.#unreadable.push({ first: file.firstSequence, last: file.lastSequence })
    }
    for (const state of named) await this.#takeCompanions(state, isReadable ? segment : undefined)
    return isReadable
  }

  async #takeRows(segment: Segment): Promise<void> {
    // Vectors have one checksum for all of them.
    const { vectors } = sectionIds
    const areWhole = await this.#attempt(
      segment.name,
      async () => {
        await segment.verifySection(vectors)
        return true
      },
      sectionName(vectors),
    )
    if (areWhole !== true) this.unreadableRows += segment.rowCount
    for (let row = 0; row < segment.rowCount; row++) {
      const id = await this.#idAt(segment, row)
      if (id === undefined) continue
      this.#add(id, {
        sequence: segment.sequenceAt(row),
        vector: async () => {
          if (areWhole === true) return segment.readVector(row)
          throw new IsovecError('CORRUPTION', `${segment.name}: the vectors are damaged`, { file: segment.name })
        },
        payload: async () => segment.payloadAt(row, Number.MAX_SAFE_INTEGER),
      })
    }
  }

  async #takeCompanions({ file, tombstones, patches }: SegmentState, segment: Segment | undefined): Promise<void> {
    const { kernel, directory, uuid } = this.#context
    if (tombstones !== undefined) {
      const dead = await this.#attempt(fileName(tombstones.number, 'del'), () =>
        readTombstones(kernel, directory, tombstones, uuid, file.number, file.rowCount),
      )
      if (segment !== undefined) {
        for (const [row, at] of dead?.entries() ?? []) {
          const id = await this.#idAt(segment, row)
          if (id !== undefined) this.#kill(id, at, false)
        }
      }
    }
    if (patches !== undefined) {
      const overlay = await this.#attempt(fileName(patches.number, 'patch'), () =>
        readPatches(kernel, directory, patches, uuid, file.number, file.rowCount),
      )
      if (segment === undefined) return
      for (const { row, sequence, payload } of overlay?.since(0) ?? []) {
        const id = await this.#idAt(segment, row)
        if (id !== undefined) this.#patch(id, sequence, payload)
      }
    }
  }

  /** The id of a row, unless it is no text. */
  #idAt(segment: Segment, row: number): Promise<string | undefined> {
    return this.#attempt(segment.name, async () => segment.idAt(row))
  }

  async #takeLog(number: number): Promise<void> {
    const { kernel, directory, uuid, dimension } = this.#context
    const name = fileName(number, 'wal')
    const found = await this.#attempt(name, () => salvageWal(kernel, directory, uuid, number))
    if (found === undefined) return
    if (found.predecessor !== undefined) {
      this.#sealed.add(found.predecessor.number)
      this.#lastSequence = Math.max(this.#lastSequence, found.predecessor.lastSequence)
    }
    if (found.skipped > 0) {
      const problem = `${found.skipped} bytes are no valid records: the torn end of the log, or damage`
      this.#problems.push({ file: this.#prefix + name, ok: false, problem })
    }
    for (const { bytes, sequence, offset } of found.records) {
      throwIfAborted(this.#signal)
      this.#lastSequence = Math.max(this.#lastSequence, sequence)
      const operations = await this.#attempt(name, async () => decodeBatch(bytes, dimension, name, offset))
      if (operations !== undefined) this.#sequences.add(sequence)
      for (const operation of operations ?? []) {
        const { id } = operation
        if (operation.kind === 'delete') this.#kill(id, sequence + 1, true)
        else if (operation.kind === 'patch') this.#patch(id, sequence, operation.payload)
        else this.#replace(id, sequence, operation.vector, operation.payload)
      }
    }
  }

  /** An upsert of a log: within a batch the last operation on an id counts. */
  #replace(id: string, sequence: number, vector: Uint8Array, payload: Uint8Array | undefined): void {
    const known = this.#of(id)
    if (known.deadBefore === sequence + 1) Object.assign(known, { deadBefore: sequence, isDeleted: false })
    if (known.patch?.sequence === sequence) known.patch = undefined
    const floats = new Float32Array(vector.slice().buffer)
    const version = { sequence, vector: async () => floats, payload: async () => payload }
    if (known.versions[0]?.sequence === sequence) known.versions = [version]
    else this.#add(id, version)
  }

  #add(id: string, version: Version): void {
    const known = this.#of(id)
    const newest = known.versions[0]?.sequence ?? -1
    if (version.sequence > newest) known.versions = [version]
    else if (version.sequence === newest) known.versions.push(version)
  }

  #kill(id: string, deadBefore: number, isDeleted: boolean): void {
    const known = this.#of(id)
    if (deadBefore < known.deadBefore) return
    if (deadBefore > known.deadBefore) known.isDeleted = false
    known.isDeleted ||= isDeleted
    known.deadBefore = deadBefore
  }

  #patch(id: string, sequence: number, payload: Uint8Array | undefined): void {
    const known = this.#of(id)
    if ((known.patch?.sequence ?? -1) <= sequence) known.patch = { sequence, payload }
  }

  #of(id: string): Known {
    const found = this.#known.get(id)
    if (found !== undefined) return found
    const fresh: Known = { versions: [], deadBefore: 0, isDeleted: false, patch: undefined }
    this.#known.set(id, fresh)
    return fresh
  }

  /** Does what damage may keep from being done; then it is noted, once for each place, and the result is undefined. */
  async #attempt<T>(name: string, run: () => Promise<T>, section?: string): Promise<T | undefined> {
    throwIfAborted(this.#signal)
    try {
      return await run()
    } catch (error) {
      const isDamage = error instanceof IsovecError && ['CORRUPTION', 'NOT_FOUND'].includes(error.code)
      if (!isDamage && !(error instanceof SyntaxError)) throw error
      const problem = problemOf(this.#prefix, name, error, section)
      const isKnown = this.#problems.some((other) => other.file === problem.file && other.problem === problem.problem)
      if (!isKnown) this.#problems.push(problem)
      return undefined
    }
  }
}

function problemOf(prefix: string, name: string, error: Error, section?: string): FileReport {
  const file = prefix + ((error instanceof IsovecError ? error.file : undefined) ?? name)
  return { file, ...(section === undefined ? {} : { section }), ok: false, problem: error.message }
}
