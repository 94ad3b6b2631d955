/**
 * Graph files: the HNSW graph of one segment, built after it and replaceable without touching it.
 */
import { readUint64, utf8Encode, viewOf, writeUint64 } from '../codec/bytes.ts'
import type { RandomAccessFile } from '../directory/directory.ts'
import { IsovecError } from '../errors.ts'
import type { Checksum, GraphHeader, VectorImage } from '../kernel/index.ts'
import { Slice } from '../slice.ts'
import type { Beam } from '../snapshot.ts'
import { fileName } from './file-names.ts'
import {
  corrupt,
  encodeSectionHeader,
  type ImagePart,
  layOut,
  planImage,
  readSection,
  readSectionHeader,
  type SectionHeader,
  SectionWriter,
} from './section-file.ts'
import type { SegmentFile, StorageContext } from './segment.ts'
import { syncFile } from './sync-file.ts'

const magic = utf8Encode('isovecGR')

/** The sections of a graph in the order in which they are written; the ids are those in the file. */
const graphSections: readonly ImagePart[] = [
  [1, 'levels'],
  [2, 'links'],
  [3, 'upperIndex'],
  [4, 'upperLinks'],
]

/** The section of what beams give: per beam u32 hits, u32 beam, f32 recall. */
const beamSection = 5
const beamSize = 12
/** Beams that a table may have. */
const beamCountMax = 1000

/** Rows whose links are checked between two looks at the clock. */
const validatedRowsPerLook = 4096

/** What a manifest keeps of a graph. */
export type GraphFile = {
  readonly number: number
  readonly length: number
  /** Checksum of the header, which covers those of the sections. */
  readonly checksum: Checksum
  readonly M: number
  readonly efConstruction: number
}

/** Writes and syncs the finished graph of an image. */
export async function writeGraph(
  context: StorageContext,
  number: number,
  segment: SegmentFile,
  image: VectorImage,
  beams: readonly Beam[],
): Promise<GraphFile> {
  const { kernel } = context
  const graph = image.graphHeader()
  const slice = new Slice()
  const table = encodeBeams(beams)
  const { sections, fileSize } = layOut([
    ...(await planImage(kernel, image, graphSections, slice)),
    { id: beamSection, length: table.length, checksum: kernel.checksum64(table) },
  ])
  const { bytes, checksum } = encodeSectionHeader(kernel, magic, context.uuid, number, sections, fileSize, (own) =>
    encodeFields(own, graph, segment),
  )
  const file = await context.directory.create(fileName(number, 'graph'))
  try {
    await file.append(bytes)
    const writer = new SectionWriter(file, sections)
    await writer.image(image, graphSections, slice)
    await writer.whole(beamSection, table)
    await writer.finish(fileSize)
    await syncFile(file)
  } finally {
    await file.close()
  }
  return { number, length: fileSize, checksum, M: graph.M, efConstruction: graph.efConstruction }
}

/**
 * Reads a graph into the image of its segment. Every neighbour, level and count in it is checked before it is walked. Returns what
 * beams give on it.
 * @throws IsovecError `CORRUPTION`
 */
export async function loadGraph(
  context: StorageContext,
  entry: GraphFile,
  segment: SegmentFile,
  image: VectorImage,
): Promise<Beam[]> {
  const name = fileName(entry.number, 'graph')
  const file = await openNamed(context, name)
  let beams: Beam[]
  try {
    const header = await readHeader(context, file, entry)
    image.loadGraph(decodeFields(header.own, segment, name))
    for (const [id, kind] of graphSections) {
      const section = header.sections.get(id)
      if (section?.length !== image.section(kind).byteLength) throw corrupt(name, 128, `section ${id} has a wrong size`)
      await readSection(context.kernel, file, name, section, (offset, bytes) => image.writeSection(kind, offset, bytes))
    }
    beams = await readBeams(context, file, name, header)
  } finally {
    await file.close()
  }
  const slice = new Slice()
  let checked = 0
  while (!image.hasGraph) {
    checked += validatedRowsPerLook
    const problem = image.validateGraph(checked)
    if (problem !== null) throw corrupt(name, 0, problem)
    if (slice.isOver) await slice.next()
  }
  return beams
}

/**
 * Reads the header of a graph.
 * @throws IsovecError `CORRUPTION` if it isn't the one that the manifest names, or doesn't fit its segment
 */
export async function checkGraphHeader(context: StorageContext, entry: GraphFile, segment: SegmentFile): Promise<void> {
  const name = fileName(entry.number, 'graph')
  const file = await openNamed(context, name)
  try {
    const header = await readHeader(context, file, entry)
    decodeFields(header.own, segment, name)
  } finally {
    await file.close()
  }
}

