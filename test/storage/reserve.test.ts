import * as fc from 'fast-check'
import { describe, expect, it, onTestFinished } from 'vitest'
import { type FaultyBackend, faultyBackend } from '../../src/directory/faulty.ts'
import { memoryBackend, type StoreImage } from '../../src/directory/memory.ts'
import { type Collection, type Database, openDatabase, type StorageBackend } from '../../src/index.ts'
import { reserveSizeFor } from '../../src/storage/reserve.ts'
import { expectFailure, failureOf } from '../support/failure.ts'
import { runs } from '../support/property.ts'

type Doc = { id: string; vector: number[]; payload: { text: string } }
type Model = Map<string, number>

const dimension = 64
const options = { dimension, metric: 'euclidean', compaction: 'manual', index: 'manual' } as const

function doc(id: string, value: number, textLength: number): Doc {
  return {
    id,
    vector: Array.from({ length: dimension }, (_, i) => (i === 0 ? value : i)),
    payload: { text: 'x'.repeat(textLength) },
  }
}

async function opened(backend: StorageBackend): Promise<Database> {
  const database = await openDatabase(backend)
  onTestFinished(() => database.close())
  return database
}

async function contentOf(collection: Collection): Promise<Model> {
  const content: Model = new Map()
  for await (const { id, vector } of collection.iterate()) content.set(id, vector![0]!)
  return content
}

/**
 * Upserts in ever smaller pieces until not even the smallest fits. Returns what was acknowledged.
 * @param flushes the numbers of batches after which to flush
 */
async function fillUp(collection: Collection, textLength: number, flushes: readonly number[] = []): Promise<Model> {
  const model: Model = new Map()
  for (let size = 16, batch = 0; size > 0; batch++) {
    const docs = Array.from({ length: size }, (_, i) => doc(`${batch}-${i}`, batch, textLength))
    try {
      await collection.upsert(docs)
    } catch (error) {
      expect(error).toMatchObject({ code: 'QUOTA_EXCEEDED', outcome: 'none' })
      size = size >> 1
      continue
    }
    for (const { id } of docs) model.set(id, batch)
    if (flushes.includes(batch)) await collection.flush()
  }
  return model
}

/** Another program takes all the room that is left. */
async function fillWithOthers(backend: StorageBackend): Promise<void> {
  const file = await (await backend.open({ create: false })).create('other.bin')
  await expect(file.append(new Uint8Array(1 << 24))).rejects.toMatchObject({ code: 'QUOTA_EXCEEDED' })
  await file.close()
}

async function deleteMost(collection: Collection, model: Model): Promise<void> {
  const ids = [...model.keys()].filter((_, i) => i % 32 !== 0)
  for (let from = 0; from < ids.length; from += 50) {
    const some = ids.slice(from, from + 50)
    expect(await collection.delete(some)).toBe(some.length)
    for (const id of some) model.delete(id)
  }
}

async function expectRecovered(image: StoreImage, model: Model): Promise<void> {
  const database = await openDatabase(memoryBackend(image))
  try {
    expect(await contentOf(await database.openCollection('c'))).toEqual(model)
  } finally {
    await database.close()
  }
}

function reserveSize(backend: FaultyBackend): number {
  const files = [...(backend.image().root ?? [])].filter(([name]) => name.endsWith('.reserve'))
  return files.reduce((sum, [, bytes]) => sum + bytes.length, 0)
}

