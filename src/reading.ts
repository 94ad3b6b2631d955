/**
 * Reads: from checked arguments and a snapshot to hits and documents.
 */
import type { Hit, Include, SearchResult, StoredDocument } from './api.ts'
import type { CollectionCore } from './core.ts'
import { IsovecError, throwIfAborted } from './errors.ts'
import type { CheckedSearch } from './request.ts'
import type { FilterNode } from './search/filter.ts'
import { type OpenRows, openRows } from './search/filtering.ts'
import { hydrate, type Wanted } from './search/hydrate.ts'
import { type Answer, answer, type Candidate, inSlices } from './search/query.ts'
import { mapInSlices, Slice } from './slice.ts'
import { liveCountOf, type SearchSource, type Snapshot } from './snapshot.ts'

/**
 * Searches. What needs no await is done within the turn of the call.
 * @throws IsovecError `NOT_FOUND` if the document to search near of isn't there
 */
export async function search<P extends object, I extends Include<P>>(
  core: CollectionCore,
  checked: CheckedSearch,
): Promise<SearchResult<P, I>> {
  const started = performance.now()
  const find = (snapshot: Snapshot): SearchResult<P, I> | Promise<SearchResult<P, I>> => {
    const found = findIn(core, snapshot, checked)
    return found instanceof Promise
      ? found.then((late) => resultOf<P, I>(late, checked, snapshot.sequence, started))
      : resultOf<P, I>(found, checked, snapshot.sequence, started)
  }
  return core.readNow(checked.signal, find) ?? core.read(checked.signal, true, find)
}

/** The answer where there is nothing to be had. */
const nothing: Answer = { candidates: [], exact: true, plan: 'scan', visited: 0 }

/** A question with its vector, and the row that it was taken from if it's near a document. */
export type Question = {
  readonly vector: Float32Array
  readonly origin: { source: SearchSource; row: number } | undefined
}

function findIn(core: CollectionCore, snapshot: Snapshot, checked: CheckedSearch): Answer | Promise<Answer> {
  // In the turn in which the snapshot was taken: what is newest then is what it holds.
  return answerIn(snapshot, questionOf(core, checked), checked, liveCountOf(snapshot.sources), false)
}

/**
 * Several searches on one snapshot, one after the other.
 * @throws IsovecError as {@link search}, before anything is searched
 */
export function searchAll<P extends object, I extends Include<P>>(
  core: CollectionCore,
  all: readonly CheckedSearch[],
  signal: AbortSignal | undefined,
): Promise<SearchResult<P, I>[]> {
  return core.read(signal, true, async (snapshot) => {
    const questions = all.map((checked) => questionOf(core, checked))
    const liveCount = liveCountOf(snapshot.sources)
    const slice = new Slice({ signal })
    const results: SearchResult<P, I>[] = []
    for (const [index, checked] of all.entries()) {
      const started = performance.now()
      throwIfAborted(checked.signal)
      const found = await answerIn(snapshot, questions[index]!, checked, liveCount, index > 0)
      results.push(await resultOf<P, I>(found, checked, snapshot.sequence, started))
      if (slice.isOver) await slice.next()
    }
    return results
  })
}

/**
 * Answers a question on a snapshot.
 * @param liveCount documents that the snapshot sees
 * @param isLate whether others may have run since the snapshot was taken
 */
export function answerIn(
  snapshot: Snapshot,
  question: Question,
  checked: CheckedSearch,
  liveCount: number,
  isLate: boolean,
): Answer | Promise<Answer> {
  const slice = new Slice({ signal: checked.signal })
  if (checked.filter === undefined) return answerTo(snapshot, question, checked, liveCount, undefined, isLate, slice)
  const open = openRows(snapshot, checked.filter, slice)
  const go = (rows: OpenRows): Answer | Promise<Answer> =>
    answerTo(snapshot, question, checked, countOf(rows), rows, true, slice)
  return open instanceof Promise ? open.then(go) : go(open)
}

function questionOf({ state }: CollectionCore, { vector, metric }: CheckedSearch): Question {
  if (typeof vector !== 'string') return { vector, origin: undefined }
  const origin = state.locate(vector)
  if (origin === undefined) {
    throw new IsovecError('NOT_FOUND', `there is no document ${JSON.stringify(vector)} to search near of`, {
      id: vector,
    })
  }
  const stored = origin.source.image.vectorAt(origin.row)
  if (metric === 'cosine' && stored.every((component) => component === 0)) {
    throw new IsovecError(
      'INVALID_ARGUMENT',
      `the vector of ${JSON.stringify(vector)} is zero, which has no direction`,
      {
        id: vector,
        field: 'near',
      },
    )
  }
  return { vector: stored, origin }
}

