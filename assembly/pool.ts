/**
 * The candidates of a walk: a sorted array of keys, and the bitmap of rows already seen.
 *
 * A key is an i64: the distance's bits, made to order like integers, above (2^31 - 1 - row) * 2 + expanded. So one
 * comparison orders by distance, then row, and ties fall the same way everywhere. Among equals the latest comes first: a new
 * row then links to the latest before it, and any number of equal rows form a chain instead of all linking to the first few.
 */
import { isMarked, Scratch } from './memory'

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

/** Empties the pool and forgets which rows were seen. */
export function resetWalk(scratch: Scratch): void {
  scratch.poolSize = 0
  scratch.poolOpen = 0
  if (scratch.walk == 255) {
    memory.fill(scratch.visited, 0, scratch.visitedRows)
    scratch.walk = 0
  }
  scratch.walk++
}

/** Marks `row` as seen. */
@inline
export function see(scratch: Scratch, row: u32): void {
  store<u8>(scratch.visited + row, scratch.walk)
}

/** Keys from which on a place is found by bisection; below, looking for it while moving what lies behind is quicker. */
const BISECTED: u32 = 512

/** Puts `key` in its place among the first `size` of sorted keys, for which there is room; returns its index. */
@inline
export function insertKey(keys: usize, size: u32, key: i64): u32 {
  if (size > BISECTED) return bisectKey(keys, size, key)
  let at = keys + (<usize>size << 3)
  while (at > keys) {
    const previous = load<i64>(at - 8)
    if (previous < key) break
    store<i64>(at, previous)
    at -= 8
  }
  store<i64>(at, key)
  return <u32>((at - keys) >> 3)
}

function bisectKey(keys: usize, size: u32, key: i64): u32 {
  let low: u32 = 0
  let length = size
  while (length > 0) {
    const half = length >> 1
    const below = load<i64>(keys + (<usize>(low + half) << 3)) < key
    low = select<u32>(low + half + 1, low, below)
    length = select<u32>(length - half - 1, half, below)
  }
  const at = keys + (<usize>low << 3)
  memory.copy(at + 8, at, (<usize>(size - low)) << 3)
  store<i64>(at, key)
  return low
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
    if (size == limit) size--
    const index = insertKey(pool, size, key)
    size++
    if (size == limit) worst = keyAt(pool, size - 1)
    lowest = min(lowest, index)
  }
  scratch.poolSize = size
  return lowest
}

/**
 * The same while rows are gated: those are kept to be walked through, and the pool ends at the `limit`-th row that is not, or at
 * `scratch.poolLimit` keys.
 */
export function offerGated(scratch: Scratch, count: u32, limit: u32): u32 {
  const pool = scratch.pool
  const gate = scratch.gate
  let size = scratch.poolSize
  let open = scratch.poolOpen
  let lowest = size
  for (let i: usize = 0, end = <usize>count << 2; i < end; i += 4) {
    const row = load<u32>(scratch.ids + i)
    const key = keyOf(load<f32>(scratch.distances + i), row)
    const full = open == limit || size == scratch.poolLimit
    if (full && key >= keyAt(pool, size - 1)) continue
    if (size == scratch.poolLimit) {
      size--
      if (!isMarked(gate, keyRow(keyAt(pool, size)))) open--
    }
    const index = insertKey(pool, size, key)
    size++
    lowest = min(lowest, index)
    if (isMarked(gate, row)) continue
    open++
    if (open > limit) {
      size--
      open--
    }
    if (open < limit) continue
    while (isMarked(gate, keyRow(keyAt(pool, size - 1)))) size--
  }
  scratch.poolSize = size
  scratch.poolOpen = open
  return lowest
}
