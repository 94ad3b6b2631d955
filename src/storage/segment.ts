/**
 * Segments: immutable rows on disk, sorted by nothing, found by id through a hash and by likeness through codes and a graph.
 *
 * Opening one reads its 4 KiB header; ids, vectors and the graph are brought into memory, verified, when they are first needed.
 */
import type { Bitmap } from '../codec/bitmap.ts'
import { readUint64, utf8Encode, writeUint64 } from '../codec/bytes.ts'
import type { Condition } from '../condition.ts'
import type { Directory, RandomAccessFile } from '../directory/directory.ts'
import { assert, IsovecError, throwIfAborted } from '../errors.ts'
import {
  type Checksum,
  codeStride,
  type ImagePool,
  type Kernel,
  type Metric,
  type SectionKind,
  termSize,
  type VectorImage,
  vectorStride,
} from '../kernel/index.ts'
import { metrics } from '../kernel/metric.ts'
import { Slice } from '../slice.ts'
import type { Beam, IdKey, MergeSource } from '../snapshot.ts'
import { type Columns, openColumns } from './columns.ts'
import { copyBytes } from './copy-file.ts'
import { fileName } from './file-names.ts'
import { type GraphFile, loadGraph } from './graph-file.ts'
import { areOffsetsValid, findId, type IdTable, idAt, idKey, slotCountFor } from './id-table.ts'
import { Overlay, type PatchFile } from './overlay.ts'
import { type BlockCache, BlockReader, blockSize, dataSizeOf } from './payload-blocks.ts'
import type { Reserve } from './reserve.ts'
import { corrupt, readSection, readSectionHeader, type Section, type SectionHeader } from './section-file.ts'
import type { TombstoneFile, Tombstones } from './tombstones.ts'

/** The first 8 bytes of a segment file. */
export const segmentMagic = utf8Encode('isovecSG')

/** Section ids. */
export const sectionIds = {
  idOffsets: 1,
  idBytes: 2,
  idSlots: 3,
  payloadOffsets: 4,
  sequences: 5,
  vectors: 6,
  norms: 7,
  codes: 8,
  terms: 9,
  origin: 10,
  payloads: 11,
  columns: 32,
} as const

/** What a section is called; ids of later versions by their number. */
export function sectionName(id: number): string {
  return Object.entries(sectionIds).find(([, other]) => other === id)?.[0] ?? String(id)
}

/** Rows whose codes are checked between two looks at the clock. */
const validatedRowsPerLook = 1024

const idSections: ReadonlySet<number> = new Set([
  sectionIds.idOffsets,
  sectionIds.idBytes,
  sectionIds.idSlots,
  sectionIds.payloadOffsets,
  sectionIds.sequences,
])
const imageSections: ReadonlySet<number> = new Set([
  sectionIds.vectors,
  sectionIds.norms,
  sectionIds.codes,
  sectionIds.terms,
  sectionIds.origin,
])

/** What all sources of one collection share. */
export type StorageContext = {
  readonly kernel: Kernel
  readonly pool: ImagePool
  readonly cache: BlockCache
  /** What may be given up where the disk is full. */
  readonly reserve: Reserve
  readonly directory: Directory
  /** Identity of the collection: every file of it carries it. */
  readonly uuid: Uint8Array
  /** Seeds the hash of ids. */
  readonly hashSeed: number
  readonly dimension: number
  readonly metric: Metric
}

/** What a manifest keeps of a segment. */
export type SegmentFile = {
  readonly number: number
  readonly length: number
  /** Checksum of the header, which covers the checksums of the sections. */
  readonly checksum: Checksum
  readonly rowCount: number
  readonly firstSequence: number
  readonly lastSequence: number
}

/** The fields of a segment's header that are its own. */
export type SegmentFields = {
  readonly rowCount: number
  readonly dimension: number
  readonly metric: Metric
  readonly hasCodes: boolean
  readonly firstSequence: number
  readonly lastSequence: number
  readonly salt: Checksum
  readonly delta: number
  readonly hashSeed: number
}

