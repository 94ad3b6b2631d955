import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { imageKey, seededChoice } from '../../src/directory/crash-image.ts'
import type { StorageBackend } from '../../src/directory/directory.ts'
import { faultyBackend } from '../../src/directory/faulty.ts'
import { memoryBackend, type StoreImage } from '../../src/directory/memory.ts'
import type { Collection, CollectionOptions, Database, DatabaseEvent } from '../../src/index.ts'
import { IsovecError, openDatabase } from '../../src/index.ts'
import { countingBackend } from '../support/counting-backend.ts'
import { changed, flipped, ofKind, sectionsOf } from '../support/damage.ts'
import { onFailure } from '../support/events.ts'
import { type Contents, digestOf } from '../support/history.ts'
import { hookedBackend } from '../support/hooked-backend.ts'
import { readContents } from '../support/recovered.ts'
import { seed, seedCrypto } from '../support/seed.ts'
import { normalVector, randomNumbers } from '../support/vectors.ts'

let restoreCrypto: () => void
beforeAll(() => {
  restoreCrypto = seedCrypto(seed)
})
afterAll(() => restoreCrypto())

const options: CollectionOptions = {
  dimension: 20,
  metric: 'euclidean',
  quantization: 'sq8',
  index: 'manual',
  compaction: 'manual',
  hnsw: { M: 4, efConstruction: 16 },
}

const documents = (prefix: string, count: number) =>
  Array.from({ length: count }, (_, i) => ({
    id: `${prefix}${i}`,
    vector: Array.from({ length: 20 }, (_, d) => Math.sin(i * 20 + d + prefix.charCodeAt(0))),
    payload: { text: `${prefix} ${i}` },
  }))

type Work = (docs: Collection) => Promise<unknown>
type Built = { image: StoreImage; contents: string }

/** What work on a collection leaves: closed, or cut off. */
async function built(end: 'close' | 'crash', work: Work): Promise<Built> {
  const backend = memoryBackend()
  const db = await openDatabase(backend)
  const docs = await db.createCollection('docs', options)
  await work(docs)
  const contents = digestOf(await readContents(docs))
  const crashed = backend.image()
  await db.close()
  return { image: end === 'crash' ? crashed : backend.image(), contents }
}

/** The newest generation is a flush, and there is more in the log. */
const flushed: Work = async (docs) => {
  await docs.upsert(documents('a', 260))
  await docs.flush()
  await docs.upsert(documents('b', 260))
  await docs.delete(['a1', 'b2'])
  await docs.flush()
}
const flushedAndMore: Work = async (docs) => {
  await flushed(docs)
  await docs.upsert(documents('c', 3))
  await docs.delete(['a3', 'b4'])
}
/** The newest generation is a compaction. */
const compacted: Work = async (docs) => {
  await flushed(docs)
  await docs.compact()
}

/** The newest generation lays patches over rows of older segments and of its own. */
const patched: Work = async (docs) => {
  await docs.upsert(documents('a', 260))
  await docs.flush()
  await docs.upsert(documents('b', 260))
  await docs.flush()
  await docs.patch('a5', { text: 'patched', more: 1 })
  await docs.patch('b6', {}, { unset: ['text'] })
  await docs.flush()
}

const patch: Work = async (docs) => {
  await docs.patch('a7', { text: 'patched' })
  await docs.write([{ patch: { id: 'b7', payload: { text: 'patched' } } }])
}
/** Whether both patches are there; takes the documents away. */
const check = async (docs: Collection): Promise<void> => {
  expect(await docs.count({ text: 'patched' })).toBe(2)
  const { hits } = await docs.search({ vector: query, k: 1, filter: { text: 'patched' } })
  expect(hits).toMatchObject([{ id: 'b7', payload: { text: 'patched' } }])
  expect(await docs.deleteWhere({ text: 'patched' })).toBe(2)
  expect(await docs.count()).toBe(516)
}

type Opened = { db: Database; docs: Collection; events: DatabaseEvent[] }

async function opened(backend: StorageBackend): Promise<Opened> {
  const events: DatabaseEvent[] = []
  const db = await openDatabase(backend, {
    onEvent: (event) => {
      if (event.type === 'background-error') events.push(event)
    },
  })
  onTestFinished(() => db.close())
  return { db, docs: await db.openCollection('docs'), events }
}

