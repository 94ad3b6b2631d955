import { setTimeout as wait } from 'node:timers/promises'
import * as fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import type { StorageBackend } from '../../src/directory/directory.ts'
import { faultyBackend } from '../../src/directory/faulty.ts'
import { memoryBackend, type StoreImage } from '../../src/directory/memory.ts'
import type { Collection, CollectionOptions } from '../../src/index.ts'
import { openDatabase } from '../../src/index.ts'
import { Slice } from '../../src/slice.ts'
import { Tombstones } from '../../src/storage/tombstones.ts'
import { changed, filesOf, flipped, ofKind, sectionsOf } from '../support/damage.ts'
import { digestOf } from '../support/history.ts'
import { runs } from '../support/property.ts'
import { readContents } from '../support/recovered.ts'
import { seed, seedCrypto } from '../support/seed.ts'
import { trackedBackend } from '../support/tracked-backend.ts'

let restoreCrypto: () => void
beforeAll(() => {
  restoreCrypto = seedCrypto(seed)
})
afterAll(() => restoreCrypto())

const options: CollectionOptions = { dimension: 4, metric: 'euclidean', index: 'manual', compaction: 'manual' }
const documents = (prefix: string, count: number) =>
  Array.from({ length: count }, (_, i) => ({
    id: `${prefix}${i}`,
    vector: [i, 1, 2, 3],
    payload: { text: 'x'.repeat(99) },
  }))

async function opened(backend: StorageBackend) {
  const db = await openDatabase(backend)
  onTestFinished(() => db.close())
  return { db, docs: await db.openCollection('docs') }
}

async function created(backend: StorageBackend) {
  const db = await openDatabase(backend)
  onTestFinished(() => db.close())
  return { db, docs: await db.createCollection('docs', options) }
}

function sizeOf(image: StoreImage): number {
  return filesOf(image).reduce((sum, { bytes }) => sum + bytes.length, 0)
}

describe('closing', () => {
  test('leaves no file open and removes nothing once the lock is given back', async () => {
    const tracked = trackedBackend(memoryBackend())
    const { db, docs } = await created(tracked.backend)
    for (const prefix of ['a', 'b']) {
      await docs.upsert(documents(prefix, 20))
      await docs.flush()
    }
    // Somebody who never comes back holds the segments, which are replaced meanwhile.
    const abandoned = docs.iterate()[Symbol.asyncIterator]()
    await abandoned.next()
    await docs.compact()
    await docs.configure({ durability: 'buffered' })
    await docs.upsert(documents('c', 1))
    await db.close()
    expect(tracked.openAtRelease).toBe(0)
    await expect(abandoned.next()).rejects.toMatchObject({ code: 'CLOSED' })
    await wait(20)
    expect(tracked.callsAfterRelease).toBe(0)
    expect(tracked.openCount).toBe(0)
  })
})

describe('opening', () => {
  test('succeeds where strays cannot be removed, and removes them when they can', async () => {
    const store = memoryBackend()
    const { db, docs } = await created(store)
    await docs.upsert(documents('a', 5))
    await docs.flush()
    await db.close()
    let image = store.image()
    const manifest = ofKind(image, 'manifest')[0]!
    image = changed(image, undefined, '1.manifest', manifest.bytes)
    image = changed(image, 1, '90.seg', new Uint8Array(10))
    image = { ...image, directories: new Map(image.directories).set(7, new Map([['1.wal', new Uint8Array(3)]])) }
    const strewn = memoryBackend(image)
    const tracked = trackedBackend(strewn)
    tracked.refusesRemoval = true
    const first = await opened(tracked.backend)
    expect(await first.docs.count()).toBe(5)
    await first.db.close()
    expect(filesOf(strewn.image()).map(({ name }) => name)).toContain('90.seg')
    tracked.refusesRemoval = false
    // What was clean when it was closed is swept when it is opened.
    const second = await opened(tracked.backend)
    await second.db.close()
    const names = filesOf(strewn.image()).map(({ directory, name }) => `${directory ?? ''}/${name}`)
    for (const stray of ['/1.manifest', '1/90.seg', '7/1.wal']) expect(names).not.toContain(stray)
  })

  test('leaves nothing open where it fails', async () => {
    const store = memoryBackend()
    const { db, docs } = await created(store)
    for (const prefix of ['a', 'b', 'c']) {
      await docs.upsert(documents(prefix, 20))
      await docs.flush()
    }
    await docs.upsert(documents('d', 3))
    await db.close()
    const image = store.image()
    const oldest = ofKind(image, 'seg')[0]!
    const ids = sectionsOf(oldest.bytes).find(({ id }) => id === 2)!
    const tracked = trackedBackend(memoryBackend(changed(image, 1, oldest.name, flipped(oldest.bytes, ids.offset * 8))))
    const again = await openDatabase(tracked.backend)
    onTestFinished(() => again.close())
    const before = (await again.info()).memoryBytes
    await expect(again.openCollection('docs')).rejects.toMatchObject({ code: 'CORRUPTION', file: oldest.name })
    expect(tracked.openCount).toBe(0)
    expect((await again.info()).memoryBytes).toBe(before)
  })

  test('on a full disk leaves nothing behind and everything readable', async () => {
    const store = memoryBackend()
    const { docs } = await created(store)
    await docs.upsert(documents('a', 200))
    await docs.flush()
    await docs.upsert(documents('b', 200))
    await docs.delete(['a1', 'b1'])
    const contents = digestOf(await readContents(docs))
    const image = store.image()
    const own = (files: StoreImage) => filesOf(files).filter(({ directory }) => directory === 1)
    // From no room at all to enough for all but the last bytes of the log and the manifest that names it.
    const log = ofKind(image, 'wal').at(-1)!.bytes.length
    const rooms = [0, 64, 128, 1000, log - 1, log, log + 100, log + 300]
    for (const room of rooms) {
      let files = changed(image, undefined, '1.reserve', undefined)
      for (let opening = 0; opening < 3; opening++) {
        const backend = faultyBackend({ image: files, capacity: sizeOf(files) + room })
        const { db, docs } = await opened(backend)
        expect(digestOf(await readContents(docs)), `${room}`).toBe(contents)
        await expect(docs.upsert(documents('c', 100)), `${room}`).rejects.toMatchObject({
          code: 'QUOTA_EXCEEDED',
          outcome: 'none',
        })
        expect(digestOf(await readContents(docs)), `${room}`).toBe(contents)
        await db.close()
        files = backend.image()
        expect(
          own(files).map(({ name }) => name),
          `${room}`,
        ).toEqual(own(image).map(({ name }) => name))
      }
      const { db, docs } = await opened(memoryBackend(files))
      await docs.upsert(documents('c', 1))
      await docs.delete('c0')
      expect(digestOf(await readContents(docs))).toBe(contents)
      await db.close()
    }
  })
})

