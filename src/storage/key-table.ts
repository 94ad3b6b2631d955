/**
 * A set of keys, each with a number: how values are told apart while columns are gathered.
 */
/** Shards, so that growing moves a small part of a large table at a time. A power of two. */
const shardBits = 6
const shardMask = (1 << shardBits) - 1
const slotsMin = 16

/** Keys whose hashes end alike: their bytes one after the other, and an open-addressing table of indices + 1. */
type Shard = {
  bytes: Uint8Array
  /** Where each key begins; one more for the end of the last. */
  offsets: Uint32Array
  slots: Uint32Array
  /** Hash of each key: tells most others apart, and spares hashing them again. */
  hashes: Uint32Array
  ranks: Uint32Array
  count: number
}

/** Keys of up to some hundred bytes, numbered as they come. */
export class KeyTable {
  readonly #shards: (Shard | undefined)[] = []
  // Neither written anywhere nor told: keys that were chosen to collide shall not.
  readonly #seed = Math.floor(Math.random() * 2 ** 32) | 0
  #size = 0

  /** Bytes of memory that the table takes. */
  get memorySize(): number {
    let size = 0
    for (const shard of this.#shards) {
      if (shard === undefined) continue
      const { bytes, offsets, slots, hashes, ranks } = shard
      size += bytes.length + offsets.byteLength + slots.byteLength + hashes.byteLength + ranks.byteLength
    }
    return size
  }

  /** The number of the key `bytes[0]` … `bytes[size - 1]`, or -1. O(size). */
  find(bytes: Uint8Array, size: number): number {
    const hash = hashOf(bytes, size, this.#seed)
    const shard = this.#shards[hash & shardMask]
    if (shard === undefined) return -1
    const index = shard.slots[slotOf(shard, hash, bytes, size)]! - 1
    return index < 0 ? -1 : numberOf(index, hash)
  }

  /** The number of a key, which is added if it is new; -1 if it is new and `sizeMax` bytes of keys are there. Amortised O(size). */
  add(bytes: Uint8Array, size: number, sizeMax: number): number {
    const hash = hashOf(bytes, size, this.#seed)
    this.#shards[hash & shardMask] ??= createShard()
    const shard = this.#shards[hash & shardMask]!
    const slot = slotOf(shard, hash, bytes, size)
    const found = shard.slots[slot]! - 1
    if (found >= 0) return numberOf(found, hash)
    if (this.#size + size > sizeMax) return -1
    this.#size += size
    const index = shard.count
    append(shard, bytes, size, hash)
    shard.slots[slot] = shard.count
    if (shard.count * 3 > shard.slots.length * 2) growSlots(shard)
    return numberOf(index, hash)
  }

  /** The bytes in which a key lies, from {@link startOf} to {@link endOf}; adding replaces them. */
  bytesOf(number: number): Uint8Array {
    return this.#shards[number & shardMask]!.bytes
  }

  startOf(number: number): number {
    return this.#shards[number & shardMask]!.offsets[number >>> shardBits]!
  }

  endOf(number: number): number {
    return this.#shards[number & shardMask]!.offsets[(number >>> shardBits) + 1]!
  }

  /** A number that the user of the table puts on a key; 0 until then. */
  rankOf(number: number): number {
    return this.#shards[number & shardMask]!.ranks[number >>> shardBits]!
  }

  setRank(number: number, rank: number): void {
    this.#shards[number & shardMask]!.ranks[number >>> shardBits] = rank
  }
}

function growSlots(shard: Shard): void {
  const slots = new Uint32Array(shard.slots.length * 2)
  const mask = slots.length - 1
  for (let index = 0; index < shard.count; index++) {
    let slot = (shard.hashes[index]! >>> shardBits) & mask
    while (slots[slot] !== 0) slot = (slot + 1) & mask
    slots[slot] = index + 1
  }
  shard.slots = slots
}

function createShard(): Shard {
  return {
    bytes: new Uint8Array(64),
    offsets: new Uint32Array(slotsMin),
    slots: new Uint32Array(slotsMin),
    hashes: new Uint32Array(slotsMin),
    ranks: new Uint32Array(slotsMin),
    count: 0,
  }
}

function numberOf(index: number, hash: number): number {
  return index * (shardMask + 1) + (hash & shardMask)
}

/** The slot that holds a key, or the empty one where it belongs. */
function slotOf(shard: Shard, hash: number, bytes: Uint8Array, size: number): number {
  const { slots, offsets, hashes } = shard
  const mask = slots.length - 1
  for (let slot = (hash >>> shardBits) & mask; ; slot = (slot + 1) & mask) {
    const index = slots[slot]! - 1
    if (index < 0) return slot
    if (hashes[index] !== hash) continue
    const start = offsets[index]!
    if (offsets[index + 1]! - start !== size) continue
    let i = 0
    while (i < size && shard.bytes[start + i] === bytes[i]) i++
    if (i === size) return slot
  }
}

function append(shard: Shard, bytes: Uint8Array, size: number, hash: number): void {
  const start = shard.offsets[shard.count]!
  if (start + size > shard.bytes.length) shard.bytes = grown(shard.bytes, new Uint8Array(2 * shard.bytes.length + size))
  for (let i = 0; i < size; i++) shard.bytes[start + i] = bytes[i]!
  shard.hashes[shard.count++] = hash
  if (shard.count === shard.offsets.length) {
    shard.offsets = grown(shard.offsets, new Uint32Array(2 * shard.count))
    shard.hashes = grown(shard.hashes, new Uint32Array(2 * shard.count))
    shard.ranks = grown(shard.ranks, new Uint32Array(2 * shard.count))
  }
  shard.offsets[shard.count] = start + size
}

function grown<T extends Uint8Array | Uint32Array>(from: T, into: T): T {
  into.set(from)
  return into
}

function hashOf(bytes: Uint8Array, size: number, seed: number): number {
  let hash = seed ^ size
  const wordsEnd = size & ~3
  let i = 0
  for (; i < wordsEnd; i += 4) {
    const word = bytes[i]! | (bytes[i + 1]! << 8) | (bytes[i + 2]! << 16) | (bytes[i + 3]! << 24)
    hash = Math.imul(hash ^ Math.imul(word, 0xcc9e2d51), 0x5bd1e995)
    hash ^= hash >>> 15
  }
  for (; i < size; i++) hash = Math.imul(hash ^ bytes[i]!, 0x5bd1e995)
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return (hash ^ (hash >>> 16)) >>> 0
}
