import { execFile } from 'node:child_process'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, onTestFinished, test } from 'vitest'
import { seededChoice } from '../../src/directory/crash-image.ts'
import { nodeBackend } from '../../src/directory/node.ts'
import { type Collection, type Database, openDatabase } from '../../src/index.ts'
import { bundleForChild } from '../support/bundle.ts'
import { Child } from '../support/child.ts'
import { expectFailure } from '../support/failure.ts'
import { temporaryFolder } from '../support/folder.ts'
import { seed } from '../support/seed.ts'
import { collectionOptions, documentOf, type Payload } from './full.ts'
import type { Message } from './full-child.ts'

type Docs = Collection<Payload>
/** The value of each document by its id. */
type Model = Map<string, number>

const run = promisify(execFile)

/** Mounts a small file system for the length of the test. Returns where, or undefined where that is not allowed. */
async function smallDisk(mebibytes: number): Promise<string | undefined> {
  const path = join(await temporaryFolder(), 'disk')
  await mkdir(path)
  try {
    await run('mount', ['-t', 'tmpfs', '-o', `size=${mebibytes}m`, 'tmpfs', path])
  } catch (error) {
    console.log(`disk full: not tried, since no file system can be mounted here (${(error as Error).message.trim()})`)
    return undefined
  }
  onTestFinished(async () => {
    await run('umount', [path])
  })
  return join(path, 'data')
}

async function opened(path: string): Promise<Database> {
  const database = await openDatabase(nodeBackend(path), { lockTimeout: 10_000 })
  onTestFinished(() => database.close())
  return database
}

/** Upserts in ever smaller pieces until not even a single document fits. Returns what was acknowledged. */
async function fillUp(collection: Docs, prefix: string): Promise<Model> {
  const model: Model = new Map()
  for (let size = 128, batch = 0; size > 0; batch++) {
    const docs = Array.from({ length: size }, (_, i) => documentOf(`${prefix}${batch}-${i}`, batch))
    try {
      await collection.upsert(docs)
      for (const { id } of docs) model.set(id, batch)
    } catch (error) {
      expect(error).toMatchObject({ code: 'QUOTA_EXCEEDED' })
      size >>= 1
    }
  }
  return model
}

/** Reads everything in every way. */
async function expectContents(collection: Docs, model: ReadonlyMap<string, number>): Promise<void> {
  const found: Model = new Map()
  const damaged: string[] = []
  for await (const { id, vector, payload } of collection.iterate()) {
    const expected = documentOf(id, payload!.n)
    const isWhole = payload!.text === expected.payload.text && expected.vector.every((value, i) => value === vector[i])
    if (!isWhole) damaged.push(id)
    found.set(id, payload!.n)
  }
  expect(damaged).toEqual([])
  expect(found).toEqual(model)
  expect(await collection.count()).toBe(model.size)
  const [id, value] = [...model][model.size >> 1]!
  expect(await collection.get(id)).toMatchObject({ payload: { n: value } })
  const { hits } = await collection.search({ vector: documentOf('', value).vector, k: 5, mode: 'exact' })
  for (const hit of hits) expect(model.get(hit.id)).toBe(hit.payload!.n)
  expect(hits[0]!.score).toBeCloseTo(0)
}

