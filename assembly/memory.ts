/**
 * The layout of linear memory: every stride, structure and offset is computed in this file and nowhere else.
 *
 * Memory is handed out by the host, region by region. A structure is an unmanaged class laid over such a region; the
 * kernel itself allocates nothing and keeps no state outside them.
 */

/** Distance functions, as numbered in {@link Image.metric}. */
export const COSINE: u32 = 0
export const DOT: u32 = 1
export const EUCLIDEAN: u32 = 2

/** Fills the unused end of a list of neighbours. */
export const NO_ROW: u32 = 0xffffffff
/** Highest layer that a row can be given. */
export const LEVEL_MAX: u32 = 15
/** Codes are 0..127, this is where the origin lies. */
export const CODE_ZERO: i32 = 64
export const CODE_MAX: i32 = 127
/** Bytes of what is kept beside each row's codes: see {@link termOf}, {@link squaresOf}, {@link errorOf}. */
export const TERM_BYTES: u32 = 12

/** Rows of one source: vectors, codes, dead rows, graph. */
@unmanaged
export class Image {
  dimension: u32
  metric: u32
  rows: u32
  deadCount: u32
  vectorStride: u32
  codeStride: u32
  /** f32 components, `vectorStride` bytes a row; the padding is zero. */
  vectors: usize
  /** f32 per row: the euclidean length, NaN where it is outside [2^-60, 2^60]. */
  norms: usize
  /** One bit per row. */
  dead: usize
  /** 0 where there is no quantiser, else `codeStride` bytes a row; the padding is zero. */
  codes: usize
  /** {@link TERM_BYTES} a row. */
  terms: usize
  /** f32 per dimension: what {@link CODE_ZERO} stands for. */
  origin: usize
  /** Step between two neighbouring codes. */
  delta: f64
  /** Most neighbours of a row in the upper layers; twice as many in layer 0. */
  M: u32
  efConstruction: u32
  seedLow: u32
  seedHigh: u32
  /** Rows that the graph is for; the sections below are as long. */
  graphRows: u32
  /** Rows already inserted, from 0 up. */
  inserted: u32
  entry: u32
  maxLevel: u32
  /** Lists of neighbours in `upperLinks`. */
  upperCount: u32
  linkStride: u32
  /** u8 per row: highest layer that holds it. */
  levels: usize
  /** Neighbours in layer 0: `linkStride` bytes a row, ended by {@link NO_ROW} where not full. */
  links: usize
  /** u32 per row: number of its first list in `upperLinks` (layer 1), if its level is above 0. */
  upperIndex: usize
  /** Neighbours above layer 0: M u32 a list. */
  upperLinks: usize
  /** Largest length of a row, for the reduction of the dot product to euclidean distance. */
  maxNorm: f64
  /** f32 per inserted row while a graph is built under dot: see {@link Query.residue}. */
  residues: usize
}

/** A vector to measure distances from: a question, or a row while a graph is built. */
@unmanaged
export class Query {
  /** Selects the formula: one of the constants in distance.ts. */
  kind: u32
  metric: u32
  /** f32 components as given. */
  raw: usize
  /** f32 components as the f32 kernels read them: of length 1 for a question under cosine. */
  vector: usize
  /** i8 weights, or the codes of a row. */
  weights: usize
  /** Subtracted from the integer dot product. */
  offset: i32
  /** Sum of the squared codes, where the query is a row. */
  squares: u32
  base: f32
  alpha: f32
  beta: f32
  /** 1/length, where the query is a row under cosine; else 1. */
  inverse: f32
  /** sqrt(maxNorm^2 - length^2), the added dimension under which the nearest by dot are the nearest by euclidean distance. */
  residue: f32
  /** Length of `raw`. */
  norm: f64
  /**
   * How far distances on codes can be from the true ones, see `boundRows`: per length of what a row's codes leave out, per length of
   * what they hold, and for every row; NaN where nothing is known.
   */
  errorScale: f32
  codeScale: f32
  errorBase: f32
}

/** Working memory of one instance, shared by all its images. */
@unmanaged
export class Scratch {
  /** The question, or the row that is inserted. */
  query: Query
  /** The row whose neighbours are chosen. */
  pair: Query
  raw: usize
  vector: usize
  weights: usize
  /** One byte per row: the number of the last walk that saw it, see {@link Scratch.walk}. */
  visited: usize
  /** Rows that `visited` has room for. */
  visitedRows: u32
  /** Number of the current walk, from 1 to 255. */
  walk: u32
  /** One bit per row that the current walk must not return; 0 where it may return all. */
  gate: usize
  /** Where a question's own gate is kept: see `prepareGate`. */
  gateRoom: usize
  /** Sorted keys: see pool.ts. */
  pool: usize
  poolSize: u32
  /** Most keys the pool may hold in the current walk. */
  poolLimit: u32
  /** Rows in the pool that are not gated, counted only while some are. */
  poolOpen: u32
  /** Rows scored by the current walk. */
  visitedCount: u32
  /** Rows to score, and their distances: one list of neighbours and a few spare places. */
  ids: usize
  distances: usize
  selected: usize
  /** Distances of those from the row that they are chosen for. */
  selectedDistances: usize
  pruned: usize
  /** Keys of one list of neighbours, to be cut. */
  list: usize
}

