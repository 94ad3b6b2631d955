/**
 * Insertion into the graph (Malkov & Yashunin 2016, algorithms 1 and 4). Distances between rows are taken from their
 * codes where there are any, in integers; otherwise from f32.
 */
import { scoreRows } from './distance'
import { DOT, Image, levelOf, linkLimit, linksOf, NO_ROW, Scratch } from './memory'
import { EXPANDED, insertKey, keyAt, keyDistance, keyOf, keyRow, resetWalk, see } from './pool'
import { prepareRow, storeResidue } from './quantize'
import { descend, enter, walk } from './search'

/** Inserts up to `count` further rows; returns how many are inserted now. */
export function build(image: Image, scratch: Scratch, count: u32): u32 {
  const end = min(image.graphRows, image.inserted + count)
  for (let row = image.inserted; row < end; row++) {
    insert(image, scratch, row)
    image.inserted = row + 1
  }
  return image.inserted
}

function insert(image: Image, scratch: Scratch, row: u32): void {
  const level = levelOf(image, row)
  if (image.metric == DOT) storeResidue(image, row)
  if (row == 0) {
    image.entry = 0
    image.maxLevel = level
    return
  }
  const ef = image.efConstruction
  const query = scratch.query
  prepareRow(image, query, row)
  resetWalk(scratch)
  enter(image, query, scratch, ef, false)
  descend(image, query, scratch, level, ef, false)
  const top = min(level, image.maxLevel)
  for (let layer = <i32>top; layer >= 0; layer--) {
    if (layer < <i32>top) restart(image, scratch)
    walk(image, query, scratch, layer, ef, false)
    const selected = choose(image, scratch, scratch.pool, scratch.poolSize, linkLimit(image, layer), image.M)
    const links = linksOf(image, row, layer)
    memory.copy(links, scratch.selected, selected << 2)
    for (let i: u32 = 0; i < selected; i++) connect(image, scratch, load<u32>(links + (<usize>i << 2)), row, layer)
  }
  if (level > image.maxLevel) {
    image.entry = row
    image.maxLevel = level
  }
}

/** Makes the pool of one layer the entry points of the next. */
function restart(image: Image, scratch: Scratch): void {
  const size = scratch.poolSize
  resetWalk(scratch)
  scratch.poolSize = size
  for (let i: u32 = 0; i < size; i++) {
    const at = scratch.pool + (<usize>i << 3)
    const key = load<i64>(at) & ~EXPANDED
    store<i64>(at, key)
    see(scratch, keyRow(key))
  }
}

/**
 * Chooses up to `limit` of the sorted keys for diversity: a candidate is passed over if it's nearer to one already chosen
 * than to the row itself, or equal to one that equals the row, lest equal rows see only each other. Places left up to
 * `filled` are given to the nearest of those passed over. Writes `scratch.selected`.
 */
function choose(image: Image, scratch: Scratch, keys: usize, count: u32, limit: u32, filled: u32): u32 {
  const selected = scratch.selected
  let chosen: u32 = 0
  let passed: u32 = 0
  for (let i: u32 = 0; i < count && chosen < limit; i++) {
    const key = keyAt(keys, i)
    if (isDiverse(image, scratch, keyRow(key), keyDistance(key), chosen)) {
      store<u32>(selected + (<usize>chosen << 2), keyRow(key))
      // The lanes beyond repeat the last distance, as scoreRows repeats the last row.
      v128.store(scratch.selectedDistances + (<usize>chosen << 2), f32x4.splat(keyDistance(key)))
      chosen++
    } else if (passed < limit) {
      store<u32>(scratch.pruned + (<usize>passed << 2), keyRow(key))
      passed++
    }
  }
  for (let i: u32 = 0; i < passed && chosen < filled; i++) {
    store<u32>(selected + (<usize>chosen << 2), load<u32>(scratch.pruned + (<usize>i << 2)))
    chosen++
  }
  return chosen
}

/** Whether `row`, at `distance` from the one that is chosen for, is passed over for none of the first `chosen` rows. */
function isDiverse(image: Image, scratch: Scratch, row: u32, distance: f32, chosen: u32): bool {
  if (chosen == 0) return true
  const pair = scratch.pair
  const distances = scratch.distances
  const ids = scratch.ids
  prepareRow(image, pair, row)
  for (let from: u32 = 0; from < chosen; from += 4) {
    const batch = min<u32>(4, chosen - from)
    v128.store(ids, v128.load(scratch.selected + (<usize>from << 2)))
    scoreRows(image, pair, ids, batch, distances)
    const found = v128.load(distances)
    const own = f32x4.splat(distance)
    const theirs = v128.load(scratch.selectedDistances + (<usize>from << 2))
    const equal = v128.and(f32x4.eq(found, own), f32x4.eq(theirs, own))
    if (v128.any_true(v128.or(f32x4.lt(found, own), equal))) return false
  }
  return true
}

/**
 * Adds `neighbour` to the list of `row`; a full list is chosen anew. A quarter of it is kept for diverse rows alone: that
 * costs no recall, and a list that is full again at once would be chosen anew for each row added.
 */
function connect(image: Image, scratch: Scratch, row: u32, neighbour: u32, layer: u32): void {
  const limit = linkLimit(image, layer)
  const links = linksOf(image, row, layer)
  let size: u32 = 0
  while (size < limit && load<u32>(links + (<usize>size << 2)) != NO_ROW) size++
  if (size < limit) {
    store<u32>(links + (<usize>size << 2), neighbour)
    return
  }
  memory.copy(scratch.ids, links, limit << 2)
  store<u32>(scratch.ids + (<usize>limit << 2), neighbour)
  prepareRow(image, scratch.pair, row)
  scoreRows(image, scratch.pair, scratch.ids, limit + 1, scratch.distances)
  for (let i: u32 = 0; i <= limit; i++) {
    const at = (<usize>i) << 2
    const key = keyOf(load<f32>(scratch.distances + at), load<u32>(scratch.ids + at))
    insertKey(scratch.list, i, key)
  }
  const chosen = choose(image, scratch, scratch.list, limit + 1, limit, limit - (limit >> 2))
  memory.fill(links, 0xff, limit << 2)
  memory.copy(links, scratch.selected, chosen << 2)
}
