/**
 * Files made of sections: a 4 KiB header with a table of sections, each on a 64-byte boundary with a checksum of its own.
 * Segments and graphs are such files.
 */
import { alignUp, bytesEqual, readUint64, viewOf, writeUint64 } from '../codec/bytes.ts'
import type { RandomAccessFile, WritableFile } from '../directory/directory.ts'
import { assert, IsovecError } from '../errors.ts'
import type { Checksum, Kernel, SectionKind, VectorImage } from '../kernel/index.ts'
import type { Slice } from '../slice.ts'
import { checkReaderVersion, hasMagic, writePreamble } from './file-header.ts'

/** Bytes before the first section. */
export const sectionHeaderSize = 4096
/** Where a kind of file keeps fields of its own: 40 … 127. */
export const ownFieldsOffset = 40
const ownFieldsEnd = 128
const tableOffset = 128
const entrySize = 32
const checksumOffset = sectionHeaderSize - 8
const sectionCountMax = Math.floor((checksumOffset - tableOffset) / entrySize)
const sectionAlignment = 64

/** A section's place in its file. Its checksum is zero where the section carries checksums per block. */
export type Section = {
  readonly id: number
  readonly offset: number
  readonly length: number
  readonly checksum: Checksum
}

/** The header of a section file. */
export type SectionHeader = {
  readonly uuid: Uint8Array
  readonly number: number
  /** View of the bytes 40 … 127, which belong to the kind of file. */
  readonly own: DataView
  readonly sections: ReadonlyMap<number, Section>
  readonly fileSize: number
  /** Checksum of the header, which covers those of the sections: names the whole file. */
  readonly checksum: Checksum
}

/** A section to be written: its size and checksum, known before its bytes are produced. */
export type SectionPlan = { readonly id: number; readonly length: number; readonly checksum: Checksum }

/** A section of a file that is one of an image's. */
export type ImagePart = readonly [id: number, kind: SectionKind]

/** Sizes and checksums of sections of an image, hashed piece by piece: a large one takes longer than a slice. */
export async function planImage(
  kernel: Kernel,
  image: VectorImage,
  parts: readonly ImagePart[],
  slice: Slice,
): Promise<SectionPlan[]> {
  const buffer = new Uint8Array(transferSize)
  const plans: SectionPlan[] = []
  for (const [id, kind] of parts) {
    const length = image.section(kind).byteLength
    const hasher = kernel.hasher()
    for (let offset = 0; offset < length; offset += transferSize) {
      const piece = buffer.subarray(0, Math.min(transferSize, length - offset))
      image.readSection(kind, offset, piece)
      hasher.update(piece)
      if (slice.isOver) await slice.next()
    }
    plans.push({ id, length, checksum: hasher.digest() })
  }
  return plans
}

/** Lays sections out one after the other. */
export function layOut(plans: readonly SectionPlan[]): { sections: Section[]; fileSize: number } {
  assert(plans.length <= sectionCountMax, 'the section table has room')
  let offset = sectionHeaderSize
  const sections = plans.map((plan) => {
    const section = { ...plan, offset }
    offset = alignUp(offset + plan.length, sectionAlignment)
    return section
  })
  return { sections, fileSize: offset }
}

/** Encodes a header. `writeOwn` fills the bytes 40 … 127. */
export function encodeSectionHeader(
  kernel: Kernel,
  magic: Uint8Array,
  uuid: Uint8Array,
  number: number,
  sections: readonly Section[],
  fileSize: number,
  writeOwn: (own: DataView) => void,
): { bytes: Uint8Array; checksum: Checksum } {
  const bytes = new Uint8Array(sectionHeaderSize)
  const view = viewOf(bytes)
  writePreamble(bytes, magic)
  bytes.set(uuid, 16)
  writeUint64(view, 32, number)
  writeOwn(viewOf(bytes.subarray(ownFieldsOffset, ownFieldsEnd)))
  sections.forEach((section, index) => {
    const offset = tableOffset + index * entrySize
    view.setUint32(offset, section.id, true)
    writeUint64(view, offset + 8, section.offset)
    writeUint64(view, offset + 16, section.length)
    view.setUint32(offset + 24, section.checksum.low, true)
    view.setUint32(offset + 28, section.checksum.high, true)
  })
  view.setUint32(checksumOffset - 16, sections.length, true)
  writeUint64(view, checksumOffset - 8, fileSize)
  const checksum = kernel.checksum64(bytes.subarray(0, checksumOffset))
  view.setUint32(checksumOffset, checksum.low, true)
  view.setUint32(checksumOffset + 4, checksum.high, true)
  return { bytes, checksum }
}

/**
 * Reads and checks a header: one read of 4 KiB. After it every section is known to lie inside the file.
 * @throws IsovecError `CORRUPTION`, `UNSUPPORTED_VERSION`
 */
