/**
 * xxh64 of bytes, computed by the kernel.
 */
import { type Instance, TRANSFER_BYTES } from './instance.ts'

/** The two halves of a 64-bit sum, each an unsigned 32-bit integer. */
export type Checksum = { readonly low: number; readonly high: number }

/** A sum that is fed piece by piece. */
export interface Hasher {
  /** Takes in further bytes. */
  update(bytes: Uint8Array): void
  /** The sum of all bytes so far; more may follow. */
  digest(): Checksum
}

/** Bytes in front of the chunk: a sum in progress, then the upper half of its result. */
const HEAD = 128
const HIGH = 120
const CHUNK = TRANSFER_BYTES - HEAD

/** xxh64 of `bytes`. O(length); inputs up to 64 kB take one call. */
export function checksumOf(instance: Instance, bytes: Uint8Array, seedLow: number, seedHigh: number): Checksum {
  const { exports, transfer } = instance
  const high = transfer + HIGH
  let low: number
  if (bytes.length <= CHUNK) {
    instance.bytes.set(bytes, transfer + HEAD)
    low = exports.hash(transfer, transfer + HEAD, bytes.length, seedLow, seedHigh, high)
  } else {
    exports.hashInit(transfer, seedLow, seedHigh)
    feed(instance, bytes)
    low = exports.hashDigest(transfer, high)
  }
  return { low: low >>> 0, high: instance.words[high >>> 2]! }
}

/** xxh64 of memory of the instance itself. */
export function checksumAt(
  instance: Instance,
  address: number,
  length: number,
  seedLow: number,
  seedHigh: number,
): Checksum {
  const high = instance.transfer + HIGH
  const low = instance.exports.hash(instance.transfer, address, length, seedLow, seedHigh, high)
  return { low: low >>> 0, high: instance.words[high >>> 2]! }
}

/** A sum in progress keeps its state outside the instance, so that any number can go on side by side. */
export function createHasher(instance: Instance, seedLow: number, seedHigh: number): Hasher {
  const { exports, transfer } = instance
  const size = exports.hashSize()
  exports.hashInit(transfer, seedLow, seedHigh)
  const state = instance.bytes.slice(transfer, transfer + size)
  return {
    update(bytes) {
      instance.bytes.set(state, transfer)
      feed(instance, bytes)
      state.set(instance.bytes.subarray(transfer, transfer + size))
    },
    digest() {
      instance.bytes.set(state, transfer)
      const low = exports.hashDigest(transfer, transfer + HIGH)
      return { low: low >>> 0, high: instance.words[(transfer + HIGH) >>> 2]! }
    },
  }
}

function feed(instance: Instance, bytes: Uint8Array): void {
  const { exports, transfer } = instance
  for (let from = 0; from < bytes.length; from += CHUNK) {
    const chunk = bytes.subarray(from, from + CHUNK)
    instance.bytes.set(chunk, transfer + HEAD)
    exports.hashUpdate(transfer, transfer + HEAD, chunk.length)
  }
}
