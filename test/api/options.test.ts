import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { memoryBackend } from '../../src/directory/memory.ts'
import { nodeBackend } from '../../src/directory/node.ts'
import { type Collection, type Database, openDatabase } from '../../src/index.ts'
import { countingBackend } from '../support/counting-backend.ts'
import { temporaryFolder } from '../support/folder.ts'
import { newCollection, newStore, storeKinds } from '../support/store.ts'
import { clusteredDocuments, firstOf } from '../support/vectors.ts'

const defaults = {
  metric: 'cosine',
  durability: 'strict',
  hnsw: { M: 16, efConstruction: 200 },
  quantization: 'auto',
  vectors: 'memory',
  compaction: 'auto',
  index: 'auto',
}

describe.each(storeKinds)('options on the %s backend', (kind) => {
  it('are complete, and the same after reopening', async () => {
    const store = await newStore(kind)
    let database = await store.open()
    const given = {
      dimension: 7,
      metric: 'euclidean',
      durability: 'buffered',
      hnsw: { M: 5, efConstruction: 33 },
      quantization: 'none',
      vectors: 'memory',
      compaction: 'manual',
      index: 'manual',
      model: 'größe/v2 \u{1f600}',
    } as const
    const cases = [
      ['plain', { dimension: 3 }, { ...defaults, dimension: 3 }],
      ['full', given, given],
      ['half', { dimension: 3, hnsw: { M: 9 } }, { ...defaults, dimension: 3, hnsw: { M: 9, efConstruction: 200 } }],
      ['open', { dimension: 3, metric: undefined, ifExists: 'open' } as never, { ...defaults, dimension: 3 }],
    ] as const
    for (const [name, options, resolved] of cases) {
      expect((await database.createCollection(name, options)).options).toStrictEqual(resolved)
    }
    await database.close()
    database = await store.open()
    for (const [name, , resolved] of cases) {
      expect((await database.openCollection(name)).options).toStrictEqual(resolved)
    }
  })

  it('that are configured hold at once, for every handle, and after reopening', async () => {
    const { store, database, collection } = await newCollection({ dimension: 3 }, kind)
    const other = await database.openCollection('c')
    await collection.configure({ durability: 'buffered', index: 'manual' })
    await collection.configure({ compaction: 'manual' })
    await collection.configure({})
    const expected = { ...defaults, dimension: 3, durability: 'buffered', index: 'manual', compaction: 'manual' }
    for (const handle of [collection, other]) expect(handle.options).toStrictEqual(expected)
    await database.close()
    const reopened = await (await store.open()).openCollection('c')
    expect(reopened.options).toStrictEqual(expected)
    await reopened.configure({ durability: 'strict' })
    expect(reopened.options.durability).toBe('strict')
  })

  it('cannot be changed through what a collection shows', async () => {
    const { collection } = await newCollection({ dimension: 3 }, kind)
    const { options } = collection
    try {
      ;(options as { durability: string }).durability = 'buffered'
      ;(options.hnsw as { M: number }).M = 99
    } catch (error) {
      expect(error).toBeInstanceOf(TypeError)
    }
    expect(collection.options).toStrictEqual({ ...defaults, dimension: 3 })
  })
})

