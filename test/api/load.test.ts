import { expect, test } from 'vitest'
import type { Collection, IsovecError } from '../../src/index.ts'
import { newCollection } from '../support/store.ts'

test('writes that nobody awaits are refused before they fill the memory, and the others are stored', async () => {
  const { collection } = await newCollection({ dimension: 65_536, metric: 'dot', index: 'manual' })
  const vector = new Float32Array(65_536).fill(1)
  const outcomes: Promise<string>[] = []
  for (let n = 0; n < 1400; n++) {
    const stored = collection.upsert({ id: `d${n}`, vector }, { durability: 'buffered' })
    outcomes.push(
      stored.then(
        () => 'stored',
        ({ code, outcome }: IsovecError) => `${code} ${outcome}`,
      ),
    )
  }
  const settled = await Promise.all(outcomes)
  const stored = settled.filter((each) => each === 'stored').length
  expect(new Set(settled)).toEqual(new Set(['stored', 'OUT_OF_MEMORY none']))
  // All of them were asked for in one turn, in which nothing was written.
  expect(stored * vector.byteLength).toBeLessThanOrEqual(256 * 1024 * 1024)
  expect(stored).toBeGreaterThan(1000)
  expect(await collection.count()).toBe(stored)
  await collection.upsert({ id: 'later', vector })
}, 120_000)

test('patches that nobody awaits are counted by what they hold', async () => {
  const { collection } = await newCollection({ dimension: 1, metric: 'dot', index: 'manual' })
  await collection.upsert({ id: 'a', vector: [1] })
  const text = 'x'.repeat(900_000)
  const outcomes = Array.from({ length: 400 }, () =>
    collection.patch('a', { text }).then(
      () => 'stored',
      ({ code }: IsovecError) => code,
    ),
  )
  const settled = await Promise.all(outcomes)
  const stored = settled.filter((each) => each === 'stored').length
  expect(new Set(settled)).toEqual(new Set(['stored', 'OUT_OF_MEMORY']))
  expect(stored * text.length).toBeLessThanOrEqual(256 * 1024 * 1024)
}, 120_000)

test('many readers and one writer see whole batches only, and memory stays bounded', { timeout: 120_000 }, async () => {
  const { collection, database } = await newCollection<{ batch: number }>({ dimension: 8, metric: 'euclidean' }, 'node')
  const size = 40
  const docs = (batch: number) =>
    Array.from({ length: size }, (_, n) => ({
      id: `d${n}`,
      vector: Array.from({ length: 8 }, (_, d) => batch + n + d),
      payload: { batch },
    }))
  await collection.upsert(docs(0))
  const until = performance.now() + 8000
  let batches = 0
  let reads = 0
  const writer = async (): Promise<void> => {
    while (performance.now() < until) {
      await collection.write(
        docs(++batches).map((doc) => ({ upsert: doc })),
        { durability: 'buffered' },
      )
      if (batches % 50 === 0) await collection.flush()
    }
  }
  const reader = async (number: number): Promise<void> => {
    const of = collection as Collection<{ batch: number }>
    while (performance.now() < until) {
      const seen = new Set<number>()
      let count = 0
      if (number % 3 === 0) {
        const { hits } = await of.search({ vector: Array(8).fill(0), k: size * 2, mode: 'exact' })
        for (const { payload } of hits) seen.add(payload!.batch)
        count = hits.length
      } else if (number % 3 === 1) {
        for await (const { payload } of of.iterate({ batchSize: 7 })) {
          seen.add(payload!.batch)
          count++
        }
      } else {
        for (const found of await of.getMany(docs(0).map(({ id }) => id))) {
          seen.add(found!.payload!.batch)
          count++
        }
      }
      expect([count, seen.size]).toEqual([size, 1])
      reads++
    }
  }
  const memory: number[] = []
  const watch = setInterval(async () => memory.push((await collection.stats()).memoryBytes), 500)
  await Promise.all([writer(), ...Array.from({ length: 12 }, (_, number) => reader(number))])
  clearInterval(watch)
  expect(batches).toBeGreaterThan(20)
  expect(reads).toBeGreaterThan(50)
  // Forty documents, and what was replaced and not merged away yet.
  expect(Math.max(...memory)).toBeLessThan(200 * 1024 * 1024)
  expect((await database.info()).memoryBytes).toBeLessThan(200 * 1024 * 1024)
  await collection.compact()
  expect((await collection.stats()).segmentDocs).toBe(size)
})