describe('on a full disk', () => {
  it('reads and deletes go on, compaction gives room, and nothing that was acknowledged is lost', async () => {
    const cases = fc.record({
      capacity: fc.integer({ min: 300_000, max: 900_000 }),
      textLength: fc.constantFrom(0, 200, 2000),
      flushes: fc.constantFrom([], [0], [0, 1, 2]),
    })
    await fc.assert(
      fc.asyncProperty(cases, async ({ capacity, textLength, flushes }) => {
        const backend = faultyBackend({ capacity })
        const database = await openDatabase(backend)
        const collection = await database.createCollection('c', options)
        const model = await fillUp(collection, textLength, flushes)
        expect(model.size).toBeGreaterThan(20)
        expect(await contentOf(collection)).toEqual(model)

        await deleteMost(collection, model)
        await expectRecovered(backend.crashImage({ kind: 'power', choose: () => 0 }), model)
        await collection.compact()
        const before = model.size
        for (let i = 0; i < 40; i++) {
          await collection.upsert(doc(`new${i}`, -i, Math.min(textLength, 200)))
          model.set(`new${i}`, -i)
        }
        expect(model.size).toBe(before + 40)
        expect(await contentOf(collection)).toEqual(model)
        await expectRecovered(backend.crashImage({ kind: 'process' }), model)
        await database.close()
        await expectRecovered(backend.image(), model)
      }),
      runs(12),
    )
  })

  it('a collection can be dropped, which gives its room to others', async () => {
    const backend = faultyBackend({ capacity: 500_000 })
    const database = await opened(backend)
    const collection = await database.createCollection('c', options)
    const other = await database.createCollection('other', options)
    await other.upsert(Array.from({ length: 100 }, (_, i) => doc(`${i}`, i, 1000)))
    await collection.upsert(doc('a', 1, 300))
    await fillWithOthers(backend)
    await expectFailure(database.createCollection('third', options), 'QUOTA_EXCEEDED')
    await expectFailure(collection.upsert(doc('b', 2, 500)), 'QUOTA_EXCEEDED', { outcome: 'none' })
    await database.dropCollection('other')
    expect(await database.listCollections()).toEqual(['c'])
    await collection.upsert(doc('b', 3, 500))
    expect(await contentOf(collection)).toEqual(
      new Map([
        ['a', 1],
        ['b', 3],
      ]),
    )
  })

  it('deletes that wait beside upserts are done without them', async () => {
    const backend = faultyBackend({ capacity: 300_000 })
    const database = await opened(backend)
    const collection = await database.createCollection('c', options)
    const model = await fillUp(collection, 300)
    const [a, b] = [...model.keys()] as [string, string]
    const refused = [collection.upsert(doc(a, -1, 9000)), collection.upsert(doc('new', -1, 9000))]
    const deleted = [collection.delete(a), collection.delete(b), collection.delete('nobody')]
    for (const each of refused) await expectFailure(each, 'QUOTA_EXCEEDED', { outcome: 'none' })
    expect(await Promise.all(deleted)).toEqual([1, 1, 0])
    model.delete(a)
    model.delete(b)
    expect(await contentOf(collection)).toEqual(model)
  })

  it('the log ends cleanly', async () => {
    const backend = faultyBackend({ capacity: 300_000 })
    const database = await openDatabase(backend)
    const collection = await database.createCollection('c', options)
    await collection.upsert([doc('a', 1, 300), doc('b', 2, 300)])
    const model = new Map([
      ['a', 1],
      ['b', 2],
    ])
    await fillWithOthers(backend)
    await database.close()
    const before = backend.changes.length
    const again = await opened(backend)
    expect(await contentOf(await again.openCollection('c'))).toEqual(model)
    // After a clean end opening writes nothing.
    expect(backend.changes.slice(before).filter(({ kind }) => kind === 'append')).toEqual([])
  })

  it('a collection whose process was killed can be read, and written once there is room', async () => {
    const first = faultyBackend({ capacity: 500_000 })
    const database = await openDatabase(first)
    await (await database.createCollection('other', options)).upsert(
      Array.from({ length: 100 }, (_, i) => doc(`${i}`, i, 2500)),
    )
    const model = await fillUp(await database.createCollection('c', options), 300)
    // The reserve is gone too, as it would be if another program had filled the disk.
    const image = first.crashImage({ kind: 'process' })
    const root = new Map([...image.root!].filter(([name]) => !name.endsWith('.reserve')))
    await database.close()
    const size = [root, ...image.directories.values()]
      .flatMap((files) => [...files.values()])
      .reduce((sum, { length }) => sum + length, 0)

    const backend = faultyBackend({ image: { ...image, root }, capacity: size + 20_000 })
    const again = await opened(backend)
    const collection = await again.openCollection('c')
    expect(await contentOf(collection)).toEqual(model)
    await expectFailure(collection.upsert(doc('new', 1, 0)), 'QUOTA_EXCEEDED', { outcome: 'none' })
    await expectFailure(collection.delete('0-0'), 'QUOTA_EXCEEDED', { outcome: 'none' })
    expect(await contentOf(collection)).toEqual(model)
    await again.dropCollection('other')
    await collection.upsert(doc('new', 1, 0))
    await collection.delete('0-0')
    model.set('new', 1).delete('0-0')
    expect(await contentOf(collection)).toEqual(model)
    await expectRecovered(backend.crashImage({ kind: 'power', choose: () => 0 }), model)
  })
})

