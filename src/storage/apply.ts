/**
 * What operations do to sources: rows come, die, and get other payloads.
 */
import { assert } from '../errors.ts'
import { vectorStride } from '../kernel/index.ts'
import type { IdKey } from '../snapshot.ts'
import type { Operation } from './batch.ts'
import { idKey } from './id-table.ts'
import type { Memtable } from './memtable.ts'
import type { Segment } from './segment.ts'

/** The row that holds an id at a sequence. */
export function locate(
  newestFirst: Iterable<Segment | Memtable>,
  key: IdKey,
  sequence: number,
): { source: Segment | Memtable; row: number } | undefined {
  for (const source of newestFirst) {
    const row = source.find(key)
    if (row >= 0 && source.isVisible(row, sequence)) return { source, row }
  }
  return undefined
}

/**
 * Gives a document a new payload: laid over its row in a segment. From a memtable, which may be sealed, the document moves to a new row
 * of `memtable` with the same vector.
 */
export function patch(
  newestFirst: readonly (Segment | Memtable)[],
  key: IdKey,
  payload: Uint8Array | undefined,
  sequence: number,
  memtable?: Memtable,
): void {
  const place = locate(newestFirst, key, sequence)
  if (place === undefined) return
  const { source, row } = place
  if ('overlay' in source) {
    source.patch(row, sequence, payload)
    return
  }
  assert(memtable !== undefined, 'there is a memtable for what is moved')
  const vector = vectorAt(source, row)
  source.move(row, sequence)
  memtable.append(key.id, vector, payload, sequence)
}

function vectorAt({ image }: Segment | Memtable, row: number): Uint8Array {
  const vector = new Uint8Array(image.dimension * 4)
  image.readSection('vectors', row * vectorStride(image.dimension), vector)
  return vector
}

/**
 * Applies a batch: the live row of each id, wherever it is, gets a tombstone; upserts and moved documents become rows
 * of a memtable with room for them.
 * @param newestFirst all sources with their ids loaded, the memtable among them
 * @returns how many of the documents that it deletes existed
 */
export function applyOperations(
  newestFirst: readonly (Segment | Memtable)[],
  memtable: Memtable,
  operations: readonly Operation[],
  sequence: number,
  hashSeed: number,
  onUnmet: (key: IdKey) => void = () => {},
): number {
  let deleted = 0
  for (const operation of operations) {
    if (operation.kind === 'patch') {
      patch(newestFirst, idKey(operation.id, hashSeed), operation.payload, sequence, memtable)
      continue
    }
    const key = idKey(operation.id, hashSeed)
    const existed = kill(newestFirst, key, sequence)
    if (operation.kind === 'upsert') memtable.append(operation.id, operation.vector, operation.payload, sequence)
    else if (existed) deleted++
    else onUnmet(key)
  }
  return deleted
}

/**
 * The segment row out of which a patch has moved its document: it was in a memtable that was being flushed then. What was flushed holds
 * the document as it was before, in a row that died with the patch.
 */
export function locateMoved(
  segments: Iterable<Segment>,
  key: IdKey,
  sequence: number,
): { source: Segment; row: number } | undefined {
  for (const source of segments) {
    const row = source.find(key)
    if (row >= 0 && source.isVisible(row, sequence - 1) && !source.isVisible(row, sequence)) return { source, row }
  }
  return undefined
}

/**
 * Applies a batch for a second time, where segments know already what it did to their rows, and the memtable is gone to which the rest
 * went. The images of segments out of which it has moved documents must be loaded.
 */
export function applyAgain(
  segments: readonly Segment[],
  memtable: Memtable,
  operations: readonly Operation[],
  sequence: number,
  hashSeed: number,
): void {
  const newestFirst = [...segments, memtable].reverse()
  for (const operation of operations) {
    if (operation.kind === 'patch') {
      const key = idKey(operation.id, hashSeed)
      const moved = locate(newestFirst, key, sequence) === undefined ? locateMoved(segments, key, sequence) : undefined
      if (moved !== undefined) {
        memtable.append(key.id, vectorAt(moved.source, moved.row), operation.payload, sequence)
        continue
      }
    }
    applyOperations(newestFirst, memtable, [operation], sequence, hashSeed)
  }
}

/** Marks the live row of an id as dead, wherever it is. Returns whether there was one. */
export function kill(newestFirst: readonly (Segment | Memtable)[], key: IdKey, sequence: number): boolean {
  for (const source of newestFirst) {
    const row = source.find(key)
    if (row >= 0 && source.kill(row, sequence)) return true
  }
  return false
}