async function readHeader(context: StorageContext, file: RandomAccessFile, entry: GraphFile): Promise<SectionHeader> {
  const name = fileName(entry.number, 'graph')
  const header = await readSectionHeader(context.kernel, file, name, magic, context.uuid, entry.number)
  const isNamed =
    header.checksum.low === entry.checksum.low &&
    header.checksum.high === entry.checksum.high &&
    header.fileSize === entry.length
  if (!isNamed) throw corrupt(name, 0, 'the graph is not the one that the manifest names')
  return header
}

/**
 * Reads a graph and keeps none of it: sections, and every neighbour, level and count.
 * @throws IsovecError `CORRUPTION`, `OUT_OF_MEMORY`
 */
export async function verifyGraph(context: StorageContext, entry: GraphFile, segment: SegmentFile): Promise<void> {
  // Links are checked against the number of rows alone, so that the shortest of vectors will do.
  const image = context.pool.createImage({ dimension: 1, metric: context.metric, capacity: segment.rowCount })
  try {
    image.setRows(segment.rowCount)
    await loadGraph(context, entry, segment, image)
  } finally {
    image.release()
  }
}

function encodeBeams(beams: readonly Beam[]): Uint8Array {
  const bytes = new Uint8Array(beams.length * beamSize)
  const view = viewOf(bytes)
  for (const [index, { k, ef, recall }] of beams.entries()) {
    view.setUint32(index * beamSize, k, true)
    view.setUint32(index * beamSize + 4, ef, true)
    view.setFloat32(index * beamSize + 8, recall, true)
  }
  return bytes
}

async function readBeams(
  { kernel }: StorageContext,
  file: RandomAccessFile,
  name: string,
  { sections }: SectionHeader,
): Promise<Beam[]> {
  const section = sections.get(beamSection)
  const count = (section?.length ?? Number.NaN) / beamSize
  if (section === undefined || !Number.isInteger(count) || count > beamCountMax) {
    throw corrupt(name, 128, 'the table of beams has a wrong size')
  }
  const bytes = new Uint8Array(section.length)
  await readSection(kernel, file, name, section, (offset, piece) => bytes.set(piece, offset))
  const view = viewOf(bytes)
  return Array.from({ length: count }, (_, index) => {
    const at = index * beamSize
    const beam = {
      k: view.getUint32(at, true),
      ef: view.getUint32(at + 4, true),
      recall: view.getFloat32(at + 8, true),
    }
    const isPossible = beam.k > 0 && beam.ef >= beam.k && beam.recall >= 0 && beam.recall <= 1
    if (!isPossible) throw corrupt(name, section.offset + at, 'a beam is impossible')
    return beam
  })
}

/** A file that a manifest names and that isn't there is damage, not a wrong argument. */
async function openNamed(context: StorageContext, name: string): Promise<RandomAccessFile> {
  try {
    return await context.directory.open(name)
  } catch (cause) {
    if (!(cause instanceof IsovecError) || cause.code !== 'NOT_FOUND') throw cause
    throw new IsovecError('CORRUPTION', `${name} is missing`, { file: name, cause })
  }
}

function encodeFields(own: DataView, graph: GraphHeader, segment: SegmentFile): void {
  writeUint64(own, 0, segment.number)
  own.setUint32(8, segment.checksum.low, true)
  own.setUint32(12, segment.checksum.high, true)
  own.setUint32(16, segment.rowCount, true)
  own.setUint32(20, graph.M, true)
  own.setUint32(24, graph.efConstruction, true)
  own.setUint32(28, graph.seed, true)
  own.setUint32(32, graph.entry, true)
  own.setUint32(36, graph.maxLevel, true)
  own.setUint32(40, graph.upperCount, true)
}

function decodeFields(own: DataView, segment: SegmentFile, name: string): GraphHeader {
  const belongs =
    readUint64(own, 0) === segment.number &&
    own.getUint32(8, true) === segment.checksum.low &&
    own.getUint32(12, true) === segment.checksum.high &&
    own.getUint32(16, true) === segment.rowCount
  if (!belongs) throw corrupt(name, 40, 'the graph does not fit its segment')
  return {
    rows: segment.rowCount,
    M: own.getUint32(20, true),
    efConstruction: own.getUint32(24, true),
    seed: own.getUint32(28, true),
    entry: own.getUint32(32, true),
    maxLevel: own.getUint32(36, true),
    upperCount: own.getUint32(40, true),
  }
}