async function checkOpened(backend: StorageBackend): Promise<void> {
  const { db, docs } = await opened(backend)
  await check(docs)
  await db.close()
}

/** The image with a bit of a section of the newest segment flipped. */
function damaged(image: StoreImage, kind: 'seg' | 'graph', section: { offset: number; length: number }): StoreImage {
  const file = ofKind(image, kind).at(-1)!
  return changed(image, 1, file.name, flipped(file.bytes, (section.offset + (section.length >> 1)) * 8 + 3))
}

function newestSections(image: StoreImage, kind: 'seg' | 'graph' = 'seg'): ReturnType<typeof sectionsOf> {
  return sectionsOf(ofKind(image, kind).at(-1)!.bytes)
}

const query = documents('b', 8)[7]!.vector

const firsts: Record<string, Work> = {
  get: async (docs) => expect(await docs.get('b7')).toMatchObject({ payload: { text: 'b 7' } }),
  search: async (docs) => expect((await docs.search({ vector: query })).hits[0]).toMatchObject({ id: 'b7' }),
  iterate: async (docs) => {
    let count = 0
    for await (const { payload } of docs.iterate()) if (payload !== undefined) count++
    expect(count).toBeGreaterThan(500)
  },
  write: (docs) => docs.upsert({ id: 'new', vector: query }),
  'write and search': async (docs) => {
    await docs.write([{ upsert: { id: 'b7', vector: query } }, { delete: 'b9' }])
    const { hits } = await docs.search({ vector: query, k: 50 })
    expect(hits[0]).toMatchObject({ id: 'b7', score: 0 })
    expect(hits[0]!.payload).toBeUndefined()
    expect(hits.map(({ id }) => id)).not.toContain('b9')
    expect(new Set(hits.map(({ id }) => id)).size).toBe(50)
  },
  flush: async (docs) => {
    await docs.upsert({ id: 'new', vector: query })
    await docs.flush()
  },
  configure: (docs) => docs.configure({ durability: 'buffered' }),
  buildIndex: async (docs) => {
    await docs.buildIndex()
    expect(await docs.hasIndex()).toBe(true)
  },
  compact: (docs) => docs.compact(),
}

/** What the first uses write and delete. */
const changing = ['new', 'b7', 'b9']

async function expectNothingLost(image: StoreImage, use: Work, expected: Contents, what: string): Promise<void> {
  const backend = memoryBackend(image)
  const { db, docs, events } = await opened(backend)
  await use(docs)
  const found = new Map(await readContents(docs))
  for (const id of changing) found.delete(id)
  expect(digestOf(found), what).toBe(digestOf(expected))
  const told = { type: 'background-error', collection: 'docs', error: expect.objectContaining({ code: 'CORRUPTION' }) }
  expect(events, what).toContainEqual(told)
  expect((await docs.stats()).lastBackgroundError, what).toMatchObject({ code: 'CORRUPTION' })
  await docs.upsert({ id: 'late', vector: query })
  const before = digestOf(await readContents(docs))
  const crashed = backend.image()
  await db.close()
  for (const store of [backend, memoryBackend(crashed)]) {
    const again = await opened(store)
    expect(digestOf(await readContents(again.docs)), what).toBe(before)
    await again.docs.flush()
    expect(digestOf(await readContents(again.docs)), what).toBe(before)
    await again.db.close()
  }
}

