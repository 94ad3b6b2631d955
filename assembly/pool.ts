/**
 * The candidates of a walk: a sorted array of keys, and the bitmap of rows already seen.
 *
 * A key is an i64: the distance's bits, made to order like integers, above (2^31 - 1 - row) * 2 + expanded. So one
 * comparison orders by distance, then row, and ties fall the same way everywhere. Among equals the latest comes first: a new
 * row then links to the latest before it, and any number of equal rows form a chain instead of all linking to the first few.
 */
import { Image, isDead, Scratch, visitedSize } from './memory'

/** Set in a key whose neighbours have been looked at. */
export const EXPANDED: i64 = 1

const ROW_MAX: u32 = 0x7fffffff

/** Bits of an f32 to an i32 of the same order, and back. */
@inline
function ordered(bits: i32): i32 {
  return bits ^ ((bits >> 31) & 0x7fffffff)
}

@inline
export function keyOf(distance: f32, row: u32): i64 {
  return (<i64>ordered(reinterpret<i32>(distance)) << 32) | <i64>((ROW_MAX - row) << 1)
}

@inline
export function keyRow(key: i64): u32 {
  return ROW_MAX - (<u32>key >> 1)
}

@inline
export function keyDistance(key: i64): f32 {
  return reinterpret<f32>(ordered(<i32>(key >> 32)))
}

@inline
export function keyAt(pool: usize, index: u32): i64 {
  return load<i64>(pool + (<usize>index << 3))
}

/** Empties the pool and the bitmap. */
export function resetWalk(image: Image, scratch: Scratch): void {
  scratch.poolSize = 0
  scratch.poolLive = 0
  memory.fill(scratch.visited, 0, visitedSize(image.graphRows))
}

/** Marks `row` as seen. */
@inline
export function visit(scratch: Scratch, row: u32): void {
  const word = scratch.visited + (<usize>(row >> 5) << 2)
  store<u32>(word, load<u32>(word) | (1 << (row & 31)))
}

/** Index of the first key above `key` in the sorted array. */
@inline
export function searchKeys(keys: usize, size: u32, key: i64): u32 {
  let low: u32 = 0
  let length = size
  while (length > 0) {
    const half = length >> 1
    const below = load<i64>(keys + (<usize>(low + half) << 3)) < key
    low = select<u32>(low + half + 1, low, below)
    length = select<u32>(length - half - 1, half, below)
  }
  return low
}

/** Moves keys `from` up to `to` one place up and writes `key` at `from`. */
@inline
export function insertKey(keys: usize, from: u32, to: u32, key: i64): void {
  const first = keys + (<usize>from << 3)
  let at = keys + (<usize>to << 3)
  while (at >= first + 16) {
    at -= 16
    v128.store(at + 8, v128.load(at))
  }
  if (at > first) store<i64>(first + 8, load<i64>(first))
  store<i64>(first, key)
}

/** Takes `count` scored rows into the pool, which keeps the nearest `limit`. Returns the lowest index that changed. */
export function offer(scratch: Scratch, count: u32, limit: u32): u32 {
  const pool = scratch.pool
  let size = scratch.poolSize
  let lowest = size
  let worst = size == limit ? keyAt(pool, size - 1) : i64.MAX_VALUE
  for (let i: usize = 0, end = <usize>count << 2; i < end; i += 4) {
    const key = keyOf(load<f32>(scratch.distances + i), load<u32>(scratch.ids + i))
    if (key >= worst) continue
    const index = searchKeys(pool, size, key)
    if (size < limit) size++
    insertKey(pool, index, size - 1, key)
    if (size == limit) worst = keyAt(pool, size - 1)
    lowest = min(lowest, index)
  }
  scratch.poolSize = size
  return lowest
}

/**
 * The same while some rows are dead: those are kept to be walked through, and the pool ends at the `live`-th live row,
 * or at `scratch.poolLimit` keys.
 */
export function offerGated(image: Image, scratch: Scratch, count: u32, live: u32): u32 {
  const pool = scratch.pool
  let size = scratch.poolSize
  let alive = scratch.poolLive
  let lowest = size
  for (let i: usize = 0, end = <usize>count << 2; i < end; i += 4) {
    const row = load<u32>(scratch.ids + i)
    const key = keyOf(load<f32>(scratch.distances + i), row)
    const full = alive == live || size == scratch.poolLimit
    if (full && key >= keyAt(pool, size - 1)) continue
    if (size == scratch.poolLimit) {
      size--
      if (!isDead(image, keyRow(keyAt(pool, size)))) alive--
    }
    const index = searchKeys(pool, size, key)
    insertKey(pool, index, size, key)
    size++
    lowest = min(lowest, index)
    if (isDead(image, row)) continue
    alive++
    if (alive > live) {
      size--
      alive--
    }
    if (alive < live) continue
    while (isDead(image, keyRow(keyAt(pool, size - 1)))) size--
  }
  scratch.poolSize = size
  scratch.poolLive = alive
  return lowest
}