export async function readSectionHeader(
  kernel: Kernel,
  file: RandomAccessFile,
  name: string,
  magic: Uint8Array,
  uuid: Uint8Array,
  number: number,
): Promise<SectionHeader> {
  if (file.size < sectionHeaderSize) throw corrupt(name, 0, `the file has only ${file.size} bytes`)
  const bytes = new Uint8Array(sectionHeaderSize)
  await file.read(0, bytes)
  const view = viewOf(bytes)
  if (!hasMagic(bytes, magic)) throw corrupt(name, 0, 'the magic number is wrong')
  const checksum = kernel.checksum64(bytes.subarray(0, checksumOffset))
  const stored = { low: view.getUint32(checksumOffset, true), high: view.getUint32(checksumOffset + 4, true) }
  if (stored.low !== checksum.low || stored.high !== checksum.high) {
    throw corrupt(name, 0, "the header's checksum does not hold")
  }
  checkReaderVersion(bytes, name)
  if (!bytesEqual(bytes.subarray(16, 32), uuid) || readUint64(view, 32) !== number) {
    throw corrupt(name, 16, 'the file belongs elsewhere')
  }
  const fileSize = readUint64(view, checksumOffset - 8)
  if (fileSize !== file.size) throw corrupt(name, 0, `the file has ${file.size} bytes instead of ${fileSize}`)
  return {
    uuid: bytes.slice(16, 32),
    number,
    own: viewOf(bytes.slice(ownFieldsOffset, ownFieldsEnd)),
    sections: readTable(view, name, fileSize),
    fileSize,
    checksum,
  }
}

function readTable(view: DataView, name: string, fileSize: number): Map<number, Section> {
  const count = view.getUint32(checksumOffset - 16, true)
  if (count > sectionCountMax) throw corrupt(name, checksumOffset - 16, `${count} sections`)
  const sections = new Map<number, Section>()
  for (let index = 0; index < count; index++) {
    const place = tableOffset + index * entrySize
    const id = view.getUint32(place, true)
    const offset = readUint64(view, place + 8)
    const length = readUint64(view, place + 16)
    const fits =
      offset !== undefined &&
      length !== undefined &&
      offset >= sectionHeaderSize &&
      offset % sectionAlignment === 0 &&
      offset + length <= fileSize
    if (!fits || sections.has(id)) throw corrupt(name, place, `section ${id} does not fit`)
    const checksum = { low: view.getUint32(place + 24, true), high: view.getUint32(place + 28, true) }
    sections.set(id, { id, offset, length, checksum })
  }
  return sections
}

/** Bytes that are read or written at a time: large enough to be fast, small enough to give the event loop back in between. */
export const transferSize = 1024 * 1024

/**
 * Reads a section front to back in pieces and hands each on; the checksum is compared at the end, so `accept` must not act on what it
 * is given before this resolves.
 * @throws IsovecError `CORRUPTION` if the checksum doesn't hold
 */
export async function readSection(
  kernel: Kernel,
  file: RandomAccessFile,
  name: string,
  section: Section,
  accept: (offset: number, bytes: Uint8Array) => void,
): Promise<void> {
  const hasher = kernel.hasher()
  const buffer = new Uint8Array(Math.min(section.length, transferSize))
  for (let offset = 0; offset < section.length; offset += buffer.length) {
    const piece = buffer.subarray(0, Math.min(buffer.length, section.length - offset))
    await file.read(section.offset + offset, piece)
    hasher.update(piece)
    accept(offset, piece)
  }
  const { low, high } = hasher.digest()
  if (low !== section.checksum.low || high !== section.checksum.high) {
    throw corrupt(name, section.offset, `the checksum of section ${section.id} does not hold`)
  }
}

/** Writes the sections of a file in the order in which they were laid out. */
export class SectionWriter {
  readonly #file: WritableFile
  readonly #sections: readonly Section[]
  #next = 0

  constructor(file: WritableFile, sections: readonly Section[]) {
    this.#file = file
    this.#sections = sections
  }

  /** Writes the next section from bytes that are at hand. */
  async whole(id: number, bytes: Uint8Array): Promise<void> {
    await this.pieces(id, (offset, length) => bytes.subarray(offset, offset + length))
  }

  /** Writes sections of an image, in slices. */
  async image(image: VectorImage, parts: readonly ImagePart[], slice: Slice): Promise<void> {
    const buffer = new Uint8Array(transferSize)
    for (const [id, kind] of parts) {
      await this.pieces(id, async (offset, length) => {
        if (slice.isOver) await slice.next()
        const piece = buffer.subarray(0, length)
        image.readSection(kind, offset, piece)
        return piece
      })
    }
  }

  /** Writes the next section piece by piece. `piece` may reuse its buffer, since each is written before the next is asked for. */
  async pieces(id: number, piece: (offset: number, length: number) => Uint8Array | Promise<Uint8Array>): Promise<void> {
    const section = await this.#begin(id)
    for (let offset = 0; offset < section.length; offset += transferSize) {
      await this.#file.append(await piece(offset, Math.min(transferSize, section.length - offset)))
    }
  }

  /** Begins the next section and returns what appends to it; the caller keeps to the length that was laid out. */
  async stream(id: number): Promise<(parts: readonly Uint8Array[]) => Promise<void>> {
    await this.#begin(id)
    return (parts) => this.#file.append(parts)
  }

  /** Fills up to the end of the file. */
  async finish(fileSize: number): Promise<void> {
    assert(this.#next === this.#sections.length, 'every section was written')
    await this.#pad(fileSize)
  }

  async #begin(id: number): Promise<Section> {
    const section = this.#sections[this.#next++]
    assert(section?.id === id, 'sections are written in the order in which they were laid out')
    await this.#pad(section.offset)
    return section
  }

  async #pad(offset: number): Promise<void> {
    const gap = offset - this.#file.size
    assert(gap >= 0 && gap < sectionAlignment, 'a section has the size it was laid out with')
    if (gap > 0) await this.#file.append(new Uint8Array(gap))
  }
}

/** The error for a damaged file. */
export function corrupt(file: string, offset: number, problem: string): IsovecError {
  return new IsovecError('CORRUPTION', `${file}: ${problem} (at byte ${offset})`, { file, offset })
}