describe('damage inside of what the newest generation introduced costs nothing', () => {
  const works = { flushed, 'flushed and more': flushedAndMore, compacted }
  for (const [name, work] of Object.entries(works)) {
    for (const end of ['close', 'crash'] as const) {
      test(`${name}, ${end}`, { timeout: 120_000 }, async () => {
        const { image, contents } = await built(end, work)
        const sections = newestSections(image)
        expect(sections).toHaveLength(12)
        const whole = await opened(memoryBackend(image))
        const expected = await readContents(whole.docs)
        expect(digestOf(expected)).toBe(contents)
        for (const id of changing) expected.delete(id)
        await whole.db.close()
        for (const [index, section] of sections.entries()) {
          // Every section meets several uses, and every use several sections. After a crash opening finds the damage, whatever comes.
          const uses = Object.entries(firsts).filter((_, i) => (i + index) % (end === 'close' ? 3 : 9) === 0)
          for (const [first, use] of uses) {
            await expectNothingLost(damaged(image, 'seg', section), use, expected, `section ${section.id}, ${first}`)
          }
        }
      })
    }
  }

  test('patch files', async () => {
    for (const end of ['close', 'crash'] as const) {
      const { image, contents } = await built(end, patched)
      const files = ofKind(image, 'patch')
      expect(files).toHaveLength(2)
      const whole = await opened(memoryBackend(image))
      const expected = await readContents(whole.docs)
      expect(digestOf(expected)).toBe(contents)
      for (const id of changing) expected.delete(id)
      await whole.db.close()
      const uses = Object.entries({
        ...firsts,
        filter: async (docs: Collection) => {
          expect(await docs.count({ text: 'patched' })).toBe(1)
          expect(await docs.count({ text: { $exists: false } })).toBe(1)
        },
        patch: (docs: Collection) => docs.patch('b7', { text: 'later' }),
      })
      for (const { name, bytes } of files) {
        for (const [index, [first, use]] of uses.entries()) {
          const bit = (64 + Math.floor(((bytes.length - 64) * index) / uses.length)) * 8 + 1
          const hurt = changed(image, 1, name, flipped(bytes, bit))
          await expectNothingLost(hurt, use, expected, `${name}, ${first}, ${end}`)
        }
        await expectNothingLost(changed(image, 1, name, undefined), firsts.get!, expected, `no ${name}, ${end}`)
      }
    }
  })

  test('a segment below patches that came since', { timeout: 120_000 }, async () => {
    for (const work of [flushed, compacted]) {
      for (const end of ['close', 'crash'] as const) {
        const { image } = await built(end, work)
        for (const section of newestSections(image)) {
          const backend = memoryBackend(damaged(image, 'seg', section))
          const { db, docs, events } = await opened(backend)
          await patch(docs)
          const patched = backend.image()
          await check(docs)
          expect(events.length, `section ${section.id}`).toBeGreaterThan(0)
          await db.close()
          // Damage that comes after the patches were logged is met by an opening that finds them.
          await checkOpened(memoryBackend(patched))
        }
      }
    }
  })

  test('a segment that is damaged after it was patched', { timeout: 120_000 }, async () => {
    for (const work of [flushed, compacted]) {
      const { image } = await built('close', async (docs) => {
        await work(docs)
        await patch(docs)
      })
      for (const section of newestSections(image)) {
        const backend = memoryBackend(damaged(image, 'seg', section))
        const { db, docs } = await opened(backend)
        await docs.search({ vector: query })
        await db.close()
        await checkOpened(backend)
      }
    }
  })

  test('the files of the generation before stay until the newest one is known to be whole', async () => {
    const { image, contents } = await built('close', flushed)
    const vectors = newestSections(image).find(({ id }) => id === 6)!
    const backend = memoryBackend(damaged(image, 'seg', vectors))
    const { db, docs } = await opened(backend)
    // Writing reads ids alone, and flushing would commit a generation that takes the place of the one to fall back to.
    for (let round = 0; round < 3; round++) {
      await docs.upsert({ id: `extra${round}`, vector: query })
      await docs.flush()
    }
    await docs.delete(['extra0', 'extra1', 'extra2'])
    expect(digestOf(await readContents(docs))).toBe(contents)
    await db.close()
    const again = await opened(backend)
    expect(digestOf(await readContents(again.docs))).toBe(contents)
  })

  test.each([
    ['in opening after a close', 'close', flushedAndMore, 2],
    ['in opening after a crash', 'crash', flushedAndMore, 2],
    ['with the first search', 'close', flushed, 6],
  ] as const)('a crash at every call of a fall-back %s', { timeout: 120_000 }, async (_, end, work, damagedId) => {
    const { image, contents } = await built(end, work)
    const section = newestSections(image).find(({ id }) => id === damagedId)!
    const backend = faultyBackend({ image: damaged(image, 'seg', section) })
    const { db, docs } = await opened(backend)
    await docs.search({ vector: query })
    await docs.flush()
    await docs.configure({ durability: 'buffered' })
    await db.close()
    expect(backend.changes.length).toBeGreaterThan(10)
    const seen = new Set<string>()
    for (let at = 0; at <= backend.changes.length; at++) {
      for (let round = 0; round < 8; round++) {
        const choose = seededChoice(seed ^ Math.imul(at * 16 + round + 1, 0x9e3779b1))
        const crashed = backend.crashImage({ kind: round < 2 ? 'process' : 'power', at, choose })
        const newest = ofKind(crashed, 'manifest').at(-1)!
        // With and without the newest manifest: the one before must not be the broken one, or be known to be.
        for (const store of [crashed, changed(crashed, 1, newest.name, flipped(newest.bytes, 900))]) {
          const key = imageKey(store)
          if (seen.has(key)) continue
          seen.add(key)
          const again = await opened(memoryBackend(store))
          expect(digestOf(await readContents(again.docs)), `change ${at}, round ${round}`).toBe(contents)
          await again.db.close()
        }
      }
    }
    expect(seen.size).toBeGreaterThan(60)
  })

  test('what is flushed as soon as it is opened is not what was given up', async () => {
    const { image } = await built('close', flushed)
    const store = memoryBackend(image)
    // Each opening that writes begins a log, and many logs are flushed by the next opening.
    for (let round = 0; round < 7; round++) {
      const { db, docs } = await opened(store)
      await docs.upsert({ id: `b${round}`, vector: query })
      await db.close()
    }
    const { docs: whole, db } = await opened(memoryBackend(store.image()))
    const contents = digestOf(await readContents(whole))
    await db.close()
    // Ids and payloads are read by the replay of the logs, vectors and codes before the flush is committed.
    const late = newestSections(image).filter(({ id }) => id >= 6 && id <= 10)
    expect(late).toHaveLength(5)
    for (const section of late) {
      const damagedStore = memoryBackend(damaged(store.image(), 'seg', section))
      const { docs, db, events } = await opened(damagedStore)
      await expect.poll(async () => (await docs.stats()).memtableDocs, { timeout: 10_000 }).toBe(0)
      expect(events.length, `section ${section.id}`).toBeGreaterThan(0)
      expect(digestOf(await readContents(docs)), `section ${section.id}`).toBe(contents)
      await db.close()
      const again = await opened(damagedStore)
      expect(digestOf(await readContents(again.docs)), `section ${section.id}`).toBe(contents)
      expect(again.events).toEqual([])
    }
  })

  test('a failure in the middle of a fall-back is no damage, and the next attempt succeeds', {
    timeout: 120_000,
  }, async () => {
    const { image, contents } = await built('close', flushedAndMore)
    for (const section of newestSections(image).filter(({ id }) => id === 2 || id === 6)) {
      const store = damaged(image, 'seg', section)
      let isStruck = true
      let failures = 0
      for (let at = 0; isStruck; at++) {
        const backend = faultyBackend({ image: store, fault: { at, error: 'EIO', among: 'looks' } })
        let docs: Collection | undefined
        const attempt = async (run: () => Promise<unknown>): Promise<void> => {
          try {
            await run()
          } catch (error) {
            failures++
            expect(error, `look ${at}`).toMatchObject({ code: 'IO' })
            await run()
          }
        }
        let db: Database | undefined
        await attempt(async () => {
          db = await openDatabase(backend)
        })
        onTestFinished(() => db!.close())
        await attempt(async () => {
          docs = await db!.openCollection('docs')
        })
        await attempt(async () => expect(digestOf(await readContents(docs!))).toBe(contents))
        await db!.close()
        isStruck = backend.faultCount > 0
      }
      expect(failures).toBeGreaterThan(20)
    }
  })

  test('an index is built of what stands in for a damaged segment', async () => {
    const { image } = await built('close', (docs) => docs.upsert(documents('b', 1100)).then(() => docs.flush()))
    const vectors = newestSections(image).find(({ id }) => id === 6)!
    const { docs } = await opened(memoryBackend(damaged(image, 'seg', vectors)))
    await docs.buildIndex()
    expect(await docs.search({ vector: query, k: 1 })).toMatchObject({ plan: 'graph', hits: [{ id: 'b7' }] })
  })

  test('damage to what both generations name is told', async () => {
    const { image } = await built('close', flushed)
    const first = ofKind(image, 'seg')[0]!
    const ids = sectionsOf(first.bytes).find(({ id }) => id === 2)!
    const { docs } = await opened(memoryBackend(changed(image, 1, first.name, flipped(first.bytes, ids.offset * 8))))
    await expect(docs.get('a7')).rejects.toMatchObject({ code: 'CORRUPTION', file: first.name })
    await expect(docs.upsert({ id: 'x', vector: query })).rejects.toMatchObject({ code: 'CORRUPTION' })
  })

  test('opening reads no section, and reading no more of the newest generation than is there', async () => {
    const { image } = await built('close', compacted)
    const { backend, traffic } = countingBackend(memoryBackend(image))
    const db = await openDatabase(backend)
    onTestFinished(() => db.close())
    const docs = await db.openCollection('docs')
    expect(traffic.bytesRead).toBeLessThan(24 * 1024)
    await docs.get('b7')
    expect(traffic.bytesRead).toBeLessThan(ofKind(image, 'seg').at(-1)!.bytes.length + 64 * 1024)
  })

  test('a crash after the commit that follows a fall-back leaves two valid generations', async () => {
    const { image, contents } = await built('close', flushed)
    const ids = newestSections(image).find(({ id }) => id === 2)!
    const backend = memoryBackend(damaged(image, 'seg', ids))
    const { docs } = await opened(backend)
    const broken = ofKind(image, 'manifest').at(-1)!
    await docs.get('b7')
    await docs.flush()
    // As if nothing had been swept.
    const crashed = backend.image()
    const withBroken = changed(crashed, 1, broken.name, broken.bytes)
    const newest = ofKind(withBroken, 'manifest').at(-1)!
    expect(newest.name).not.toBe(broken.name)
    const { docs: again } = await opened(memoryBackend(changed(withBroken, 1, newest.name, flipped(newest.bytes, 999))))
    expect(digestOf(await readContents(again))).toBe(contents)
    const survivor = memoryBackend(withBroken)
    const { db } = await opened(survivor)
    expect(ofKind(survivor.image(), 'manifest').map(({ name }) => name)).not.toContain(broken.name)
    await db.close()
  })
})

