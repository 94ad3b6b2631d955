/**
 * The regions that one image holds, and the instance they are in.
 */
import { assert, IsovecError } from '../errors.ts'
import type { VectorImage } from './image.ts'
import type { Instance } from './instance.ts'
import type { Region } from './region.ts'

/** A stored part of an image: see `VectorImage.section`. `terms`: two sums and an error per row of codes. */
export type SectionKind = 'vectors' | 'norms' | 'codes' | 'terms' | 'levels' | 'links' | 'upperIndex' | 'upperLinks'

/** Everything that an image has a region for. `image` is the structure that tells the kernel where the others are. */
export type RegionName = SectionKind | 'image' | 'dead' | 'origin' | 'residues'

/** New sizes in bytes. */
export type RegionSizes = ReadonlyMap<RegionName, number>

/** What the pool does for its images. */
export interface ImageHome {
  /** Another instance with room for `size` bytes, of which `image` is a resident from then on as well. */
  move(image: VectorImage, from: Instance, size: number): Instance | undefined
  /** The image is gone from `from`. */
  leave(image: VectorImage, from: Instance): void
}

/** Named regions that keep their bytes while they grow, also when that takes them to another instance. */
export class ImageMemory {
  readonly #owner: VectorImage
  readonly #home: ImageHome
  readonly #regions = new Map<RegionName, Region>()
  #instance: Instance

  constructor(owner: VectorImage, instance: Instance, home: ImageHome) {
    this.#owner = owner
    this.#instance = instance
    this.#home = home
  }

  /** The instance that holds all regions; another one after some calls of {@link resize}. */
  get instance(): Instance {
    return this.#instance
  }

  /** Bytes of all regions. */
  get bytes(): number {
    let bytes = 0
    for (const region of this.#regions.values()) bytes += region.size
    return bytes
  }

  /** Address of a region that must be there. */
  offset(name: RegionName): number {
    const region = this.#regions.get(name)
    assert(region !== undefined, `the image has ${name}`)
    return region.offset
  }

  /** Address of a region, 0 where there is none. */
  find(name: RegionName): number {
    return this.#regions.get(name)?.offset ?? 0
  }

  /**
   * Makes regions, or gives them new sizes and keeps what is in them; what is new of `dead` is zero. Addresses change.
   *
   * @throws {IsovecError} `OUT_OF_MEMORY`, before anything changes
   */
  resize(sizes: RegionSizes): void {
    let regions: Region[]
    try {
      regions = this.#instance.allocateAll([...sizes.values()])
    } catch (error) {
      if (!isOutOfMemory(error) || !this.#relocate(sizes)) throw error
      return
    }
    this.#replace(sizes, regions, this.#instance)
  }

  /** Gives regions back. */
  drop(names: readonly RegionName[]): void {
    for (const name of names) {
      const region = this.#regions.get(name)
      if (region !== undefined) this.#instance.free(region)
      this.#regions.delete(name)
    }
  }

  /** Gives everything back. */
  release(): void {
    this.drop([...this.#regions.keys()])
    if (this.#instance.prepared === this.#owner) this.#instance.prepared = undefined
    this.#home.leave(this.#owner, this.#instance)
  }

  /** Moves to another instance, with new sizes for some; false if there is none with the room. */
  #relocate(sizes: RegionSizes): boolean {
    const source = this.#instance
    const wanted = new Map<RegionName, number>()
    for (const [name, region] of this.#regions) wanted.set(name, region.size)
    for (const [name, size] of sizes) wanted.set(name, size)
    let total = 0
    for (const size of wanted.values()) total += size
    const target = this.#home.move(this.#owner, source, total)
    if (target === undefined) return false
    let regions: Region[]
    try {
      regions = target.allocateAll([...wanted.values()])
    } catch (error) {
      this.#home.leave(this.#owner, target)
      if (isOutOfMemory(error)) return false
      throw error
    }
    this.#replace(wanted, regions, target)
    if (source.prepared === this.#owner) source.prepared = undefined
    this.#instance = target
    this.#home.leave(this.#owner, source)
    return true
  }

  #replace(sizes: RegionSizes, regions: readonly Region[], target: Instance): void {
    const source = this.#instance
    let index = 0
    for (const name of sizes.keys()) {
      const region = regions[index++]!
      const old = this.#regions.get(name)
      const kept = Math.min(old?.size ?? 0, region.size)
      if (old !== undefined) {
        target.bytes.set(source.bytes.subarray(old.offset, old.offset + kept), region.offset)
        source.free(old)
      }
      if (name === 'dead') target.bytes.fill(0, region.offset + kept, region.offset + region.size)
      this.#regions.set(name, region)
    }
  }
}

function isOutOfMemory(error: unknown): boolean {
  return error instanceof IsovecError && error.code === 'OUT_OF_MEMORY'
}
