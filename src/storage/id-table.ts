/**
 * The ids of a segment: offsets, bytes, and a hash from id to row, in the form in which they lie in the file.
 *
 * The hash is an open-addressing table of (u32 hash, u32 row + 1) with linear probing from slot floor(hash * slots / 2^32); row + 1 = 0
 * is an empty slot. One seed per collection keeps chosen ids from colliding.
 */
import { ByteWriter, bytesEqual, utf8Decode, utf8Encode } from '../codec/bytes.ts'
import { assert } from '../errors.ts'
import type { IdKey } from '../snapshot.ts'

const twoTo32 = 2 ** 32

/** The id tables of one segment. Typed arrays in the platform's byte order, which is little-endian wherever WASM runs. */
export type IdTable = {
  /** Where each id begins in `bytes`; one more for the end of the last. */
  readonly offsets: Uint32Array
  readonly bytes: Uint8Array
  /** Pairs of hash and row + 1. */
  readonly slots: Uint32Array
}

/** 32-bit MurmurHash3 of `bytes` (Appleby, public domain). */
export function hashBytes(bytes: Uint8Array, seed: number): number {
  let hash = seed
  const blocksEnd = bytes.length & ~3
  for (let i = 0; i < blocksEnd; i += 4) {
    const block = bytes[i]! | (bytes[i + 1]! << 8) | (bytes[i + 2]! << 16) | (bytes[i + 3]! << 24)
    hash ^= scramble(block)
    hash = (hash << 13) | (hash >>> 19)
    hash = (Math.imul(hash, 5) + 0xe6546b64) | 0
  }
  let tail = 0
  for (let i = bytes.length - 1; i >= blocksEnd; i--) tail = (tail << 8) | bytes[i]!
  if (bytes.length > blocksEnd) hash ^= scramble(tail)
  hash ^= bytes.length
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return (hash ^ (hash >>> 16)) >>> 0
}

function scramble(block: number): number {
  const mixed = Math.imul(block, 0xcc9e2d51)
  return Math.imul((mixed << 15) | (mixed >>> 17), 0x1b873593)
}

/** The key under which an id is looked up. */
export function idKey(id: string, seed: number): IdKey {
  const bytes = utf8Encode(id)
  return { id, bytes, hash: hashBytes(bytes, seed) }
}

/** Collects ids in the order of their rows. */
export class IdTableBuilder {
  readonly #bytes = new ByteWriter(4096)
  readonly #offsets: Uint32Array
  readonly #slots: Uint32Array
  readonly #seed: number
  #count = 0

  constructor(rowCount: number, seed: number) {
    this.#offsets = new Uint32Array(rowCount + 1)
    this.#slots = new Uint32Array(slotCountFor(rowCount) * 2)
    this.#seed = seed
  }

  /** Adds the id of the next row. Amortised O(1). */
  add(id: string): void {
    const key = idKey(id, this.#seed)
    this.#bytes.bytes(key.bytes)
    this.#offsets[++this.#count] = this.#bytes.size
    const slots = this.#slots
    const slotCount = slots.length / 2
    let slot = firstSlot(key.hash, slotCount)
    while (slots[2 * slot + 1] !== 0) slot = slot + 1 === slotCount ? 0 : slot + 1
    slots[2 * slot] = key.hash
    slots[2 * slot + 1] = this.#count
  }

  /** The tables; every row must have been added. */
  build(): IdTable {
    assert(this.#count === this.#offsets.length - 1, 'every row has an id')
    return { offsets: this.#offsets, bytes: this.#bytes.finish(), slots: this.#slots }
  }
}

/** Slots for a number of rows: two thirds full. */
export function slotCountFor(rowCount: number): number {
  return Math.ceil(rowCount * 1.5) + 1
}

function firstSlot(hash: number, slotCount: number): number {
  return Math.floor((hash * slotCount) / twoTo32)
}

/** The row of an id, or -1. The table may be anything: the probe is bounded and rows are checked. */
export function findId(table: IdTable, key: IdKey): number {
  const { offsets, bytes, slots } = table
  const slotCount = slots.length / 2
  const rowCount = offsets.length - 1
  let slot = firstSlot(key.hash, slotCount)
  for (let probes = 0; probes < slotCount; probes++) {
    const row = slots[2 * slot + 1]! - 1
    if (row < 0) return -1
    if (slots[2 * slot] === key.hash && row < rowCount) {
      if (bytesEqual(bytes.subarray(offsets[row]!, offsets[row + 1]!), key.bytes)) return row
    }
    slot = slot + 1 === slotCount ? 0 : slot + 1
  }
  return -1
}

/** The id of a row. */
export function idAt(table: IdTable, row: number): string {
  const start = table.offsets[row]!
  const end = table.offsets[row + 1]!
  // Most ids are short ASCII, for which building the string beats a call into the decoder.
  if (end - start <= 32) {
    let text = ''
    for (let i = start; i < end; i++) {
      const byte = table.bytes[i]!
      if (byte > 127) return utf8Decode(table.bytes.subarray(start, end))
      text += String.fromCharCode(byte)
    }
    return text
  }
  return utf8Decode(table.bytes.subarray(start, end))
}

/** Whether offsets begin at 0, never fall and end at `size`: what makes every row's range safe to read. */
export function areOffsetsValid(offsets: Uint32Array, size: number): boolean {
  if (offsets[0] !== 0 || offsets[offsets.length - 1] !== size) return false
  for (let i = 1; i < offsets.length; i++) if (offsets[i]! < offsets[i - 1]!) return false
  return true
}
