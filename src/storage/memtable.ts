/**
 * The memtable: what was written since the last flush, in memory, append-only.
 *
 * A new version of a document is a new row; the old row dies at the sequence of the new one. So a snapshot is a sequence, and nothing
 * is copied for it.
 */
import type { Bitmap } from '../codec/bitmap.ts'
import type { Condition } from '../condition.ts'
import { assert, IsovecError } from '../errors.ts'
import type { Quantizer, VectorImage } from '../kernel/index.ts'
import type { Slice } from '../slice.ts'
import type { IdKey, MergeSource } from '../snapshot.ts'
import { MemoryColumns } from './memory-columns.ts'
import type { StorageContext } from './segment.ts'
import { Tombstones } from './tombstones.ts'

/** Rows from which on the vectors are kept as codes too, which makes scanning them several times cheaper. */
const calibratedRows = 1024
const reserveMin = 64

/** Fixed cost of a row beside its vector, id and payload, for the memtable's size: tables, maps, string headers. */
const rowOverhead = 120

/** Documents in memory under dense rows. */
export class Memtable implements MergeSource {
  readonly #image: VectorImage
  readonly #rowsById = new Map<string, number>()
  readonly #ids: string[] = []
  readonly #payloads: (Uint8Array | undefined)[] = []
  readonly #sequences: number[] = []
  readonly tombstones = new Tombstones()
  readonly #columns = new MemoryColumns(this)
  readonly #quantization: 'auto' | 'sq8' | 'none'
  /** Rows whose documents have moved on under a new payload. */
  readonly #moved = new Set<number>()
  #reserved = reserveMin
  #size = 0
  #users = 1

  /**
   * @param quantizer of the newest segment, for want of which one is made from the first rows
   */
  constructor(context: StorageContext, quantization: 'auto' | 'sq8' | 'none', quantizer: Quantizer | undefined) {
    this.#quantization = quantization
    const { dimension, metric } = context
    this.#image = context.pool.createImage({ dimension, metric, capacity: reserveMin })
    if (quantizer !== undefined && quantization !== 'none') this.#image.setQuantizer(quantizer)
  }

  get image(): VectorImage {
    return this.#image
  }

  get beams(): readonly [] {
    return []
  }

  get isImageLoaded(): boolean {
    return true
  }

  get areIdsLoaded(): boolean {
    return true
  }

  get rowCount(): number {
    return this.#ids.length
  }

  get liveCount(): number {
    return this.#ids.length - this.tombstones.count
  }

  /** Bytes of ids, payloads, vectors and tables. */
  get memorySize(): number {
    return this.#size + this.#image.bytes + this.#columns.memorySize
  }

  async loadImage(): Promise<void> {}

  async loadIds(): Promise<void> {}

  async prepareMerge(): Promise<void> {}

  /**
   * Makes room for rows that are about to be logged, so that applying them cannot fail.
   * @throws IsovecError `OUT_OF_MEMORY`, before anything has changed
   */
  reserve(rowCount: number): void {
    const wanted = this.rowCount + rowCount
    if (wanted <= this.#reserved) return
    // Twofold, since more room means copying what is there; exactly, where there is no memory for more than is needed.
    const roomy = Math.max(wanted, 2 * this.#reserved)
    try {
      this.#image.reserve(roomy)
      this.#reserved = roomy
    } catch (error) {
      if (roomy === wanted) throw error
      this.#image.reserve(wanted)
      this.#reserved = wanted
    }
  }

  /** Appends a row. Room must have been reserved. */
  append(id: string, vector: Uint8Array, payload: Uint8Array | undefined, sequence: number): void {
    assert(this.rowCount < this.#reserved, 'room is reserved before rows are appended')
    const row = this.#image.append(vector)
    assert(row === this.#ids.length, 'image and memtable count alike')
    this.#rowsById.set(id, row)
    this.#ids.push(id)
    this.#payloads.push(payload)
    this.#sequences.push(sequence)
    this.#size += rowOverhead + id.length * 2 + (payload?.length ?? 0)
    if (this.rowCount === calibratedRows) this.#calibrate()
  }

  /** Marks a row as dead. Returns whether it was alive. */
  kill(row: number, sequence: number): boolean {
    if (!this.tombstones.add(row, sequence)) return false
    this.#image.setDead(row)
    return true
  }

  /** Marks a row as dead whose document goes on elsewhere under a new payload: the log knows its vector from here alone. */
  move(row: number, sequence: number): void {
    this.kill(row, sequence)
    this.#moved.add(row)
  }

  /** Whether the row died because its document moved. */
  hasMoved(row: number): boolean {
    return this.#moved.has(row)
  }

  find(key: IdKey): number {
    return this.#rowsById.get(key.id) ?? -1
  }

  isVisible(row: number, sequence: number): boolean {
    return this.#sequences[row]! <= sequence && !this.tombstones.isDead(row, sequence)
  }

  idAt(row: number): string {
    return this.#ids[row]!
  }

  /** Rows are never patched: a patched document is a new row with the vector of the old one. */
  payloadAt(row: number): Uint8Array | undefined {
    return this.#payloads[row]
  }

  get areColumnsLoaded(): boolean {
    return this.#columns.rowCount === this.rowCount
  }

  loadColumns(slice: Slice): Promise<void> {
    return this.#columns.extend(slice)
  }

  matchPayloads(
    path: string,
    condition: Condition,
    _sequence: number,
    rowCount: number,
    slice: Slice,
  ): Bitmap | Promise<Bitmap> {
    return this.#columns.match(path, condition, slice, rowCount)
  }

  addIds(ids: ReadonlySet<string>, rows: Bitmap): void {
    for (let row = 0; row < rows.length; row++) if (ids.has(this.#ids[row]!)) rows.add(row)
  }

  keepVisible(rows: Bitmap, sequence: number): void {
    for (let row = 0; row < rows.length; row++) if (!this.isVisible(row, sequence)) rows.remove(row)
  }

  payloadSizeAt(row: number): number {
    return this.#payloads[row]?.length ?? 0
  }

  sequenceAt(row: number): number {
    return this.#sequences[row]!
  }

  retain(): void {
    assert(this.#users > 0, 'a disposed memtable is not used again')
    this.#users++
  }

  release(): void {
    assert(this.#users > 0, 'a memtable is released as often as it was retained')
    if (--this.#users === 0) this.#image.release()
  }

  #calibrate(): void {
    if (this.#quantization === 'none' || this.#image.quantizer !== null) return
    try {
      const quantizer = this.#image.calibrate(this.#quantization === 'sq8')
      if (quantizer === null) return
      this.#image.setQuantizer(quantizer)
    } catch (error) {
      // The rows are logged already, so they must get in; without codes they are only scanned more slowly.
      if (error instanceof IsovecError && error.code === 'OUT_OF_MEMORY') return
      throw error
    }
    this.#image.encode(0, this.rowCount)
  }
}