describe('the index', () => {
  async function withRows(count: number, options: object = {}) {
    const opened = await newCollection<{ number: number }>(
      { dimension: 8, durability: 'buffered', index: 'manual', compaction: 'manual', ...options },
      'node',
    )
    await opened.collection.upsert([...clusteredDocuments(count, 8)])
    return opened
  }
  const more = (part: number, count: number) =>
    [...clusteredDocuments(count, 8, part)].map((each) => ({ ...each, id: `${part}-${each.id}` }))

  it('has the parameters that buildIndex was given, through compaction and reopening', async () => {
    const { store, database, collection } = await withRows(1500)
    await collection.flush()
    expect(await collection.hasIndex()).toBe(false)
    const progress: { phase: string; done: number; total: number }[] = []
    await collection.buildIndex({ M: 6, efConstruction: 40, onProgress: (each) => progress.push(each) })
    expect(progress.at(-1)).toEqual({ phase: 'graph', done: 1500, total: 1500 })
    expect(await collection.hasIndex()).toBe(true)
    expect(collection.options.hnsw).toEqual({ M: 6, efConstruction: 40 })
    const { indexBytes } = await collection.stats()
    await collection.upsert(more(1, 1500))
    await collection.flush()
    expect(await collection.hasIndex()).toBe(false)
    const result = await collection.compact()
    expect(result).toMatchObject({ docsBefore: 3000, docsAfter: 3000, segmentsMerged: 2, indexRebuilt: true })
    expect(await collection.hasIndex()).toBe(true)
    expect((await collection.stats()).indexBytes).toBeGreaterThan(1.5 * indexBytes)
    await database.close()

    const reopened = await (await store.open()).openCollection('c')
    expect(reopened.options.hnsw).toEqual({ M: 6, efConstruction: 40 })
    expect(await reopened.hasIndex()).toBe(true)
    const { vector } = firstOf(clusteredDocuments(1, 8))
    expect((await reopened.search({ vector, ef: 40 })).plan).toBe('graph')
    await reopened.buildIndex({ M: 24 })
    expect(reopened.options.hnsw).toEqual({ M: 24, efConstruction: 40 })
    expect((await reopened.stats()).indexBytes).toBeGreaterThan(3 * indexBytes)
  })

  it('stays dropped through flush, compaction, reopening and automatic work, until it is built', async () => {
    const { store, database, collection } = await withRows(1500, { index: 'auto', compaction: 'auto' })
    await collection.buildIndex()
    expect(await collection.hasIndex()).toBe(true)
    await collection.dropIndex()
    expect(await collection.hasIndex()).toBe(false)
    expect((await collection.stats()).indexBytes).toBe(0)
    const { vector } = firstOf(clusteredDocuments(1, 8))
    expect(await collection.search({ vector, mode: 'approximate' })).toMatchObject({ plan: 'scan', exact: true })
    await collection.upsert(more(1, 1200))
    await collection.flush()
    const { indexRebuilt } = await collection.compact()
    expect(indexRebuilt).toBe(false)
    await database.close()
    const reopened = await (await store.open()).openCollection<{ number: number }>('c')
    await reopened.upsert(more(2, 1200))
    await reopened.flush()
    // Longer than the pause after which graphs would be built.
    await new Promise((resolve) => setTimeout(resolve, 500))
    expect(await reopened.hasIndex()).toBe(false)
    expect((await reopened.stats()).indexBytes).toBe(0)
    await reopened.buildIndex()
    expect(await reopened.hasIndex()).toBe(true)
  })

  it('is not asked of what is too small for it', async () => {
    const { collection } = await withRows(1023)
    expect(await collection.hasIndex()).toBe(true)
    await collection.buildIndex()
    expect(await collection.hasIndex()).toBe(true)
    expect((await collection.stats()).indexBytes).toBe(0)
  })

  it('is as it was after a build or compaction that is aborted', async () => {
    const { collection } = await withRows(3000)
    await collection.flush()
    for (const work of ['buildIndex', 'compact'] as const) {
      await collection.delete('d0')
      const before = await collection.stats()
      const controller = new AbortController()
      const running = collection[work]({ signal: controller.signal, onProgress: () => controller.abort('enough') })
      await expect(running).rejects.toMatchObject({ code: 'ABORTED', cause: 'enough' })
      expect(await collection.hasIndex()).toBe(false)
      const after = await collection.stats()
      expect([after.docs, after.segments]).toEqual([before.docs, before.segments])
    }
    await collection.buildIndex()
    expect(await collection.hasIndex()).toBe(true)
  })
})

