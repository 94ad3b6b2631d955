import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, it, onTestFinished } from 'vitest'
import { memoryBackend } from '../../src/directory/memory.ts'
import { type Collection, type DatabaseEvent, IsovecError, openDatabase, type StorageBackend } from '../../src/index.ts'
import { bundleForChild } from '../support/bundle.ts'
import { EventLoopWatch } from '../support/event-loop.ts'
import { temporaryFolder } from '../support/folder.ts'
import { ranking } from '../support/reference.ts'
import { newCollection, type StoreKind } from '../support/store.ts'
import { clusteredDocuments, firstOf } from '../support/vectors.ts'

/**
 * Slices are 4 ms long. What makes some turns longer is garbage collection, code that isn't compiled yet, a batch of 1,000 rows that
 * is applied at once, and other processes where there are fewer cores than work. Work that never gave the loop back would take up to
 * a second here and have a few turns in all, so that both bounds would fail.
 */
const blockMsMax = 250
const meanMsMax = 40
/** An upsert and two searches, each behind some slices: far below the seconds that the work takes, far above what a busy machine adds. */
const answerMsMax = 1000

function expectResponsive({ longest, mean }: { longest: number; mean: number }, what: string): void {
  expect(longest, `${what}: longest turn`).toBeLessThan(blockMsMax)
  expect(mean, `${what}: mean turn`).toBeLessThan(meanMsMax)
}

const dimension = 64
const count = 30_000

/** Searches and writes one after the other while work is under way; returns how often, how long turns and answers took. */
async function useDuring(
  collection: Collection<{ number: number }>,
  documents: ReadonlyMap<string, Float32Array>,
  work: () => Promise<unknown>,
): Promise<{ rounds: number; turns: { longest: number; mean: number }; wait: number }> {
  const all = [...documents]
  let isOver = false
  const working = work().finally(() => {
    isOver = true
  })
  const watch = new EventLoopWatch()
  let rounds = 0
  let wait = 0
  while (!isOver) {
    const [id, vector] = all[(rounds * 7919) % all.length]!
    const started = performance.now()
    const fresh = vector.map((x) => x * 3)
    await collection.upsert({ id: `fresh${rounds}`, vector: fresh, payload: { number: -1 } })
    const [quick, exact] = await collection.searchMany([
      { vector: fresh, k: 2 },
      { vector: fresh, k: 2, mode: 'exact' },
    ])
    wait = Math.max(wait, performance.now() - started)
    expect(quick!.hits.map((hit) => hit.id)).toContain(`fresh${rounds}`)
    expect(exact!.hits.map((hit) => hit.id).sort()).toEqual([id, `fresh${rounds}`].sort())
    await collection.delete(`fresh${rounds}`)
    rounds++
    await new Promise((resolve) => setTimeout(resolve, 1))
  }
  const turns = watch.end()
  await working
  return { rounds, turns, wait }
}

describe.each<StoreKind>(['memory', 'node'])('work on tens of thousands of rows on the %s backend', (kind) => {
  it('gives the event loop back, and searches and writes are answered meanwhile', async () => {
    const { collection } = await newCollection<{ number: number }>(
      { dimension, durability: 'buffered', index: 'manual', compaction: 'manual' },
      kind,
    )
    const all = [...clusteredDocuments(count, dimension)]
    const documents = new Map(all.map(({ id, vector }) => [id, vector]))
    const watch = new EventLoopWatch()
    await collection.ingest(all)
    expectResponsive(watch.end(), 'ingest')

    // Writes wait where two memtables are sealed; here it is one.
    await collection.flush()
    await collection.upsert(all.slice(0, 10_000))
    const works = [
      ['flush', () => collection.flush()],
      ['compact', () => collection.compact()],
      ['build', () => collection.buildIndex({ efConstruction: 60, M: 8 })],
      ['merge with graphs', () => collection.compact()],
    ] as const
    let rounds = 0
    for (const [name, work] of works) {
      const result = await useDuring(collection, documents, work)
      expectResponsive(result.turns, name)
      expect(result.wait, `${name}: longest wait`).toBeLessThan(answerMsMax)
      rounds += result.rounds
    }
    expect(rounds).toBeGreaterThan(20)

    expect(await collection.hasIndex()).toBe(true)
    expect(await collection.count()).toBe(count)
    const [vector] = [...documents.values()] as [Float32Array]
    const scanWatch = new EventLoopWatch()
    const { hits } = await collection.search({ vector, mode: 'exact', k: 5 })
    expect(scanWatch.end().longest).toBeLessThan(blockMsMax)
    expect(hits.map(({ id }) => id)).toEqual(
      ranking('cosine', vector, documents)
        .slice(0, 5)
        .map(({ id }) => id),
    )
  })
})

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

  it('holds up the end of no process', async () => {
    const script = await bundleForChild(new URL('../support/idle-child.ts', import.meta.url))
    const folder = join(await temporaryFolder(), 'data')
    const started = performance.now()
    const { stdout, stderr } = await promisify(execFile)(process.execPath, [script, folder], { timeout: 30_000 })
    expect(stderr).toBe('')
    expect(JSON.parse(stdout)).toMatchObject({ count: 8001 })
    expect(performance.now() - started).toBeLessThan(20_000)
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
    const { backend, fail } = failingGraphs(memoryBackend())
    const events: DatabaseEvent[] = []
    const database = await openDatabase(backend, {
      onEvent(event) {
        events.push(event)
        throw new Error('a listener that is wrong')
      },
    })
    onTestFinished(() => database.close())
    const collection = await database.createCollection<{ number: number }>('c', { dimension: 8 })
    fail(true)
    await collection.upsert([...clusteredDocuments(1200, 8)])
    await collection.flush()
    await expect.poll(() => events.length, { timeout: 10_000, interval: 10 }).toBeGreaterThan(0)
    await new Promise((resolve) => setTimeout(resolve, 20))
    expect(events[0]).toMatchObject({ type: 'background-error', collection: 'c', error: { code: 'QUOTA_EXCEEDED' } })
    expect((await collection.stats()).lastBackgroundError).toBe(events[0]!.error)
    expect(unhandled).toEqual([])
    const { vector } = firstOf(clusteredDocuments(1, 8))
    expect((await collection.search({ vector })).hits[0]!.id).toBe('d0')
    fail(false)
    await collection.buildIndex()
    expect(await collection.hasIndex()).toBe(true)
  })
})

/** A backend on which the disk is full for graphs only, while told so. */
function failingGraphs(inner: StorageBackend): { backend: StorageBackend; fail(isFull: boolean): void } {
  let isFull = false
  const backend: StorageBackend = {
    kind: inner.kind,
    location: inner.location,
    exists: () => inner.exists(),
    open: (options) => inner.open(options),
    directories: () => inner.directories(),
    removeDirectory: (number) => inner.removeDirectory(number),
    lock: (options) => inner.lock(options),
    async directory(number, options) {
      const directory = await inner.directory(number, options)
      return {
        list: () => directory.list(),
        open: (name) => directory.open(name),
        sync: (name) => directory.sync(name),
        remove: (name) => directory.remove(name),
        create(name) {
          if (isFull && name.endsWith('.graph')) throw new IsovecError('QUOTA_EXCEEDED', 'no room', { file: name })
          return directory.create(name)
        },
      }
    },
  }
  return {
    backend,
    fail(full) {
      isFull = full
    },
  }
}
