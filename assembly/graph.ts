/** Levels of rows, and the check of a graph that was read rather than built. */
import { Image, LEVEL_MAX, levelOf, linkLimit, linksOf, NO_ROW } from './memory'

/**
 * Gives each of `image.graphRows` rows its level, a function of seed and row alone: level l or above has probability
 * M^-l. Writes levels and the index of the upper lists; returns the number of those.
 */
export function assignLevels(image: Image): u32 {
  const seed = ((<u64>image.seedHigh) << 32) | <u64>image.seedLow
  const ratio = 1 / <f64>image.M
  let lists: u32 = 0
  for (let row: u32 = 0; row < image.graphRows; row++) {
    const uniform = <f64>(mix(seed + (<u64>row + 1) * 0x9e3779b97f4a7c15) >> 11) * (1 / <f64>((<u64>1) << 53))
    let level: u32 = 0
    for (let bound = ratio; uniform < bound && level < LEVEL_MAX; bound *= ratio) level++
    store<u8>(image.levels + row, <u8>level)
    store<u32>(image.upperIndex + (<usize>row << 2), lists)
    lists += level
  }
  return lists
}

/** The finaliser of splitmix64 (Steele, Lea, Flood 2014). */
function mix(value: u64): u64 {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb
  return value ^ (value >> 31)
}

/** Empties all lists. */
export function clearLinks(image: Image): void {
  memory.fill(image.links, 0xff, image.graphRows * image.linkStride)
  memory.fill(image.upperLinks, 0xff, image.upperCount * (image.M << 2))
}

/** What {@link checkGraph} can find. */
export const GRAPH_FINE: u32 = 0
export const BAD_LEVEL: u32 = 1
export const BAD_ENTRY: u32 = 2
export const BAD_INDEX: u32 = 3
export const BAD_NEIGHBOUR: u32 = 4
export const BAD_LAYER: u32 = 5

/**
 * Whether every number in the graph that concerns rows `from` up to `to` is within bounds, so that a walk stays in memory once all rows
 * were checked. Assumes nothing about them.
 */
export function checkGraph(image: Image, from: u32, to: u32): u32 {
  const rows = image.graphRows
  if (rows == 0) return GRAPH_FINE
  if (image.maxLevel > LEVEL_MAX) return BAD_LEVEL
  if (image.entry >= rows || levelOf(image, image.entry) != image.maxLevel) return BAD_ENTRY
  for (let row = from; row < to; row++) {
    const level = levelOf(image, row)
    if (level > image.maxLevel) return BAD_LEVEL
    const first = load<u32>(image.upperIndex + (<usize>row << 2))
    if (level > 0 && <u64>first + level > <u64>image.upperCount) return BAD_INDEX
    for (let layer: u32 = 0; layer <= level; layer++) {
      const problem = checkLinks(image, row, layer)
      if (problem != GRAPH_FINE) return problem
    }
  }
  return GRAPH_FINE
}

function checkLinks(image: Image, row: u32, layer: u32): u32 {
  const links = linksOf(image, row, layer)
  for (let i: u32 = 0; i < linkLimit(image, layer); i++) {
    const neighbour = load<u32>(links + (<usize>i << 2))
    if (neighbour == NO_ROW) break
    if (neighbour >= image.graphRows) return BAD_NEIGHBOUR
    if (levelOf(image, neighbour) < layer) return BAD_LAYER
  }
  return GRAPH_FINE
}
