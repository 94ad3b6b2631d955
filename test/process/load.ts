/** What the processes share that read and write one collection under load. */
import type { Collection } from '../../src/api.ts'

export type Payload = { group: string; batch: number; text?: string }

export const dimension = 8
/** Documents of a group, which are always written together: whoever reads it sees one batch of them. */
export const groupSize = 40
/** The groups by how they are written: by a writer that waits for each batch, and by one that doesn't. */
export const groups = ['awaited', 'unawaited'] as const
export type Group = (typeof groups)[number]
/** Newest batch of each group. */
export type Batches = { [group in Group]: number }

/** Text of each document that nobody waits for, so that a burst of them is as large as a queue may become. */
const textLength = 16 * 1024
/** Bytes of a batch that nobody waits for, to be counted on at least. */
export const burstBatchSize = groupSize * textLength
const texts: { [group in Group]: string } = { awaited: '', unawaited: 'x'.repeat(textLength) }

/** From this time on a run also asks for more than may wait, and shows whether memory grows. */
export const longSeconds = 60

type GroupDocument = { id: string; vector: number[]; payload: Payload }

export function documentsOf(group: Group, batch: number): GroupDocument[] {
  return Array.from({ length: groupSize }, (_, n) => ({
    id: `${group}-${n}`,
    vector: Array.from({ length: dimension }, (_, d) => batch + n + d),
    payload: { group, batch, text: texts[group] },
  }))
}

/** Ways to read a group. */
export const readingCount = 4

/**
 * Reads a group in one of several ways.
 * @returns its batch
 * @throws Error if documents are missing or of several batches
 */
export async function readGroup(collection: Collection<Payload>, group: Group, way: number): Promise<number> {
  const seen: number[] = []
  const include = { payload: ['batch'] } as const
  if (way < 2) {
    const mode = way === 0 ? 'exact' : 'auto'
    const vector = Array(dimension).fill(1)
    const { hits } = await collection.search({ vector, k: groupSize * 2, filter: { group }, mode, include })
    for (const { payload } of hits) seen.push(payload!.batch!)
  } else if (way === 2) {
    for await (const { payload } of collection.iterate({ filter: { group }, batchSize: 7, include })) {
      seen.push(payload!.batch!)
    }
  } else {
    const ids = documentsOf(group, 0).map(({ id }) => id)
    for (const found of await collection.getMany(ids)) if (found !== undefined) seen.push(found.payload!.batch)
  }
  if (seen.length === groupSize && new Set(seen).size === 1) return seen[0]!
  throw new Error(`way ${way} of reading ${group} gave ${seen.length} documents of the batches ${[...new Set(seen)]}`)
}

/** What a process takes at some moment, in bytes. */
export type Sample = {
  readonly resident: number
  /** Linear memory of vectors, codes and graphs. */
  readonly linear: number
}

/** What the writing process reports, a line of JSON each. */
export type WriterReport =
  | { readonly ready: true }
  | { readonly sample: Sample; readonly acknowledged: Batches }
  /** Bytes of log that no segment holds. */
  | { readonly logSize: number }
  | {
      readonly over: {
        readonly batches: Batches
        readonly reads: number
        readonly slowestReadMs: number
        readonly refused: number
        readonly ingested: number
        readonly mergedDocs: number
      }
    }

/** What a reading process reports, a line of JSON each. */
export type ReaderReport =
  | { readonly sample: Sample }
  | { readonly over: { readonly reads: number; readonly refreshes: number; readonly stale: number } }