describe('statistics', () => {
  it('tell how much there is, where, and how much of it is dead', async () => {
    const { collection } = await newCollection<{ number: number }>(
      { dimension: 32, durability: 'buffered', index: 'manual', compaction: 'manual' },
      'node',
    )
    expect(await collection.stats()).toMatchObject({
      docs: 0,
      memtableDocs: 0,
      segments: 0,
      deleted: 0,
      deletedRatio: 0,
    })
    await collection.upsert([...clusteredDocuments(2000, 32)])
    let stats = await collection.stats()
    expect(stats).toMatchObject({
      docs: 2000,
      memtableDocs: 2000,
      segments: 0,
      segmentDocs: 0,
      bytes: 0,
      indexBytes: 0,
    })
    expect(stats.walBytes).toBeGreaterThan(2000 * 128)
    expect(stats.memoryBytes).toBeGreaterThan(2000 * 128)

    await collection.flush()
    await collection.upsert([...clusteredDocuments(100, 32)])
    await collection.delete(Array.from({ length: 400 }, (_, i) => `d${i + 50}`))
    stats = await collection.stats()
    expect(stats).toMatchObject({ docs: 1600, memtableDocs: 50, segments: 1, segmentDocs: 1550, deleted: 450 })
    expect(stats.deletedRatio).toBeCloseTo(450 / 2000)
    expect(stats.bytes).toBeGreaterThan(2000 * 128)

    const { docsBefore, docsAfter, bytesBefore, bytesAfter, elapsedMs } = await collection.compact()
    expect([docsBefore, docsAfter]).toEqual([1600, 1600])
    expect(bytesAfter).toBeLessThan(bytesBefore)
    expect(elapsedMs).toBeGreaterThan(0)
    stats = await collection.stats()
    expect(stats).toMatchObject({
      docs: 1600,
      memtableDocs: 0,
      segments: 1,
      segmentDocs: 1600,
      deleted: 0,
      deletedRatio: 0,
    })
    expect(stats.bytes).toBe(bytesAfter)
    await collection.buildIndex({ M: 8 })
    const { indexBytes, bytes, memoryBytes, memoryBytesPerDoc } = await collection.stats()
    expect(indexBytes).toBeGreaterThan(1600 * 8)
    expect(bytes).toBe(bytesAfter + indexBytes)
    expect(memoryBytesPerDoc).toBeCloseTo(memoryBytes / 1600)
    expect(memoryBytesPerDoc).toBeLessThan(2000)
    expect('lastBackgroundError' in (await collection.stats())).toBe(false)
  })
})

describe('opening', () => {
  it('two collections of 100,000 documents reads neither vectors nor payloads', async () => {
    const count = 100_000
    const folder = join(await temporaryFolder(), 'data')
    const { backend, traffic } = countingBackend(nodeBackend(folder))
    const open = async (): Promise<{ database: Database; collections: Collection<{ number: number }>[] }> => {
      const database = await openDatabase(backend)
      onTestFinished(() => database.close())
      const collections: Collection<{ number: number }>[] = []
      for (const name of ['one', 'two']) {
        collections.push(
          await database.createCollection(name, {
            dimension: 32,
            durability: 'buffered',
            index: 'manual',
            ifExists: 'open',
          }),
        )
      }
      return { database, collections }
    }
    const first = await open()
    for (const [seed, collection] of first.collections.entries()) {
      await collection.ingest(clusteredDocuments(count, 32, seed))
      await collection.flush()
    }
    const sizes = await Promise.all(first.collections.map((collection) => collection.stats()))
    await first.database.close()

    Object.assign(traffic, { bytesRead: 0, reads: 0, opens: 0 })
    const started = performance.now()
    const { collections } = await open()
    for (const collection of collections) {
      expect((await collection.stats()).docs).toBe(count)
      expect(collection.options.dimension).toBe(32)
    }
    const elapsed = performance.now() - started
    const bytes = sizes.reduce((sum, stats) => sum + stats.bytes, 0)
    expect(bytes).toBeGreaterThan(2 * count * 32 * 4)
    expect(traffic.bytesRead).toBeLessThan(bytes / 50)
    expect(traffic.reads).toBeLessThan(200)
    // Some milliseconds of reading; the rest is room for a busy machine.
    expect(elapsed).toBeLessThan(1000)

    const { vector } = firstOf(clusteredDocuments(1, 32, 1))
    expect((await collections[1]!.search({ vector, k: 1 })).hits).toMatchObject([{ id: 'd0', payload: { number: 0 } }])
    expect(await collections[0]!.has(`d${count - 1}`)).toBe(true)
  })

  it('counts without loading vectors, and gets without them where they are not wanted', async () => {
    const { backend, traffic } = countingBackend(memoryBackend())
    const database = await openDatabase(backend)
    const collection = await database.createCollection<{ number: number }>('c', {
      dimension: 512,
      durability: 'buffered',
    })
    await collection.upsert([...clusteredDocuments(1000, 512)])
    await collection.flush()
    await database.close()
    const reopened = await openDatabase(backend)
    onTestFinished(() => reopened.close())
    const again = await reopened.openCollection<{ number: number }>('c')
    traffic.bytesRead = 0
    expect(await again.count()).toBe(1000)
    expect(await again.has('d999')).toBe(true)
    expect((await again.get('d999', { include: { vector: false } }))!.payload).toEqual({ number: 999 })
    expect(traffic.bytesRead).toBeLessThan(1000 * 512 * 4)
    expect((await again.get('d999'))!.vector).toHaveLength(512)
    expect(traffic.bytesRead).toBeGreaterThan(1000 * 512 * 4)
  })
})
