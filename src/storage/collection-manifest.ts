/**
 * What the manifest of a collection says, and the check of every field of it when it's read.
 */
import { hexDecode } from '../codec/bytes.ts'
import type { Checksum, Metric } from '../kernel/index.ts'
import { mMax } from '../kernel/limits.ts'
import { metrics } from '../kernel/metric.ts'
import { dimensionMax } from './batch.ts'
import { type FileKind, fileName } from './file-names.ts'
import type { BodyFormat } from './generations.ts'
import type { GraphFile } from './graph-file.ts'
import { BodyReader } from './manifest.ts'
import type { PatchFile } from './overlay.ts'
import type { SegmentFile } from './segment.ts'
import type { TombstoneFile } from './tombstones.ts'

/** Parameters of an HNSW graph as in Malkov & Yashunin, 2016. */
export type HnswOptions = {
  /** Neighbours per node and layer; the bottom layer has twice as many. */
  readonly M: number
  /** Beam while building. */
  readonly efConstruction: number
}

/** A collection's options with every value filled in. */
export type ResolvedCollectionOptions = {
  readonly dimension: number
  readonly metric: Metric
  readonly durability: 'strict' | 'buffered'
  readonly hnsw: HnswOptions
  readonly quantization: 'auto' | 'sq8' | 'none'
  readonly vectors: 'memory' | 'disk'
  readonly compaction: 'auto' | 'manual'
  readonly index: 'auto' | 'manual'
  /** Name of the embedding model, only if one was given. */
  readonly model?: string
}

/** A segment with the files that belong to it. */
export type SegmentState = {
  readonly file: SegmentFile
  readonly tombstones?: TombstoneFile
  readonly patches?: PatchFile
  readonly graph?: GraphFile
}

/** The body of a collection's manifest. */
export type CollectionBody = {
  readonly options: ResolvedCollectionOptions
  /** Next number for a file. */
  readonly nextFile: number
  /** The log from which on there are writes that no segment holds. */
  readonly firstWal: number
  /** Everything up to this sequence is in the segments. */
  readonly lastSequence: number
  /** Whether the graphs were dropped and are not to be built again by themselves. */
  readonly isIndexDropped: boolean
  /** Oldest data first. */
  readonly segments: readonly SegmentState[]
}

/** Widest beam that a graph may be built with. */
export const hnswEfConstructionMax = 10_000
const modelLengthMax = 1024

/** The names of all files that a generation needs beside its logs. */
export function filesOf(body: CollectionBody): string[] {
  const names: string[] = []
  for (const { file, tombstones, patches, graph } of body.segments) {
    const add = (kind: FileKind, number: number | undefined): void => {
      if (number !== undefined) names.push(fileName(number, kind))
    }
    add('seg', file.number)
    add('del', tombstones?.number)
    add('patch', patches?.number)
    add('graph', graph?.number)
  }
  return names
}

/** How the manifest of a collection is written and checked. */
export const collectionFormat: BodyFormat<CollectionBody> = {
  kind: 'collection',
  encode: encodeCollectionBody,
  decode: decodeCollectionBody,
}

/** Checksums are kept as 16 hexadecimal digits, since JSON numbers end at 53 bits. */
function encodeCollectionBody(body: CollectionBody): object {
  return {
    ...body,
    segments: body.segments.map(({ file, tombstones, patches, graph }) => ({
      file: { ...file, checksum: encodeChecksum(file.checksum) },
      ...(tombstones === undefined ? {} : { tombstones }),
      ...(patches === undefined ? {} : { patches }),
      ...(graph === undefined ? {} : { graph: { ...graph, checksum: encodeChecksum(graph.checksum) } }),
    })),
  }
}

function decodeCollectionBody(value: unknown, file: string): CollectionBody {
  const read = new BodyReader(file)
  const body = read.record(value, 'the body')
  const numbers = new Set<number>()
  const lastSequence = read.whole(body.lastSequence, 'lastSequence')
  const segments = read.list(body.segments, 'segments').map((entry, index) => {
    const segment = decodeSegment(read, entry, `segments[${index}]`, lastSequence)
    if (numbers.has(segment.file.number)) throw read.bad(`segments[${index}]`)
    numbers.add(segment.file.number)
    return segment
  })
  return {
    options: decodeOptions(read, body.options),
    nextFile: read.whole(body.nextFile, 'nextFile', 1),
    firstWal: read.whole(body.firstWal, 'firstWal', 1),
    lastSequence,
    isIndexDropped: read.flag(body.isIndexDropped, 'isIndexDropped'),
    segments,
  }
}