/** @param available documents that may be found */
function answerTo(
  snapshot: Snapshot,
  { vector, origin }: Question,
  { metric, isExact, ef, recall, minScore, offset, k }: CheckedSearch,
  available: number,
  open: OpenRows | undefined,
  isLate: boolean,
  slice: Slice,
): Answer | Promise<Answer> {
  // The document itself takes a place of its own and is left out.
  const count = Math.min(offset + k + (origin === undefined ? 0 : 1), available)
  // Nothing lies beyond the last document.
  if (count <= offset) return nothing
  const query = { vector, metric, isExact, ef, recall, minScore, count, open, isLate }
  const found = inSlices(answer(snapshot, query, slice), slice)
  if (origin === undefined) return found
  const leaveOut = (all: Answer): Answer => ({
    ...all,
    candidates: all.candidates.filter(({ source, row }) => source !== origin.source || row !== origin.row),
  })
  return found instanceof Promise ? found.then(leaveOut) : leaveOut(found)
}

/** Number of rows. */
export function countOf(open: OpenRows): number {
  let count = 0
  for (const rows of open.values()) count += rows.count()
  return count
}

/** What a search returns. A promise only where payloads must be fetched, or are many. */
function resultOf<P extends object, I extends Include<P>>(
  { candidates, exact, plan, visited }: Answer,
  { offset, k, wanted, signal }: CheckedSearch,
  sequence: number,
  started: number,
): SearchResult<P, I> | Promise<SearchResult<P, I>> {
  const end = offset + k
  const found = offset === 0 && candidates.length <= end ? candidates : candidates.slice(offset, end)
  const hits = mapInSlices(found, (candidate) => hitOf(candidate, sequence, wanted), new Slice({ signal }))
  // What is there is what `include` asked for, which is what the type says.
  const result = (all: unknown): SearchResult<P, I> => ({
    hits: all as Hit<P, I>[],
    exact,
    plan,
    visited,
    elapsedMs: performance.now() - started,
  })
  return hits instanceof Promise ? hits.then(result) : result(hits)
}

function hitOf({ source, row, id, score }: Candidate, sequence: number, wanted: Wanted): object | Promise<object> {
  if (wanted.payload === false && !wanted.vector) return { id, score }
  const parts = hydrate(source, row, sequence, wanted)
  return parts instanceof Promise ? parts.then((read) => ({ id, score, ...read })) : { id, score, ...parts }
}

/** A document as of a sequence. A promise only where its payload must be fetched. */
export function documentAt<P extends object, I extends Include<P>>(
  source: SearchSource,
  row: number,
  sequence: number,
  wanted: Wanted,
): StoredDocument<P, I> | Promise<StoredDocument<P, I>> {
  const id = source.idAt(row)
  const parts = hydrate<P>(source, row, sequence, wanted)
  if (parts instanceof Promise) return parts.then((read) => ({ id, ...read }) as StoredDocument<P, I>)
  return { id, ...parts } as StoredDocument<P, I>
}

/** Rows that a snapshot sees, a batch at a time, of those that pass a filter if there is one. */
export async function* rowsOf(
  snapshot: Snapshot,
  filter: FilterNode | undefined,
  batchSize: number,
  slice: Slice,
): AsyncGenerator<{ source: SearchSource; rows: number[] }, void> {
  const open = filter === undefined ? undefined : await openRows(snapshot, filter, slice)
  for (const source of snapshot.sources) {
    const passing = open?.get(source)
    const rowCount = passing?.length ?? source.rowCount
    let rows: number[] = []
    for (let row = 0; row < rowCount; row++) {
      const isWanted = passing === undefined ? source.isVisible(row, snapshot.sequence) : passing.has(row)
      if (isWanted) rows.push(row)
      if (rows.length === batchSize) {
        yield { source, rows }
        rows = []
      }
      if (row % rowsPerLook === 0 && slice.isOver) await slice.next()
    }
    if (rows.length > 0) yield { source, rows }
  }
}

/** Rows between two looks at the clock. */
const rowsPerLook = 1024
