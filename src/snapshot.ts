/**
 * What storage and search share: sources of rows, and snapshots of them.
 */
import type { Bitmap } from './codec/bitmap.ts'
import type { Condition } from './condition.ts'
import type { VectorImage } from './kernel/index.ts'
import type { Slice } from './slice.ts'

/** What the payloads of a source's rows hold, by path. */
export interface AttributeColumns {
  /**
   * Rows, dead ones included, for which a condition holds at a dotted path: a set of its own over all rows of the source. A promise only
   * where bytes must be fetched, a large column is used for the first time, or it takes longer than the slice; without one it is done at
   * one go.
   * @throws IsovecError `CORRUPTION` if what is stored is damaged, `ABORTED`
   */
  match(path: string, condition: Condition, slice?: Slice): Bitmap | Promise<Bitmap>
}

/** The recall that a graph gives `k` hits with a beam of `ef`, as measured when it was built. */
export type Beam = { readonly k: number; readonly ef: number; readonly recall: number }

/** UTF-8 bytes of an id and its hash under the collection's seed: computed once, looked up in every source. */
export type IdKey = { readonly id: string; readonly bytes: Uint8Array; readonly hash: number }

/**
 * A memtable or a segment: documents under dense row numbers. Rows never move and never change; they only die, each at a sequence.
 */
export interface SearchSource {
  /** Rows so far, dead ones included. A memtable grows; what a snapshot sees of it is decided by sequence. */
  readonly rowCount: number
  /** Rows that are alive at the newest sequence. */
  readonly liveCount: number
  /** Vectors, codes and graph in linear memory. Only after {@link loadImage} is done. */
  readonly image: VectorImage
  /** What beams give on the graph, if that was measured. */
  readonly beams: readonly Beam[]
  /** Whether the vectors are in memory, so that searching needs no await. */
  readonly isImageLoaded: boolean
  /** Brings vectors, codes and graph into memory; every byte is verified. */
  loadImage(): Promise<void>
  /** Whether ids can be looked up without an await. */
  readonly areIdsLoaded: boolean
  /** Brings ids and row offsets into memory; every byte is verified. */
  loadIds(): Promise<void>
  /** The live or dead row that last held an id, or -1. Only after {@link loadIds}. O(1). */
  find(key: IdKey): number
  /** Whether a row had been written and not deleted at a sequence. */
  isVisible(row: number, sequence: number): boolean
  /** The id of a row. Only after {@link loadIds}. */
  idAt(row: number): string
  /** The payload of a row as of a sequence, JSON in UTF-8; undefined if it has none. A promise only where bytes must be fetched. */
  payloadAt(row: number, sequence: number): Uint8Array | undefined | Promise<Uint8Array | undefined>
  /** Whether payloads can be filtered by without an await. */
  readonly areColumnsLoaded: boolean
  /** Brings attribute columns into memory. */
  loadColumns(slice: Slice): Promise<void>
  /**
   * Of the first `rowCount` rows those, dead ones included, whose payload as of a sequence fulfils a condition at a dotted path. Only
   * after {@link loadColumns}, from where on rows may have come. A set of its own; a promise only where bytes must be fetched, or
   * where it takes longer than the slice.
   * @throws IsovecError `CORRUPTION`, `ABORTED`
   */
  matchPayloads(
    path: string,
    condition: Condition,
    sequence: number,
    rowCount: number,
    slice: Slice,
  ): Bitmap | Promise<Bitmap>
  /** Adds those of the first rows, dead ones included, that hold one of some ids. O(ids) or O(rows). */
  addIds(ids: ReadonlySet<string>, rows: Bitmap): void
  /** Takes those rows out that are not visible at a sequence. O(rows / 32 + dead rows), O(rows) for a memtable. */
  keepVisible(rows: Bitmap, sequence: number): void
  /** Counts a user of this source; it lives until every {@link release}. */
  retain(): void
  release(): void
}

/** A source whose rows can be copied into a segment. */
export interface MergeSource extends SearchSource {
  /** Makes everything that copying rows needs available; every byte is verified. */
  prepareMerge(): Promise<void>
  payloadSizeAt(row: number, sequence: number): number
  sequenceAt(row: number): number
}

/** A reference-counted list of sources as of a sequence: one state of a collection, for as long as it is held. */
export class Snapshot {
  readonly sources: readonly SearchSource[]
  /** Sees what was written up to this sequence and nothing later. */
  readonly sequence: number
  #held = true

  constructor(sources: readonly SearchSource[], sequence: number) {
    this.sources = sources
    this.sequence = sequence
    for (const source of sources) source.retain()
  }

  /** Lets go of the sources; more than once is harmless. */
  release(): void {
    if (!this.#held) return
    this.#held = false
    for (const source of this.sources) source.release()
  }
}

/** Visible documents of a snapshot that is held at the newest sequence of its collection. O(sources). */
export function liveCountOf(sources: readonly SearchSource[]): number {
  let count = 0
  for (const source of sources) count += source.liveCount
  return count
}
