/**
 * Storing any number of documents in atomic batches, taking no more from their source than can be stored.
 */
import { abortable, throwIfAborted } from './errors.ts'
import { invalid } from './options.ts'
import { addDocument } from './request.ts'
import { Slice } from './slice.ts'
import type { BatchBuilder } from './storage/batch.ts'

/** Documents and bytes of one atomic batch, which is applied within one turn of the event loop. */
const batchCountMax = 250
const batchSizeMax = 1024 * 1024
/** Batches under way at a time: some are encoded while others, logged and synced together, are written. */
const depth = 8

/** What an ingest works with. */
export type IngestOptions = {
  readonly signal: AbortSignal | undefined
  /** Is told the number of documents that are acknowledged. */
  readonly onProgress: ((progress: { count: number }) => void) | undefined
  begin(): BatchBuilder
  write(batch: BatchBuilder): Promise<unknown>
}

/**
 * Stores the documents of a source. When this settles nothing of it is under way any more: what was stored is whole batches.
 * @throws IsovecError as writes do, `INVALID_ARGUMENT` if `docs` is no source; what the source throws, as it is
 */
export async function ingest(docs: unknown, options: IngestOptions): Promise<{ count: number }> {
  const { signal, onProgress } = options
  throwIfAborted(signal)
  const source = sourceOf(docs)
  const slice = new Slice({ signal })
  const underWay: Promise<unknown>[] = []
  let count = 0
  let batch = options.begin()
  const send = async (): Promise<void> => {
    const size = batch.count
    const sent = options.write(batch).then(() => {
      count += size
      onProgress?.({ count })
    })
    // A rejection is met when the batch's turn comes; until then it must not count as unhandled.
    sent.catch(() => {})
    underWay.push(sent)
    batch = options.begin()
    if (underWay.length >= depth) await underWay.shift()
  }
  let hasMore = true
  try {
    for (let index = 0; ; index++) {
      throwIfAborted(signal)
      const next = nextOf(source, signal)
      const { done, value } = next instanceof Promise ? await next : next
      hasMore = done !== true
      if (!hasMore) break
      addDocument(batch, value, `docs[${index}]`)
      if (batch.count >= batchCountMax || batch.size >= batchSizeMax) await send()
      if (slice.isOver) await slice.next()
    }
    if (batch.count > 0) await send()
    await Promise.all(underWay)
  } finally {
    if (hasMore) leave(source)
    // What was sent is settled before anybody hears of a failure, so that nothing happens after it.
    await Promise.allSettled(underWay)
  }
  return { count }
}

type Source = Iterator<unknown> | AsyncIterator<unknown>
type Step = { readonly done?: boolean | undefined; readonly value?: unknown }

function sourceOf(docs: unknown): Source {
  const given = docs as Partial<Iterable<unknown> & AsyncIterable<unknown>> | null | undefined
  const begin: unknown = given?.[Symbol.asyncIterator] ?? given?.[Symbol.iterator]
  if (typeof begin !== 'function' || typeof docs === 'string') {
    throw invalid('docs', 'is neither iterable nor async iterable')
  }
  const source: Partial<Source> | null | undefined = begin.call(docs)
  if (typeof source?.next !== 'function') throw invalid('docs', 'has an iterator without next()')
  return source as Source
}

/** The next step of a source; a promise only where the source gives one. */
function nextOf(source: Source, signal: AbortSignal | undefined): Step | Promise<Step> {
  const step: unknown = source.next()
  const isPromise = typeof (step as { then?: unknown } | null | undefined)?.then === 'function'
  return isPromise ? abortable(step as Promise<unknown>, signal).then(checkStep) : checkStep(step)
}

function checkStep(step: unknown): Step {
  if (typeof step === 'object' && step !== null) return step as Step
  throw invalid('docs', 'has an iterator whose next() gives no object')
}

/** Tells a source that no more is wanted. What goes wrong with that comes second to what ended the ingest. */
function leave(source: Source): void {
  Promise.resolve()
    .then(() => source.return?.())
    .catch(() => {})
}
