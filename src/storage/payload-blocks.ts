/**
 * Payload sections: the payloads of a segment one after the other, cut into blocks that each end in a checksum, so that a row is read
 * and verified without the rest. The blocks most recently read are kept.
 */
import { viewOf } from '../codec/bytes.ts'
import type { RandomAccessFile } from '../directory/directory.ts'
import type { Checksum, Kernel } from '../kernel/index.ts'
import { corrupt } from './section-file.ts'

/** Size of a block with its checksum; the last one of a section may be shorter. */
export const blockSize = 16 * 1024
const checksumSize = 8
const blockDataSize = blockSize - checksumSize
/** Blocks that are verified with one read. */
const verifiedBlocks = 64

/** Size of the section that holds `dataSize` bytes of payloads. */
export function blockedSize(dataSize: number): number {
  return dataSize + Math.ceil(dataSize / blockDataSize) * checksumSize
}

/** Size of the payloads in a section of `size` bytes, or undefined if no section has that size. */
export function dataSizeOf(size: number): number | undefined {
  const dataSize = size - Math.ceil(size / blockSize) * checksumSize
  return dataSize >= 0 && blockedSize(dataSize) === size ? dataSize : undefined
}

/** Cuts a stream of payloads into blocks. */
export class BlockWriter {
  readonly #kernel: Kernel
  readonly #salt: Checksum
  readonly #emit: (block: Uint8Array) => Promise<void>
  #block = new Uint8Array(blockSize)
  #filled = 0
  #index = 0

  /** @param salt of the segment; each block's checksum is seeded with it and the block's index, so that no block passes for another */
  constructor(kernel: Kernel, salt: Checksum, emit: (block: Uint8Array) => Promise<void>) {
    this.#kernel = kernel
    this.#salt = salt
    this.#emit = emit
  }

