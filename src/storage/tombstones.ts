/**
 * Dead rows of one source, each with the sequence at which it died, and the file that keeps a segment's.
 *
 * File: a companion of the segment, without anything that belongs to entries.
 */
import { utf8Encode } from '../codec/bytes.ts'
import type { Directory } from '../directory/directory.ts'
import type { Kernel } from '../kernel/index.ts'
import { Slice } from '../slice.ts'
import {
  type CompanionFile,
  companionEntrySize,
  companionHeaderSize,
  readCompanion,
  writeCompanion,
} from './companion-file.ts'
import { fileName } from './file-names.ts'

const magic = utf8Encode('isovecDL')

const pageRows = 512

/** Rows that died, with their sequences: looked up in O(1), and in the order of rows without sorting. */
export class Tombstones {
  /** In the order in which they came. */
  readonly #rows: number[] = []
  /** The sequence at which each row died in pages of neighbouring rows, 0 for a row that lives; no page where all do. */
  readonly #pages: (Float64Array | undefined)[] = []

  get count(): number {
    return this.#rows.length
  }

  /** Whether the row had died by `sequence`. */
  isDead(row: number, sequence: number): boolean {
    const died = this.#pages[Math.floor(row / pageRows)]?.[row % pageRows]
    return died !== undefined && died !== 0 && died <= sequence
  }

  /** Marks a row as dead from a sequence on, which is never 0; the first death counts. Returns whether it was alive. */
  add(row: number, sequence: number): boolean {
    const number = Math.floor(row / pageRows)
    let page = this.#pages[number]
    if (page === undefined) {
      page = new Float64Array(pageRows)
      this.#pages[number] = page
    }
    if (page[row % pageRows] !== 0) return false
    page[row % pageRows] = sequence
    this.#rows.push(row)
    return true
  }

  /** All tombstones as pairs of row and sequence, in the order in which they came; those that come meanwhile, too. */
  *entries(): Generator<[row: number, sequence: number]> {
    for (const row of this.#rows) yield [row, this.#pages[Math.floor(row / pageRows)]![row % pageRows]!]
  }

  /** Number of tombstones up to a sequence. O(rows), a millisecond for a million. */
  countUpTo(sequence: number): number {
    let count = 0
    for (const page of this.#pages) {
      if (page === undefined) continue
      for (const died of page) if (died !== 0 && died <= sequence) count++
    }
    return count
  }

  /**
   * Those up to a sequence by row, as they lie in the file: row, 0 and the two halves of the sequence. O(rows), in slices: deaths that
   * come meanwhile must have later sequences.
   */
  async encode(sequence: number, slice: Slice): Promise<Uint32Array<ArrayBuffer>> {
    const words = new Uint32Array((this.countUpTo(sequence) * companionEntrySize) / 4)
    let at = 0
    for (const number of this.#pages.keys()) {
      const page = this.#pages[number]
      if (page === undefined) continue
      if (slice.isOver) await slice.next()
      for (let i = 0; i < pageRows; i++) {
        const died = page[i]!
        if (died === 0 || died > sequence) continue
        words[at] = number * pageRows + i
        words[at + 2] = died >>> 0
        words[at + 3] = died / 2 ** 32
        at += 4
      }
    }
    return words
  }
}

/** What a manifest keeps of a tombstone file. */
export type TombstoneFile = CompanionFile

/** Writes and syncs the tombstones of a segment up to a sequence, which no later death may have. */
export async function writeTombstones(
  kernel: Kernel,
  directory: Directory,
  number: number,
  uuid: Uint8Array,
  segment: number,
  tombstones: Tombstones,
  sequence: number,
): Promise<TombstoneFile> {
  const words = await tombstones.encode(sequence, new Slice())
  const count = (words.length * 4) / companionEntrySize
  const bytes = new Uint8Array(companionHeaderSize + count * companionEntrySize)
  // Little-endian, as the platform is wherever WASM runs.
  bytes.set(new Uint8Array(words.buffer), companionHeaderSize)
  let lastSequence = 0
  for (let i = 2; i < words.length; i += 4) lastSequence = Math.max(lastSequence, words[i]! + words[i + 1]! * 2 ** 32)
  await writeCompanion(kernel, directory, fileName(number, 'del'), { magic, uuid, segment }, bytes, count)
  return { number, length: bytes.length, count, lastSequence }
}

/**
 * Reads the tombstones of a segment.
 * @throws IsovecError `CORRUPTION` where the file is not the one that the manifest names
 */
export async function readTombstones(
  kernel: Kernel,
  directory: Directory,
  file: TombstoneFile,
  uuid: Uint8Array,
  segment: number,
  rowCount: number,
): Promise<Tombstones> {
  const name = fileName(file.number, 'del')
  const tombstones = new Tombstones()
  const take = (row: number, sequence: number): void => void tombstones.add(row, sequence)
  await readCompanion(kernel, directory, name, { magic, uuid, segment }, file, rowCount, take)
  return tombstones
}
