/**
 * Writing segments: rows of memtables (flush) or of other segments (compaction) become one file.
 */
import { viewOf, writeUint64 } from '../codec/bytes.ts'
import { IsovecError } from '../errors.ts'
import type { Checksum, Quantizer, VectorImage } from '../kernel/index.ts'
import { vectorStride } from '../kernel/index.ts'
import type { Slice } from '../slice.ts'
import type { MergeSource } from '../snapshot.ts'
import { ColumnBuilder } from './column-builder.ts'
import { fileName } from './file-names.ts'
import { type IdTable, IdTableBuilder } from './id-table.ts'
import { BlockWriter, blockedSize, blockSize } from './payload-blocks.ts'
import {
  encodeSectionHeader,
  type ImagePart,
  layOut,
  planImage,
  type SectionPlan,
  SectionWriter,
  transferSize,
} from './section-file.ts'
import {
  encodeSegmentFields,
  Segment,
  type SegmentFields,
  type SegmentFile,
  type StorageContext,
  sectionIds,
  segmentMagic,
} from './segment.ts'
import { syncFile } from './sync-file.ts'
import { Tombstones } from './tombstones.ts'

/** Rows from which on a segment carries codes: below, scanning the vectors themselves is as quick. */
export const codedRowsMin = 256
/** Sum of ids, and of payloads, that one segment may hold: offsets are 32-bit. */
export const segmentDataSizeMax = 2 ** 32 - 1

/** Rows of one source that go into a segment, in order, with their payloads as of a sequence. */
export type RowRun = { readonly source: MergeSource; readonly rows: Uint32Array; readonly sequence: number }

/** Rows between two looks at the clock. */
const rowsPerLook = 64

/**
 * Writes a segment of the given rows and opens it with everything in memory. The sources must be prepared for merging.
 *
 * @param number the file's number
 * @param onProgress is told the rows whose payloads were written
 * @returns a segment whose rows are those of the runs, one after the other; it's synced, but no manifest names it yet
 */
export async function writeSegment(
  context: StorageContext,
  number: number,
  runs: readonly RowRun[],
  quantization: 'auto' | 'sq8' | 'none',
  slice: Slice,
  onProgress?: (rows: number) => void,
): Promise<Segment> {
  const rowCount = runs.reduce((sum, run) => sum + run.rows.length, 0)
  const image = context.pool.createImage({ dimension: context.dimension, metric: context.metric, capacity: rowCount })
  try {
    await copyVectors(context, image, runs, slice)
    await quantize(image, quantization, slice)
    const rows = await copyRows(context, runs, rowCount, slice)
    const columns = await buildColumns(fileName(number, 'seg'), runs, rowCount, slice)
    const file = await writeFile(context, number, runs, image, { ...rows, columns }, slice, onProgress)
    return await Segment.open(context, file, new Tombstones(), {
      image,
      ids: rows.ids,
      payloadOffsets: rows.payloadOffsets,
    })
  } catch (error) {
    image.release()
    throw error
  }
}

async function copyVectors(
  context: StorageContext,
  image: VectorImage,
  runs: readonly RowRun[],
  slice: Slice,
): Promise<void> {
  const stride = vectorStride(context.dimension)
  const vector = new Uint8Array(context.dimension * 4)
  for (const { source, rows } of runs) {
    for (let i = 0; i < rows.length; i++) {
      source.image.readSection('vectors', rows[i]! * stride, vector)
      image.append(vector)
      if (i % rowsPerLook === 0 && slice.isOver) await slice.next()
    }
  }
}

async function quantize(image: VectorImage, quantization: 'auto' | 'sq8' | 'none', slice: Slice): Promise<void> {
  if (quantization === 'none' || image.rows < codedRowsMin) return
  const quantizer = image.calibrate(quantization === 'sq8')
  if (quantizer === null) return
  image.setQuantizer(quantizer)
  for (let row = 0; row < image.rows; row += rowsPerLook) {
    image.encode(row, Math.min(image.rows, row + rowsPerLook))
    if (slice.isOver) await slice.next()
  }
}

type RowTables = {
  readonly ids: IdTable
  readonly payloadOffsets: Uint32Array
  readonly payloadSize: number
  readonly sequences: Uint8Array
  readonly firstSequence: number
  readonly lastSequence: number
}

async function copyRows(
  context: StorageContext,
  runs: readonly RowRun[],
  rowCount: number,
  slice: Slice,
): Promise<RowTables> {
  const ids = new IdTableBuilder(rowCount, context.hashSeed)
  const payloadOffsets = new Uint32Array(rowCount + 1)
  const sequences = new Uint8Array(rowCount * 8)
  const sequenceView = viewOf(sequences)
  let target = 0
  let payloadSize = 0
  let firstSequence = Number.MAX_SAFE_INTEGER
  let lastSequence = 0
  for (const { source, rows, sequence: asOf } of runs) {
    for (const row of rows) {
      ids.add(source.idAt(row))
      const sequence = source.sequenceAt(row)
      writeUint64(sequenceView, target * 8, sequence)
      firstSequence = Math.min(firstSequence, sequence)
      lastSequence = Math.max(lastSequence, sequence)
      payloadSize += source.payloadSizeAt(row, asOf)
      payloadOffsets[++target] = payloadSize
      if (target % rowsPerLook === 0 && slice.isOver) await slice.next()
    }
  }
  if (payloadSize > segmentDataSizeMax) {
    throw new IsovecError('OUT_OF_MEMORY', `a segment cannot hold ${payloadSize} bytes of payloads`)
  }
  return { ids: ids.build(), payloadOffsets, payloadSize, sequences, firstSequence, lastSequence }
}