describe('damage to a graph costs no more than the graph', () => {
  const indexed: Work = async (docs) => {
    await docs.upsert(documents('a', 1100))
    await docs.buildIndex()
    await docs.upsert(documents('b', 20))
  }

  test.each(['header', 1, 2, 3, 4, 'missing'] as const)('%s', async (place) => {
    const { image, contents } = await built('close', indexed)
    const graph = ofKind(image, 'graph').at(-1)!
    const section = newestSections(image, 'graph').find(({ id }) => id === place) ?? { offset: 8, length: 64 }
    const backend = memoryBackend(
      place === 'missing' ? changed(image, 1, graph.name, undefined) : damaged(image, 'graph', section),
    )
    const { db, docs, events } = await opened(backend)
    for (const mode of ['exact', 'approximate'] as const) {
      expect((await docs.search({ vector: query, mode })).hits[0]).toMatchObject({ id: 'b7' })
    }
    expect(digestOf(await readContents(docs))).toBe(contents)
    expect(await docs.hasIndex()).toBe(false)
    expect((await docs.stats()).lastBackgroundError).toMatchObject({ code: 'CORRUPTION' })
    expect(events).toHaveLength(1)
    await docs.buildIndex()
    expect(await docs.hasIndex()).toBe(true)
    await db.close()
    const again = await opened(backend)
    expect((await again.docs.search({ vector: query })).plan).not.toBe('scan')
    expect(again.events).toEqual([])
  })

  test('buildIndex alone rebuilds it', async () => {
    const { image } = await built('close', indexed)
    const { docs } = await opened(memoryBackend(damaged(image, 'graph', newestSections(image, 'graph')[1]!)))
    await docs.search({ vector: query })
    await docs.buildIndex()
    expect((await docs.search({ vector: query })).plan).not.toBe('scan')
  })

  test('automatic work rebuilds it', async () => {
    const { image } = await built('close', async (docs) => {
      await indexed(docs)
      await docs.configure({ index: 'auto' })
    })
    const { docs } = await opened(memoryBackend(damaged(image, 'graph', newestSections(image, 'graph')[1]!)))
    await docs.search({ vector: query })
    await expect.poll(() => docs.hasIndex(), { timeout: 10_000 }).toBe(true)
  })
})

