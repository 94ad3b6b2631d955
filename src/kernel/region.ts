/**
 * Division of one linear memory into regions: first fit, neighbours merged when freed, the memory grown as needed.
 */
import { IsovecError } from '../errors.ts'

/** A piece of linear memory. `offset` and `size` are multiples of {@link REGION_UNIT}. */
export type Region = { readonly offset: number; readonly size: number }

/** Regions begin on a cache line and fill whole ones. */
export const REGION_UNIT = 64

const PAGE = 65_536
const PAGES_MAX = 65_536

/** Hands out regions of a memory from `start` up. */
export class RegionAllocator {
  readonly #memory: WebAssembly.Memory
  readonly #start: number
  #top: number
  #used = 0
  /** Free regions below the top, by offset. */
  #free: Region[] = []

  constructor(memory: WebAssembly.Memory, start: number) {
    this.#memory = memory
    this.#start = Math.ceil(start / REGION_UNIT) * REGION_UNIT
    this.#top = this.#start
  }

  /** Bytes in use. */
  get used(): number {
    return this.#used
  }

  /** Bytes that could still be handed out if the platform had them, apart from fragmentation. */
  get available(): number {
    return PAGES_MAX * PAGE - this.#start - this.#used
  }

  /**
   * A region of at least `size` bytes, with whatever was there before in it. O(free regions).
   *
   * @throws {IsovecError} `OUT_OF_MEMORY` if the memory can't grow; nothing has changed then
   */
  allocate(size: number): Region {
    const whole = Math.max(1, Math.ceil(size / REGION_UNIT)) * REGION_UNIT
    const index = this.#free.findIndex((region) => region.size >= whole)
    const found = this.#free[index]
    if (found === undefined) {
      this.#reach(this.#top + whole)
      const region = { offset: this.#top, size: whole }
      this.#top += whole
      this.#used += whole
      return region
    }
    const rest = { offset: found.offset + whole, size: found.size - whole }
    this.#free.splice(index, 1, ...(rest.size > 0 ? [rest] : []))
    this.#used += whole
    return { offset: found.offset, size: whole }
  }

  /** Takes a region back. O(free regions). */
  free(region: Region): void {
    this.#used -= region.size
    let { offset, size } = region
    let index = this.#free.findIndex((other) => other.offset > offset)
    if (index < 0) index = this.#free.length
    let removed = 0
    const next = this.#free[index]
    if (next !== undefined && offset + size === next.offset) {
      size += next.size
      removed++
    }
    const previous = this.#free[index - 1]
    if (previous !== undefined && previous.offset + previous.size === offset) {
      offset = previous.offset
      size += previous.size
      index--
      removed++
    }
    if (offset + size === this.#top) {
      this.#free.splice(index, removed)
      this.#top = offset
    } else {
      this.#free.splice(index, removed, { offset, size })
    }
  }

  /** Forgets every region. */
  reset(): void {
    this.#top = this.#start
    this.#used = 0
    this.#free = []
  }

  #reach(end: number): void {
    const size = this.#memory.buffer.byteLength
    if (end <= size) return
    const pages = Math.ceil((end - size) / PAGE)
    try {
      this.#memory.grow(pages)
    } catch (cause) {
      throw new IsovecError('OUT_OF_MEMORY', `no memory for ${pages * PAGE} more bytes of vectors`, { cause })
    }
  }
}