/** `size` rounded up to a multiple of `unit`, a power of two. */
@inline
export function align(size: u32, unit: u32): u32 {
  return (size + unit - 1) & ~(unit - 1)
}

/** Bytes from one f32 row to the next: whole vectors while short, whole cache lines from 256 bytes on. */
export function vectorStride(dimension: u32): u32 {
  const bytes = dimension << 2
  return align(bytes, bytes < 256 ? 16 : 64)
}

/** Bytes from one row of codes to the next. */
export function codeStride(dimension: u32): u32 {
  return align(dimension, dimension <= 32 ? 16 : 64)
}

/** Bytes from one list of layer 0 to the next. */
export function linkStride(M: u32): u32 {
  return align(M << 3, 64)
}

export function imageSize(): u32 {
  return align(offsetof<Image>(), 64)
}

/** Bytes needed for working memory; `pool` is the most keys a walk may hold, `links` the most neighbours of a list. */
export function scratchSize(dimension: u32, rows: u32, pool: u32, links: u32): u32 {
  return (
    align(offsetof<Scratch>(), 64) +
    2 * align(offsetof<Query>(), 64) +
    2 * align(dimension << 2, 64) +
    align(dimension, 64) +
    align(rows, 64) +
    bitmapSize(rows) +
    align((pool + 2) << 3, 64) +
    5 * listSize(links) +
    2 * listSize(links)
  )
}

/** Divides a region of {@link scratchSize} bytes. */
export function layoutScratch(scratch: Scratch, dimension: u32, rows: u32, pool: u32, links: u32): void {
  let at = changetype<usize>(scratch) + align(offsetof<Scratch>(), 64)
  scratch.query = changetype<Query>(at)
  at += align(offsetof<Query>(), 64)
  scratch.pair = changetype<Query>(at)
  at += align(offsetof<Query>(), 64)
  scratch.raw = at
  at += align(dimension << 2, 64)
  scratch.vector = at
  at += align(dimension << 2, 64)
  scratch.weights = at
  at += align(dimension, 64)
  scratch.visited = at
  scratch.visitedRows = rows
  // So that the first walk begins anew.
  scratch.walk = 255
  at += align(rows, 64)
  scratch.gateRoom = at
  at += bitmapSize(rows)
  scratch.pool = at
  at += align((pool + 2) << 3, 64)
  scratch.ids = at
  at += listSize(links)
  scratch.distances = at
  at += listSize(links)
  scratch.selected = at
  at += listSize(links)
  scratch.selectedDistances = at
  at += listSize(links)
  scratch.pruned = at
  at += listSize(links)
  scratch.list = at
  at += 2 * listSize(links)
  assert(at == changetype<usize>(scratch) + scratchSize(dimension, rows, pool, links))
}

/** Bytes of a bitmap of rows. */
@inline
export function bitmapSize(rows: u32): u32 {
  return align((rows + 7) >> 3, 64)
}

@inline
function listSize(links: u32): u32 {
  return align((links + 8) << 2, 64)
}

@inline
export function vectorOf(image: Image, row: u32): usize {
  return image.vectors + <usize>row * image.vectorStride
}

@inline
export function codesOf(image: Image, row: u32): usize {
  return image.codes + <usize>row * image.codeStride
}

/** Sum of (code - 64)^2, from which questions are measured. */
@inline
export function termOf(image: Image, row: u32): usize {
  return image.terms + <usize>row * TERM_BYTES
}

/** Sum of code^2, from which rows are measured. */
@inline
export function squaresOf(image: Image, row: u32): usize {
  return image.terms + <usize>row * TERM_BYTES + 4
}

/** f32: at least the length of what codes leave out of the row, as it was before it was quantised. */
@inline
export function errorOf(image: Image, row: u32): usize {
  return image.terms + <usize>row * TERM_BYTES + 8
}

@inline
export function normOf(image: Image, row: u32): usize {
  return image.norms + (<usize>row << 2)
}

@inline
export function residueOf(image: Image, row: u32): usize {
  return image.residues + (<usize>row << 2)
}

@inline
export function levelOf(image: Image, row: u32): u32 {
  return load<u8>(image.levels + row)
}

/** Address of the neighbours of `row` in `layer`. */
@inline
export function linksOf(image: Image, row: u32, layer: u32): usize {
  if (layer == 0) return image.links + <usize>row * image.linkStride
  return image.upperLinks + <usize>(load<u32>(image.upperIndex + (<usize>row << 2)) + layer - 1) * (image.M << 2)
}

/** Most neighbours that a list of `layer` holds. */
@inline
export function linkLimit(image: Image, layer: u32): u32 {
  return layer == 0 ? image.M << 1 : image.M
}

/** Whether a row's bit is set. */
@inline
export function isMarked(bitmap: usize, row: u32): bool {
  return ((load<u8>(bitmap + (row >> 3)) >> <u8>(row & 7)) & 1) != 0
}