  async write(bytes: Uint8Array): Promise<void> {
    let rest = bytes
    while (rest.length > 0) {
      const piece = rest.subarray(0, blockDataSize - this.#filled)
      this.#block.set(piece, this.#filled)
      this.#filled += piece.length
      rest = rest.subarray(piece.length)
      if (this.#filled === blockDataSize) await this.finish()
    }
  }

  /** Emits what is left. */
  async finish(): Promise<void> {
    if (this.#filled === 0) return
    const { low, high } = blockChecksum(this.#kernel, this.#salt, this.#index++, this.#block.subarray(0, this.#filled))
    const view = viewOf(this.#block)
    view.setUint32(this.#filled, low, true)
    view.setUint32(this.#filled + 4, high, true)
    const block = this.#block.subarray(0, this.#filled + checksumSize)
    this.#block = new Uint8Array(blockSize)
    this.#filled = 0
    await this.#emit(block)
  }
}

function blockChecksum(kernel: Kernel, salt: Checksum, index: number, data: Uint8Array): Checksum {
  return kernel.checksum64(data, (salt.low ^ index) >>> 0, salt.high)
}

/** Verified blocks of all segments of a database, the least recently used dropped first. */
export class BlockCache {
  readonly #sizeMax: number
  readonly #blocks = new Map<string, Uint8Array>()
  #size = 0

  constructor(sizeMax: number) {
    this.#sizeMax = sizeMax
  }

  get(key: string): Uint8Array | undefined {
    const block = this.#blocks.get(key)
    if (block === undefined) return undefined
    this.#blocks.delete(key)
    this.#blocks.set(key, block)
    return block
  }

  set(key: string, block: Uint8Array): void {
    if (this.#blocks.has(key)) return
    this.#blocks.set(key, block)
    this.#size += block.length
    for (const [oldest, dropped] of this.#blocks) {
      if (this.#size <= this.#sizeMax) break
      this.#blocks.delete(oldest)
      this.#size -= dropped.length
    }
  }
}

/** Reads payloads by their place in the stream. */
export class BlockReader {
  readonly #kernel: Kernel
  readonly #file: RandomAccessFile
  readonly #name: string
  readonly #offset: number
  readonly #dataSize: number
  readonly #salt: Checksum
  readonly #cache: BlockCache
  readonly #key: string

  /** @param key names the segment in the cache */
  constructor(
    kernel: Kernel,
    file: RandomAccessFile,
    name: string,
    section: { offset: number; dataSize: number },
    salt: Checksum,
    cache: BlockCache,
    key: string,
  ) {
    this.#kernel = kernel
    this.#file = file
    this.#name = name
    this.#offset = section.offset
    this.#dataSize = section.dataSize
    this.#salt = salt
    this.#cache = cache
    this.#key = key
  }

  /**
   * Bytes `start` … `end` of the stream, which the caller knows to lie inside it. A promise only where a block is not in the cache.
   * @throws IsovecError `CORRUPTION` if a block's checksum doesn't hold
   */
  read(start: number, end: number): Uint8Array | Promise<Uint8Array> {
    const first = Math.floor(start / blockDataSize)
    const last = Math.floor((end - 1) / blockDataSize)
    const blocks: Uint8Array[] = []
    for (let index = first; index <= last; index++) {
      const block = this.#cache.get(`${this.#key}/${index}`)
      if (block === undefined) return this.#fetch(start, end, first, last)
      blocks.push(block)
    }
    return cut(blocks, start - first * blockDataSize, end - start)
  }

  /**
   * Reads every block and keeps none.
   * @throws IsovecError `CORRUPTION` if a block's checksum doesn't hold
   */
  async verify(): Promise<void> {
    const count = Math.ceil(this.#dataSize / blockDataSize)
    const piece = new Uint8Array(Math.min(blockedSize(this.#dataSize), verifiedBlocks * blockSize))
    for (let first = 0; first < count; first += verifiedBlocks) {
      const size = Math.min(piece.length, blockedSize(this.#dataSize) - first * blockSize)
      await this.#file.read(this.#offset + first * blockSize, piece.subarray(0, size))
      for (let at = 0; at < size; at += blockSize) {
        this.#check(first + at / blockSize, piece.subarray(at, Math.min(size, at + blockSize)))
      }
    }
  }

  async #fetch(start: number, end: number, first: number, last: number): Promise<Uint8Array> {
    const blocks: Uint8Array[] = []
    for (let index = first; index <= last; index++) {
      blocks.push(this.#cache.get(`${this.#key}/${index}`) ?? (await this.#block(index)))
    }
    return cut(blocks, start - first * blockDataSize, end - start)
  }

  async #block(index: number): Promise<Uint8Array> {
    const dataSize = Math.min(blockDataSize, this.#dataSize - index * blockDataSize)
    const bytes = new Uint8Array(dataSize + checksumSize)
    await this.#file.read(this.#offset + index * blockSize, bytes)
    const data = this.#check(index, bytes)
    this.#cache.set(`${this.#key}/${index}`, data)
    return data
  }

  /** The data of a block, verified. */
  #check(index: number, block: Uint8Array): Uint8Array {
    const dataSize = block.length - checksumSize
    const data = block.subarray(0, dataSize)
    const view = viewOf(block)
    const { low, high } = blockChecksum(this.#kernel, this.#salt, index, data)
    if (view.getUint32(dataSize, true) !== low || view.getUint32(dataSize + 4, true) !== high) {
      const offset = this.#offset + index * blockSize
      throw corrupt(this.#name, offset, `the checksum of payload block ${index} does not hold`)
    }
    return data
  }
}

function cut(blocks: readonly Uint8Array[], start: number, size: number): Uint8Array {
  if (blocks.length === 1) return blocks[0]!.subarray(start, start + size)
  const bytes = new Uint8Array(size)
  let filled = 0
  let skip = start
  for (const block of blocks) {
    const piece = block.subarray(skip, skip + size - filled)
    bytes.set(piece, filled)
    filled += piece.length
    skip = 0
  }
  return bytes
}