test('falls back while a graph is built of what is damaged, and tells the damage', async () => {
  const backend = memoryBackend()
  const database = await openDatabase(backend)
  const docs = await database.createCollection('docs', { dimension: 64, compaction: 'manual' })
  const random = randomNumbers(5)
  const some = (prefix: string, count: number) =>
    Array.from({ length: count }, (_, i) => ({ id: `${prefix}${i}`, vector: normalVector(64, random) }))
  await docs.upsert(some('a', 300))
  await docs.flush()
  await docs.upsert(some('b', 6000))
  await docs.flush()
  await database.close()
  const image = backend.image()
  const file = ofKind(image, 'seg').at(-1)!
  // The ids, which an exact search has no need of while the vectors are loaded for the graph.
  const section = sectionsOf(file.bytes).find(({ id }) => id === 2)!
  const hurt = changed(image, 1, file.name, flipped(file.bytes, (section.offset + (section.length >> 1)) * 8))
  const errors: IsovecError[] = []
  const again = await openDatabase(memoryBackend(hurt), { onEvent: onFailure((error) => errors.push(error)) })
  const read = await again.openCollection('docs')
  // The graph is begun once nothing was flushed for a while.
  await new Promise((resolve) => setTimeout(resolve, 100))
  await read.configure({ durability: 'buffered' }).catch((error: IsovecError) => errors.push(error))
  expect(await read.count()).toBe(6300)
  await read.buildIndex()
  expect(await read.hasIndex()).toBe(true)
  expect(errors.length).toBeGreaterThan(0)
  for (const { code } of errors) expect(code).toBe('CORRUPTION')
  await again.close()
})

