/**
 * Patched payloads of one segment, and the file that keeps them. A patch leaves the segment as it is: the row's new payload lies over
 * the old one from its sequence on.
 *
 * File: a companion of the segment. To each entry belongs the payload; a row that has none any more has size 0.
 */
import type { Bitmap } from '../codec/bitmap.ts'
import { utf8Encode, viewOf, writeUint64 } from '../codec/bytes.ts'
import { payloadSizeMax } from '../codec/json.ts'
import type { Condition } from '../condition.ts'
import type { Directory } from '../directory/directory.ts'
import { assert } from '../errors.ts'
import type { Kernel } from '../kernel/index.ts'
import type { Slice } from '../slice.ts'
import {
  type CompanionFile,
  companionEntrySize,
  companionError,
  companionHeaderSize,
  readCompanion,
  writeCompanion,
} from './companion-file.ts'
import { fileName } from './file-names.ts'
import { MemoryColumns } from './memory-columns.ts'
import { runAsFar } from './steps.ts'

const magic = utf8Encode('isovecPT')
/** Rows between two looks at the clock. */
const rowsPerStep = 1024
/** Versions beyond one for each row that are kept although nobody can see them any more. */
const staleCountMax = 1024

/** Payloads that lie over those of a segment's rows, each from a sequence on. */
export class Overlay {
  #rows: number[] = []
  #sequences: number[] = []
  #payloads: (Uint8Array | undefined)[] = []
  /** The version of the same row before each, or -1. */
  #previous: number[] = []
  /** The newest version of each row. */
  #newest = new Map<number, number>()
  #columns: MemoryColumns | undefined
  #size = 0

  /** Rows that were patched. */
  get count(): number {
    return this.#newest.size
  }

  /** Bytes of the payloads. */
  get size(): number {
    return this.#size
  }

  /** Bytes of memory. */
  get memorySize(): number {
    return this.#size + this.#rows.length * 64 + (this.#columns?.memorySize ?? 0)
  }

