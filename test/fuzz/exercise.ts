/**
 * Everything that a database can be asked for, of one whose files may say anything.
 */
import { memoryBackend, type StoreImage } from '../../src/directory/memory.ts'
import { IsovecError, type IsovecErrorCode } from '../../src/errors.ts'
import type { Collection, Database, Filter } from '../../src/index.ts'
import { openDatabase } from '../../src/index.ts'
import { onFailure } from '../support/events.ts'
import { type Contents, textOf } from '../support/history.ts'
import { Finding } from './input.ts'

/** What a hostile file may be met with. */
const refusals: ReadonlySet<IsovecErrorCode> = new Set([
  'CORRUPTION',
  'UNSUPPORTED_VERSION',
  'UNSUPPORTED',
  'READ_ONLY',
  'OUT_OF_MEMORY',
])

/** What was read before anything was written: undefined where anything was refused. */
export type Read = { readonly contents: Contents; readonly found: readonly string[] }

/** One run over a database: what it was refused with, and what it read. */
export class Exercise {
  /** Codes of what was refused. */
  readonly codes = new Set<IsovecErrorCode>()
  /** Codes of what was told as an event: it costs nothing. */
  readonly told = new Set<IsovecErrorCode>()
  /** Called once everything was read and before anything is written, with the dimensions of the collections. */
  onRead: (dimensions: readonly number[]) => void = () => {}

  /** Opens, reads, writes and closes. Returns what was read of the first collection, undefined if any of it was refused. */
  async run(image: StoreImage, writes: boolean): Promise<Read | undefined> {
    const read = await this.#useAll(image, writes)
    const [problem] = this.#problems
    if (problem !== undefined) throw problem
    return read
  }

  async #useAll(image: StoreImage, writes: boolean): Promise<Read | undefined> {
    const onEvent = onFailure((error) => this.#judge('background', error, this.told))
    const db = await this.#attempt('open', () => openDatabase(memoryBackend(image), { onEvent }))
    if (db === undefined) return undefined
    const before = this.codes.size
    const read = await this.#read(db)
    const isWhole = this.codes.size === before
    if (writes) await this.#write(db)
    await this.#attempt('close', () => db.close())
    return isWhole ? read : undefined
  }

  readonly #problems: Finding[] = []

  async #read(db: Database): Promise<Read | undefined> {
    let first: Read | undefined
    const dimensions: number[] = []
    for (const name of (await this.#attempt('list', () => db.listCollections())) ?? []) {
      const collection = await this.#attempt('openCollection', () => db.openCollection(name))
      if (collection === undefined) continue
      dimensions.push(collection.options.dimension)
      const read = await this.#readCollection(collection)
      if (name === 'docs') first = read
    }
    this.onRead(dimensions)
    return first
  }

  async #readCollection(collection: Collection): Promise<Read | undefined> {
    const contents = new Map<string, string>()
    const found: string[] = []
    let isWhole = true
    const step = async (name: string, run: () => Promise<string>): Promise<void> => {
      const answer = await this.#attempt(name, run)
      if (answer === undefined) isWhole = false
      else found.push(answer)
    }
    await step('count', async () => String(await collection.count()))
    await step('iterate', async () => {
      for await (const { id, vector, payload } of collection.iterate()) contents.set(id, textOf(vector!, payload))
      return String(contents.size)
    })
    const { dimension } = collection.options
    const vectors = dimension > 100 ? [] : [1, 2].map((n) => Array.from({ length: dimension }, (_, i) => i - n * 0.3))
    for (const vector of vectors) {
      for (const mode of ['exact', 'approximate'] as const) {
        await step(mode, async () => {
          const { hits } = await collection.search({ vector, k: 5, mode, include: { vector: true } })
          // Without its graph, or with that of another generation, a collection may find others.
          return mode === 'exact' ? hits.map(({ id, score }) => `${id} ${score}`).join() : ''
        })
      }
    }
    for (const filter of filters) {
      await step('filter', async () => String(await collection.count(filter as Filter)))
    }
    const filter = { i: { $gte: 3 } }
    await step('filtered search', async () => {
      if (vectors.length === 0) return ''
      const { hits } = await collection.search({ vector: vectors[0]!, k: 4, filter })
      return hits.map(({ id, score, payload }) => `${id} ${score} ${JSON.stringify(payload)}`).join()
    })
    for (const id of ['a1', 'a5', 'd2', 'g9', 'missing']) {
      await step('get', async () => {
        const stored = await collection.get(id)
        return stored === undefined ? '' : textOf(stored.vector!, stored.payload)
      })
      await step('has', async () => String(await collection.has(id)))
    }
    await step('stats', async () => String((await collection.stats()).docs))
    await step('hasIndex', async () => {
      await collection.hasIndex()
      return ''
    })
    return isWhole ? { contents, found } : undefined
  }

  async #write(db: Database): Promise<void> {
    for (const name of (await this.#attempt('list', () => db.listCollections())) ?? []) {
      const collection = await this.#attempt('openCollection', () => db.openCollection(name))
      // The memtable of such vectors alone is larger than any bound.
      if (collection === undefined || collection.options.dimension > 100) continue
      const vector = Array.from({ length: collection.options.dimension }, (_, i) => i + 0.5)
      await this.#attempt('patch', () => collection.patch('a2', { i: 1, tag: 'again' }))
      await this.#attempt('write', () =>
        collection.write([
          { upsert: { id: 'a1', vector, payload: { i: 4 } } },
          { delete: 'a6' },
          { patch: { id: 'b2', payload: { late: 1 } } },
        ]),
      )
      await this.#attempt('deleteWhere', () => collection.deleteWhere({ i: { $gt: 20 } }))
      await this.#attempt('flush', () => collection.flush())
      await this.#attempt('measureRecall', () => collection.measureRecall({ samples: 3, k: 2 }))
      await this.#attempt('buildIndex', () => collection.buildIndex({ M: 2, efConstruction: 4 }))
      await this.#attempt('compact', () => collection.compact())
      await this.#attempt('read again', () => this.#readCollection(collection))
    }
  }

  async #attempt<T>(step: string, run: () => Promise<T>): Promise<T | undefined> {
    try {
      return await run()
    } catch (error) {
      this.#judge(step, error)
      return undefined
    }
  }

  #judge(step: string, error: unknown, codes = this.codes): void {
    if (error instanceof Finding) this.#problems.push(error)
    else if (error instanceof IsovecError && refusals.has(error.code)) codes.add(error.code)
    else if (error instanceof IsovecError) {
      this.#problems.push(new Finding(`${step} rejects with ${error.code}: ${error.message}`, error))
    } else this.#problems.push(new Finding(`${step} rejects with ${String(error)}`, error))
  }
}

const filters = [
  { i: { $lt: 10 } },
  { i: 77 },
  { tag: { $in: ['a', 'patched'] } },
  { 'nested.text': { $startsWith: 'long long' } },
  { 'list.deep': { $exists: true } },
  { $not: { i: { $exists: true } } },
  { '\u00e9': '\u{1f600}', none: null },
  { $id: { $startsWith: 'a1' } },
  { 'nested.text': { $gt: `${'long '.repeat(30)}` } },
]