/** Writes the own fields of a header. */
export function encodeSegmentFields(own: DataView, fields: SegmentFields): void {
  own.setUint32(0, fields.rowCount, true)
  own.setUint32(4, fields.dimension, true)
  own.setUint32(8, metrics.indexOf(fields.metric), true)
  own.setUint32(12, vectorStride(fields.dimension), true)
  own.setUint32(16, fields.hasCodes ? codeStride(fields.dimension) : 0, true)
  own.setUint32(20, blockSize, true)
  writeUint64(own, 24, fields.firstSequence)
  writeUint64(own, 32, fields.lastSequence)
  own.setUint32(40, fields.salt.low, true)
  own.setUint32(44, fields.salt.high, true)
  own.setFloat32(48, fields.delta, true)
  own.setUint32(52, fields.hashSeed, true)
}

function decodeSegmentFields(own: DataView, name: string, context: StorageContext): SegmentFields {
  const dimension = own.getUint32(4, true)
  const metric = metrics[own.getUint32(8, true)]
  const codes = own.getUint32(16, true)
  const firstSequence = readUint64(own, 24)
  const lastSequence = readUint64(own, 32)
  const delta = own.getFloat32(48, true)
  const fits =
    dimension === context.dimension &&
    metric === context.metric &&
    own.getUint32(12, true) === vectorStride(dimension) &&
    (codes === 0 || codes === codeStride(dimension)) &&
    own.getUint32(20, true) === blockSize &&
    own.getUint32(52, true) === context.hashSeed &&
    Number.isFinite(delta) &&
    (codes === 0 || delta > 0) &&
    firstSequence !== undefined &&
    lastSequence !== undefined
  if (!fits) throw corrupt(name, 40, 'the header does not fit the collection')
  return {
    rowCount: own.getUint32(0, true),
    dimension,
    metric,
    hasCodes: codes !== 0,
    firstSequence,
    lastSequence,
    salt: { low: own.getUint32(40, true), high: own.getUint32(44, true) },
    delta,
    hashSeed: context.hashSeed,
  }
}

/** What a segment's writer has in memory anyway when it is done, so that nothing is read back. */
export type SegmentParts = {
  readonly image: VectorImage
  readonly ids: IdTable
  readonly payloadOffsets: Uint32Array
}

/** An open segment. */
export class Segment implements MergeSource {
  readonly number: number
  readonly fields: SegmentFields
  readonly file: SegmentFile
  readonly tombstones: Tombstones
  /** The tombstone file that the newest manifest names. */
  tombstoneFile: TombstoneFile | undefined
  /** Payloads that were patched. */
  overlay = new Overlay()
  /** The patch file that the newest manifest names. */
  patchFile: PatchFile | undefined
  /** What beams give on the graph, where that was measured. */
  beams: readonly Beam[] = []
  /** The graph file that the newest manifest names. */
  graphFile: GraphFile | undefined
  /**
   * Whether what the file holds is known to be whole, or can't be had from elsewhere anyway. What is not proven is verified before
   * anything is read of it: ids, payloads and sequences with the first loading of ids, all else with that of the image.
   */
  isProven = true
  /** Called once, when the last user has let go. */
  onDispose: () => void = () => {}
  /** Is told of damage that costs nothing but time: to the graph. */
  onFault: (error: IsovecError) => void = () => {}

  readonly #context: StorageContext
  readonly #header: SectionHeader
  readonly #reader: RandomAccessFile
  readonly #payloads: BlockReader
  #ids: IdTable | undefined
  #payloadOffsets: Uint32Array | undefined
  #sequences: Float64Array | undefined
  #image: VectorImage | undefined
  #loadingIds: Promise<void> | undefined
  #loadingImage: Promise<void> | undefined
  #columns: Columns | undefined
  #loadingSequences: Promise<void> | undefined
  #loadingColumns: Promise<void> | undefined
  #closing: Promise<void> | undefined
  #users = 1

