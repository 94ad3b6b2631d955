/**
 * One source's rows in linear memory, and the questions that can be asked of them.
 */
import { assert, IsovecError } from '../errors.ts'
import { type Checksum, checksumAt } from './checksum.ts'
import { type ImageHome, ImageMemory, type RegionName, type RegionSizes, type SectionKind } from './image-memory.ts'
import { type Instance, TRANSFER_BYTES } from './instance.ts'
import { efMax, mMax } from './limits.ts'
import { codeStride, METRIC_NUMBERS, type Metric, termSize, vectorStride } from './metric.ts'
import type { ImageShape } from './pool.ts'
import type { Region } from './region.ts'

/** What a segment stores to encode rows and questions: x is about origin + delta * (code - 64), codes from 0 to 127. */
export type Quantizer = { readonly delta: number; readonly origin: Float32Array }

/** How a graph is built. */
export type GraphOptions = {
  /** Most neighbours of a row above layer 0, twice as many in it: 2 to 128. */
  readonly M: number
  /** Beam while inserting: 1 to 20,000. */
  readonly efConstruction: number
  /** From which levels are drawn; a safe integer. The same rows and options give the same bytes. */
  readonly seed: number
}

/** What a file keeps of a graph beside its sections. */
export type GraphHeader = GraphOptions & {
  readonly rows: number
  readonly entry: number
  readonly maxLevel: number
  /** Lists of neighbours above layer 0. */
  readonly upperCount: number
}

/** How far a distance of {@link VectorImage.scan} can be off: see {@link VectorImage.bound}. */
export type DistanceBound = {
  readonly relative: number
  readonly absolute: number
  readonly scaledByNorm: boolean
}

/** Where {@link VectorImage.search} writes. Both as long as the beam is wide. */
export type SearchOutput = { readonly rows: Uint32Array; readonly distances: Float32Array }

/** Which rows {@link VectorImage.search} may return. */
export type WalkFilter = {
  /** One bit per row; whether a row is alive makes no difference then. */
  readonly open: Uint32Array
  /** Rows, open or not, that the walk bears in mind at most: it gives up where the nearest so many hold too few that are open. */
  readonly reach: number
}

const LEVEL_MAX = 15
/** Shortest rows that codes are made for: an f32 row of fewer dimensions is one cache line anyway. */
const CODED_DIMENSION_MIN = 16
const SAMPLE_ROWS = 2048
/** Rows that room is made for at least. */
const CAPACITY_MIN = 64
/** Rows whose distances fit the transfer area. */
const SCAN_ROWS = TRANSFER_BYTES / 4
/** Rows whose numbers and f64 scores fit the transfer area. */
const SCORE_ROWS = TRANSFER_BYTES / 16

const PROBLEMS = [
  '',
  'a level is out of range',
  'the entry point is not a row of the highest level',
  'the index of an upper list is out of bounds',
  'a neighbour is not a row',
  'a neighbour is not in the layer',
]

/** f32 vectors, norms, codes, graph and dead rows of one source. Made by `ImagePool.createImage`. */
export class VectorImage {
  readonly dimension: number
  readonly metric: Metric
  readonly #memory: ImageMemory
  readonly #vectorStride: number
  readonly #codeStride: number
  readonly #question: Float32Array
  readonly #questionBytes: Uint8Array
  #rows = 0
  #capacity = 0
  #deadCount = 0
  #quantizer: Quantizer | null = null
  #graph: (GraphOptions & { readonly rows: number; readonly upperCount: number }) | null = null
  /** Rows of a graph that was loaded whose links are known to be sound. */
  #validated = 0
  #inserted = 0
  /** Metric of the question; `undefined` before the first. */
  #asked: Metric | undefined
  #released = false