describe('on a disk that is really full', () => {
  test('reads and searches go on; deletes and compaction make room, and nothing acknowledged is lost', async () => {
    const path = await smallDisk(24)
    if (path === undefined) return
    const database = await opened(path)
    const collection = await database.createCollection<Payload>('c', collectionOptions)
    const model = await fillUp(collection, 'a')
    // Nearly all of the disk was used before it was called full.
    expect(model.size).toBeGreaterThan(5000)
    await expectContents(collection, model)

    const last = Math.max(...model.values())
    const from = last >> 4
    const expected = [...model].filter(([, value]) => value >= from && value < last)
    expect(await collection.deleteWhere({ n: { $gte: from, $lt: last } })).toBe(expected.length)
    for (const [id] of expected) model.delete(id)
    const some = [...model.keys()].slice(0, 100)
    expect(await collection.delete(some)).toBe(100)
    for (const id of some) model.delete(id)
    await expectContents(collection, model)
    await collection.compact()
    await expectContents(collection, model)

    for (let batch = 0; batch < 20; batch++) {
      const docs = Array.from({ length: 100 }, (_, i) => documentOf(`new${batch}-${i}`, 1000 + batch))
      await collection.upsert(docs)
      for (const { id } of docs) model.set(id, 1000 + batch)
    }
    await expectContents(collection, model)
    await database.close()
    await expectContents(await (await opened(path)).openCollection<Payload>('c'), model)
  }, 180_000)

  test('a database is closed and opened again, and dropping a collection gives its room to others', async () => {
    const path = await smallDisk(24)
    if (path === undefined) return
    const database = await opened(path)
    const other = await database.createCollection<Payload>('other', collectionOptions)
    for (let batch = 0; batch < 40; batch++) {
      await other.upsert(Array.from({ length: 100 }, (_, i) => documentOf(`${batch}-${i}`, batch)))
    }
    const model = await fillUp(await database.createCollection<Payload>('c', collectionOptions), 'a')
    await database.close()

    const again = await opened(path)
    const collection = await again.openCollection<Payload>('c')
    await expectContents(collection, model)
    // What the sweep at opening gave back is little.
    for (const [id, value] of await fillUp(collection, 'b')) model.set(id, value)
    await expectFailure(collection.upsert(documentOf('new', 1)), 'QUOTA_EXCEEDED', { outcome: 'none' })
    const [first] = model.keys()
    await collection.delete(first!)
    model.delete(first!)
    await expectContents(collection, model)
    await again.dropCollection('other')
    for (const [id, value] of await fillUp(collection, 'c')) model.set(id, value)
    expect([...model.keys()].filter((id) => id.startsWith('c')).length).toBeGreaterThan(1000)
    await expectContents(collection, model)
    await again.close()
    await expectContents(await (await opened(path)).openCollection<Payload>('c'), model)
  }, 180_000)

  test('a writer that is killed while it makes room has lost nothing', async () => {
    const script = await bundleForChild(new URL('./full-child.ts', import.meta.url))
    const choose = seededChoice(seed)
    const stops = ['at once', 'while it fills the disk', 'at the full disk', 'while it deletes'] as const
    let acknowledgedCount = 0
    for (const stop of stops) {
      const path = await smallDisk(16)
      if (path === undefined) return
      const child = new Child<Message>(script, path)
      const killAfter = {
        'at once': 1,
        'while it fills the disk': 40,
        'at the full disk': 0,
        'while it deletes': 10 + choose(300),
      }
      let left = killAfter[stop]
      let isFull = false
      const model: Model = new Map()
      let issued: [string, number | null][] | undefined
      const apply = (target: Model): Model => {
        for (const [id, value] of issued!) value === null ? target.delete(id) : target.set(id, value)
        return target
      }
      for (let message = await child.next(); message !== undefined; message = await child.next()) {
        if ('issued' in message) issued = message.issued
        else if ('full' in message) isFull = true
        else {
          if ('acknowledged' in message) apply(model)
          else expect(message).toEqual({ refused: 'QUOTA_EXCEEDED', outcome: 'none' })
          issued = undefined
          acknowledgedCount++
        }
        const isNear = stop === 'while it deletes' ? isFull : stop === 'at the full disk' ? 'refused' in message : true
        if (isNear && left-- === 0) setTimeout(() => child.signal('SIGKILL'), choose(4))
      }
      expect(await child.ended, stop).toEqual({ code: null, signal: 'SIGKILL' })

      const database = await opened(path)
      const collection = await database.openCollection<Payload>('c')
      const candidates = issued === undefined ? [model] : [model, apply(new Map(model))]
      const found: Model = new Map()
      for await (const { id, payload } of collection.iterate()) found.set(id, payload!.n)
      const survivors = candidates.find((candidate) => sameModel(candidate, found))
      expect(survivors, `${stop}: ${found.size} found, ${model.size} acknowledged`).toBeDefined()
      await expectContents(collection, survivors!)
      await database.dropCollection('c')
      const next = await database.createCollection<Payload>('next', collectionOptions)
      await next.upsert(documentOf('new', 1))
      await database.close()
    }
    console.log(`disk full: ${acknowledgedCount} writes before kill -9, 0 lost (ISOVEC_SEED=${seed})`)
  }, 180_000)
})

function sameModel(a: ReadonlyMap<string, number>, b: ReadonlyMap<string, number>): boolean {
  return a.size === b.size && [...a].every(([id, value]) => b.get(id) === value)
}