describe('a snapshot', () => {
  test('that was taken for a call which is aborted is let go of', async () => {
    for (let ticks = 0; ticks < 40; ticks++) {
      const store = memoryBackend()
      const { db, docs } = await created(store)
      for (const prefix of ['a', 'b']) {
        await docs.upsert(documents(prefix, 3))
        await docs.flush()
      }
      const controller = new AbortController()
      void docs.upsert(documents('c', 1))
      const walk = docs.iterate({ signal: controller.signal })[Symbol.asyncIterator]()
      const step = walk.next().then(
        () => walk.return?.(),
        () => {},
      )
      for (let tick = 0; tick < ticks; tick++) await undefined
      controller.abort()
      await step
      await docs.compact()
      await docs.configure({ durability: 'buffered' })
      await wait(0)
      expect(ofKind(store.image(), 'seg'), `${ticks} ticks`).toHaveLength(1)
      await db.close()
    }
  })
})

describe('what an option says does not hang on one manifest', () => {
  const changes: Record<string, { change: (docs: Collection) => Promise<unknown>; state: object }> = {
    configure: {
      change: (docs) => docs.configure({ durability: 'buffered', compaction: 'auto' }),
      state: { durability: 'buffered', compaction: 'auto' },
    },
    buildIndex: {
      change: (docs) => docs.buildIndex({ M: 7, efConstruction: 33 }),
      state: { hnsw: { M: 7, efConstruction: 33 } },
    },
  }
  test.each(Object.entries(changes))('%s', async (_, { change, state }) => {
    const store = memoryBackend()
    const { db, docs } = await created(store)
    await docs.upsert(documents('a', 5))
    await change(docs)
    await db.close()
    const { docs: again } = await opened(memoryBackend(withoutNewest(store.image())))
    expect(again.options).toMatchObject(state)
    expect(await again.count()).toBe(5)
  })

  test('dropIndex', async () => {
    const store = memoryBackend()
    const { db, docs } = await created(store)
    await docs.upsert(documents('a', 1100))
    await docs.buildIndex()
    await docs.dropIndex()
    await db.close()
    const { docs: again } = await opened(memoryBackend(withoutNewest(store.image())))
    expect(await again.hasIndex()).toBe(false)
    expect((await again.stats()).indexBytes).toBe(0)
  })

  function withoutNewest(image: StoreImage): StoreImage {
    return changed(image, 1, ofKind(image, 'manifest').at(-1)!.name, undefined)
  }
})

test('tombstones are what a list of them is', async () => {
  const row = fc.oneof(fc.nat(20), fc.nat(5000), fc.nat(2 ** 22))
  await fc.assert(
    fc.asyncProperty(fc.array(fc.tuple(row, fc.integer({ min: 1, max: 50 }))), fc.nat(51), async (deaths, sequence) => {
      const tombstones = new Tombstones()
      const model = new Map<number, number>()
      for (const [dead, died] of deaths) {
        expect(tombstones.add(dead, died)).toBe(!model.has(dead))
        if (!model.has(dead)) model.set(dead, died)
      }
      const all = [...model]
      expect(tombstones.count).toBe(all.length)
      expect([...tombstones.entries()]).toEqual(all)
      const early = all.filter(([, died]) => died <= sequence)
      expect(tombstones.countUpTo(sequence)).toBe(early.length)
      const words = early.toSorted((a, b) => a[0] - b[0]).flatMap(([dead, died]) => [dead, 0, died, 0])
      expect([...(await tombstones.encode(sequence, new Slice()))]).toEqual(words)
      for (const [dead, died] of deaths) {
        for (const probe of [dead, dead + 1, Math.max(0, dead - 1)]) {
          expect(tombstones.isDead(probe, died)).toBe((model.get(probe) ?? 99) <= died)
        }
      }
    }),
    runs(300),
  )
})
