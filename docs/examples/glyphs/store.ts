/**
 * The database of the page: the glyphs, and how far they are indexed.
 */
import { type Collection, type Database, type DatabaseEvent, isIsovecError, openDatabase } from 'isovec'
import { codeOf, type Glyph } from './catalogue.ts'
import { type GlyphBatch, GlyphSource, glyphCanvas } from './glyph-source.ts'
import { dimension, model } from './picture.ts'

/** Where in the catalogue a visit has to go on. */
type Cursor = { next: number; total: number; isDone: boolean }

export type Progress = { readonly next: number; readonly total: number; readonly isDone: boolean }

export type Store = {
  readonly database: Database
  readonly glyphs: Collection<Glyph>
  readonly cursor: Collection<Cursor>
}

const cursorId = 'cursor'
/** Milliseconds of drawing in one turn, where the page itself draws. */
const turn = 8
/** Milliseconds between two notes of how far it is. */
const cursorInterval = 1000
/** How often an interrupted index is taken up again by itself. */
const attempts = 5

export const idOf = (codePoint: number): string => codeOf(codePoint)

export async function openStore(onEvent: (event: DatabaseEvent) => void): Promise<Store> {
  const database = await openDatabase('isovec-glyphs', { onEvent })
  try {
    return { database, ...(await openCollections(database)) }
  } catch (error) {
    await database.close()
    throw error
  }
}

async function openCollections(database: Database): Promise<Omit<Store, 'database'>> {
  try {
    // The glyphs can be drawn again, so that nothing is lost if the last second of writes is.
    const glyphs = await database.createCollection<Glyph>('glyphs', {
      dimension,
      metric: 'cosine',
      durability: 'buffered',
      model,
      ifExists: 'open',
    })
    const cursor = await database.createCollection<Cursor>('cursor', { dimension: 1, model, ifExists: 'open' })
    return { glyphs, cursor }
  } catch (error) {
    const isOld = isIsovecError(error) && (error.code === 'MODEL_MISMATCH' || error.code === 'WRONG_DIMENSION')
    if (!isOld) throw error
    // An earlier version of this page has made other vectors.
    for (const name of await database.listCollections()) await database.dropCollection(name)
    return openCollections(database)
  }
}

/** How far the index is; undefined if it was never begun. */
export async function readProgress({ cursor }: Store): Promise<Progress | undefined> {
  return (await cursor.get(cursorId, { include: { vector: false } }))?.payload
}

/** Forgets all glyphs. */
async function clearStore({ glyphs, cursor }: Store): Promise<void> {
  await cursor.delete(cursorId)
  await glyphs.deleteWhere({})
}

/**
 * Indexes what is missing, or everything anew. One tab does it at a time; the others wait, and the next one goes on when it is closed.
 */
export async function indexGlyphs(
  store: Store,
  options: { signal: AbortSignal; isAnew?: boolean; onProgress: (progress: Progress) => void },
): Promise<void> {
  await navigator.locks.request('isovec-glyphs-index', { signal: options.signal }, async () => {
    if (options.isAnew) await clearStore(store)
    for (let attempt = 1; ; attempt++) {
      try {
        return await goOn(store, options)
      } catch (error) {
        // The tab that led was closed: another one leads by now, and what is stored twice is stored once.
        const isOver = !isIsovecError(error) || error.code !== 'DISCONNECTED' || attempt === attempts
        if (isOver) throw error
        await pause(500)
      }
    }
  })
}

async function goOn(
  store: Store,
  { signal, onProgress }: { signal: AbortSignal; onProgress: (progress: Progress) => void },
): Promise<void> {
  const begun = await readProgress(store)
  if (begun?.isDone) return
  const positions: number[] = []
  let total = begun?.total ?? 0
  let noted = performance.now()
  const note = async (next: number, isDone: boolean): Promise<void> => {
    noted = performance.now()
    await store.cursor.upsert({ id: cursorId, vector: [1], payload: { next, total, isDone } })
  }
  const notes: Promise<void>[] = []
  async function* documents(): AsyncGenerator<{ id: string; vector: Float32Array; payload: Glyph }> {
    for await (const batch of batches(begun?.next ?? 0, signal)) {
      total = batch.total
      for (const [i, glyph] of batch.glyphs.entries()) {
        positions.push(batch.positions[i]!)
        const vector = batch.vectors.subarray(i * dimension, (i + 1) * dimension)
        yield { id: idOf(glyph.codePoint), vector, payload: glyph }
      }
    }
  }
  await store.glyphs.ingest(documents(), {
    signal,
    // Documents are acknowledged in the order in which they were given: the last one says how far the catalogue is stored.
    onProgress({ count }) {
      const next = positions[count - 1]! + 1
      onProgress({ next, total, isDone: false })
      if (performance.now() - noted < cursorInterval) return
      const written = note(next, false)
      // Its failure is met below, unless the ingest fails first.
      written.catch(() => {})
      notes.push(written)
    },
  })
  await Promise.all(notes)
  await note(total, true)
  onProgress({ next: total, total, isDone: true })
}

/** Drawn glyphs: by a worker, or in short turns of the page where workers have no canvas. */
async function* batches(from: number, signal: AbortSignal): AsyncGenerator<GlyphBatch> {
  const worker = new Worker(new URL('./glyph-worker.ts', import.meta.url), { type: 'module', name: 'glyphs' })
  try {
    const { isReady } = await answer<{ isReady: boolean }>(worker, { from })
    if (isReady) {
      while (!signal.aborted) {
        const { batch } = await answer<{ batch?: GlyphBatch }>(worker, {})
        if (batch === undefined) return
        yield batch
      }
      return
    }
  } finally {
    worker.terminate()
  }
  const canvas = glyphCanvas()
  if (canvas === undefined) throw new Error('this browser gives no canvas to draw glyphs on')
  const source = new GlyphSource(canvas, from)
  for (let batch = source.batch(turn); batch !== undefined && !signal.aborted; batch = source.batch(turn)) {
    yield batch
    await pause(turn)
  }
}

function answer<T>(worker: Worker, question: unknown): Promise<T> {
  return new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => resolve(data as T)
    worker.onerror = (event) => reject(new Error(`the worker that draws glyphs has failed: ${event.message}`))
    worker.postMessage(question)
  })
}

function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds))
}
