/**
 * Samples of the small files: logs, manifests, tombstones, patches and graphs.
 */
import { Bitmap } from '../../src/codec/bitmap.ts'
import type { Kernel, VectorImage } from '../../src/kernel/index.ts'
import { loadKernel } from '../../src/kernel/index.ts'
import { Slice } from '../../src/slice.ts'
import { decodeBatch } from '../../src/storage/batch.ts'
import { collectionFormat, filesOf, type SegmentState } from '../../src/storage/collection-manifest.ts'
import type { CompanionFile } from '../../src/storage/companion-file.ts'
import { parseFileName } from '../../src/storage/file-names.ts'
import { type BodyFormat, Generations } from '../../src/storage/generations.ts'
import { type GraphFile, loadGraph } from '../../src/storage/graph-file.ts'
import { type Manifest, readManifests } from '../../src/storage/manifest.ts'
import { readPatches } from '../../src/storage/overlay.ts'
import { rootFormat } from '../../src/storage/root-manifest.ts'
import { Segment } from '../../src/storage/segment.ts'
import { readTombstones, Tombstones } from '../../src/storage/tombstones.ts'
import { readWal, type Seal, salvageWal, type WalContent } from '../../src/storage/wal.ts'
import { holdsFor } from '../support/filter-reference.ts'
import { type BaseName, baseNames, baseOf } from './bases.ts'
import { demand } from './input.ts'
import { recordsOf, view } from './layout.ts'
import {
  contextWith,
  directoryOf,
  directoryWith,
  type Files,
  type Place,
  placesOf,
  questions,
  textOfBytes,
} from './places.ts'
import type { Reading, Sample } from './reader-target.ts'
import { endOf } from './repair.ts'

const numberOf = (name: string): number => Number.parseInt(name, 10)

/** Every log, as its successor seals it or as a newest one. */
export async function logSamples(): Promise<Sample[]> {
  const samples: Sample[] = []
  for (const place of await placesOf(['closed', 'crashed', 'logClosed', 'logCrashed'])) {
    const { kernel, uuid } = place.context
    const logs = [...place.files].filter(([name]) => name.endsWith('.wal'))
    const seals = new Map<number, Seal>()
    for (const [name] of logs) {
      const { predecessor } = await readWal(kernel, await directoryOf(place.files), uuid, numberOf(name), undefined)
      if (predecessor !== undefined) seals.set(predecessor.number, predecessor)
    }
    for (const [name, bytes] of logs) {
      const log = new LogReader(place, numberOf(name), bytes, seals.get(numberOf(name)))
      const read = (damaged: Uint8Array, reading: Reading): Promise<void> => log.read(damaged, reading)
      samples.push({ name: `${place.name}/${name}`, kind: 'wal', bytes, isGuarded: true, read })
    }
  }
  return samples
}

class LogReader {
  readonly #place: Place
  readonly #number: number
  readonly #original: Uint8Array
  readonly #seal: Seal | undefined

  constructor(place: Place, number: number, original: Uint8Array, seal: Seal | undefined) {
    this.#place = place
    this.#number = number
    this.#original = original
    this.#seal = seal
  }

