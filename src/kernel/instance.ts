/**
 * One WASM instance with its memory, and the supply of them.
 */
import { instantiateSync } from '@assemblyscript/loader'
import { IsovecError } from '../errors.ts'
import { type Region, RegionAllocator } from './region.ts'

/** The exports of assembly/index.ts. Addresses are numbers from 0 to 2^32 - 1; what comes back from WASM is signed. */
export type KernelExports = {
  readonly memory: WebAssembly.Memory
  heapBase(): number
  usesRelaxedSimd(): number
  imageSize(): number
  vectorStride(dimension: number): number
  codeStride(dimension: number): number
  linkStride(M: number): number
  scratchSize(dimension: number, rows: number, pool: number, links: number): number
  layoutScratch(scratch: number, dimension: number, rows: number, pool: number, links: number): void
  createImage(image: number, dimension: number, metric: number): void
  placeRows(image: number, vectors: number, norms: number, dead: number): void
  setRows(image: number, rows: number): void
  killRow(image: number, row: number): void
  placeCodes(image: number, codes: number, terms: number): void
  setQuantizer(image: number, delta: number, origin: number): void
  shapeGraph(
    image: number,
    M: number,
    efConstruction: number,
    seedLow: number,
    seedHigh: number,
    rows: number,
    maxNorm: number,
  ): void
  placeGraph(
    image: number,
    levels: number,
    links: number,
    upperIndex: number,
    upperLinks: number,
    upperCount: number,
    residues: number,
  ): void
  setProgress(image: number, inserted: number, entry: number, maxLevel: number): void
  entryOf(image: number): number
  maxLevelOf(image: number): number
  assignLevels(image: number): number
  clearLinks(image: number): void
  checkGraph(image: number, from: number, to: number): number
  build(image: number, scratch: number, count: number): number
  measureNorms(image: number, from: number, to: number): void
  largestNorm(image: number): number
  calibrationSize(dimension: number, count: number): number
  calibrate(image: number, count: number, origin: number, work: number): number
  encodeRows(image: number, from: number, to: number): void
  checkCodes(image: number, from: number, to: number): number
  questionAt(scratch: number): number
  questionNorm(scratch: number): number
  prepareQuery(image: number, scratch: number, metric: number): void
  scan(image: number, scratch: number, from: number, to: number, out: number): void
  scanCoded(image: number, scratch: number, from: number, to: number, out: number): void
  boundRows(
    image: number,
    scratch: number,
    rows: number,
    from: number,
    count: number,
    lower: number,
    upper: number,
  ): void
  scanRows(image: number, scratch: number, rows: number, count: number, out: number, coded: number): void
  score(image: number, scratch: number, rows: number, count: number, out: number): void
  gateAt(scratch: number): number
  prepareGate(scratch: number, size: number): void
  search(image: number, scratch: number, ef: number, limit: number, filtered: number): void
  collect(scratch: number, limit: number): number
  resultsAt(scratch: number): number
  visitedCount(scratch: number): number
  hashSize(): number
  hash(state: number, at: number, length: number, seedLow: number, seedHigh: number, high: number): number
  hashInit(state: number, seedLow: number, seedHigh: number): void
  hashUpdate(state: number, at: number, length: number): void
  hashDigest(state: number, high: number): number
}

/** The most that working memory is laid out for. */
type ScratchShape = { dimension: number; rows: number; pool: number; links: number }

/** Bytes through which rows, distances and chunks go in and out. */
export const TRANSFER_BYTES = 65_536

/** Memory, exports, regions and working memory of one WASM instance. */
export class Instance {
  readonly exports: KernelExports
  readonly #regions: RegionAllocator
  #bytes: Uint8Array<ArrayBuffer>
  #words: Uint32Array<ArrayBuffer>
  #floats: Float32Array<ArrayBuffer>
  /** Where rows, distances and chunks go in and out: {@link TRANSFER_BYTES}. */
  #transfer: Region
  #scratch: Region | undefined
  #shape: ScratchShape = { dimension: 0, rows: 0, pool: 0, links: 0 }

  constructor(module: WebAssembly.Module) {
    this.exports = guard(instantiateSync(module).exports as unknown as KernelExports)
    const buffer = this.exports.memory.buffer as ArrayBuffer
    this.#bytes = new Uint8Array(buffer)
    this.#words = new Uint32Array(buffer)
    this.#floats = new Float32Array(buffer)
    this.#regions = new RegionAllocator(this.exports.memory, this.exports.heapBase() >>> 0)
    this.#transfer = this.#regions.allocate(TRANSFER_BYTES)
  }

  /** All of linear memory. Not to be kept: growth makes a view empty. */
  get bytes(): Uint8Array<ArrayBuffer> {
    this.#refresh()
    return this.#bytes
  }

  /** The same as u32: index is address / 4. */
  get words(): Uint32Array<ArrayBuffer> {
    this.#refresh()
    return this.#words
  }

  /** The same as f32: index is address / 4. */
  get floats(): Float32Array<ArrayBuffer> {
    this.#refresh()
    return this.#floats
  }

