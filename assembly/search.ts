/**
 * The walk over the graph (Malkov & Yashunin, "Efficient and robust approximate nearest neighbor search using Hierarchical
 * Navigable Small World graphs", 2016, algorithms 2 and 5): greedy through the upper layers, then a beam in the lowest.
 */
import { scoreRows } from './distance'
import { Image, isMarked, linkLimit, linksOf, NO_ROW, Query, Scratch } from './memory'
import { EXPANDED, keyAt, keyDistance, keyRow, offer, offerGated, resetWalk, see } from './pool'

/**
 * Makes the gate of a question from the bitmap of the rows that it may return, `size` bytes that the host has written to
 * {@link gateAt}: whatever is not in there is gated.
 */
export function prepareGate(scratch: Scratch, size: u32): void {
  for (let at = scratch.gateRoom, end = at + size; at < end; at += 16) v128.store(at, v128.not(v128.load(at)))
}

/** Where the host writes the bitmap for {@link prepareGate}. */
export function gateAt(scratch: Scratch): usize {
  return scratch.gateRoom
}

/**
 * Finds the `ef` nearest rows that are alive, or open if the question is `filtered`, as far as the graph leads to them. They are left
 * in the pool, from where {@link collect} takes them. `limit` bounds the pool, gated rows included; it's at least `ef`.
 */
export function search(image: Image, scratch: Scratch, ef: u32, limit: u32, filtered: bool): void {
  resetWalk(scratch)
  scratch.poolLimit = limit
  scratch.visitedCount = 0
  scratch.gate = filtered ? scratch.gateRoom : image.deadCount > 0 ? image.dead : 0
  if (image.inserted == 0) return
  const gated = scratch.gate != 0
  enter(image, scratch.query, scratch, ef, gated)
  descend(image, scratch.query, scratch, 0, ef, gated)
  walk(image, scratch.query, scratch, 0, ef, gated)
}

/**
 * Turns the keys of the pool's rows that may be returned into pairs of row (u32) and distance (f32), in order, where the pool was;
 * returns how many, at most `limit`.
 */
export function collect(scratch: Scratch, limit: u32): u32 {
  const gate = scratch.gate
  let at = scratch.pool
  let count: u32 = 0
  for (let i: u32 = 0; i < scratch.poolSize && count < limit; i++) {
    const key = keyAt(scratch.pool, i)
    const row = keyRow(key)
    if (gate != 0 && isMarked(gate, row)) continue
    store<u32>(at, row)
    store<f32>(at, keyDistance(key), 4)
    at += 8
    count++
  }
  scratch.poolSize = 0
  return count
}

/** Scores the entry point and takes it into the pool. */
export function enter(image: Image, query: Query, scratch: Scratch, ef: u32, gated: bool): void {
  store<u32>(scratch.ids, image.entry)
  see(scratch, image.entry)
  take(image, query, scratch, 1, ef, gated)
}

/** Scores the first `count` of `scratch.ids` and takes them into the pool. */
@inline
function take(image: Image, query: Query, scratch: Scratch, count: u32, ef: u32, gated: bool): u32 {
  scoreRows(image, query, scratch.ids, count, scratch.distances)
  scratch.visitedCount += count
  return gated ? offerGated(scratch, count, ef) : offer(scratch, count, ef)
}

/** Copies the neighbours not seen before to `scratch.ids`, marks them as seen and returns their count. */
@inline
function unseen(image: Image, scratch: Scratch, row: u32, layer: u32): u32 {
  const visited = scratch.visited
  const walk = scratch.walk
  const ids = scratch.ids
  let at = linksOf(image, row, layer)
  const end = at + (<usize>linkLimit(image, layer) << 2)
  let count: u32 = 0
  for (; at < end; at += 4) {
    const neighbour = load<u32>(at)
    if (neighbour == NO_ROW) break
    const seen = <u32>load<u8>(visited + neighbour) == walk
    store<u32>(ids + (<usize>count << 2), neighbour)
    store<u8>(visited + neighbour, walk)
    count += <u32>!seen
  }
  return count
}

/** Goes to the nearest row of each layer from the top down to the one above `layer`; all that is scored stays in the pool. */
export function descend(image: Image, query: Query, scratch: Scratch, layer: u32, ef: u32, gated: bool): void {
  for (let l = image.maxLevel; l > layer; l--) {
    let current = NO_ROW
    let nearest = keyRow(keyAt(scratch.pool, 0))
    while (nearest != current) {
      current = nearest
      const count = unseen(image, scratch, current, l)
      if (count == 0) break
      take(image, query, scratch, count, ef, gated)
      nearest = keyRow(keyAt(scratch.pool, 0))
    }
  }
}

/** Expands the nearest row of the pool until all in it are expanded. */
export function walk(image: Image, query: Query, scratch: Scratch, layer: u32, ef: u32, gated: bool): void {
  const pool = scratch.pool
  let cursor: u32 = 0
  while (cursor < scratch.poolSize) {
    const key = keyAt(pool, cursor)
    if (key & EXPANDED) {
      cursor++
      continue
    }
    store<i64>(pool + (<usize>cursor << 3), key | EXPANDED)
    const count = unseen(image, scratch, keyRow(key), layer)
    if (count > 0) cursor = min(cursor, take(image, query, scratch, count, ef, gated))
  }
}
