import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, it, onTestFinished } from 'vitest'
import { memoryBackend } from '../../src/directory/memory.ts'
import { type Collection, IsovecError, openDatabase } from '../../src/index.ts'
import { bundleForChild } from '../support/bundle.ts'
import { onFailure } from '../support/events.ts'
import { expectFailure } from '../support/failure.ts'
import { temporaryFolder } from '../support/folder.ts'
import { hookedBackend } from '../support/hooked-backend.ts'
import { ranking } from '../support/reference.ts'
import { newCollection, type StoreKind } from '../support/store.ts'
import { stepClock, TurnCount } from '../support/turns.ts'
import { clusteredDocuments, firstOf } from '../support/vectors.ts'

const dimension = 16
const count = 8000

/** Searches and writes one after the other while work is under way; returns how often, and how often the event loop turned. */
async function useDuring(
  collection: Collection<{ number: number }>,
  documents: ReadonlyMap<string, Float32Array>,
  work: () => Promise<unknown>,
): Promise<{ rounds: number; turns: number }> {
  const all = [...documents]
  let isOver = false
  const turns = new TurnCount()
  const working = work().finally(() => {
    isOver = true
  })
  let rounds = 0
  while (!isOver) {
    const [id, vector] = all[(rounds * 7919) % all.length]!
    const fresh = vector.map((x) => x * 3)
    await collection.upsert({ id: `fresh${rounds}`, vector: fresh, payload: { number: -1 } })
    const [quick, exact] = await collection.searchMany([
      { vector: fresh, k: 2 },
      { vector: fresh, k: 2, mode: 'exact' },
    ])
    expect(quick!.hits.map((hit) => hit.id)).toContain(`fresh${rounds}`)
    expect(exact!.hits.map((hit) => hit.id).sort()).toEqual([id, `fresh${rounds}`].sort())
    await collection.delete(`fresh${rounds}`)
    rounds++
  }
  await working
  return { rounds, turns: turns.end() }
}

describe.each<StoreKind>(['memory', 'node'])('work on thousands of rows on the %s backend', (kind) => {
  async function filled(): Promise<{
    collection: Collection<{ number: number }>
    documents: Map<string, Float32Array>
  }> {
    const { collection } = await newCollection<{ number: number }>(
      { dimension, durability: 'buffered', index: 'manual', compaction: 'manual' },
      kind,
    )
    const all = [...clusteredDocuments(count, dimension)]
    await collection.ingest(all)
    await collection.flush()
    await collection.upsert(all.slice(0, count / 2))
    return { collection, documents: new Map(all.map(({ id, vector }) => [id, vector])) }
  }

  it('goes on in slices of few rows', async () => {
    stepClock()
    const all = [...clusteredDocuments(count, dimension)]
    const { collection } = await newCollection<{ number: number }>(
      { dimension, durability: 'buffered', index: 'manual', compaction: 'manual' },
      kind,
    )
    const turnsOf = async (work: () => Promise<unknown>): Promise<number> => {
      const turns = new TurnCount()
      await work()
      return turns.end()
    }
    // A look at the clock for each document, every 64 rows, and every four rows of a graph; some five looks make a slice.
    expect(await turnsOf(() => collection.ingest(all))).toBeGreaterThan(count / 10)
    expect(await turnsOf(() => collection.flush())).toBeGreaterThan(50)
    await collection.upsert(all.slice(0, count / 2))
    await collection.flush()
    expect(await turnsOf(() => collection.compact())).toBeGreaterThan(50)
    const built: number[] = [0]
    const build = (): Promise<void> =>
      collection.buildIndex({ efConstruction: 20, M: 4, onProgress: ({ done }) => built.push(done) })
    expect(await turnsOf(build)).toBeGreaterThan(count / 40)
    expect(built.at(-1)).toBe(count)
    expect(Math.max(...built.slice(1).map((done, i) => done - built[i]!))).toBeLessThanOrEqual(40)
  })

  it('leaves searches and writes to be answered meanwhile', async () => {
    stepClock()
    const { collection, documents } = await filled()
    const rewrite = async (): Promise<void> => {
      const some = [...documents].slice(0, 10)
      await collection.upsert(some.map(([id, vector]) => ({ id, vector, payload: { number: 0 } })))
      await collection.compact()
    }
    const works = [
      ['flush', () => collection.flush()],
      ['compact', () => collection.compact()],
      ['build', () => collection.buildIndex({ efConstruction: 20, M: 4 })],
      ['merge with graphs', rewrite],
    ] as const
    for (const [name, work] of works) {
      const { rounds, turns } = await useDuring(collection, documents, work)
      expect(rounds, name).toBeGreaterThan(3)
      expect(turns, name).toBeGreaterThan(rounds)
    }
    expect(await collection.hasIndex()).toBe(true)
    expect(await collection.count()).toBe(count)
    const [vector] = [...documents.values()] as [Float32Array]
    const { hits } = await collection.search({ vector, mode: 'exact', k: 5 })
    expect(hits.map(({ id }) => id)).toEqual(
      ranking('cosine', vector, documents)
        .slice(0, 5)
        .map(({ id }) => id),
    )
  })
})

