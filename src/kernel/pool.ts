/**
 * Memory for images: which WASM instance each lives in.
 */
import { IsovecError } from '../errors.ts'
import { VectorImage } from './image.ts'
import type { ImageHome } from './image-memory.ts'
import { INSTANCES_MAX, type Instance, type InstanceSupply } from './instance.ts'
import { codeStride, type Metric, vectorStride } from './metric.ts'

/** What an image is made for. */
export type ImageShape = {
  readonly dimension: number
  readonly metric: Metric
  /** Rows that room is reserved for; it grows beyond as needed. */
  readonly capacity: number
  /** Whether it will have codes, which helps to place it well. Default true. */
  readonly codes?: boolean
}

/** Images from this size on get an instance of their own while there are few instances. */
const LARGE_BYTES = 64 * 1024 * 1024
/** Small images share an instance until it holds so much. */
const SHARED_BYTES_MAX = 512 * 1024 * 1024
/** From so many instances on all images share. */
const FEW_INSTANCES = INSTANCES_MAX / 2

/** Images of any number, over at most 32 WASM instances of 4 GiB a realm. */
export class ImagePool {
  readonly #supply: InstanceSupply
  readonly #residents = new Map<Instance, Set<VectorImage>>()

  /** Use `Kernel.createPool`. */
  constructor(supply: InstanceSupply) {
    this.#supply = supply
  }

  /** Bytes of linear memory held, in use or not. */
  get bytes(): number {
    let bytes = 0
    for (const instance of this.#residents.keys()) bytes += instance.size
    return bytes
  }

  /** WASM instances held. */
  get instances(): number {
    return this.#residents.size
  }

  /**
   * A new, empty image with room for `shape.capacity` rows.
   *
   * @throws {IsovecError} `OUT_OF_MEMORY`
   */
  createImage(shape: ImageShape): VectorImage {
    const rowBytes = vectorStride(shape.dimension) + (shape.codes !== false ? codeStride(shape.dimension) + 8 : 0) + 5
    const size = rowBytes * shape.capacity
    const home: ImageHome = {
      move: (image, from, size) => this.#move(image, from, size),
      leave: (image, from) => this.#leave(image, from),
    }
    for (const instance of this.#candidates(size)) {
      let image: VectorImage
      try {
        image = new VectorImage(shape, instance, home)
      } catch (error) {
        this.#dropIfEmpty(instance)
        if (error instanceof IsovecError && error.code === 'OUT_OF_MEMORY') continue
        throw error
      }
      this.#residents.get(instance)!.add(image)
      return image
    }
    throw new IsovecError('OUT_OF_MEMORY', `no memory for ${shape.capacity} rows of ${shape.dimension} dimensions`)
  }

  /** Releases every image. */
  close(): void {
    for (const images of [...this.#residents.values()]) for (const image of [...images]) image.release()
  }

  /** Instances to try, best first; new ones are made as the caller asks for them. */
  *#candidates(size: number): Generator<Instance> {
    const own = size >= LARGE_BYTES && this.#supply.live < FEW_INSTANCES
    const held = [...this.#residents.keys()].filter((instance) => instance.available >= size)
    if (!own) yield* held.filter((instance) => usedBytes(instance) + size <= SHARED_BYTES_MAX)
    if (this.#supply.live < INSTANCES_MAX) {
      const instance = this.#supply.acquire()
      this.#residents.set(instance, new Set())
      yield instance
    }
    yield* held.filter((instance) => own || usedBytes(instance) + size > SHARED_BYTES_MAX)
  }

  /** Finds another instance for an image that has outgrown its own; `undefined` if there is none. */
  #move(image: VectorImage, from: Instance, size: number): Instance | undefined {
    const residents = this.#residents.get(from)
    if (residents?.has(image) !== true || residents.size === 1 || this.#supply.live >= INSTANCES_MAX) return undefined
    const instance = this.#supply.acquire()
    if (instance.available < size) {
      this.#supply.release(instance)
      return undefined
    }
    this.#residents.set(instance, new Set([image]))
    return instance
  }

  #leave(image: VectorImage, instance: Instance): void {
    this.#residents.get(instance)!.delete(image)
    this.#dropIfEmpty(instance)
  }

  #dropIfEmpty(instance: Instance): void {
    if (this.#residents.get(instance)?.size !== 0) return
    this.#residents.delete(instance)
    this.#supply.release(instance)
  }
}

function usedBytes(instance: Instance): number {
  return 2 ** 32 - instance.available
}
