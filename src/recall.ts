/**
 * Recall: how much of the truth approximate search finds.
 */
import type { RecallReport } from './api.ts'
import type { RecallTerms } from './calls.ts'
import type { CollectionCore } from './core.ts'
import { throwIfAborted } from './errors.ts'
import { answerIn, type Question } from './reading.ts'
import type { Answer } from './search/query.ts'
import { Slice } from './slice.ts'
import { liveCountOf, type Snapshot } from './snapshot.ts'

/** Recall of approximate search for stored vectors, spread evenly over all rows. */
export async function measureRecall(
  core: CollectionCore,
  { samples, k, ef, recall: target, signal }: RecallTerms,
): Promise<RecallReport> {
  // One state for all of it: what is written meanwhile is no lost recall.
  return core.read(signal, true, async (snapshot) => {
    const liveCount = liveCountOf(snapshot.sources)
    const base = {
      metric: core.state.options.metric,
      k,
      offset: 0,
      recall: target,
      minScore: Number.NEGATIVE_INFINITY,
      signal,
      filter: undefined,
      wanted: { payload: false, vector: false } as const,
    }
    const questions = sample(snapshot, samples, liveCount)
    let found = 0
    let wanted = 0
    let visited = 0
    const approximateMs: number[] = []
    const exactMs: number[] = []
    const slice = new Slice({ signal })
    for (const question of questions) {
      const timed = async (isExact: boolean, times: number[]): Promise<Answer> => {
        throwIfAborted(signal)
        const started = performance.now()
        const checked = { ...base, vector: question.vector, isExact, ef: isExact ? undefined : ef }
        const found = await answerIn(snapshot, question, checked, liveCount, true)
        times.push(performance.now() - started)
        return found
      }
      const approximate = await timed(false, approximateMs)
      const exact = await timed(true, exactMs)
      const truth = new Set(idsOf(exact, k))
      found += idsOf(approximate, k).filter((id) => truth.has(id)).length
      wanted += truth.size
      visited += approximate.visited
      if (slice.isOver) await slice.next()
    }
    return {
      recall: wanted === 0 ? 1 : found / wanted,
      samples: questions.length,
      k,
      visited: questions.length === 0 ? 0 : visited / questions.length,
      approximateMs: median(approximateMs),
      exactMs: median(exactMs),
    }
  })
}

/** Vectors as questions, evenly spread over the documents that a snapshot sees; in the turn in which it was taken. */
function sample({ sources, sequence }: Snapshot, count: number, liveCount: number): Question[] {
  const questions: Question[] = []
  const step = Math.max(1, liveCount / count)
  let seen = 0
  for (const source of sources) {
    for (let row = 0; row < source.rowCount && questions.length < count; row++) {
      if (!source.isVisible(row, sequence) || seen++ < questions.length * step) continue
      questions.push({ vector: source.image.vectorAt(row), origin: { source, row } })
    }
  }
  return questions
}

function idsOf({ candidates }: Answer, k: number): string[] {
  return candidates.slice(0, k).map(({ id }) => id)
}

function median(values: number[]): number {
  values.sort((a, b) => a - b)
  return values[values.length >> 1] ?? 0
}