  private constructor(
    context: StorageContext,
    file: SegmentFile,
    header: SectionHeader,
    fields: SegmentFields,
    reader: RandomAccessFile,
    tombstones: Tombstones,
  ) {
    this.#context = context
    this.number = file.number
    this.file = file
    this.fields = fields
    this.tombstones = tombstones
    this.#header = header
    this.#reader = reader
    const section = header.sections.get(sectionIds.payloads)!
    this.#payloads = new BlockReader(
      context.kernel,
      reader,
      this.name,
      { offset: section.offset, dataSize: dataSizeOf(section.length)! },
      fields.salt,
      context.cache,
      `${fields.salt.low},${fields.salt.high}`,
    )
  }

  /**
   * Opens a segment: one read of its header, checked against the manifest's entry.
   * @param parts what its writer has at hand; without, sections are read when they are first needed
   */
  static async open(
    context: StorageContext,
    file: SegmentFile,
    tombstones: Tombstones,
    parts?: SegmentParts,
  ): Promise<Segment> {
    const name = fileName(file.number, 'seg')
    const reader = await context.directory.open(name)
    try {
      const header = await readSectionHeader(context.kernel, reader, name, segmentMagic, context.uuid, file.number)
      const fields = decodeSegmentFields(header.own, name, context)
      const isNamed =
        header.checksum.low === file.checksum.low &&
        header.checksum.high === file.checksum.high &&
        header.fileSize === file.length &&
        fields.rowCount === file.rowCount
      if (!isNamed) throw corrupt(name, 0, 'the segment is not the one that the manifest names')
      checkSections(header, fields, name)
      const segment = new Segment(context, file, header, fields, reader, tombstones)
      if (parts !== undefined) {
        segment.#ids = parts.ids
        segment.#payloadOffsets = parts.payloadOffsets
        segment.#image = parts.image
      }
      return segment
    } catch (error) {
      await reader.close()
      throw error
    }
  }

  get name(): string {
    return fileName(this.number, 'seg')
  }

  get rowCount(): number {
    return this.fields.rowCount
  }

  get liveCount(): number {
    return this.fields.rowCount - this.tombstones.count
  }

  get image(): VectorImage {
    assert(this.#image !== undefined, 'the image is loaded before it is used')
    return this.#image
  }

  get isImageLoaded(): boolean {
    return this.#image !== undefined
  }

  get areIdsLoaded(): boolean {
    return this.#ids !== undefined
  }

  /** Bytes of attribute columns in the file. */
  get columnSize(): number {
    return this.#section(sectionIds.columns).length
  }

  /** Bytes that this segment holds in memory. */
  get memorySize(): number {
    const ids = this.#ids
    const tables = ids === undefined ? 0 : ids.bytes.length + ids.offsets.byteLength + ids.slots.byteLength
    return (
      tables +
      (this.#payloadOffsets?.byteLength ?? 0) +
      (this.#sequences?.byteLength ?? 0) +
      (this.#image?.bytes ?? 0) +
      (this.#columns?.memorySize ?? 0) +
      this.overlay.memorySize
    )
  }

  loadIds(): Promise<void> {
    this.#loadingIds ??= this.#readIds().catch((error: unknown) => {
      this.#loadingIds = undefined
      throw error
    })
    return this.#loadingIds
  }

  loadImage(): Promise<void> {
    this.#loadingImage ??= this.#readImage().catch((error: unknown) => {
      this.#loadingImage = undefined
      throw error
    })
    return this.#loadingImage
  }

  async prepareMerge(): Promise<void> {
    await this.loadIds()
    await this.loadImage()
    this.#loadingSequences ??= this.#readSequences().catch((error: unknown) => {
      this.#loadingSequences = undefined
      throw error
    })
    await this.#loadingSequences
  }

  /** Copies the file, byte for byte, under its name. What arrives is to be verified. */
  copyTo(directory: Directory, signal: AbortSignal | undefined, onBytes: (count: number) => void): Promise<void> {
    return copyBytes(this.#reader, directory, this.name, signal, onBytes)
  }

  /** Ids of the sections in the file. */
  get sections(): number[] {
    return [...this.#header.sections.keys()]
  }

  /**
   * Reads a section from the file, whether or not it is in memory, and keeps none of it.
   * @throws IsovecError `CORRUPTION`
   */
  async verifySection(id: number): Promise<void> {
    if (id === sectionIds.payloads) await this.#payloads.verify()
    else await readSection(this.#context.kernel, this.#reader, this.name, this.#section(id), () => {})
  }

  /**
   * Reads whatever has not been read yet of the file and keeps none of it. After it, the segment is proven.
   * @throws IsovecError `CORRUPTION`, `ABORTED`
   */
  async verify(signal?: AbortSignal | undefined): Promise<void> {
    const { kernel } = this.#context
    if (!this.areIdsLoaded) await this.#verifyRows()
    for (const section of this.#header.sections.values()) {
      throwIfAborted(signal)
      const isVerified =
        section.id === sectionIds.payloads ||
        (idSections.has(section.id) && this.areIdsLoaded) ||
        (imageSections.has(section.id) && this.isImageLoaded)
      if (!isVerified) await readSection(kernel, this.#reader, this.name, section, () => {})
    }
    this.isProven = true
  }

  /** Brings ids, row offsets and sequences into memory, and nothing else. */
  async loadRows(): Promise<void> {
    await this.loadIds()
    if (this.#sequences === undefined) await this.#readSequences()
  }

  /** The vector of a row from the file, as it lies there: nothing of it is verified. */
  async readVector(row: number): Promise<Float32Array> {
    const vector = new Float32Array(this.fields.dimension)
    const { offset } = this.#section(sectionIds.vectors)
    await this.#reader.read(offset + row * vectorStride(this.fields.dimension), bytesOf(vector))
    return vector
  }

  find(key: IdKey): number {
    assert(this.#ids !== undefined, 'ids are loaded before they are looked up')
    return findId(this.#ids, key)
  }

  idAt(row: number): string {
    assert(this.#ids !== undefined, 'ids are loaded before they are read')
    try {
      return idAt(this.#ids, row)
    } catch (cause) {
      throw new IsovecError('CORRUPTION', `${this.name}: the id of row ${row} is not UTF-8`, { file: this.name, cause })
    }
  }

  isVisible(row: number, sequence: number): boolean {
    return !this.tombstones.isDead(row, sequence)
  }

  /** Marks a row as dead from `sequence` on. Returns whether it was alive. */
  kill(row: number, sequence: number): boolean {
    if (!this.tombstones.add(row, sequence)) return false
    this.#image?.setDead(row)
    return true
  }

  payloadAt(row: number, sequence: number): Uint8Array | undefined | Promise<Uint8Array | undefined> {
    const patch = this.overlay.find(row, sequence)
    return patch < 0 ? this.#ownPayloadAt(row) : this.overlay.payloadOf(patch)
  }

  get areColumnsLoaded(): boolean {
    return this.#columns !== undefined
  }

  loadColumns(): Promise<void> {
    this.#loadingColumns ??= this.#readColumns().catch((error: unknown) => {
      this.#loadingColumns = undefined
      throw error
    })
    return this.#loadingColumns
  }

  matchPayloads(
    path: string,
    condition: Condition,
    sequence: number,
    _rowCount: number,
    slice: Slice,
  ): Bitmap | Promise<Bitmap> {
    assert(this.#columns !== undefined, 'columns are loaded before they are asked')
    const found = this.#columns.match(path, condition, slice)
    if (this.overlay.count === 0) return found
    const { overlay } = this
    return found instanceof Promise
      ? found.then((rows) => overlay.correct(rows, path, condition, sequence, slice))
      : overlay.correct(found, path, condition, sequence, slice)
  }

  addIds(ids: ReadonlySet<string>, rows: Bitmap): void {
    for (const id of ids) {
      const row = this.find(idKey(id, this.#context.hashSeed))
      if (row >= 0) rows.add(row)
    }
  }

  keepVisible(rows: Bitmap, sequence: number): void {
    for (const [row, died] of this.tombstones.entries()) if (died <= sequence) rows.remove(row)
  }

  /** Lays a new payload over a row's from `sequence` on. */
  patch(row: number, sequence: number, payload: Uint8Array | undefined): void {
    this.overlay.add(row, sequence, payload)
  }

  /** Forgets payloads that were replaced by a committed sequence, unless somebody may still see them. */
  forgetPatches(sequence: number): void {
    if (this.#users === 1) this.overlay.forget(sequence)
  }

  #ownPayloadAt(row: number): Uint8Array | undefined | Promise<Uint8Array | undefined> {
    assert(this.#payloadOffsets !== undefined, 'row offsets are loaded before payloads are read')
    const start = this.#payloadOffsets[row]!
    const end = this.#payloadOffsets[row + 1]!
    if (start === end) return undefined
    if (this.#closing !== undefined) throw new IsovecError('CLOSED', 'the database is closed')
    return this.#payloads.read(start, end)
  }

  payloadSizeAt(row: number, sequence: number): number {
    const patch = this.overlay.find(row, sequence)
    if (patch >= 0) return this.overlay.payloadOf(patch)?.length ?? 0
    assert(this.#payloadOffsets !== undefined, 'row offsets are loaded before they are used')
    return this.#payloadOffsets[row + 1]! - this.#payloadOffsets[row]!
  }

  sequenceAt(row: number): number {
    assert(this.#sequences !== undefined, 'sequences are loaded before they are used')
    return this.#sequences[row]!
  }

  retain(): void {
    assert(this.#users > 0, 'a disposed segment is not used again')
    this.#users++
  }

  release(): void {
    assert(this.#users > 0, 'a segment is released as often as it was retained')
    if (--this.#users > 0) return
    this.#image?.release()
    this.#image = undefined
    void this.closeFile().then(() => this.onDispose())
  }

  /** Closes the file, whoever still holds the segment: nothing more can be read that is not in memory. Again is harmless. */
  closeFile(): Promise<void> {
    // Nothing can be done about a read-only handle that does not close, and nothing depends on it.
    this.#closing ??= this.#reader.close().catch(() => {})
    return this.#closing
  }

  /** Forgets the sequences, which only merging needs. */
  endMerge(): void {
    this.#sequences = undefined
    this.#loadingSequences = undefined
  }

  async #readIds(): Promise<void> {
    if (this.#ids !== undefined) return
    if (!this.isProven) await this.#verifyRows()
    const offsets = new Uint32Array(this.rowCount + 1)
    const bytes = new Uint8Array(this.#section(sectionIds.idBytes).length)
    const slots = new Uint32Array(slotCountFor(this.rowCount) * 2)
    const payloadOffsets = new Uint32Array(this.rowCount + 1)
    await this.#fill(sectionIds.idOffsets, bytesOf(offsets))
    await this.#fill(sectionIds.idBytes, bytes)
    await this.#fill(sectionIds.idSlots, bytesOf(slots))
    await this.#fill(sectionIds.payloadOffsets, bytesOf(payloadOffsets))
    if (!areOffsetsValid(offsets, bytes.length)) {
      throw corrupt(this.name, this.#section(sectionIds.idOffsets).offset, 'the offsets of the ids are impossible')
    }
    const payloads = this.#section(sectionIds.payloads)
    if (!areOffsetsValid(payloadOffsets, dataSizeOf(payloads.length)!)) {
      throw corrupt(
        this.name,
        this.#section(sectionIds.payloadOffsets).offset,
        'the offsets of the payloads are impossible',
      )
    }
    this.#payloadOffsets = payloadOffsets
    this.#ids = { offsets, bytes, slots }
  }

  async #readImage(): Promise<void> {
    if (this.#image !== undefined) return
    const { fields, graphFile } = this
    const image = this.#context.pool.createImage({
      dimension: fields.dimension,
      metric: fields.metric,
      capacity: fields.rowCount,
    })
    try {
      image.setRows(fields.rowCount)
      await this.#fillImage(image, 'vectors', sectionIds.vectors)
      await this.#fillImage(image, 'norms', sectionIds.norms)
      if (fields.hasCodes) {
        const origin = new Float32Array(fields.dimension)
        await this.#fill(sectionIds.origin, bytesOf(origin))
        image.setQuantizer({ delta: fields.delta, origin })
        await this.#fillImage(image, 'codes', sectionIds.codes)
        await this.#fillImage(image, 'terms', sectionIds.terms)
        if (!origin.every(Number.isFinite) || !(await areCodesValid(image))) {
          throw corrupt(this.name, this.#section(sectionIds.codes).offset, 'the codes are impossible')
        }
      }
      if (graphFile !== undefined) await this.#readGraph(graphFile, image)
    } catch (error) {
      image.release()
      throw error
    }
    if (this.#users === 0) {
      image.release()
      throw new IsovecError('CLOSED', 'the segment was closed while it was read')
    }
    // The graphs may have been dropped while this one was read.
    if (this.graphFile !== graphFile) image.dropGraph()
    for (const [row] of this.tombstones.entries()) image.setDead(row)
    this.#image = image
  }

  /** Takes the graph that the newest manifest names in place of one that was begun, or none. Damage to it is told, as when it's loaded. */
  async reloadGraph(): Promise<void> {
    this.image.dropGraph()
    if (this.graphFile !== undefined) await this.#readGraph(this.graphFile, this.image)
  }

  /** A damaged graph is as good as none: it makes searches quick, no more, and can be built again. */
  async #readGraph(graphFile: GraphFile, image: VectorImage): Promise<void> {
    try {
      this.beams = await loadGraph(this.#context, graphFile, this.file, image)
    } catch (error) {
      if (!(error instanceof IsovecError) || error.code !== 'CORRUPTION') throw error
      image.dropGraph()
      if (this.graphFile === graphFile) this.graphFile = undefined
      this.onFault(error)
    }
  }

  /** Verifies what is read by row, or not at all before a merge. */
  async #verifyRows(): Promise<void> {
    for (const id of [sectionIds.sequences, sectionIds.columns]) {
      await readSection(this.#context.kernel, this.#reader, this.name, this.#section(id), () => {})
    }
    await this.#payloads.verify()
  }

  async #fillImage(image: VectorImage, kind: SectionKind, id: number): Promise<void> {
    await readSection(this.#context.kernel, this.#reader, this.name, this.#section(id), (offset, bytes) =>
      image.writeSection(kind, offset, bytes),
    )
  }

  async #readColumns(): Promise<void> {
    await this.loadIds()
    const bytes = new Uint8Array(this.#section(sectionIds.columns).length)
    await this.#fill(sectionIds.columns, bytes)
    this.#columns = openColumns(bytes, this.rowCount, (row) => this.#ownPayloadAt(row), this.name)
  }

  async #readSequences(): Promise<void> {
    const raw = new Uint8Array(this.rowCount * 8)
    await this.#fill(sectionIds.sequences, raw)
    const view = new DataView(raw.buffer)
    const sequences = new Float64Array(this.rowCount)
    for (let row = 0; row < sequences.length; row++) {
      const sequence = readUint64(view, row * 8)
      if (sequence === undefined) {
        throw corrupt(this.name, this.#section(sectionIds.sequences).offset + row * 8, 'a sequence is out of range')
      }
      sequences[row] = sequence
    }
    this.#sequences = sequences
  }

  async #fill(id: number, target: Uint8Array): Promise<void> {
    await readSection(this.#context.kernel, this.#reader, this.name, this.#section(id), (offset, bytes) =>
      target.set(bytes, offset),
    )
  }

  #section(id: number): Section {
    return this.#header.sections.get(id)!
  }
}

/** In slices: a large segment takes longer than one. */
async function areCodesValid(image: VectorImage): Promise<boolean> {
  const slice = new Slice()
  for (let from = 0; from < image.rows; from += validatedRowsPerLook) {
    if (!image.validateCodes(from, Math.min(image.rows, from + validatedRowsPerLook))) return false
    if (slice.isOver) await slice.next()
  }
  return true
}

function bytesOf(array: Uint32Array | Float32Array): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength)
}

/** Every section has exactly the size that the counts in the header call for, so that nothing is allocated on a file's word alone. */
function checkSections(header: SectionHeader, fields: SegmentFields, name: string): void {
  const { rowCount, dimension } = fields
  const sizes: [id: number, size: number][] = [
    [sectionIds.idOffsets, (rowCount + 1) * 4],
    [sectionIds.idSlots, slotCountFor(rowCount) * 8],
    [sectionIds.payloadOffsets, (rowCount + 1) * 4],
    [sectionIds.sequences, rowCount * 8],
    [sectionIds.vectors, rowCount * vectorStride(dimension)],
    [sectionIds.norms, rowCount * 4],
  ]
  if (fields.hasCodes) {
    sizes.push(
      [sectionIds.codes, rowCount * codeStride(dimension)],
      [sectionIds.terms, rowCount * termSize],
      [sectionIds.origin, dimension * 4],
    )
  }
  for (const [id, size] of sizes) {
    if (header.sections.get(id)?.length !== size) throw corrupt(name, 128, `section ${id} has not the size of its rows`)
  }
  const payloads = header.sections.get(sectionIds.payloads)
  if (!header.sections.has(sectionIds.columns)) throw corrupt(name, 128, 'the attribute columns are missing')
  if (!header.sections.has(sectionIds.idBytes) || payloads === undefined || dataSizeOf(payloads.length) === undefined) {
    throw corrupt(name, 128, 'a section is missing')
  }
}