  #refresh(): void {
    const buffer = this.exports.memory.buffer as ArrayBuffer
    if (this.#bytes.buffer === buffer) return
    this.#bytes = new Uint8Array(buffer)
    this.#words = new Uint32Array(buffer)
    this.#floats = new Float32Array(buffer)
  }

  /** Size of linear memory in bytes. */
  get size(): number {
    return this.exports.memory.buffer.byteLength
  }

  /** Bytes that regions may still take. */
  get available(): number {
    return this.#regions.available
  }

  get transfer(): number {
    return this.#transfer.offset
  }

  /** See {@link RegionAllocator.allocate}. */
  allocate(size: number): Region {
    return this.#regions.allocate(size)
  }

  /** A region for each of `sizes`, or none and `OUT_OF_MEMORY`. */
  allocateAll(sizes: readonly number[]): Region[] {
    const regions: Region[] = []
    try {
      for (const size of sizes) regions.push(this.#regions.allocate(size))
    } catch (error) {
      for (const region of regions) this.#regions.free(region)
      throw error
    }
    return regions
  }

  free(region: Region): void {
    this.#regions.free(region)
  }

  /** Address of working memory, 0 before {@link reserveScratch}. */
  get scratch(): number {
    return this.#scratch?.offset ?? 0
  }

  /** Whose question is in working memory; `undefined` if none is. */
  prepared: object | undefined

  /**
   * Makes working memory large enough. A question in it is lost when it moves.
   *
   * @throws {IsovecError} `OUT_OF_MEMORY`; the old one is still there then
   */
  reserveScratch(dimension: number, rows: number, pool: number, links: number): void {
    const old = this.#shape
    if (dimension <= old.dimension && rows <= old.rows && pool <= old.pool && links <= old.links) return
    const shape = {
      dimension: Math.max(dimension, old.dimension),
      rows: rows <= old.rows ? old.rows : Math.ceil(rows * 1.5),
      pool: Math.max(pool, old.pool),
      links: Math.max(links, old.links),
    }
    const size = this.exports.scratchSize(shape.dimension, shape.rows, shape.pool, shape.links) >>> 0
    const region = this.#regions.allocate(size)
    this.exports.layoutScratch(region.offset, shape.dimension, shape.rows, shape.pool, shape.links)
    if (this.#scratch !== undefined) this.#regions.free(this.#scratch)
    this.#scratch = region
    this.#shape = shape
    this.prepared = undefined
  }

  /** Forgets everything in it, to be used anew. */
  reset(): void {
    this.#regions.reset()
    this.#transfer = this.#regions.allocate(TRANSFER_BYTES)
    this.#scratch = undefined
    this.prepared = undefined
    this.#shape = { dimension: 0, rows: 0, pool: 0, links: 0 }
  }
}

/** The exports with traps turned into {@link IsovecError}. */
function guard(exports: KernelExports): KernelExports {
  const guarded: Record<string, unknown> = {}
  for (const [name, value] of Object.entries(exports)) {
    guarded[name] = typeof value === 'function' ? guarding(name, value as (...parameters: number[]) => number) : value
  }
  return guarded as KernelExports
}

function guarding(name: string, call: (...parameters: number[]) => number): (...parameters: number[]) => number {
  return (...parameters) => {
    try {
      return call(...parameters)
    } catch (cause) {
      throw new IsovecError('CORRUPTION', `the kernel stopped in ${name}: the data in memory is damaged`, { cause })
    }
  }
}

/** Instances alive at a time in one realm: browsers refuse the 126th memory, and dropped ones wait for the collector. */
export const INSTANCES_MAX = 32
/** An instance that has grown beyond this is dropped rather than kept for later: memory never shrinks. */
const IDLE_BYTES_MAX = 64 * 1024 * 1024
const IDLE_MAX = 4

/** Makes instances of one module and takes them back. */
export class InstanceSupply {
  readonly #module: WebAssembly.Module
  readonly #idle: Instance[] = []
  #live = 0

  constructor(module: WebAssembly.Module) {
    this.#module = module
  }

  /** Instances in use. */
  get live(): number {
    return this.#live
  }

  /**
   * An empty instance.
   *
   * @throws {IsovecError} `OUT_OF_MEMORY` if there are {@link INSTANCES_MAX} or the platform refuses another
   */
  acquire(): Instance {
    if (this.#live >= INSTANCES_MAX) {
      throw new IsovecError('OUT_OF_MEMORY', `all ${INSTANCES_MAX} memories for vectors are full`)
    }
    let instance = this.#idle.pop()
    if (instance === undefined) {
      try {
        instance = new Instance(this.#module)
      } catch (cause) {
        throw new IsovecError('OUT_OF_MEMORY', 'the platform refused another memory for vectors', { cause })
      }
    }
    this.#live++
    return instance
  }

  /** Takes an instance back. */
  release(instance: Instance): void {
    this.#live--
    if (instance.size > IDLE_BYTES_MAX || this.#idle.length >= IDLE_MAX) return
    instance.reset()
    this.#idle.push(instance)
  }
}
