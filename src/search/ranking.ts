/**
 * Scored rows of all sources, and which of them are the best.
 */
import type { SearchSource } from '../snapshot.ts'

/** A document that was found. */
export type Candidate = {
  readonly source: SearchSource
  readonly row: number
  readonly id: string
  readonly score: number
}

/** Rows with their exact scores, in the order in which they were found. */
export class Ranking {
  readonly #sources: SearchSource[] = []
  readonly #rows: number[] = []
  readonly #scores: number[] = []

  /** Rows so far. */
  get size(): number {
    return this.#rows.length
  }

  add(source: SearchSource, row: number, score: number): void {
    this.#sources.push(source)
    this.#rows.push(row)
    this.#scores.push(score)
  }

  /** Takes back everything after the first `size`. */
  truncate(size: number): void {
    this.#sources.length = size
    this.#rows.length = size
    this.#scores.length = size
  }

  /** The best `count`, in order. Which of those that score like the last of them come first is for the ids to say. */
  best(count: number, minScore: number): Candidate[] {
    const scores = this.#scores
    let least = minScore
    if (scores.length > count) least = Math.max(least, new Float64Array(scores).sort()[scores.length - count]!)
    const candidates: Candidate[] = []
    for (let i = 0; i < scores.length; i++) {
      const score = scores[i]!
      if (score < least) continue
      const source = this.#sources[i]!
      const row = this.#rows[i]!
      candidates.push({ source, row, score, id: source.idAt(row) })
    }
    candidates.sort(byScoreThenId)
    if (candidates.length > count) candidates.length = count
    return candidates
  }
}

function byScoreThenId(a: Candidate, b: Candidate): number {
  if (a.score !== b.score) return b.score - a.score
  return a.id < b.id ? -1 : a.id > b.id ? 1 : 0
}