  async read(bytes: Uint8Array, reading: Reading): Promise<void> {
    const { kernel, uuid } = this.#place.context
    const directory = await directoryWith(`${this.#number}.wal`, bytes)
    const seal = this.#sealOf(bytes, reading)
    const content = await reading.attempt('readWal', () => readWal(kernel, directory, uuid, this.#number, seal))
    if (content !== undefined) await this.#checkContent(content, bytes, seal, reading)
    const survivors = await reading.attempt('salvageWal', () => salvageWal(kernel, directory, uuid, this.#number))
    if (survivors === undefined) {
      demand(content === undefined, 'a log is read and cannot be salvaged')
      return
    }
    const { records, skipped } = survivors
    demand(skipped >= 0 && skipped <= Math.max(0, bytes.length - 128), 'more is skipped than there is')
    for (const [i, { offset }] of (content?.records ?? []).entries()) {
      demand(records[i]?.offset === offset, 'salvaging finds other records than reading')
    }
    const lines = records.map((record) => `${record.sequence} ${textOfBytes(record.bytes)}\n`)
    reading.answer('survivors', lines.join(''), (_, whole) => lines.every((line) => whole.includes(line)))
  }

  /** The seal in the log that follows, which is repaired with this one. */
  #sealOf(bytes: Uint8Array, { repair }: Reading): Seal | undefined {
    const seal = this.#seal
    if (seal === undefined || repair === 'none' || bytes.length < 128) return seal
    const { kernel } = this.#place.context
    if (repair === 'checksums') return { ...seal, chain: endOf(kernel, bytes, seal.validEnd).chain }
    const { validEnd, lastSequence, chain } = endOf(kernel, bytes, Number.POSITIVE_INFINITY)
    return { number: seal.number, validEnd, lastSequence: Number(lastSequence), chain }
  }

  async #checkContent(
    { records, seal, size, closed, number }: WalContent,
    bytes: Uint8Array,
    sealedBy: Seal | undefined,
    reading: Reading,
  ): Promise<void> {
    demand(size === bytes.length && number === this.#number, 'a log is taken for another')
    demand(seal.validEnd >= 128 && seal.validEnd % 8 === 0 && seal.validEnd <= size, 'a log ends where none can')
    demand(sealedBy === undefined || seal.validEnd === sealedBy.validEnd, 'a sealed log ends elsewhere')
    let end = 128
    for (const [i, record] of records.entries()) {
      demand(record.offset >= end + 32, 'records overlap')
      end = record.offset + record.bytes.length
      demand(end <= seal.validEnd, 'a record goes beyond the end of its log')
      demand(record.sequence === seal.lastSequence - records.length + 1 + i, 'sequences have gaps')
      const batch = await reading.attempt('decodeBatch', () => this.#checkBatch(record.bytes, record.offset))
      if (batch === undefined) demand(reading.repair !== 'none', 'a record that is whole holds no batch')
    }
    const lines = records.map((record) => `${record.sequence} ${textOfBytes(record.bytes)}\n`)
    const text = lines.join('') + (closed ? 'closed' : '')
    // The tail of a newest log may be torn; that of a sealed one may not.
    reading.answer('records', text, (found, whole) =>
      this.#seal === undefined ? whole.startsWith(found) : whole === found,
    )
    if (reading.repair === 'none') this.#checkDropped(bytes, seal)
  }

  /** Nothing that a record which is still there tells to have been synced may be taken for a torn tail. */
  #checkDropped(bytes: Uint8Array, { validEnd, lastSequence }: Seal): void {
    for (const { at, end } of recordsOf(this.#original)) {
      if (at < validEnd || end > bytes.length) continue
      if (textOfBytes(bytes.subarray(at, end)) !== textOfBytes(this.#original.subarray(at, end))) continue
      const durable = Number(view(bytes).getBigUint64(at + 24, true))
      demand(durable <= lastSequence, 'writes that a later record proves to be synced are silently dropped')
    }
  }

  #checkBatch(bytes: Uint8Array, offset: number): number {
    const { dimension } = this.#place.body.options
    const operations = decodeBatch(bytes, dimension, 'log', offset)
    let size = 8
    for (const operation of operations) {
      const idSize = Buffer.byteLength(operation.id)
      demand(idSize > 0 && idSize <= 1024, 'an id has an impossible size')
      size += 8 + idSize
      if (operation.kind !== 'delete') size += operation.payload?.length ?? 0
      if (operation.kind === 'upsert') {
        demand(operation.vector.length === 4 * dimension, 'a vector has another dimension')
        size += operation.vector.length
      }
    }
    demand(size === bytes.length, 'operations have not the size of their batch')
    return operations.length
  }
}

/** Manifests of roots and collections. */
export async function manifestSamples(): Promise<Sample[]> {
  const samples: Sample[] = []
  const kernel = await loadKernel()
  for (const base of baseNames.filter((name) => name !== 'graph')) {
    const { image } = await baseOf(base)
    samples.push(...manifestsIn(kernel, `${base}/root`, image.root!, rootFormat))
    for (const [number, files] of image.directories) {
      samples.push(...manifestsIn(kernel, `${base}/${number}`, files, collectionFormat))
    }
  }
  return samples
}

function manifestsIn<T extends object>(kernel: Kernel, place: string, files: Files, format: BodyFormat<T>): Sample[] {
  const all = [...files].filter(([name]) => name.endsWith('.manifest'))
  return all.map(([name, bytes]) => {
    const others = new Map(all.filter(([other]) => other !== name))
    const read = (damaged: Uint8Array, reading: Reading): Promise<void> =>
      readManifestsOf(kernel, format, name, damaged, others, reading)
    return { name: `${place}/${name}`, kind: 'manifest', bytes, isGuarded: true, read }
  })
}

async function readManifestsOf<T extends object>(
  kernel: Kernel,
  format: BodyFormat<T>,
  name: string,
  bytes: Uint8Array,
  others: Files,
  reading: Reading,
): Promise<void> {
  const alone = await directoryWith(name, bytes)
  const survey = await reading.attempt('readManifests', () => readManifests(kernel, alone, format.kind, format.decode))
  if (survey !== undefined) {
    const { valid, damaged, highest } = survey
    demand(valid.length + damaged.length === 1 && highest === numberOf(name), 'a manifest is lost')
    for (const error of damaged) reading.refuse('readManifests', error)
    for (const { generation, uuid, spare, body } of valid) {
      demand(generation === highest && uuid.length === 16, 'a manifest is of another generation')
      demand(spare === undefined || (spare > 0 && spare < generation), 'a manifest falls back to a later one')
      const text = JSON.stringify(format.encode(body))
      demand(
        JSON.stringify(format.encode(format.decode(JSON.parse(text), name))) === text,
        'a body is not what it is written as',
      )
      const { segments } = body as { segments?: readonly SegmentState[] }
      if (segments !== undefined) {
        for (const file of filesOf(body as never)) demand(parseFileName(file) !== undefined, `a file is named ${file}`)
      }
      reading.answer('manifest', `${generation} ${textOfBytes(uuid)} ${spare} ${text}`)
    }
  }
  const directory = await directoryOf(new Map(others).set(name, bytes))
  // After damage any of those that are valid may be kept.
  if (reading.isFirst) {
    const { valid } = await readManifests(kernel, directory, format.kind, format.decode)
    reading.answer('kept', linesOf(format, valid).join(''))
    return
  }
  const kept = await reading.attempt('load', async () => (await Generations.load(kernel, directory, format))?.kept)
  if (kept === undefined) return
  demand(kept.length > 0 && kept.length <= 2, 'more generations are kept than two')
  demand(kept.length < 2 || kept[0]!.generation > kept[1]!.generation, 'generations are kept in no order')
  const lines = linesOf(format, kept)
  reading.answer('kept', lines.join(''), (_, whole) => lines.every((line) => whole.includes(line)))
}

function linesOf<T extends object>(format: BodyFormat<T>, manifests: readonly Manifest<T>[]): string[] {
  return manifests.map(({ generation, body }) => `${generation} ${JSON.stringify(format.encode(body))}\n`)
}

/** The companions of segments, of one kind. */
async function companions(kind: 'del' | 'patch', read: ReadCompanion): Promise<Sample[]> {
  const samples: Sample[] = []
  for (const place of await placesOf(['closed', 'crashed'])) {
    for (const state of place.body.segments) {
      const entry = kind === 'del' ? state.tombstones : state.patches
      if (entry === undefined) continue
      const name = `${entry.number}.${kind}`
      samples.push({
        name: `${place.name}/${name}`,
        kind,
        bytes: place.files.get(name)!,
        isGuarded: true,
        read: async (bytes, reading) => {
          // With sizes, the manifest is repaired as well.
          const isFitted = reading.repair === 'sizes' && bytes.length >= 64
          const count = isFitted ? Math.max(1, view(bytes).getUint32(40, true)) : entry.count
          const named = isFitted ? { ...entry, length: bytes.length, count } : entry
          await read(place, state, named, await directoryWith(name, bytes), reading)
        },
      })
    }
  }
  return samples
}

type ReadCompanion = (
  place: Place,
  state: SegmentState,
  entry: CompanionFile,
  directory: Awaited<ReturnType<typeof directoryWith>>,
  reading: Reading,
) => Promise<void>

export function tombstoneSamples(): Promise<Sample[]> {
  return companions('del', async ({ context: { kernel, uuid } }, { file }, entry, directory, reading) => {
    const tombstones = await reading.attempt('readTombstones', () =>
      readTombstones(kernel, directory, entry, uuid, file.number, file.rowCount),
    )
    if (tombstones === undefined) return
    const all = [...tombstones.entries()]
    demand(all.length === entry.count && tombstones.count === entry.count, 'there are more or fewer tombstones')
    for (const [row, sequence] of all) {
      demand(row < file.rowCount && Number.isSafeInteger(sequence) && sequence > 0, 'a tombstone is impossible')
      demand(tombstones.isDead(row, sequence) && !tombstones.isDead(row, sequence - 1), 'a row dies at another time')
    }
    demand(new Set(all.map(([row]) => row)).size === all.length, 'a row dies twice')
    const words = await tombstones.encode(Number.MAX_SAFE_INTEGER, new Slice())
    const sorted = all.sort(([a], [b]) => a - b)
    const expected = sorted.flatMap(([row, sequence]) => [row, 0, sequence >>> 0, Math.floor(sequence / 2 ** 32)])
    demand(words.join() === expected.join(), 'tombstones are written as others')
    reading.answer('tombstones', sorted.join())
  })
}

export function patchSamples(): Promise<Sample[]> {
  return companions('patch', async ({ context: { kernel, uuid } }, { file }, entry, directory, reading) => {
    const overlay = await reading.attempt('readPatches', () =>
      readPatches(kernel, directory, entry, uuid, file.number, file.rowCount),
    )
    if (overlay === undefined) return
    const rows = await overlay.versionsAt(Number.MAX_SAFE_INTEGER, new Slice())
    demand(rows.length === entry.count && overlay.count === entry.count, 'there are more or fewer patches')
    demand(rows.reduce((sum, { payload }) => sum + (payload?.length ?? 0), 0) === overlay.size, 'payloads overlap')
    for (const [i, { row, sequence, payload }] of rows.entries()) {
      const isPossible = row < file.rowCount && row > (rows[i - 1]?.row ?? -1) && sequence > 0
      demand(isPossible && payload?.length !== 0, 'a patch is impossible')
      demand(overlay.find(row, sequence) >= 0 && overlay.find(row, sequence - 1) < 0, 'a patch is seen at another time')
    }
    reading.answer('patches', rows.map((row) => `${row.row} ${row.sequence} ${textOfBytes(row.payload)}\n`).join(''))
    for (const [path, condition] of questions) {
      const found = await reading.attempt('correct', () =>
        overlay.correct(Bitmap.full(file.rowCount), path, condition, Number.MAX_SAFE_INTEGER),
      )
      // What is no JSON fails every question alike.
      if (found === undefined) return
      for (const { row, payload } of rows) {
        const parsed: unknown = payload === undefined ? undefined : JSON.parse(Buffer.from(payload).toString())
        demand(found.has(row) === holdsFor('', parsed, path, condition), `a patch is matched otherwise at ${path}`)
      }
      demand(found.count() >= file.rowCount - rows.length, 'rows that were not patched are corrected')
    }
  })
}

/** Graphs over the image of their segment, which many of them are read into, one after the other. */
export async function graphSamples(): Promise<Sample[]> {
  const samples: Sample[] = []
  const names: readonly BaseName[] = ['smallGraph', 'graph']
  for (const place of await placesOf(names)) {
    const [state] = place.body.segments
    const { graph, file } = state!
    if (graph === undefined) throw new Error(`${place.name} has no graph`)
    const segment = await Segment.open(place.context, file, new Tombstones())
    await segment.loadImage()
    const { image } = segment
    const name = `${graph.number}.graph`
    const sample: Sample = {
      name: `${place.name}/${name}`,
      kind: 'graph',
      bytes: place.files.get(name)!,
      isGuarded: true,
      read: (bytes, reading) => readGraph(place, graph, state!, image, bytes, reading),
    }
    // The large one takes a hundred times as long.
    samples.push(...Array.from({ length: place.name.startsWith('small') ? 60 : 1 }, () => sample))
  }
  return samples
}

async function readGraph(
  { context }: Place,
  graph: GraphFile,
  { file }: SegmentState,
  image: VectorImage,
  bytes: Uint8Array,
  reading: Reading,
): Promise<void> {
  const isFitted = reading.repair !== 'none' && bytes.length >= 4096
  const checksum = isFitted
    ? { low: view(bytes).getUint32(4088, true), high: view(bytes).getUint32(4092, true) }
    : graph.checksum
  const entry = { ...graph, checksum, length: reading.repair === 'sizes' ? bytes.length : graph.length }
  const own = contextWith(context, await directoryWith(`${graph.number}.graph`, bytes))
  const beams = await reading.attempt('loadGraph', () => loadGraph(own, entry, file, image))
  if (beams === undefined) {
    demand(!image.hasGraph, 'a graph that was refused can be walked')
    image.dropGraph()
    return
  }
  demand(image.hasGraph, 'a graph that was taken cannot be walked')
  for (const { k, ef, recall } of beams) {
    demand(k > 0 && ef >= k && recall >= 0 && recall <= 1, 'a beam is impossible')
  }
  reading.answer('beams', beams.map(({ k, ef, recall }) => `${k} ${ef} ${recall}`).join())
  const found: string[] = []
  for (const ef of [1, 8, 64]) {
    const out = { rows: new Uint32Array(ef), distances: new Float32Array(ef) }
    image.prepare(Float32Array.from({ length: image.dimension }, (_, i) => ef - 3 * i))
    const { count, visited } = image.search(ef, out)
    const rows = out.rows.subarray(0, count)
    demand(count <= Math.min(ef, file.rowCount) && visited <= file.rowCount, 'a walk finds more rows than there are')
    demand(rows.every((row) => row < file.rowCount) && new Set(rows).size === count, 'a walk finds rows that are none')
    demand(
      out.distances.subarray(0, count).every((d, i, all) => i === 0 || d >= all[i - 1]!),
      'a walk sorts wrong',
    )
    found.push(rows.join())
  }
  reading.answer('walks', found.join(' '))
  image.dropGraph()
}
