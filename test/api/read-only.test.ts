import { readdir, readlink, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { faultyBackend } from '../../src/directory/faulty.ts'
import { memoryBackend } from '../../src/directory/memory.ts'
import { nodeBackend } from '../../src/directory/node.ts'
import type { Collection, CollectionOptions, Database, StorageBackend } from '../../src/index.ts'
import { openDatabase } from '../../src/index.ts'
import { temporaryFolder } from '../support/folder.ts'
import { digestOf } from '../support/history.ts'
import { readContents } from '../support/recovered.ts'
import { type StoreKind, storeAt, storeKinds } from '../support/store.ts'
import { normalVector, randomNumbers } from '../support/vectors.ts'

type Payload = { n: number }

const manual: CollectionOptions = { dimension: 4, metric: 'euclidean', compaction: 'manual', index: 'manual' }
const random = randomNumbers(31)
const documents = (prefix: string, count: number) =>
  Array.from({ length: count }, (_, n) => ({ id: `${prefix}${n}`, vector: normalVector(4, random), payload: { n } }))

async function newPlace(kind: StoreKind): Promise<StorageBackend> {
  return kind === 'memory' ? memoryBackend() : nodeBackend(join(await temporaryFolder(), 'data'))
}

/** A writer with one collection: a segment, and more in the log. */
async function written(place: StorageBackend): Promise<{ writer: Database; docs: Collection<Payload> }> {
  const writer = await storeAt(place).open()
  const docs = await writer.createCollection<Payload>('docs', manual)
  await docs.upsert(documents('a', 20))
  await docs.flush()
  await docs.upsert(documents('b', 5))
  await docs.patch('a1', { n: 100 })
  await docs.delete('a2')
  return { writer, docs }
}

async function reader(place: StorageBackend): Promise<Database> {
  return storeAt(place).open({ readOnly: true })
}

describe.each(storeKinds)('a reader beside a writer, %s', (kind) => {
  test('sees what was acknowledged when it opened, and after refresh what is acknowledged then', async () => {
    const place = await newPlace(kind)
    const { docs } = await written(place)
    const db = await reader(place)
    const seen = await db.openCollection<Payload>('docs')
    const contents = digestOf(await readContents(docs))
    expect(digestOf(await readContents(seen))).toBe(contents)
    expect(await seen.count({ n: 100 })).toBe(1)
    expect((await seen.search({ vector: [0, 0, 0, 1], k: 3 })).hits).toEqual(
      (await docs.search({ vector: [0, 0, 0, 1], k: 3 })).hits,
    )

    await docs.upsert({ id: 'new', vector: [9, 9, 9, 9], payload: { n: 7 } })
    await docs.delete('b0')
    await docs.flush()
    await docs.compact()
    await docs.patch('a3', { n: 200 })
    expect(digestOf(await readContents(seen))).toBe(contents)
    expect([await seen.has('new'), await seen.has('b0'), await seen.count()]).toEqual([false, true, 24])

    await db.refresh()
    expect(digestOf(await readContents(seen))).toBe(digestOf(await readContents(docs)))
    expect([await seen.has('new'), await seen.has('b0'), await seen.count({ n: 200 })]).toEqual([true, false, 1])
  })

  test('ends what it began before a refresh on the state of then', async () => {
    const place = await newPlace(kind)
    const { docs } = await written(place)
    const db = await reader(place)
    const seen = await db.openCollection<Payload>('docs')
    const before = await readContents(seen)
    const loop = seen.iterate({ batchSize: 3 })
    const found = [(await loop.next()).value!.id]
    await docs.deleteWhere({ n: { $gte: 0 } })
    await docs.compact()
    const early = seen.search({ vector: [1, 0, 0, 0], k: 5 })
    await db.refresh()
    expect((await early).hits).toHaveLength(5)
    for await (const { id } of loop) found.push(id)
    expect(found.sort()).toEqual([...before.keys()].sort())
    expect(await seen.count()).toBe(0)
  })

  test('follows collections that are made, renamed and dropped', async () => {
    const place = await newPlace(kind)
    const { writer, docs } = await written(place)
    const other = await writer.createCollection('other', manual)
    const db = await reader(place)
    const seen = await db.openCollection('docs')
    const gone = await db.openCollection('other')
    await writer.createCollection('third', manual)
    await writer.renameCollection('docs', 'papers')
    await writer.dropCollection('other')
    expect(other.name).toBe('other')
    expect(await db.listCollections()).toEqual(['docs', 'other'])
    await db.refresh()
    expect(await db.listCollections()).toEqual(['papers', 'third'])
    expect(seen.name).toBe('papers')
    expect(await seen.count()).toBe(await docs.count())
    await expect(gone.count()).rejects.toMatchObject({ code: 'CLOSED' })
    await expect(db.openCollection('other')).rejects.toMatchObject({ code: 'COLLECTION_NOT_FOUND' })
  })

  test('is told where the writer has taken away what it has not read yet, and can move on', async () => {
    const place = await newPlace(kind)
    const { writer, docs } = await written(place)
    await docs.upsert(documents('c', 2000))
    await docs.buildIndex()
    const late = await writer.createCollection('late', manual)
    await late.upsert({ id: 'x', vector: [1, 1, 1, 1] })
    const db = await reader(place)
    const seen = await db.openCollection('docs')
    const before = await seen.count()
    // The graph of what the reader sees is replaced twice, so that no kept generation names it.
    await docs.buildIndex({ M: 8 })
    await docs.buildIndex({ M: 12 })
    await writer.dropCollection('late')
    await expect(seen.search({ vector: [0, 1, 0, 0] })).rejects.toMatchObject({ code: 'STALE_READER' })
    await expect(db.openCollection('late')).rejects.toMatchObject({ code: 'STALE_READER', collection: 'late' })
    expect(await seen.count()).toBe(before)
    await db.refresh()
    expect((await seen.search({ vector: [0, 1, 0, 0] })).plan).not.toBe('scan')
    await expect(db.openCollection('late')).rejects.toMatchObject({ code: 'COLLECTION_NOT_FOUND' })
  })

  test('finds whole states only, whatever the writer does meanwhile', { timeout: 120_000 }, async () => {
    const place = await newPlace(kind)
    const writer = await storeAt(place).open()
    const docs = await writer.createCollection<Payload>('docs', manual)
    const states = [digestOf(await readContents(docs))]
    let acknowledged = 0
    let isDone = false
    const work = (async () => {
      for (let round = 0; round < 60; round++) {
        await docs.write([
          ...documents(`r${round % 7}-`, 4).map((doc) => ({ upsert: doc })),
          { delete: `r${(round + 3) % 7}-1` },
          { patch: { id: `r${(round + 5) % 7}-2`, payload: { n: round } } },
        ])
        states.push(digestOf(await readContents(docs)))
        acknowledged = states.length - 1
        if (round % 3 === 0) await docs.flush()
        if (round % 10 === 9) await docs.compact()
      }
      isDone = true
    })()
    const db = await reader(place)
    const seen = await db.openCollection('docs')
    let refreshes = 0
    let moved = 0
    while (!isDone) {
      const least = acknowledged
      await db.refresh()
      const found = states.indexOf(digestOf(await readContents(seen)), least)
      // A batch that is in the log may be seen a moment before it is acknowledged, and before its digest is taken down.
      if (found < 0) {
        const again = digestOf(await readContents(seen))
        await expect.poll(() => states.indexOf(again, least)).toBeGreaterThanOrEqual(least)
      } else if (found > 0) moved++
      refreshes++
    }
    await work
    await db.refresh()
    expect(digestOf(await readContents(seen))).toBe(states.at(-1))
    expect(refreshes).toBeGreaterThan(5)
    expect(moved).toBeGreaterThan(2)
  })
})

/** Every file below a folder with its size and time of change. */
async function statusOf(folder: string): Promise<unknown> {
  const names = (await readdir(folder, { recursive: true })).sort()
  return Promise.all(
    names.map(async (name) => {
      const { size, mtimeMs } = await stat(join(folder, name))
      return [name, size, mtimeMs]
    }),
  )
}

describe('a reader', () => {
  test.each(['closed', 'crashed'] as const)('changes nothing of a database that was %s', async (end) => {
    const place = memoryBackend()
    const { writer, docs } = await written(place)
    const contents = digestOf(await readContents(docs))
    const crashed = place.image()
    await writer.close()
    const store = faultyBackend({ image: end === 'crashed' ? crashed : place.image() })
    const db = await openDatabase(store, { readOnly: true })
    const seen = await db.openCollection<Payload>('docs')
    expect(digestOf(await readContents(seen))).toBe(contents)
    await seen.search({ vector: [1, 2, 3, 4], filter: { n: { $lt: 5 } } })
    await db.refresh()
    expect(await seen.stats()).toMatchObject({ docs: 24, deleted: 1 })
    await db.close()
    expect(store.changes).toEqual([])
  })

  test('leaves a folder as it is, takes no lock and needs none', async () => {
    const folder = join(await temporaryFolder(), 'data')
    const { writer } = await written(nodeBackend(folder))
    await writer.close()
    const before = await statusOf(folder)
    const first = await openDatabase(folder, { readOnly: true })
    const second = await openDatabase(folder, { readOnly: true })
    expect(await (await first.openCollection('docs')).count()).toBe(24)
    expect(await (await second.openCollection('docs')).count()).toBe(24)
    expect(await first.info()).toMatchObject({ role: 'reader', lock: 'none' })
    expect(await statusOf(folder)).toEqual(before)
    const third = await openDatabase(folder)
    expect(await third.info()).toMatchObject({ role: 'writer' })
    await third.close()
    await Promise.all([first.close(), second.close()])
  })

  test('refuses whatever changes something', async () => {
    const place = memoryBackend()
    const { writer } = await written(place)
    await writer.close()
    const db = await openDatabase(place, { readOnly: true })
    onTestFinished(() => db.close())
    const docs = await db.openCollection<Payload>('docs')
    const vector = [1, 2, 3, 4]
    const calls: [string, () => Promise<unknown>][] = [
      ['upsert', () => docs.upsert({ id: 'x', vector })],
      ['write', () => docs.write([{ delete: 'a0' }])],
      ['delete', () => docs.delete('a0')],
      ['patch', () => docs.patch('a0', { n: 1 })],
      ['deleteWhere', () => docs.deleteWhere({ n: 1 })],
      ['ingest', () => docs.ingest([{ id: 'x', vector }])],
      ['flush', () => docs.flush()],
      ['sync', () => docs.sync()],
      ['compact', () => docs.compact()],
      ['buildIndex', () => docs.buildIndex()],
      ['dropIndex', () => docs.dropIndex()],
      ['configure', () => docs.configure({ durability: 'buffered' })],
      ['createCollection', () => db.createCollection('other', manual)],
      ['renameCollection', () => db.renameCollection('docs', 'other')],
      ['dropCollection', () => db.dropCollection('docs')],
    ]
    for (const [name, call] of calls) await expect(call(), name).rejects.toMatchObject({ code: 'READ_ONLY' })
    await expect(docs.upsert({ id: 'x', vector })).rejects.toMatchObject({ outcome: 'none' })
    expect(await docs.count()).toBe(24)
    expect((await db.createCollection('docs', { ...manual, ifExists: 'open' })).name).toBe('docs')
  })

  test('moves on as a whole or not at all', async () => {
    const place = memoryBackend()
    const writer = await openDatabase(place)
    for (const name of ['a', 'b']) await (await writer.createCollection(name, manual)).upsert(documents(name, 2))
    const db = await reader(place)
    const [a, b] = [await db.openCollection('a'), await db.openCollection('b')]
    const log = await place.directory(1, { create: false })
    await (await writer.openCollection('b')).upsert(documents('more', 1))
    await writer.renameCollection('b', 'z')
    for (const name of await log.list()) if (name.endsWith('.wal')) await log.remove(name)
    await expect(db.refresh()).rejects.toMatchObject({ code: 'CORRUPTION' })
    expect(await db.listCollections()).toEqual(['a', 'b'])
    expect([await a.count(), await b.count(), b.name]).toEqual([2, 2, 'b'])
    await writer.close().catch(() => {})
  })

  test('closes what it still holds of replaced states', async () => {
    const folder = join(await temporaryFolder(), 'data')
    const { writer, docs } = await written(nodeBackend(folder))
    const openSegments = async (): Promise<number> => {
      const names = await Promise.all(
        (await readdir('/proc/self/fd')).map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => '')),
      )
      return names.filter((name) => name.startsWith(folder) && name.includes('.seg')).length
    }
    const before = await openSegments()
    const db = await openDatabase(folder, { readOnly: true })
    const seen = await db.openCollection('docs')
    const loop = seen.iterate({ batchSize: 1 })
    await loop.next()
    await docs.compact()
    await docs.compact()
    await db.refresh()
    await db.close()
    await writer.close()
    expect([before, await openSegments()]).toEqual([1, 0])
  })

  test('finds no database where there is none, and makes none', async () => {
    const folder = join(await temporaryFolder(), 'data')
    await expect(openDatabase(folder, { readOnly: true })).rejects.toMatchObject({ code: 'NOT_FOUND' })
    await expect(stat(folder)).rejects.toMatchObject({ code: 'ENOENT' })
    await expect(openDatabase(memoryBackend(), { readOnly: true })).rejects.toMatchObject({ code: 'NOT_FOUND' })
    const empty = await temporaryFolder()
    await expect(openDatabase(empty, { readOnly: true })).rejects.toMatchObject({ code: 'NOT_FOUND' })
    expect(await readdir(empty)).toEqual([])
    await expect(openDatabase(':memory:', { readOnly: true, mustExist: false })).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
      field: 'options.mustExist',
    })
  })

  test('of a database that is closed is closed, and a writer may refresh, too', async () => {
    const place = memoryBackend()
    const { writer, docs } = await written(place)
    await writer.refresh()
    expect(await docs.count()).toBe(24)
    const db = await reader(place)
    const seen = await db.openCollection('docs')
    await db.close()
    await expect(db.refresh()).rejects.toMatchObject({ code: 'CLOSED' })
    await expect(seen.count()).rejects.toMatchObject({ code: 'CLOSED' })
    expect(await docs.count()).toBe(24)
  })
})