test('rows that a flush on a full disk had left out stay dead where that flush is damaged', async () => {
  const store = memoryBackend()
  let room: 'enough' | 'none' | 'after one' = 'enough'
  let onSegment = (): void => {}
  const backend = hookedBackend(store, async ({ kind, name }, run) => {
    if (kind !== 'create' || !name.endsWith('.seg')) return run()
    const isFull = room !== 'enough'
    if (room === 'after one') room = 'enough'
    if (isFull) throw new IsovecError('QUOTA_EXCEEDED', 'the disk is full')
    onSegment()
    return run()
  })
  const db = await openDatabase(backend)
  const docs = await db.createCollection('docs', { ...options, dimension: 2 })
  await docs.upsert([
    { id: 'gone', vector: [1, 0] },
    { id: 'twice', vector: [0, 1], payload: { v: 1 } },
    { id: 'kept', vector: [1, 1] },
  ])
  room = 'none'
  await expect(docs.flush()).rejects.toMatchObject({ code: 'QUOTA_EXCEEDED' })
  await docs.delete('gone')
  await docs.upsert({ id: 'twice', vector: [0, 1], payload: { v: 2 } })
  const abort = new AbortController()
  room = 'after one'
  onSegment = () => {
    abort.abort()
    room = 'none'
  }
  await expect(docs.compact({ signal: abort.signal })).rejects.toThrow()
  const expected = digestOf(await readContents(docs))
  await db.close()
  const image = store.image()
  for (const { name, bytes } of ofKind(image, 'seg')) {
    for (const section of sectionsOf(bytes).filter(({ length }) => length > 0)) {
      const bit = (section.offset + (section.length >> 1)) * 8 + 3
      const { docs: found, db: again } = await opened(memoryBackend(changed(image, 1, name, flipped(bytes, bit))))
      await found.search({ vector: [1, 0] })
      expect(digestOf(await readContents(found)), `section ${section.id}`).toBe(expected)
      expect(await found.has('gone')).toBe(false)
      await again.close()
    }
  }
})
