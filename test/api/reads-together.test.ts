import { describe, expect, test } from 'vitest'
import type { Collection } from '../../src/index.ts'
import { newCollection } from '../support/store.ts'

type Payload = { n: number; list?: number[]; text?: string }

const collectionOf = async (count: number, payload: (n: number) => Omit<Payload, 'n'> = () => ({})) => {
  const made = await newCollection<Payload>({
    dimension: 2,
    metric: 'euclidean',
    index: 'manual',
    compaction: 'manual',
  })
  const documents = Array.from({ length: count }, (_, n) => ({
    id: `d${n}`,
    vector: [n, 1],
    payload: { n, ...payload(n) },
  }))
  await made.collection.upsert(documents)
  return made
}

describe('searchMany', () => {
  test('answers all requests from the state of its call', async () => {
    const { collection } = await collectionOf(40)
    const request = { vector: [0, 1], k: 100 }
    for (const [name, change] of [
      ['upsert', () => collection.upsert({ id: 'late', vector: [0, 1] })],
      ['delete', () => collection.delete('d3')],
      ['flush', () => collection.flush()],
      ['patch', () => collection.patch('d4', { n: 1000 })],
    ] as const) {
      const count = await collection.count()
      const requests = [request, { ...request, filter: { n: { $lt: 999 } } }, { near: 'd4', k: 100 }, request]
      const asked = collection.searchMany(requests)
      const changed = change()
      const [first, filtered, near, last] = await asked
      expect(first!.hits, name).toHaveLength(count)
      expect(last!.hits, name).toEqual(first!.hits)
      expect(near!.hits.map(({ id }) => id).sort(), name).toEqual(
        first!.hits
          .map(({ id }) => id)
          .filter((id) => id !== 'd4')
          .sort(),
      )
      expect(filtered!.hits, name).toEqual(
        first!.hits.filter(({ payload }) => payload !== undefined && payload.n < 999),
      )
      await changed
    }
  })

  test('refuses before anything is searched, also where a document to search near of is missing', async () => {
    const { collection } = await collectionOf(3)
    await expect(collection.searchMany([{ near: 'd0' }, { near: 'x' }])).rejects.toMatchObject({ code: 'NOT_FOUND' })
    await expect(collection.searchMany([], { signal: AbortSignal.abort('no') })).rejects.toMatchObject({
      code: 'ABORTED',
      cause: 'no',
    })
  })
})

test('measureRecall compares answers of one state, whatever is written meanwhile', async () => {
  const { collection } = await collectionOf(400)
  let isDone = false
  const work = (async () => {
    for (let i = 0; !isDone; i++) await collection.upsert({ id: `w${i % 50}`, vector: [i % 400, 0.5] })
  })()
  expect(await collection.measureRecall({ samples: 60, k: 5 })).toMatchObject({ recall: 1, samples: 60 })
  isDone = true
  await work
})

test('iterate takes its options as they are at the call', async () => {
  const { collection } = await collectionOf(5)
  const filter = { n: 1 }
  const loop = collection.iterate({ filter })
  filter.n = 2
  expect((await loop.next()).value).toMatchObject({ id: 'd1' })
  const refused = collection.iterate({ batchSize: 0 })
  await expect(refused.next()).rejects.toMatchObject({ code: 'INVALID_ARGUMENT', field: 'options.batchSize' })
})

describe('ids in filters', () => {
  test('are told apart from texts that are no ids', async () => {
    const { collection } = await newCollection({ dimension: 1, metric: 'dot', compaction: 'manual' })
    await collection.upsert(['\ufffd', 'a', 'b'].map((id) => ({ id, vector: [1] })))
    for (const state of ['in memory', 'flushed']) {
      expect(await collection.count({ $id: '\ud800' }), state).toBe(0)
      expect(await collection.count({ $id: { $in: ['\udfff', 'a'] } }), state).toBe(1)
      expect(await collection.count({ $id: { $ne: '\ud800' } }), state).toBe(3)
      expect(await collection.deleteWhere({ $id: '\ud800' }), state).toBe(0)
      await collection.flush()
    }
    expect(await collection.count()).toBe(3)
  })
})

test('near a zero vector there is no direction', async () => {
  const { collection } = await newCollection({ dimension: 2, metric: 'euclidean' })
  await collection.upsert([
    { id: 'zero', vector: [0, 0] },
    { id: 'one', vector: [0, 1] },
  ])
  await expect(collection.search({ near: 'zero', metric: 'cosine' })).rejects.toMatchObject({
    code: 'INVALID_ARGUMENT',
    field: 'near',
    id: 'zero',
  })
  expect((await collection.search({ near: 'zero' })).hits).toHaveLength(1)
})

test('a projection has as many levels as a payload may have', async () => {
  const { collection } = await collectionOf(1)
  const path = (levels: number) => Array(levels).fill('a').join('.')
  expect(await collection.get('d0', { include: { payload: [path(64)] } as never })).toMatchObject({ payload: {} })
  await expect(collection.get('d0', { include: { payload: [path(20_000)] } as never })).rejects.toMatchObject({
    code: 'INVALID_ARGUMENT',
    field: 'options.include.payload[0]',
  })
})

/** Turns of the event loop while something runs. */
async function turnsDuring(run: () => Promise<unknown>): Promise<number> {
  let turns = 0
  let isDone = false
  const count = (): void => {
    turns++
    if (!isDone) setImmediate(count)
  }
  setImmediate(count)
  await run()
  isDone = true
  return turns
}

describe('filters that take long', () => {
  const list = Array.from({ length: 100 }, (_, i) => i)
  const long = { $or: Array.from({ length: 20 }, (_, i) => ({ list: { $gt: 1000 + i } })) }
  const doubtful = { text: { $gt: `${'x'.repeat(200)}y` } }
  const setups: [string, (collection: Collection<Payload>) => Promise<unknown>][] = [
    ['in memory', async () => {}],
    [
      'over patches',
      async (collection) => {
        await collection.flush()
        await collection.write(Array.from({ length: 4000 }, (_, n) => ({ patch: { id: `d${n}`, payload: { n: -1 } } })))
      },
    ],
    ['in a segment', (collection) => collection.flush()],
  ]
  for (const [name, prepare] of setups) {
    test(`${name}: let others run, and end with their signal`, { timeout: 60_000 }, async () => {
      const { collection } = await collectionOf(4000, (n) => ({ list, text: `${'x'.repeat(200)}${n}` }))
      await prepare(collection)
      for (const filter of [long, doubtful]) {
        // Columns are there once the first has asked.
        await collection.count(filter)
        const started = performance.now()
        const turns = await turnsDuring(() => collection.count(filter))
        // Where it is over within a few slices there is nothing to be let run.
        if (performance.now() - started > 40) expect(turns).toBeGreaterThan(3)
        const abort = new AbortController()
        const counting = collection.count(filter, { signal: abort.signal })
        abort.abort('enough')
        await expect(counting).rejects.toMatchObject({ code: 'ABORTED', cause: 'enough' })
      }
    })
  }
})

test('writes one after the other let timers run', async () => {
  const { collection } = await collectionOf(1)
  let isDone = false
  const timer = new Promise<void>((resolve) => setTimeout(resolve, 10)).then(() => {
    isDone = true
  })
  let count = 0
  const until = performance.now() + 5000
  while (!isDone && performance.now() < until) {
    await (count % 2 === 0 ? collection.upsert({ id: 'x', vector: [count, 1] }) : collection.deleteWhere({ n: -1 }))
    count++
  }
  expect(isDone).toBe(true)
  await timer
})
