/**
 * Rows on their way from one source to another: which are taken along, and what becomes of those that die meanwhile.
 */
import type { Slice } from '../slice.ts'
import type { MergeSource } from '../snapshot.ts'
import type { Memtable } from './memtable.ts'
import type { PatchedRow } from './overlay.ts'
import type { Segment } from './segment.ts'
import type { RowRun } from './segment-writer.ts'
import type { Tombstones } from './tombstones.ts'

/** Rows or tombstones between two looks at the clock. */
const stepsPerLook = 1024

/** Rows of a source that were alive at a sequence, ascending. O(rows), in slices. */
export async function rowsVisibleAt(source: MergeSource, sequence: number, slice: Slice): Promise<Uint32Array> {
  const rows = new Uint32Array(source.rowCount)
  let count = 0
  for (let row = 0; row < rows.length; row++) {
    if (source.isVisible(row, sequence)) rows[count++] = row
    if (row % stepsPerLook === 0 && slice.isOver) await slice.next()
  }
  return rows.subarray(0, count)
}

/** Rows of one source that lie one after the other in one output. */
type Piece = {
  readonly source: Segment | Memtable
  /** Patches up to this sequence have been brought over, or were copied with the rows. */
  patchedUpTo: number
  readonly tombstones: Tombstones
  /** Goes on where it stood: an iterator of a map meets what is added behind it, as long as it is not asked beyond the end. */
  readonly deaths: IterableIterator<[row: number, sequence: number]>
  taken: number
  readonly rows: Uint32Array
  readonly output: Segment
  readonly base: number
}

/** A patch on its way to the copy of its row. */
type CopiedPatch = PatchedRow & { readonly output: Segment }

/**
 * Brings deaths and patches among copied rows over to their copies. Both only come, so that what was brought over needs no second look.
 */
export class ChangeTransfer {
  readonly #pieces: Piece[]

  /** @param outputs hold the rows of the runs one after the other */
  constructor(runs: readonly RowRun[], outputs: readonly Segment[]) {
    this.#pieces = [...piecesOf(runs, outputs)]
  }

  /** Brings over most of what there is, in slices, so that little is left for {@link finish}. O(tombstones * log(rows)). */
  async advance(slice: Slice): Promise<void> {
    while (!this.#transfer(stepsPerLook)) if (slice.isOver) await slice.next()
    for (const patch of this.#takePatches()) {
      lay(patch)
      if (slice.isOver) await slice.next()
    }
  }

  /** Brings over, within this turn, what has come since. */
  finish(): void {
    this.#transfer(Number.POSITIVE_INFINITY)
    for (const patch of this.#takePatches()) lay(patch)
  }

  /** Whether nothing is left. */
  #transfer(countMax: number): boolean {
    let count = 0
    for (const piece of this.#pieces) {
      for (; piece.taken < piece.tombstones.count; piece.taken++) {
        if (count++ === countMax) return false
        const [row, sequence] = piece.deaths.next().value as [number, number]
        const index = indexOf(piece.rows, row)
        if (index >= 0) piece.output.kill(piece.base + index, sequence)
      }
    }
    return true
  }

  /**
   * Patches that have come since the last look: all versions, since each may be the one that the next generation needs. In the order in
   * which they were made, whichever source they were made to: what follows the last sequence of a generation must lie behind it in an
   * output, too.
   */
  #takePatches(): CopiedPatch[] {
    const taken: CopiedPatch[] = []
    for (const piece of this.#pieces) {
      const { source, rows, output, base } = piece
      // Patches of documents in a memtable are rows of their own.
      if (!('overlay' in source)) continue
      for (const { row, sequence, payload } of source.overlay.since(piece.patchedUpTo)) {
        piece.patchedUpTo = sequence
        const index = indexOf(rows, row)
        if (index >= 0) taken.push({ output, row: base + index, sequence, payload })
      }
    }
    return taken.sort((a, b) => a.sequence - b.sequence)
  }
}

function lay({ output, row, sequence, payload }: CopiedPatch): void {
  output.patch(row, sequence, payload)
}

/** The runs cut where one output ends and the next begins. */
function* piecesOf(runs: readonly RowRun[], outputs: readonly Segment[]): Generator<Piece> {
  let output = 0
  let base = 0
  for (const { source: found, rows, sequence } of runs) {
    const source = found as Segment | Memtable
    const { tombstones } = source
    for (let start = 0; start < rows.length; ) {
      const target = outputs[output]!
      const size = Math.min(target.rowCount - base, rows.length - start)
      const part = rows.subarray(start, start + size)
      const deaths = tombstones.entries()
      yield { source, patchedUpTo: sequence, tombstones, deaths, taken: 0, rows: part, output: target, base }
      start += size
      base += size
      if (base < target.rowCount) continue
      output++
      base = 0
    }
  }
}

/** Position of a row among ascending rows, or -1. */
function indexOf(rows: Uint32Array, row: number): number {
  let low = 0
  let high = rows.length - 1
  while (low <= high) {
    const middle = (low + high) >>> 1
    const value = rows[middle]!
    if (value === row) return middle
    if (value < row) low = middle + 1
    else high = middle - 1
  }
  return -1
}