function noRoom(name: string): IsovecError {
  return new IsovecError('QUOTA_EXCEEDED', 'no room', { file: name })
}

describe('work in the background', () => {
  it('builds graphs and merges segments by itself, and nothing is lost or doubled', async () => {
    const { collection } = await newCollection<{ number: number }>({ dimension: 8, durability: 'buffered' })
    for (let part = 0; part < 9; part++) {
      const docs = [...clusteredDocuments(1500, 8, part)].map((each) => ({ ...each, id: `${part}${each.id}` }))
      await collection.upsert(docs)
      await collection.flush()
    }
    await expect.poll(() => collection.hasIndex(), { timeout: 30_000, interval: 20 }).toBe(true)
    await expect
      .poll(async () => (await collection.stats()).segments, { timeout: 30_000, interval: 20 })
      .toBeLessThanOrEqual(4)
    const ids = new Set<string>()
    for await (const { id } of collection.iterate()) ids.add(id)
    expect(ids.size).toBe(9 * 1500)
    expect(await collection.count()).toBe(9 * 1500)
    expect((await collection.stats()).lastBackgroundError).toBeUndefined()
  })

  it.each(['compact', 'dropIndex', 'close'])('makes way for %s, after which the process ends', async (what) => {
    const script = await bundleForChild(new URL('../support/closing-child.ts', import.meta.url))
    const folder = join(await temporaryFolder(), 'data')
    const { stdout } = await promisify(execFile)(process.execPath, [script, folder, what], { timeout: 100_000 })
    expect(JSON.parse(stdout)).toEqual({ what })
  })

  it('holds up the end of no process', async () => {
    const script = await bundleForChild(new URL('../support/idle-child.ts', import.meta.url))
    const folder = join(await temporaryFolder(), 'data')
    const { stdout, stderr } = await promisify(execFile)(process.execPath, [script, folder], { timeout: 100_000 })
    expect(stderr).toBe('')
    expect(JSON.parse(stdout)).toMatchObject({ count: 8001 })
    // What the child acknowledged is there although it never closed anything.
    const database = await openDatabase(folder)
    onTestFinished(() => database.close())
    expect(await (await database.openCollection('c')).count()).toBe(8001)
  })

  it('that fails becomes an event and shows in the statistics, not an unhandled rejection', async () => {
    const unhandled: unknown[] = []
    const note = (reason: unknown): unknown => unhandled.push(reason)
    process.on('unhandledRejection', note)
    onTestFinished(() => void process.off('unhandledRejection', note))
    let isFull = false
    const backend = hookedBackend(memoryBackend(), async ({ kind, name }, run) => {
      if (isFull && kind === 'create' && name.endsWith('.graph')) throw noRoom(name)
      return run()
    })
    const errors: IsovecError[] = []
    const database = await openDatabase(backend, {
      onEvent(event) {
        if (event.type === 'background-error') {
          expect(event.collection).toBe('c')
          errors.push(event.error)
        }
        throw new Error('a listener that is wrong')
      },
    })
    onTestFinished(() => database.close())
    const collection = await database.createCollection<{ number: number }>('c', { dimension: 8 })
    isFull = true
    await collection.upsert([...clusteredDocuments(1200, 8)])
    await collection.flush()
    await expect.poll(() => errors.length, { timeout: 10_000, interval: 10 }).toBeGreaterThan(0)
    await new Promise((resolve) => setTimeout(resolve, 20))
    expect(errors[0]).toMatchObject({ code: 'QUOTA_EXCEEDED' })
    expect((await collection.stats()).lastBackgroundError).toBe(errors[0])
    expect(unhandled).toEqual([])
    const { vector } = firstOf(clusteredDocuments(1, 8))
    expect((await collection.search({ vector })).hits[0]!.id).toBe('d0')
    isFull = false
    await collection.buildIndex()
    expect(await collection.hasIndex()).toBe(true)
  })
  it('gives up the graph whose commit meets a full disk', async () => {
    const inner = memoryBackend()
    let isFull = false
    const backend = hookedBackend(inner, async ({ kind, name }, run) => {
      if (isFull && kind === 'append' && name.endsWith('.manifest')) throw noRoom(name)
      return run()
    })
    const database = await openDatabase(backend)
    onTestFinished(() => database.close())
    const collection = await database.createCollection('c', { dimension: 8, index: 'manual' })
    await collection.upsert([...clusteredDocuments(1200, 8)])
    await collection.flush()
    const graphs = (): string[] =>
      [...inner.image().directories.get(1)!.keys()].filter((name) => name.endsWith('.graph'))
    isFull = true
    await expectFailure(collection.buildIndex(), 'QUOTA_EXCEEDED')
    expect(graphs()).toEqual([])
    expect(await collection.hasIndex()).toBe(false)
    isFull = false
    await collection.buildIndex()
    expect(graphs()).toHaveLength(1)
    expect(await collection.hasIndex()).toBe(true)
  })

  it('of the log reports what fails: a sync, and the change to a new log', async () => {
    for (const [failing, code] of [
      ['sync', 'IO'],
      ['create', 'QUOTA_EXCEEDED'],
    ] as const) {
      let isFailing = false
      const backend = hookedBackend(memoryBackend(), async ({ kind, name }, run) => {
        if (isFailing && kind === failing && name.endsWith('.wal'))
          throw new IsovecError(code, 'it fails', { file: name })
        return run()
      })
      const errors: IsovecError[] = []
      const database = await openDatabase(backend, { onEvent: onFailure((error) => errors.push(error)) })
      onTestFinished(() => database.close().catch(() => {}))
      const collection = await database.createCollection('c', { dimension: 2, durability: 'buffered', index: 'manual' })
      isFailing = true
      // As many rows as a memtable holds.
      await collection.upsert(
        Array.from({ length: failing === 'sync' ? 1 : 16 * 1024 }, (_, i) => ({ id: `${i}`, vector: [i, 1] })),
      )
      await expect.poll(() => errors.length, { timeout: 20_000, interval: 10 }).toBeGreaterThan(0)
      expect(errors[0]).toMatchObject({ code })
      expect((await collection.stats()).lastBackgroundError).toMatchObject({ code })
      isFailing = false
    }
  })
})

describe('compact', () => {
  it('leaves a graph where there was one segment without', async () => {
    const { collection } = await newCollection<{ number: number }>({ dimension: 8 })
    await collection.upsert([...clusteredDocuments(1200, 8)])
    const result = await collection.compact()
    expect(result).toMatchObject({ segmentsMerged: 0, indexRebuilt: true, docsAfter: 1200 })
    expect(await collection.hasIndex()).toBe(true)
  })

  it('leaves none where none is wanted', async () => {
    const { collection } = await newCollection<{ number: number }>({ dimension: 8, index: 'manual' })
    await collection.upsert([...clusteredDocuments(1200, 8)])
    expect(await collection.compact()).toMatchObject({ indexRebuilt: false })
    expect(await collection.hasIndex()).toBe(false)
    await collection.configure({ index: 'auto' })
    await collection.dropIndex()
    expect(await collection.compact()).toMatchObject({ indexRebuilt: false })
    expect(await collection.hasIndex()).toBe(false)
  })
})
