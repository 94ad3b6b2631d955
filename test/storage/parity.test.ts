import { cp, mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { Collection, Database } from '../../src/api.ts'
import { seededChoice } from '../../src/directory/crash-image.ts'
import type { StorageBackend } from '../../src/directory/directory.ts'
import { type MemoryBackend, memoryBackend } from '../../src/directory/memory.ts'
import { nodeBackend } from '../../src/directory/node.ts'
import { openDatabase } from '../../src/index.ts'
import { readContents } from '../support/recovered.ts'
import { seed } from '../support/seed.ts'

/** A place for a database: its backend, and what another process would find there if this one ended now. */
type Place = {
  backend: StorageBackend
  copy(): Promise<StorageBackend>
  names(): Promise<string[]>
  dispose(): Promise<void>
}

const places: Record<string, () => Promise<Place>> = {
  memory: async () => {
    const backend: MemoryBackend = memoryBackend()
    return {
      backend,
      copy: async () => memoryBackend(backend.image()),
      names: async () => [...backend.image().root!.keys(), ...[...backend.image().directories.keys()].map(String)],
      dispose: async () => {},
    }
  },
  node: async () => {
    const folder = await mkdtemp(join(tmpdir(), 'isovec-parity-'))
    let copies = 0
    return {
      backend: nodeBackend(join(folder, 'db')),
      copy: async () => {
        const to = join(folder, `copy${++copies}`)
        await cp(join(folder, 'db'), to, { recursive: true })
        return nodeBackend(to)
      },
      names: () => readdir(join(folder, 'db')),
      dispose: () => rm(folder, { recursive: true }),
    }
  },
}

const dimension = 8
const graphRows = 1100

describe.each(Object.entries(places))('the mistakes of the model, on %s', (kind, makePlace) => {
  let place: Place
  let db: Database
  let collection: Collection
  let choose = seededChoice(seed)

  beforeEach(async () => {
    choose = seededChoice(seed)
    place = await makePlace()
    db = await openDatabase(place.backend)
    collection = await db.createCollection('docs', {
      dimension,
      metric: 'euclidean',
      index: 'manual',
      compaction: 'manual',
    })
  })
  afterEach(async () => {
    await db.close()
    await place.dispose()
  })

  const vector = (): number[] => Array.from({ length: dimension }, () => choose(2001) / 1000 - 1)
  const documents = (prefix: string, count: number) =>
    Array.from({ length: count }, (_, i) => ({ id: `${prefix}${i}`, vector: vector(), payload: { i } }))

  async function reopen(): Promise<void> {
    await db.close()
    db = await openDatabase(place.backend)
    collection = await db.openCollection('docs')
  }

  const nearest = async (to: number[], mode: 'exact' | 'approximate' = 'approximate') =>
    (await collection.search({ vector: to, k: 1, mode })).hits[0]

  test('1: what was not flushed is there at the second reopening, and at the third', async () => {
    const docs = documents('a', 5)
    await collection.upsert(docs.slice(0, 3))
    await collection.flush()
    await collection.upsert(docs.slice(3))
    await collection.delete('a0')
    const contents = await readContents(collection)
    for (let opening = 0, from = await place.copy(); opening < 3; opening++) {
      const other = await openDatabase(from)
      expect(await readContents(await other.openCollection('docs'))).toEqual(contents)
      await other.close()
    }
    for (let opening = 0; opening < 3; opening++) {
      await reopen()
      expect(await readContents(collection)).toEqual(contents)
    }
  })

  test('2: a flushed document that is deleted stays deleted', async () => {
    const docs = documents('a', 4)
    await collection.upsert(docs)
    await collection.flush()
    expect(await collection.delete(['a1', 'nobody'])).toBe(1)
    const check = async () => {
      expect(await collection.has('a1')).toBe(false)
      expect(await collection.get('a1')).toBeUndefined()
      expect(await collection.count()).toBe(3)
      expect((await nearest(docs[1]!.vector))?.id).not.toBe('a1')
      expect((await collection.search({ vector: docs[1]!.vector })).hits).toHaveLength(3)
    }
    await check()
    await collection.flush()
    await check()
    await reopen()
    await check()
    await collection.upsert({ id: 'b', vector: vector() })
    await collection.delete('b')
    await collection.flush()
    await collection.compact()
    await check()
    await reopen()
    await check()
    expect(await collection.delete('a1')).toBe(0)
  })

  test('3: a flushed document that is replaced comes once, as it is now', async () => {
    const [doc, other] = documents('a', 2)
    await collection.upsert([doc!, other!])
    await collection.flush()
    const moved = vector()
    await collection.upsert({ id: 'a0', vector: moved, payload: { version: 2 } })
    const check = async () => {
      for (const mode of ['exact', 'approximate'] as const) {
        const { hits } = await collection.search({ vector: moved, mode })
        expect(hits.map(({ id }) => id).sort()).toEqual(['a0', 'a1'])
        expect(hits[0]).toMatchObject({ id: 'a0', score: 0, payload: { version: 2 } })
      }
      expect(await collection.count()).toBe(2)
    }
    await check()
    await collection.flush()
    await check()
    await reopen()
    await check()
    await collection.compact()
    await check()
  })

  test('4: graph hits are the right documents, with several segments and a memtable', async () => {
    const all = [documents('a', graphRows), documents('b', graphRows), documents('c', 30)].flat()
    await collection.upsert(all.slice(0, graphRows))
    await collection.flush()
    await collection.upsert(all.slice(graphRows, 2 * graphRows))
    await collection.buildIndex()
    await collection.upsert(all.slice(2 * graphRows))
    expect(await collection.hasIndex()).toBe(true)
    const check = async () => {
      let found = 0
      for (let i = 0; i < all.length; i += 37) {
        const { hits, plan } = await collection.search({
          vector: all[i]!.vector,
          k: 5,
          mode: 'approximate',
          include: { vector: true },
        })
        expect(plan).not.toBe('scan')
        if (hits[0]!.id === all[i]!.id) found++
        for (const hit of hits) {
          const truth = all.find(({ id }) => id === hit.id)!
          expect(hit.vector).toEqual(Float32Array.from(truth.vector))
          expect(hit.payload).toEqual(truth.payload)
          expect(hit.score).toBeCloseTo(-distance(truth.vector, all[i]!.vector), 5)
        }
      }
      expect(found).toBeGreaterThanOrEqual(Math.floor((all.length / 37) * 0.97))
    }
    await check()
    await reopen()
    await check()
  })

  test('5: what is written after an index was built is found', async () => {
    await collection.upsert(documents('a', graphRows))
    await collection.buildIndex()
    const late = documents('late', 20)
    await collection.upsert(late)
    for (const { id, vector } of late) expect(await nearest(vector)).toMatchObject({ id, score: 0 })
    await collection.flush()
    for (const { id, vector } of late) expect(await nearest(vector)).toMatchObject({ id, score: 0 })
  })

  test('6: compaction keeps metric and parameters of the index', async () => {
    await collection.upsert(documents('a', graphRows))
    await collection.buildIndex({ M: 6, efConstruction: 33 })
    await collection.upsert(documents('b', 50))
    await collection.delete(['a1', 'a2', 'a3'])
    expect(await collection.compact()).toMatchObject({ indexRebuilt: true, docsAfter: graphRows + 47 })
    const check = async () => {
      expect(collection.options).toMatchObject({ metric: 'euclidean', hnsw: { M: 6, efConstruction: 33 } })
      expect(await collection.hasIndex()).toBe(true)
      let steps = 0
      await collection.buildIndex({ M: 6, efConstruction: 33, onProgress: () => steps++ })
      expect(steps).toBe(0)
      expect((await collection.measureRecall({ samples: 50 })).recall).toBeGreaterThan(0.9)
    }
    await check()
    await reopen()
    await check()
  })

  test('7: approximate and exact search score alike', async () => {
    const docs = documents('a', graphRows)
    await collection.upsert(docs)
    await collection.buildIndex()
    for (let i = 0; i < 20; i++) {
      const query = vector()
      const exact = await collection.search({ vector: query, k: 20, mode: 'exact' })
      const approximate = await collection.search({ vector: query, k: 20, mode: 'approximate' })
      expect([exact.plan, approximate.plan]).toEqual(['scan', 'graph'])
      const scores = new Map(exact.hits.map(({ id, score }) => [id, score]))
      expect(approximate.hits.filter(({ id }) => scores.has(id)).length).toBeGreaterThan(10)
      for (const { id, score } of approximate.hits) {
        expect(score).toBeLessThanOrEqual(0)
        if (scores.has(id)) expect(score).toBe(scores.get(id))
      }
      const sorted = approximate.hits.map(({ score }) => score).sort((a, b) => b - a)
      expect(approximate.hits.map(({ score }) => score)).toEqual(sorted)
    }
  })

  test('9: names stay out of the file system, NaN out of the store, and a batch is whole or not there', async () => {
    for (const name of ['../x', 'a/b', '..', '', 'A', 'a.b', '-a', 'a'.repeat(65), 'con\0', '%2e']) {
      const failure = expect.objectContaining({ code: 'INVALID_ARGUMENT' })
      await expect(db.createCollection(name, { dimension }), name).rejects.toEqual(failure)
      await expect(db.openCollection(name), name).rejects.toEqual(failure)
      await expect(db.renameCollection('docs', name), name).rejects.toEqual(failure)
      await expect(db.dropCollection(name), name).rejects.toEqual(failure)
    }
    await db.createCollection('aux', { dimension })
    const allowed = kind === 'node' ? /^([0-9]+|[0-9]+\.manifest|lock.*|.*\.lock)$/ : /^([0-9]+|[0-9]+\.manifest)$/
    for (const name of await place.names()) expect(name).toMatch(allowed)

    const good = documents('a', 3)
    for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, 1e39]) {
      const batch = [...good.slice(0, 2), { ...good[2]!, vector: good[2]!.vector.with(3, bad) }]
      await expect(collection.upsert(batch)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' })
      await expect(collection.write(batch.map((upsert) => ({ upsert })))).rejects.toMatchObject({
        code: 'INVALID_ARGUMENT',
      })
    }
    expect(await collection.count()).toBe(0)
    await reopen()
    expect(await collection.count()).toBe(0)
  })
})

function distance(a: readonly number[], b: readonly number[]): number {
  return Math.hypot(...a.map((value, i) => Math.fround(value) - Math.fround(b[i]!)))
}