  /**
   * Lays a payload over a row's from `sequence` on. Patches come in the order of their sequences, and of one sequence the last counts. An
   * earlier one may only come if it is known already, as where a log is read again, and is left out.
   */
  add(row: number, sequence: number, payload: Uint8Array | undefined): void {
    const newest = this.#newest.get(row)
    if (sequence < (this.#sequences.at(-1) ?? 0)) {
      assert(
        newest !== undefined && this.#sequences[newest]! >= sequence,
        'patches come in the order of their sequences',
      )
      return
    }
    const version = this.#rows.length
    this.#previous.push(newest ?? -1)
    this.#newest.set(row, version)
    this.#rows.push(row)
    this.#sequences.push(sequence)
    // A copy: what it is part of, a whole batch, would be held for as long as the patch.
    this.#payloads.push(payload?.slice())
    this.#size += payload?.length ?? 0
  }

  /** Forgets what was replaced by a sequence, once that has become much: nobody may still see it, and no file may need it. */
  forget(sequence: number): void {
    if (this.#rows.length <= 2 * this.#newest.size + staleCountMax) return
    const patches = this.since(0).reverse()
    const replacedAt = new Map<number, number>()
    const kept: PatchedRow[] = []
    for (const patch of patches) {
      if ((replacedAt.get(patch.row) ?? Number.POSITIVE_INFINITY) > sequence) kept.push(patch)
      replacedAt.set(patch.row, patch.sequence)
    }
    this.#rows = []
    this.#sequences = []
    this.#payloads = []
    this.#previous = []
    this.#newest = new Map()
    this.#columns = undefined
    this.#size = 0
    for (const { row, sequence: since, payload } of kept.reverse()) this.add(row, since, payload)
  }

  /** The version of a row that is seen at a sequence, or -1 if that is the segment's own. */
  find(row: number, sequence: number): number {
    let version = this.#newest.get(row) ?? -1
    while (version >= 0 && this.#sequences[version]! > sequence) version = this.#previous[version]!
    return version
  }

  /** The payload of a version. */
  payloadOf(version: number): Uint8Array | undefined {
    return this.#payloads[version]
  }

  /** Corrects what a condition was found to hold for, by the segment's own columns, in those rows that are patched at a sequence. */
  correct(
    matches: Bitmap,
    path: string,
    condition: Condition,
    sequence: number,
    slice?: Slice,
  ): Bitmap | Promise<Bitmap> {
    this.#columns ??= this.#newColumns()
    const patched = this.#columns.match(path, condition, slice)
    if (!(patched instanceof Promise)) return runAsFar(this.#correcting(matches, patched, sequence), slice)
    return patched.then((found) => runAsFar(this.#correcting(matches, found, sequence), slice))
  }

  *#correcting(matches: Bitmap, patched: Bitmap, sequence: number): Generator<void, Bitmap> {
    let count = 0
    for (const row of this.#newest.keys()) {
      if (++count % rowsPerStep === 0) yield
      const version = this.find(row, sequence)
      if (version < 0) continue
      if (patched.has(version)) matches.add(row)
      else matches.remove(row)
    }
    return matches
  }

  /** Patches after a sequence in the order in which they came, which those of one sequence must keep. */
  since(sequence: number): PatchedRow[] {
    let first = this.#rows.length
    while (first > 0 && this.#sequences[first - 1]! > sequence) first--
    return this.#rows.slice(first).map((row, i) => {
      const version = first + i
      return { row, sequence: this.#sequences[version]!, payload: this.#payloads[version] }
    })
  }

  /** The newest sequence of all patches up to one, 0 if there are none. */
  lastUpTo(sequence: number): number {
    let version = this.#rows.length - 1
    while (version >= 0 && this.#sequences[version]! > sequence) version--
    return version < 0 ? 0 : this.#sequences[version]!
  }

  /** What the file holds: each row's version at a sequence. In slices; patches that come meanwhile must have later sequences. */
  async versionsAt(sequence: number, slice: Slice): Promise<PatchedRow[]> {
    const found: PatchedRow[] = []
    for (const row of [...this.#newest.keys()].sort((a, b) => a - b)) {
      const version = this.find(row, sequence)
      if (version >= 0) found.push({ row, sequence: this.#sequences[version]!, payload: this.#payloads[version] })
      if (found.length % 1024 === 0 && slice.isOver) await slice.next()
    }
    return found
  }

  #newColumns(): MemoryColumns {
    const payloads = this.#payloads
    return new MemoryColumns({
      get rowCount() {
        return payloads.length
      },
      payloadAt: (version) => payloads[version],
    })
  }
}

/** A row of a patch file. */
export type PatchedRow = {
  readonly row: number
  readonly sequence: number
  readonly payload: Uint8Array | undefined
}

/** What a manifest keeps of a patch file. */
export type PatchFile = CompanionFile

/** Writes and syncs the patches of a segment. */
export async function writePatches(
  kernel: Kernel,
  directory: Directory,
  number: number,
  uuid: Uint8Array,
  segment: number,
  rows: readonly PatchedRow[],
): Promise<PatchFile> {
  const dataSize = rows.reduce((sum, { payload }) => sum + (payload?.length ?? 0), 0)
  const bytes = new Uint8Array(companionHeaderSize + rows.length * companionEntrySize + dataSize)
  const view = viewOf(bytes)
  let entry = companionHeaderSize
  let data = companionHeaderSize + rows.length * companionEntrySize
  let lastSequence = 0
  for (const { row, sequence, payload } of rows) {
    view.setUint32(entry, row, true)
    view.setUint32(entry + 4, payload?.length ?? 0, true)
    writeUint64(view, entry + 8, sequence)
    if (payload !== undefined) bytes.set(payload, data)
    entry += companionEntrySize
    data += payload?.length ?? 0
    lastSequence = Math.max(lastSequence, sequence)
  }
  await writeCompanion(kernel, directory, fileName(number, 'patch'), { magic, uuid, segment }, bytes, rows.length)
  return { number, length: bytes.length, count: rows.length, lastSequence }
}

/**
 * Reads the patches of a segment.
 * @throws IsovecError `CORRUPTION` where the file is not the one that the manifest names
 */
export async function readPatches(
  kernel: Kernel,
  directory: Directory,
  file: PatchFile,
  uuid: Uint8Array,
  segment: number,
  rowCount: number,
): Promise<Overlay> {
  const name = fileName(file.number, 'patch')
  const rows: PatchedRow[] = []
  await readCompanion(kernel, directory, name, { magic, uuid, segment }, file, rowCount, (row, sequence, payload) => {
    if (payload.length > payloadSizeMax) throw companionError(name, payload.byteOffset, 'a payload is too large')
    rows.push({ row, sequence, payload: payload.length === 0 ? undefined : payload })
  })
  const overlay = new Overlay()
  for (const patch of rows.sort((a, b) => a.sequence - b.sequence)) {
    overlay.add(patch.row, patch.sequence, patch.payload)
  }
  return overlay
}
