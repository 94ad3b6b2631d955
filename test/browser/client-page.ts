/** A page that uses databases as any page does: by their names. */
import {
  type Collection,
  type Database,
  type DatabaseEvent,
  type OpenOptions,
  openDatabase,
  restore,
} from '../../src/index.ts'
import { answerTest } from '../support/browser-calls.ts'

let database: Database | undefined
let collection: Collection | undefined
let worker: Worker | undefined
const events: DatabaseEvent[] = []

/** Of its id alone, so that pages can be compared. */
function documentOf(id: string): { id: string; vector: number[]; payload: { n: number } } {
  const n = Number(id.replace(/^\D+/, ''))
  return { id, vector: [n % 7, n % 11, 1], payload: { n } }
}

/** Holds up the thread when it is told to, as a frozen tab does. */
const holdUp = `;addEventListener('message', ({ data }) => {
  for (const end = performance.now() + (data.holdUp ?? 0); performance.now() < end; );
})`

answerTest({
  async open(name: string, options: OpenOptions = {}) {
    database = await openDatabase(name, { ...options, onEvent: (event) => events.push(event) })
    return database.location
  },
  /** The same with a worker that can be ended and held up. */
  async openMortal(name: string) {
    const { source } = await import('../../src/worker/source.ts')
    const make = (): Worker => {
      worker = new Worker(URL.createObjectURL(new Blob([source, holdUp])), { name: 'isovec' })
      return worker
    }
    database = await openDatabase(name, { worker: make, onEvent: (event) => events.push(event) })
  },
  terminate: () => worker!.terminate(),
  holdUp: (ms: number) => worker!.postMessage({ holdUp: ms }),
  freeze: () => void document.dispatchEvent(new Event('freeze')),
  info: () => database!.info(),
  async collection(name: string) {
    collection = await database!.createCollection(name, { dimension: 3, metric: 'euclidean', ifExists: 'open' })
    return collection.options
  },
  upsert: (ids: string[]) => collection!.upsert(ids.map(documentOf)),
  /** Stores documents of 256 KiB until there is no room; tells how many were acknowledged, and how the last one failed. */
  async fill(prefix: string, count: number) {
    const payload = { text: 'x'.repeat(256 * 1024) }
    for (let stored = 0; stored < count; stored++) {
      try {
        await collection!.upsert({ id: `${prefix}${stored}`, vector: [stored, 1, 1], payload })
      } catch (error) {
        const { code, outcome } = error as { code: string; outcome: string }
        return { stored, code, outcome }
      }
    }
    return { stored: count }
  },
  /** Closes while a write and a read are under way; tells what became of them. */
  async upsertAndClose(id: string) {
    const told = (name: string) => [() => `${name} done`, ({ code }: { code: string }) => `${name} ${code}`] as const
    const write = collection!.upsert(documentOf(id)).then(...told('write'))
    const read = collection!.count().then(...told('read'))
    await database!.close()
    return [await write, await read]
  },
  delete: (ids: string[]) => collection!.delete(ids),
  has: (id: string) => collection!.has(id),
  /** Whether a caller's memory is as it was. */
  async upsertTyped(id: string) {
    const vector = new Float32Array([1, 2, 3])
    const stored = collection!.upsert({ id, vector })
    const request = collection!.search({ vector, k: 1 })
    vector.fill(9)
    await stored
    const { hits } = await request
    return { length: vector.length, found: hits[0]!.id, stored: [...(await collection!.get(id))!.vector] }
  },
  count: () => collection!.count(),
  search: (vector: number[], k: number) => collection!.search({ vector, k }),
  async ids() {
    const found: string[] = []
    for await (const { id, vector, payload } of collection!.iterate({ batchSize: 50 })) {
      const expected = documentOf(id)
      if (String(vector) !== String(expected.vector) || payload?.n !== expected.payload.n)
        throw new Error(`${id} is damaged`)
      found.push(id)
    }
    return found.sort()
  },
  events: () => events.map((event) => (event.type === 'role' ? event.role : event.type)),
  names: () => database!.listCollections(),
  rename: (from: string, to: string) => database!.renameCollection(from, to),
  name: () => collection!.name,
  drop: (name: string) => database!.dropCollection(name),
  compact: () => collection!.compact(),
  snapshot: (name: string) => database!.snapshot(name),
  verify: () => database!.verify({ full: true }),
  async restoreArchive(base64: string, name: string) {
    const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0))
    const { body } = new Response(bytes)
    const progress: string[] = []
    const report = await restore(body!, name, { onProgress: ({ phase }) => progress.push(phase) })
    return { collections: report.collections, docs: report.docs, isToldOf: progress.length > 0 }
  },
  async abortedSearch() {
    const controller = new AbortController()
    const reason = new Error('enough')
    const search = collection!.search({ vector: [1, 2, 3], signal: controller.signal })
    controller.abort(reason)
    return search.then(
      () => 'found',
      (error: { code: string; cause: unknown }) => `${error.code} ${error.cause === reason}`,
    )
  },
  close: () => database!.close(),
})