  constructor(shape: ImageShape, instance: Instance, home: ImageHome) {
    this.dimension = shape.dimension
    this.metric = shape.metric
    this.#vectorStride = vectorStride(shape.dimension)
    this.#codeStride = codeStride(shape.dimension)
    this.#question = new Float32Array(shape.dimension)
    this.#questionBytes = new Uint8Array(this.#question.buffer)
    this.#capacity = Math.max(CAPACITY_MIN, shape.capacity)
    this.#memory = new ImageMemory(this, instance, home)
    this.#memory.resize(new Map([['image', instance.exports.imageSize()], ...this.#rowSizes(this.#capacity)]))
    instance.exports.createImage(this.#address, shape.dimension, METRIC_NUMBERS[shape.metric])
    this.#place()
  }

  /** Rows so far, dead ones included. */
  get rows(): number {
    return this.#rows
  }

  /** Bytes of linear memory in use by this image. */
  get bytes(): number {
    return this.#memory.bytes
  }

  get hasCodes(): boolean {
    return this.#quantizer !== null
  }

  /** Whether a graph over all its rows can be walked: built to the end, or loaded and validated. */
  get hasGraph(): boolean {
    return this.#graph !== null && this.#inserted === this.#graph.rows
  }

  get quantizer(): Quantizer | null {
    return this.#quantizer
  }

  get deadCount(): number {
    return this.#deadCount
  }

  /** Rows that the graph leads to so far. */
  get graphRows(): number {
    return this.#inserted
  }

  /** Gives all memory back. Nothing may be asked of the image afterwards; again is harmless. */
  release(): void {
    if (this.#released) return
    this.#released = true
    this.#memory.release()
  }

  /**
   * Adds a row; `vector` is its f32 components, little-endian, at any alignment. Returns its number. Amortised O(dimension).
   *
   * @throws {IsovecError} `OUT_OF_MEMORY`, before anything changes
   */
  append(vector: Uint8Array): number {
    assert(vector.length === this.dimension * 4, 'a row has dimension * 4 bytes')
    if (this.#rows === this.#capacity) this.reserve(this.#capacity + (this.#capacity >> 1))
    const row = this.#rows
    const bytes = this.#instance.bytes
    const at = this.#offset('vectors') + row * this.#vectorStride
    bytes.set(vector, at)
    if (vector.length < this.#vectorStride) bytes.fill(0, at + vector.length, at + this.#vectorStride)
    this.setRows(row + 1)
    this.computeNorms(row, row + 1)
    if (this.#quantizer !== null) this.encode(row, row + 1)
    return row
  }

  /**
   * Makes room for `rows` rows in all.
   *
   * @throws {IsovecError} `OUT_OF_MEMORY`, before anything changes
   */
  reserve(rows: number): void {
    if (rows <= this.#capacity) return
    const sizes = new Map<RegionName, number>(this.#rowSizes(rows))
    if (this.#quantizer !== null) sizes.set('codes', rows * this.#codeStride).set('terms', rows * termSize)
    this.#resize(sizes)
    this.#capacity = rows
  }

  /**
   * Sets the number of rows, whose sections are then filled by {@link writeSection}.
   *
   * @throws {IsovecError} `OUT_OF_MEMORY`, before anything changes
   */
  setRows(rows: number): void {
    this.reserve(rows)
    this.#rows = rows
    this.#instance.exports.setRows(this.#address, rows)
  }

  /** Computes the norms of rows `from` up to `to` from their vectors. {@link append} does so itself. */
  computeNorms(from: number, to: number): void {
    assert(from <= to && to <= this.#rows, 'rows exist')
    this.#instance.exports.measureNorms(this.#address, from, to)
  }

  /** Size of a section as it's stored in a file; 0 where there is no quantiser or graph. */
  section(kind: SectionKind): { byteLength: number } {
    return { byteLength: this.#sectionSize(kind) }
  }

  /** Copies `bytes` into a section at `offset`. */
  writeSection(kind: SectionKind, offset: number, bytes: Uint8Array): void {
    this.#checkRange(kind, offset, bytes.length)
    if (bytes.length > 0) this.#instance.bytes.set(bytes, this.#offset(kind) + offset)
  }

  /** Fills `target` from a section at `offset`. */
  readSection(kind: SectionKind, offset: number, target: Uint8Array): void {
    this.#checkRange(kind, offset, target.length)
    if (target.length === 0) return
    const at = this.#offset(kind) + offset
    target.set(this.#instance.bytes.subarray(at, at + target.length))
  }

  /** xxh64 of a section. O(size). */
  checksumSection(kind: SectionKind, seedLow = 0, seedHigh = 0): Checksum {
    const size = this.#sectionSize(kind)
    return checksumAt(this.#instance, this.#memory.find(kind), size, seedLow, seedHigh)
  }

  /** A copy of a row's components, in `target` if given. */
  vectorAt(row: number, target: Float32Array = new Float32Array(this.dimension)): Float32Array {
    assert(row < this.#rows, 'the row exists')
    const first = (this.#offset('vectors') + row * this.#vectorStride) / 4
    target.set(this.#instance.floats.subarray(first, first + this.dimension))
    return target
  }

  /** Copies the lengths of rows `from` up to `to`; NaN where one is outside [2^-60, 2^60]. */
  norms(from: number, to: number, out: Float32Array): void {
    assert(from <= to && to <= this.#rows, 'rows exist')
    const first = this.#offset('norms') / 4
    out.set(this.#instance.floats.subarray(first + from, first + to))
  }

  /** The same of named rows. */
  normsOf(rows: Uint32Array, out: Float32Array): void {
    const first = this.#offset('norms') / 4
    const { floats } = this.#instance
    for (let i = 0; i < rows.length; i++) out[i] = floats[first + rows[i]!]!
  }

  /**
   * Chooses a quantiser from a sample of the rows at hand, or `null` where codes would not pay. Deterministic.
   * O(dimension) for each of up to 2,048 rows.
   *
   * @param isWanted whether codes are wanted however little they pay; `null` then only where no code can tell rows apart
   * @throws {IsovecError} `OUT_OF_MEMORY`
   */
  calibrate(isWanted = false): Quantizer | null {
    if ((this.dimension < CODED_DIMENSION_MIN && !isWanted) || this.#rows === 0) return null
    const count = Math.min(this.#rows, SAMPLE_ROWS)
    const { exports } = this.#instance
    const room = this.#instance.allocateAll([this.dimension * 4, exports.calibrationSize(this.dimension, count)])
    const [origin, work] = room as [Region, Region]
    const delta = Math.fround(exports.calibrate(this.#address, count, origin.offset, work.offset))
    const first = origin.offset / 4
    const quantizer = { delta, origin: this.#instance.floats.slice(first, first + this.dimension) }
    for (const region of room) this.#instance.free(region)
    return isQuantizer(quantizer, this.dimension) ? quantizer : null
  }

  /**
   * Sets the quantiser and makes room for codes, which {@link encode} or {@link writeSection} fill.
   *
   * @throws {IsovecError} `INVALID_ARGUMENT` if its numbers make no sense; `OUT_OF_MEMORY`, before anything changes
   */
  setQuantizer(quantizer: Quantizer): void {
    if (!isQuantizer(quantizer, this.dimension)) {
      throw new IsovecError(
        'INVALID_ARGUMENT',
        'not a quantiser: a positive delta and an origin per dimension are needed',
      )
    }
    assert(this.#graph === null, 'the quantiser is set before there is a graph')
    this.#resize(
      new Map<RegionName, number>([
        ['codes', this.#capacity * this.#codeStride],
        ['terms', this.#capacity * termSize],
        // The kernel reads four components at a time.
        ['origin', Math.ceil(this.dimension / 4) * 16],
      ]),
    )
    const first = this.#offset('origin') / 4
    this.#instance.floats.set(quantizer.origin, first)
    this.#instance.floats.fill(0, first + this.dimension, first + Math.ceil(this.dimension / 4) * 4)
    this.#quantizer = { delta: quantizer.delta, origin: quantizer.origin.slice() }
    this.#place()
    this.#instance.prepared = undefined
  }

  /** Writes codes and terms of rows `from` up to `to`. O(dimension) a row. */
  encode(from: number, to: number): void {
    assert(this.#quantizer !== null && from <= to && to <= this.#rows, 'rows to encode exist, and a quantiser')
    this.#instance.exports.encodeRows(this.#address, from, to)
  }

  /** Whether codes and terms of rows `from` up to `to` are such as {@link encode} can have written, whatever was read. O(size). */
  validateCodes(from = 0, to = this.#rows): boolean {
    assert(from <= to && to <= this.#rows, 'rows exist')
    return this.#quantizer === null || this.#instance.exports.checkCodes(this.#address, from, to) >>> 0 === to
  }

  /** Marks a row as dead: walks pass through it but don't return it. */
  setDead(row: number): void {
    assert(row < this.#rows, 'the row exists')
    if (this.isDead(row)) return
    this.#instance.exports.killRow(this.#address, row)
    this.#deadCount++
  }

  isDead(row: number): boolean {
    return ((this.#instance.bytes[this.#offset('dead') + (row >>> 3)]! >>> (row & 7)) & 1) === 1
  }

  /**
   * Starts a graph over the rows at hand; {@link buildGraph} then inserts them. Its distances are taken from the codes
   * if there is a quantiser.
   *
   * @throws {IsovecError} `INVALID_ARGUMENT`; `OUT_OF_MEMORY`, before anything changes
   */
  beginGraph(options: GraphOptions): void {
    checkOptions(options, 'INVALID_ARGUMENT')
    this.dropGraph()
    const rows = this.#rows
    this.#shapeGraph({ ...options, rows, upperCount: 0 })
    try {
      if (this.metric === 'dot') this.#resize(new Map([['residues', rows * 4]]))
      this.#resize(this.#graphSizes(0))
      const upperCount = this.#instance.exports.assignLevels(this.#address) >>> 0
      this.#resize(new Map<RegionName, number>([['upperLinks', upperCount * options.M * 4]]))
      this.#shapeGraph({ ...options, rows, upperCount })
    } catch (error) {
      this.dropGraph()
      throw error
    }
    this.#instance.exports.clearLinks(this.#address)
  }

  /**
   * Inserts up to `maxRows` more rows; true once all are. The result does not depend on how the work is sliced.
   *
   * @throws {IsovecError} `OUT_OF_MEMORY`
   */
  buildGraph(maxRows: number): boolean {
    const graph = this.#graph
    assert(graph !== null, 'a graph has been begun')
    if (this.#inserted === graph.rows) return true
    const instance = this.#instance
    instance.reserveScratch(this.dimension, graph.rows, graph.efConstruction, graph.M * 2 + 1)
    instance.prepared = undefined
    this.#inserted = instance.exports.build(this.#address, instance.scratch, maxRows) >>> 0
    if (this.#inserted < graph.rows) return false
    this.#memory.drop(['residues'])
    this.#place()
    return true
  }

  /** Forgets the graph and gives its memory back. */
  dropGraph(): void {
    if (this.#graph === null) return
    this.#instance.exports.setProgress(this.#address, 0, 0, 0)
    this.#memory.drop(['levels', 'links', 'upperIndex', 'upperLinks', 'residues'])
    this.#graph = null
    this.#inserted = 0
    this.#validated = 0
  }

  /** What a file keeps of the graph beside its sections. */
  graphHeader(): GraphHeader {
    assert(this.hasGraph && this.#graph !== null, 'the graph is complete')
    const { exports } = this.#instance
    const entry = exports.entryOf(this.#address) >>> 0
    return { ...this.#graph, entry, maxLevel: exports.maxLevelOf(this.#address) }
  }

  /**
   * Makes room for a graph as described; fill its sections by {@link writeSection}, then call {@link validateGraph}:
   * before that it is not walked.
   *
   * @throws {IsovecError} `CORRUPTION` if no graph over these rows can have such a header; `OUT_OF_MEMORY`
   */
  loadGraph(header: GraphHeader): void {
    checkOptions(header, 'CORRUPTION')
    const { rows, entry, maxLevel, upperCount } = header
    if (
      rows !== this.#rows ||
      !isBetween(entry, 0, Math.max(0, rows - 1)) ||
      !isBetween(maxLevel, 0, LEVEL_MAX) ||
      !isBetween(upperCount, 0, rows * LEVEL_MAX)
    ) {
      throw new IsovecError('CORRUPTION', 'the graph is not one over these rows')
    }
    this.dropGraph()
    const { M, efConstruction, seed } = header
    this.#shapeGraph({ M, efConstruction, seed, rows, upperCount })
    try {
      this.#resize(this.#graphSizes(upperCount))
    } catch (error) {
      this.dropGraph()
      throw error
    }
    this.#validated = 0
    this.#instance.exports.setProgress(this.#address, 0, entry, maxLevel)
  }

  /**
   * `null` if the graph is sound as far as rows up to `to` are concerned, else what is wrong. Once all rows were looked at, in order and
   * in as many calls as need be, it may be walked. Safe whatever was read. O(links).
   */
  validateGraph(to = this.#rows): string | null {
    const graph = this.#graph
    if (graph === null) return 'there is no graph'
    const { exports } = this.#instance
    const end = Math.min(to, graph.rows)
    const problem = exports.checkGraph(this.#address, this.#validated, end)
    if (problem !== 0) return PROBLEMS[problem] ?? 'unknown problem'
    this.#validated = end
    if (end < graph.rows) return null
    const entry = exports.entryOf(this.#address) >>> 0
    exports.setProgress(this.#address, graph.rows, entry, exports.maxLevelOf(this.#address))
    this.#inserted = graph.rows
    return null
  }

  /** Sets the question for what follows, until the next call on this image. `metric` is the image's unless given. */
  prepare(query: Float32Array, metric: Metric = this.metric): void {
    assert(query.length === this.dimension, 'the question has the dimension of the rows')
    this.#question.set(query)
    this.#asked = metric
    this.#instance.prepared = undefined
  }

  /** f32 distances of rows `from` up to `to`, smaller is nearer: see {@link bound}. NaN where f32 can't tell. */
  scan(from: number, to: number, out: Float32Array): void {
    this.#scan(from, to, out, 'scan')
  }

  /** The same on codes, without a bound; only under the image's own metric. */
  scanCodes(from: number, to: number, out: Float32Array): void {
    assert(this.#quantizer !== null && this.#asked === this.metric, 'codes serve the metric of the image')
    this.#scan(from, to, out, 'scanCoded')
  }

  /** Exact scores of the first `count` of `rows`, higher is better: what users see. */
  score(rows: Uint32Array, count: number, out: Float64Array): void {
    this.#ask()
    const instance = this.#instance
    const { exports, transfer, scratch } = instance
    const results = transfer + SCORE_ROWS * 4
    for (let from = 0; from < count; from += SCORE_ROWS) {
      const part = this.#send(rows, from, Math.min(SCORE_ROWS, count - from))
      exports.score(this.#address, scratch, transfer, part, results)
      out.set(new Float64Array(instance.bytes.buffer, results, part), from)
    }
  }

  /**
   * How far a distance d of {@link scan} can be from the true one: relative * |d| + absolute, or, where `scaledByNorm`,
   * relative * norm of the row + absolute. Rigorous (Higham, "Accuracy and Stability of Numerical Algorithms", section 3.1):
   * a NaN that comes out means that anything is possible.
   */
  bound(): DistanceBound {
    this.#ask()
    const unit = 2 ** -24
    const steps = Math.ceil(this.dimension / 16) + 12
    const gamma = ((steps * unit) / (1 - steps * unit)) * 1.001
    const tiny = this.dimension * 2 ** -148
    if (this.#asked === 'euclidean') return { relative: gamma / (1 - gamma), absolute: tiny, scaledByNorm: false }
    if (this.#asked === 'cosine') return { relative: 0, absolute: gamma + tiny * 2 ** 61, scaledByNorm: false }
    const norm = this.#instance.exports.questionNorm(this.#instance.scratch)
    return { relative: norm > 2 ** 60 ? Infinity : gamma * norm, absolute: tiny, scaledByNorm: true }
  }

  /**
   * Bounds of the distances, as {@link scan} has them but in the exact sense, of rows `from` up to `to`, taken from codes: a fraction of
   * the bytes. With `rows`, of those that stand there. NaN where nothing is known.
   */
  scanBounds(rows: Uint32Array | undefined, from: number, to: number, lower: Float32Array, upper: Float32Array): void {
    assert(this.#quantizer !== null && this.#asked === this.metric, 'codes serve the metric of the image')
    assert(from <= to && to <= (rows?.length ?? this.#rows), 'rows to scan exist')
    this.#ask()
    const instance = this.#instance
    const { exports, transfer, scratch } = instance
    const image = this.#address
    const names = rows === undefined ? 0 : transfer
    // A kernel for lists writes up to three places more.
    const least = transfer + (SCORE_ROWS + 4) * 4
    const most = least + (SCORE_ROWS + 4) * 4
    for (let at = from; at < to; at += SCORE_ROWS) {
      const part = Math.min(SCORE_ROWS, to - at)
      if (rows === undefined) {
        exports.scanCoded(image, scratch, at, at + part, least)
      } else {
        this.#send(rows, at, part)
        exports.scanRows(image, scratch, transfer, part, least, 1)
      }
      exports.boundRows(image, scratch, names, at, part, least, most)
      const { floats } = instance
      lower.set(floats.subarray(least / 4, least / 4 + part), at - from)
      upper.set(floats.subarray(most / 4, most / 4 + part), at - from)
    }
  }

  /** Distances of the first `count` of `rows`, on codes or as {@link scan} gives them. */
  scanRows(rows: Uint32Array, count: number, out: Float32Array, isCoded: boolean): void {
    assert(!isCoded || (this.#quantizer !== null && this.#asked === this.metric), 'codes serve the metric of the image')
    assert(count <= rows.length && count <= out.length, 'there are as many rows, and room')
    this.#ask()
    const instance = this.#instance
    const { exports, transfer, scratch } = instance
    const distances = transfer + (SCORE_ROWS + 4) * 4
    for (let from = 0; from < count; from += SCORE_ROWS) {
      const part = this.#send(rows, from, Math.min(SCORE_ROWS, count - from))
      exports.scanRows(this.#address, scratch, transfer, part, distances, isCoded ? 1 : 0)
      out.set(instance.floats.subarray(distances / 4, distances / 4 + part), from)
    }
  }

  /**
   * Walks the graph, on codes where there are any: the nearest live rows, at most `ef`, in order of distance. `visited`
   * counts the rows that were measured.
   *
   * @param filter which rows may be returned; without, all
   * @throws {IsovecError} `OUT_OF_MEMORY`
   */
  search(ef: number, out: SearchOutput, filter?: WalkFilter): { count: number; visited: number } {
    assert(this.#asked === this.metric, 'graphs serve the metric of the image')
    assert(isBetween(ef, 1, efMax), 'ef is in range')
    const limit =
      filter === undefined
        ? ef + Math.min(this.#deadCount, 4 * ef + 4096)
        : Math.max(ef, Math.min(filter.reach, this.#rows))
    this.#ask(limit)
    const instance = this.#instance
    const { exports, scratch } = instance
    const image = this.#address
    if (filter !== undefined) {
      const gate = new Uint8Array(filter.open.buffer, filter.open.byteOffset, Math.ceil(this.#rows / 8))
      instance.bytes.set(gate, exports.gateAt(scratch) >>> 0)
      exports.prepareGate(scratch, gate.length)
    }
    exports.search(image, scratch, ef, limit, filter === undefined ? 0 : 1)
    const count = exports.collect(scratch, Math.min(ef, out.rows.length))
    const { words, floats } = instance
    for (let i = 0, at = (exports.resultsAt(scratch) >>> 0) / 4; i < count; i++, at += 2) {
      out.rows[i] = words[at]!
      out.distances[i] = floats[at + 1]!
    }
    return { count, visited: exports.visitedCount(scratch) >>> 0 }
  }

  /** Copies `count` row numbers to where the kernel reads them; returns how many. */
  #send(rows: Uint32Array, from: number, count: number): number {
    const { words, transfer } = this.#instance
    for (let i = 0; i < count; i++) {
      const row = rows[from + i]!
      assert(row < this.#rows, 'the row exists')
      words[transfer / 4 + i] = row
    }
    return count
  }

  get #address(): number {
    return this.#offset('image')
  }

  get #instance(): Instance {
    return this.#memory.instance
  }

  #offset(name: RegionName): number {
    return this.#memory.offset(name)
  }

  #rowSizes(rows: number): [RegionName, number][] {
    return [
      ['vectors', rows * this.#vectorStride],
      ['norms', rows * 4],
      ['dead', Math.ceil(rows / 8)],
    ]
  }

  #graphSizes(upperCount: number): Map<RegionName, number> {
    const { rows, M } = this.#graph!
    return new Map<RegionName, number>([
      ['levels', rows],
      ['links', rows * this.#instance.exports.linkStride(M)],
      ['upperIndex', rows * 4],
      ['upperLinks', upperCount * M * 4],
    ])
  }

  #sectionSize(kind: SectionKind): number {
    if (kind === 'vectors') return this.#rows * this.#vectorStride
    if (kind === 'norms') return this.#rows * 4
    if (kind === 'codes') return this.#quantizer === null ? 0 : this.#rows * this.#codeStride
    if (kind === 'terms') return this.#quantizer === null ? 0 : this.#rows * termSize
    if (this.#graph === null) return 0
    return this.#graphSizes(this.#graph.upperCount).get(kind)!
  }

  #checkRange(kind: SectionKind, offset: number, length: number): void {
    assert(offset >= 0 && offset + length <= this.#sectionSize(kind), `bytes are within the section ${kind}`)
  }

  #shapeGraph(graph: GraphOptions & { rows: number; upperCount: number }): void {
    const { exports } = this.#instance
    const low = graph.seed >>> 0
    const high = Math.floor(graph.seed / 2 ** 32) >>> 0
    const maxNorm = this.metric === 'dot' ? exports.largestNorm(this.#address) : 0
    exports.shapeGraph(this.#address, graph.M, graph.efConstruction, low, high, graph.rows, maxNorm)
    this.#graph = graph
    this.#place()
  }

  /** Puts the question into working memory unless it's there. */
  #ask(pool = 256): void {
    assert(this.#asked !== undefined, 'a question has been prepared')
    const instance = this.#instance
    const links = (this.#graph?.M ?? 16) * 2 + 1
    instance.reserveScratch(this.dimension, this.#graph?.rows ?? 0, pool, links)
    if (instance.prepared === this) return
    instance.bytes.set(this.#questionBytes, instance.exports.questionAt(instance.scratch) >>> 0)
    instance.exports.prepareQuery(this.#address, instance.scratch, METRIC_NUMBERS[this.#asked])
    instance.prepared = this
  }

  #scan(from: number, to: number, out: Float32Array, name: 'scan' | 'scanCoded'): void {
    assert(from <= to && to <= this.#rows && out.length >= to - from, 'rows to scan exist, and room')
    this.#ask()
    const instance = this.#instance
    const { exports, transfer, scratch } = instance
    for (let row = from; row < to; row += SCAN_ROWS) {
      const end = Math.min(to, row + SCAN_ROWS)
      exports[name](this.#address, scratch, row, end, transfer)
      out.set(instance.floats.subarray(transfer / 4, transfer / 4 + end - row), row - from)
    }
  }

  #resize(sizes: RegionSizes): void {
    this.#memory.resize(sizes)
    this.#place()
  }

  /** Tells the kernel where everything is. */
  #place(): void {
    const { exports } = this.#instance
    const at = (name: RegionName) => this.#memory.find(name)
    const image = this.#address
    exports.placeRows(image, at('vectors'), at('norms'), at('dead'))
    if (this.#quantizer !== null) {
      exports.placeCodes(image, at('codes'), at('terms'))
      exports.setQuantizer(image, this.#quantizer.delta, at('origin'))
    }
    const upperCount = this.#graph?.upperCount ?? 0
    exports.placeGraph(image, at('levels'), at('links'), at('upperIndex'), at('upperLinks'), upperCount, at('residues'))
  }
}

function isBetween(value: number, low: number, high: number): boolean {
  return Number.isInteger(value) && value >= low && value <= high
}

function isQuantizer(quantizer: Quantizer, dimension: number): boolean {
  const { delta, origin } = quantizer
  return delta > 0 && delta < Infinity && origin.length === dimension && origin.every(Number.isFinite)
}

function checkOptions(options: GraphOptions, code: 'INVALID_ARGUMENT' | 'CORRUPTION'): void {
  const { M, efConstruction, seed } = options
  if (!isBetween(M, 2, mMax)) throw new IsovecError(code, `M must be an integer from 2 to ${mMax}`, { field: 'M' })
  if (!isBetween(efConstruction, 1, efMax)) {
    throw new IsovecError(code, `efConstruction must be an integer from 1 to ${efMax}`, { field: 'efConstruction' })
  }
  if (!Number.isSafeInteger(seed)) throw new IsovecError(code, 'the seed must be a safe integer', { field: 'seed' })
}