/** Attribute columns of the payloads. They come before the payloads in the file, so payloads are read twice. */
async function buildColumns(
  name: string,
  runs: readonly RowRun[],
  rowCount: number,
  slice: Slice,
): Promise<Uint8Array> {
  const builder = new ColumnBuilder(rowCount, name)
  let target = 0
  for (const { source, rows, sequence } of runs) {
    for (const row of rows) {
      const found = source.payloadAt(row, sequence)
      builder.add(target++, found instanceof Promise ? await found : found)
      if (slice.isOver) await slice.next()
    }
  }
  return builder.finishInSlices(slice)
}

async function writeFile(
  context: StorageContext,
  number: number,
  runs: readonly RowRun[],
  image: VectorImage,
  rows: RowTables & { readonly columns: Uint8Array },
  slice: Slice,
  onProgress: ((rows: number) => void) | undefined,
): Promise<SegmentFile> {
  const quantizer = image.quantizer
  const parts = tableParts(rows, quantizer)
  const imageParts = imageSections(quantizer)
  const plans: SectionPlan[] = [
    ...parts.map(([id, bytes]) => ({ id, length: bytes.length, checksum: context.kernel.checksum64(bytes) })),
    ...(await planImage(context.kernel, image, imageParts, slice)),
    { id: sectionIds.payloads, length: blockedSize(rows.payloadSize), checksum: { low: 0, high: 0 } },
  ]
  const { sections, fileSize } = layOut(plans)
  const fields = segmentFields(context, image, rows)
  const { bytes, checksum } = encodeSectionHeader(
    context.kernel,
    segmentMagic,
    context.uuid,
    number,
    sections,
    fileSize,
    (own) => encodeSegmentFields(own, fields),
  )
  const file = await context.directory.create(fileName(number, 'seg'))
  try {
    await file.append(bytes)
    const writer = new SectionWriter(file, sections)
    for (const [id, part] of parts) await writer.whole(id, part)
    await writer.image(image, imageParts, slice)
    await writePayloads(context, runs, fields.salt, writer, slice, onProgress)
    await writer.finish(fileSize)
    await syncFile(file)
  } finally {
    await file.close()
  }
  const { rowCount, firstSequence, lastSequence } = fields
  return { number, length: fileSize, checksum, rowCount, firstSequence, lastSequence }
}

function segmentFields(context: StorageContext, image: VectorImage, rows: RowTables): SegmentFields {
  const salt = new Uint32Array(2)
  crypto.getRandomValues(salt)
  return {
    rowCount: image.rows,
    dimension: context.dimension,
    metric: context.metric,
    hasCodes: image.quantizer !== null,
    firstSequence: rows.firstSequence,
    lastSequence: rows.lastSequence,
    salt: { low: salt[0]!, high: salt[1]! },
    delta: image.quantizer?.delta ?? 0,
    hashSeed: context.hashSeed,
  }
}

function tableParts(
  rows: RowTables & { readonly columns: Uint8Array },
  quantizer: Quantizer | null,
): [id: number, bytes: Uint8Array][] {
  const parts: [number, Uint8Array][] = [
    [sectionIds.idOffsets, asBytes(rows.ids.offsets)],
    [sectionIds.idBytes, rows.ids.bytes],
    [sectionIds.idSlots, asBytes(rows.ids.slots)],
    [sectionIds.payloadOffsets, asBytes(rows.payloadOffsets)],
    [sectionIds.sequences, rows.sequences],
    [sectionIds.columns, rows.columns],
  ]
  if (quantizer !== null) parts.push([sectionIds.origin, asBytes(quantizer.origin)])
  return parts
}

function imageSections(quantizer: Quantizer | null): ImagePart[] {
  const kinds: ImagePart[] = [
    [sectionIds.vectors, 'vectors'],
    [sectionIds.norms, 'norms'],
  ]
  if (quantizer !== null) kinds.push([sectionIds.codes, 'codes'], [sectionIds.terms, 'terms'])
  return kinds
}

/** Streams the payloads of all runs through blocks, a transfer's worth of blocks at a time. */
async function writePayloads(
  context: StorageContext,
  runs: readonly RowRun[],
  salt: Checksum,
  writer: SectionWriter,
  slice: Slice,
  onProgress: ((rows: number) => void) | undefined,
): Promise<void> {
  const stream = await writer.stream(sectionIds.payloads)
  const blocks: Uint8Array[] = []
  const flushBlocks = async (): Promise<void> => {
    await stream(blocks.splice(0))
  }
  const cutter = new BlockWriter(context.kernel, salt, async (block) => {
    if (blocks.push(block) * blockSize >= transferSize) await flushBlocks()
  })
  let written = 0
  for (const { source, rows, sequence } of runs) {
    for (const row of rows) {
      const found = source.payloadAt(row, sequence)
      const payload = found instanceof Promise ? await found : found
      if (payload !== undefined) await cutter.write(payload)
      if (++written % rowsPerLook !== 0) continue
      onProgress?.(written)
      // A backend in memory answers without a turn of the event loop.
      if (slice.isOver) await slice.next()
    }
  }
  await cutter.finish()
  if (blocks.length > 0) await flushBlocks()
  onProgress?.(written)
}

function asBytes(array: Uint32Array | Float32Array): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength)
}