function decodeOptions(read: BodyReader, value: unknown): ResolvedCollectionOptions {
  const options = read.record(value, 'options')
  const hnsw = read.record(options.hnsw, 'options.hnsw')
  return {
    dimension: read.whole(options.dimension, 'options.dimension', 1, dimensionMax),
    metric: read.oneOf(options.metric, metrics, 'options.metric'),
    durability: read.oneOf(options.durability, ['strict', 'buffered'], 'options.durability'),
    hnsw: {
      M: read.whole(hnsw.M, 'options.hnsw.M', 2, mMax),
      efConstruction: read.whole(hnsw.efConstruction, 'options.hnsw.efConstruction', 1, hnswEfConstructionMax),
    },
    quantization: read.oneOf(options.quantization, ['auto', 'sq8', 'none'], 'options.quantization'),
    vectors: read.oneOf(options.vectors, ['memory', 'disk'], 'options.vectors'),
    compaction: read.oneOf(options.compaction, ['auto', 'manual'], 'options.compaction'),
    index: read.oneOf(options.index, ['auto', 'manual'], 'options.index'),
    ...(options.model === undefined ? {} : { model: decodeModel(read, options.model) }),
  }
}

function decodeModel(read: BodyReader, value: unknown): string {
  const model = read.text(value, 'options.model')
  if (!isModelName(model)) throw read.bad('options.model')
  return model
}

/** Whether a text can name an embedding model. */
export function isModelName(value: string): boolean {
  return value.length > 0 && value.length <= modelLengthMax
}

/** @param lastSequence none of what the segment and its files hold may be later */
function decodeSegment(read: BodyReader, value: unknown, place: string, lastSequence: number): SegmentState {
  const entry = read.record(value, place)
  const file = read.record(entry.file, `${place}.file`)
  return {
    file: {
      number: read.whole(file.number, `${place}.file.number`, 1),
      length: read.whole(file.length, `${place}.file.length`, 1),
      checksum: decodeChecksum(read, file.checksum, `${place}.file.checksum`),
      rowCount: read.whole(file.rowCount, `${place}.file.rowCount`, 1, 2 ** 32 - 2),
      firstSequence: read.whole(file.firstSequence, `${place}.file.firstSequence`),
      lastSequence: read.whole(file.lastSequence, `${place}.file.lastSequence`, 0, lastSequence),
    },
    ...(entry.tombstones === undefined
      ? {}
      : { tombstones: decodeCounted(read, entry.tombstones, `${place}.tombstones`, lastSequence) }),
    ...(entry.patches === undefined
      ? {}
      : { patches: decodeCounted(read, entry.patches, `${place}.patches`, lastSequence) }),
    ...(entry.graph === undefined ? {} : { graph: decodeGraph(read, entry.graph, place) }),
  }
}

function decodeCounted(
  read: BodyReader,
  value: unknown,
  place: string,
  lastSequence: number,
): TombstoneFile & PatchFile {
  const entry = read.record(value, place)
  return {
    number: read.whole(entry.number, `${place}.number`, 1),
    length: read.whole(entry.length, `${place}.length`, 1),
    count: read.whole(entry.count, `${place}.count`, 1, 2 ** 32 - 2),
    lastSequence: read.whole(entry.lastSequence, `${place}.lastSequence`, 1, lastSequence),
  }
}

function decodeGraph(read: BodyReader, value: unknown, place: string): GraphFile {
  const entry = read.record(value, `${place}.graph`)
  return {
    number: read.whole(entry.number, `${place}.graph.number`, 1),
    length: read.whole(entry.length, `${place}.graph.length`, 1),
    checksum: decodeChecksum(read, entry.checksum, `${place}.graph.checksum`),
    M: read.whole(entry.M, `${place}.graph.M`, 2, mMax),
    efConstruction: read.whole(entry.efConstruction, `${place}.graph.efConstruction`, 1, hnswEfConstructionMax),
  }
}

function encodeChecksum({ low, high }: Checksum): string {
  return high.toString(16).padStart(8, '0') + low.toString(16).padStart(8, '0')
}

function decodeChecksum(read: BodyReader, value: unknown, place: string): Checksum {
  const text = read.text(value, place)
  if (text.length !== 16 || hexDecode(text) === undefined) throw read.bad(place)
  return { high: Number.parseInt(text.slice(0, 8), 16), low: Number.parseInt(text.slice(8), 16) }
}