describe('the reserve', () => {
  it('is a share of the largest collection between 64 KiB and 4 MiB', () => {
    expect(reserveSizeFor(0)).toBe(65_536)
    expect(reserveSizeFor(1 << 20)).toBe(1 << 17)
    expect(reserveSizeFor((1 << 20) + 1)).toBe(1 << 18)
    expect(reserveSizeFor(2 ** 40)).toBe(1 << 22)
  })

  it('is made by the first row, grows with what is stored, and is found again', async () => {
    const backend = faultyBackend()
    const database = await openDatabase(backend)
    for (let i = 0; i < 20; i++) await database.createCollection(`c${i}`, options)
    expect(reserveSize(backend)).toBe(0)
    const collection = await database.openCollection('c7')
    await collection.delete('nobody')
    expect(reserveSize(backend)).toBe(0)
    await collection.upsert(doc('a', 1, 0))
    await (await database.openCollection('c8')).upsert(doc('a', 1, 0))
    expect(reserveSize(backend)).toBe(65_536)
    await collection.upsert(Array.from({ length: 100 }, (_, i) => doc(`${i}`, i, 11_000)))
    expect(reserveSize(backend)).toBe(262_144)
    await database.close()
    const again = await opened(backend)
    const before = backend.changes.length
    await (await again.openCollection('c8')).upsert(doc('b', 1, 0))
    expect(reserveSize(backend)).toBe(262_144)
    expect(
      backend.changes.slice(before).filter((change) => 'name' in change && change.name.endsWith('.reserve')),
    ).toEqual([])
  })

  it('holds what does not compress', async () => {
    const backend = faultyBackend()
    const collection = await (await opened(backend)).createCollection('c', options)
    await collection.upsert(Array.from({ length: 100 }, (_, i) => doc(`${i}`, i, 11_000)))
    const [bytes] = [...backend.image().root!].filter(([name]) => name.endsWith('.reserve')).map(([, each]) => each)
    const { deflateSync } = await import('node:zlib')
    expect(deflateSync(bytes!).length).toBeGreaterThan(bytes!.length * 0.99)
  })

  it('that fails to be made fails the write and no more', async () => {
    const backend = faultyBackend({ fault: { at: 0, error: 'EIO', on: ['sync'] } })
    const database = await openDatabase(backend).catch(() => openDatabase(backend))
    onTestFinished(() => database.close())
    const collection = await database.createCollection('c', options)
    await collection.upsert(doc('a', 1, 0))
    expect(await collection.count()).toBe(1)

    const failing = faultyBackend({ image: backend.image(), fault: { at: 0, error: 'EIO', on: ['append'] } })
    const root = new Map([...backend.image().root!].filter(([name]) => !name.endsWith('.reserve')))
    const second = faultyBackend({
      image: { ...failing.image(), root },
      fault: { at: 12, error: 'EIO', on: ['append'] },
    })
    const again = await opened(second)
    const reopened = await again.openCollection('c')
    const failure = await failureOf(reopened.upsert(doc('b', 1, 0)))
    expect(failure).toMatchObject({ code: 'IO', outcome: 'none' })
    await reopened.upsert(doc('b', 2, 0))
    expect(await contentOf(reopened)).toEqual(
      new Map([
        ['a', 1],
        ['b', 2],
      ]),
    )
  })
})
