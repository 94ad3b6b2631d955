/**
 * Recall: how much of the truth approximate search finds.
 */
import type { RecallReport } from './api.ts'
import type { CollectionCore } from './core.ts'
import { search } from './reading.ts'
import { liveCountOf } from './snapshot.ts'

/** What {@link measureRecall} is asked for. */
export type RecallOptions = {
  samples: number
  k: number
  ef: number | undefined
  recall: number
  signal: AbortSignal | undefined
}

/** Recall of approximate search for stored vectors, spread evenly over all rows. */
export async function measureRecall(
  core: CollectionCore,
  { samples, k, ef, recall: target, signal }: RecallOptions,
): Promise<RecallReport> {
  const snapshot = await core.hold(signal, true)
  const queries: { id: string; vector: Float32Array }[] = []
  try {
    const total = liveCountOf(snapshot.sources)
    const step = Math.max(1, total / samples)
    let seen = 0
    for (const source of snapshot.sources) {
      for (let row = 0; row < source.rowCount && queries.length < samples; row++) {
        if (!source.isVisible(row, snapshot.sequence)) continue
        if (seen++ < queries.length * step) continue
        const vector = source.image.vectorAt(row)
        // A zero vector has no neighbours to speak of under cosine, and none is stored there.
        queries.push({ id: source.idAt(row), vector })
      }
    }
  } finally {
    snapshot.release()
  }
  const { metric } = core.state.options
  const base = {
    metric,
    k: k + 1,
    offset: 0,
    recall: target,
    minScore: Number.NEGATIVE_INFINITY,
    signal,
    filter: undefined,
    wanted: { payload: false, vector: false } as const,
  }
  let found = 0
  let wanted = 0
  let visited = 0
  const approximateMs: number[] = []
  const exactMs: number[] = []
  for (const { id, vector } of queries) {
    const approximate = await search(core, { ...base, vector, isExact: false, ef })
    const exact = await search(core, { ...base, vector, isExact: true, ef: undefined })
    const truth = new Set(
      exact.hits
        .map((hit) => hit.id)
        .filter((other) => other !== id)
        .slice(0, k),
    )
    const answers = approximate.hits.map((hit) => hit.id).filter((other) => other !== id)
    found += answers.slice(0, k).filter((other) => truth.has(other)).length
    wanted += truth.size
    visited += approximate.visited
    approximateMs.push(approximate.elapsedMs)
    exactMs.push(exact.elapsedMs)
  }
  return {
    recall: wanted === 0 ? 1 : found / wanted,
    samples: queries.length,
    k,
    visited: queries.length === 0 ? 0 : visited / queries.length,
    approximateMs: median(approximateMs),
    exactMs: median(exactMs),
  }
}

function median(values: number[]): number {
  values.sort((a, b) => a - b)
  return values[values.length >> 1] ?? 0
}
