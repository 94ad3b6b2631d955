import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Collection, Database, Filter, JsonObject, WriteOperation } from '../../src/index.ts'
import { expectFailure } from '../support/failure.ts'
import { matches, type RawFilter } from '../support/filter-reference.ts'
import { someDocument, someFilter } from '../support/filters.ts'
import { runs } from '../support/property.ts'
import { newCollection, newStore, type Store } from '../support/store.ts'

type Stored = { vector: number[]; payload: JsonObject | undefined }
type Model = Map<string, Stored>
type Rounds = { n: number; round: number }

const someVector = fc.tuple(fc.integer({ min: -3, max: 3 }), fc.integer({ min: -3, max: 3 }), fc.constant(1))
const someUpsert = fc.tuple(someDocument, someVector).map(([{ id, payload }, vector]) => ({
  upsert: { id, vector, ...(payload === undefined ? {} : { payload }) },
}))
const somePatch = fc
  .tuple(someDocument, fc.subarray(['a', 'b', 'c', '__proto__']))
  .map(([{ id, payload = {} }, fields]) => ({
    patch: { id, payload, unset: fields.filter((field) => !Object.hasOwn(payload, field)) },
  }))
const someDelete = someDocument.map(({ id }) => ({ delete: id }))
const someOperation: fc.Arbitrary<WriteOperation> = fc.oneof(
  { weight: 5, arbitrary: someUpsert as fc.Arbitrary<WriteOperation> },
  { weight: 5, arbitrary: somePatch as fc.Arbitrary<WriteOperation> },
  { weight: 1, arbitrary: someDelete },
)
type Command =
  | { kind: 'write'; operations: readonly WriteOperation[] }
  | { kind: 'deleteWhere'; filter: RawFilter }
  | { kind: 'flush' | 'compact' | 'reopen' }
const someCommand: fc.Arbitrary<Command> = fc.oneof(
  {
    weight: 10,
    arbitrary: fc.array(someOperation, { minLength: 1, maxLength: 4 }).map((operations) => ({
      kind: 'write' as const,
      operations,
    })),
  },
  { weight: 1, arbitrary: someFilter.map((filter) => ({ kind: 'deleteWhere' as const, filter })) },
  {
    weight: 4,
    arbitrary: fc.constantFrom('flush' as const, 'compact' as const, 'reopen' as const).map((kind) => ({ kind })),
  },
)

function apply(model: Model, operation: WriteOperation): boolean {
  if ('upsert' in operation) {
    const { id, vector, payload } = operation.upsert
    model.set(id, { vector: [...vector], payload })
    return true
  }
  if ('delete' in operation) return model.delete(operation.delete)
  const { id, payload = {}, unset = [] } = operation.patch
  const stored = model.get(id)
  if (stored === undefined) return false
  const fields = new Map<string, unknown>([...Object.entries(stored.payload ?? {}), ...Object.entries(payload)])
  for (const field of unset) fields.delete(String(field))
  const isNone = stored.payload === undefined && fields.size === 0
  model.set(id, { ...stored, payload: isNone ? undefined : (Object.fromEntries(fields) as JsonObject) })
  return true
}

/** What a collection answers under a filter, against the model. */
async function expectFiltered(collection: Collection, model: Model, filter: RawFilter): Promise<number> {
  const wanted = new Map([...model].filter(([id, { payload }]) => matches(filter, id, payload)))
  const asked = filter as Filter
  expect(await collection.count(asked)).toBe(wanted.size)
  const found = new Map<string, JsonObject | undefined>()
  for await (const { id, payload } of collection.iterate({ filter: asked })) found.set(id, payload)
  expect(found).toEqual(new Map([...wanted].map(([id, { payload }]) => [id, payload])))
  const question = [1, 2, 1]
  const scored = [...wanted].map(([id, { vector, payload }]) => ({
    id,
    score: -Math.sqrt(vector.reduce((sum, x, i) => sum + (x - question[i]!) ** 2, 0)) + 0,
    ...(payload === undefined ? {} : { payload }),
  }))
  scored.sort((a, b) => b.score - a.score || (a.id < b.id ? -1 : 1))
  for (const k of [1, 2, 100]) {
    const result = await collection.search({ vector: question, k, filter: asked })
    expect(result.hits).toEqual(scored.slice(0, k))
    expect(result.exact).toBe(true)
  }
  return wanted.size
}

async function reopened(store: Store, database: Database): Promise<Database> {
  await database.close()
  return store.open()
}

describe('filters', () => {
  it('find in every state what they mean, after any writes, patches, flushes, compactions and reopenings', async () => {
    let hits = 0
    let misses = 0
    await fc.assert(
      fc.asyncProperty(
        fc.array(someCommand, { minLength: 4, maxLength: 20 }),
        fc.array(someFilter, { minLength: 3, maxLength: 3 }),
        async (commands, filters) => {
          const store = await newStore('memory')
          let database = await store.open()
          const options = { dimension: 3, metric: 'euclidean', compaction: 'manual' } as const
          let collection: Collection = await database.createCollection('c', options)
          const model: Model = new Map()
          try {
            for (const command of commands) {
              if (command.kind === 'write') {
                await collection.write(command.operations)
                for (const operation of command.operations) apply(model, operation)
              } else if (command.kind === 'deleteWhere') {
                const gone = [...model].filter(([id, { payload }]) => matches(command.filter, id, payload))
                expect(await collection.deleteWhere(command.filter as Filter)).toBe(gone.length)
                for (const [id] of gone) model.delete(id)
              } else if (command.kind === 'reopen') {
                await database.close()
                database = await store.open()
                collection = await database.openCollection('c')
              } else await collection[command.kind]()
              for (const filter of filters) {
                const found = await expectFiltered(collection, model, filter)
                hits += found
                misses += model.size - found
              }
            }
          } finally {
            await database.close()
          }
        },
      ),
      runs(100),
    )
    expect(hits).toBeGreaterThan(1000)
    expect(misses).toBeGreaterThan(1000)
  })

  it('give as many hits as there are, however few', async () => {
    const { collection } = await newCollection<{ n: number; even: boolean }>({ dimension: 16, metric: 'euclidean' })
    const doc = (n: number) => ({
      id: String(n),
      vector: Array.from({ length: 16 }, (_, i) => Math.sin(n * (i + 1))),
      payload: { n, even: n % 2 === 0 },
    })
    await collection.ingest(Array.from({ length: 6000 }, (_, n) => doc(n)))
    await collection.compact()
    await collection.upsert(Array.from({ length: 50 }, (_, n) => doc(6000 + n)))
    for (const [filter, count] of [
      [{ n: 17 }, 1],
      [{ n: { $in: [5, 6, 6010] } }, 3],
      [{ n: { $gte: 6045 } }, 5],
      [{ n: { $lt: 400 }, even: true }, 200],
      [{ even: true }, 3025],
      [{ n: { $gte: 10_000 } }, 0],
    ] as const) {
      expect(await collection.count(filter)).toBe(count)
      for (const mode of ['auto', 'exact'] as const) {
        const { hits, exact, plan } = await collection.search({ vector: doc(3).vector, k: 100, filter, mode })
        expect(hits.length).toBe(Math.min(100, count))
        if (mode === 'exact') expect([exact, plan]).toEqual([true, 'scan'])
      }
    }
  })

  it('hold a snapshot while it is iterated', async () => {
    const { collection } = await newCollection<{ n: number }>({ dimension: 2 })
    await collection.upsert(Array.from({ length: 60 }, (_, n) => ({ id: String(n), vector: [1, n], payload: { n } })))
    await collection.flush()
    const seen: [string, number][] = []
    for await (const { id, payload } of collection.iterate({ filter: { n: { $gte: 10 } }, batchSize: 7 })) {
      if (seen.length === 3) {
        await collection.patch('40', { n: 0 })
        await collection.delete('41')
        await collection.upsert({ id: '42', vector: [5, 5], payload: { n: -1 } })
        await collection.deleteWhere({ n: { $gte: 50 } })
        await collection.compact()
      }
      seen.push([id, payload!.n])
    }
    expect(new Map(seen)).toEqual(new Map(Array.from({ length: 50 }, (_, i) => [String(i + 10), i + 10])))
    expect(await collection.count({ n: { $gte: 10 } })).toBe(37)
  })

  it('are refused with the path of what is wrong, and delete nothing then', async () => {
    const { collection } = await newCollection<JsonObject>({ dimension: 2 })
    await collection.upsert({ id: 'a', vector: [1, 2], payload: { tenant: 'x' } })
    const bad = { tenant: undefined } as never
    await expectFailure(collection.deleteWhere(bad), 'INVALID_ARGUMENT', { field: 'filter.tenant' })
    await expectFailure(collection.deleteWhere(undefined as never), 'INVALID_ARGUMENT', { field: 'filter' })
    await expectFailure(collection.count(bad), 'INVALID_ARGUMENT', { field: 'filter.tenant' })
    await expectFailure(collection.iterate({ filter: bad }).next(), 'INVALID_ARGUMENT', {
      field: 'options.filter.tenant',
    })
    await expectFailure(collection.search({ vector: [1, 1], filter: bad }), 'INVALID_ARGUMENT', {
      field: 'request.filter.tenant',
    })
    expect(await collection.count()).toBe(1)
  })

  it('are ended by a signal', async () => {
    const { collection } = await newCollection<JsonObject>({ dimension: 2 })
    await collection.upsert({ id: 'a', vector: [1, 2], payload: { n: 1 } })
    const { signal } = AbortSignal.abort() ? { signal: AbortSignal.abort(new Error('enough')) } : { signal: undefined }
    await expectFailure(collection.deleteWhere({ n: 1 }, { signal }), 'ABORTED', { outcome: 'none' })
    await expectFailure(collection.count({ n: 1 }, { signal }), 'ABORTED')
    await expectFailure(collection.search({ vector: [1, 1], filter: { n: 1 }, signal }), 'ABORTED')
    expect(await collection.count()).toBe(1)
  })
})

describe('near', () => {
  it('searches by the vector of a document and leaves that out', async () => {
    const { collection } = await newCollection<{ n: number }>({ dimension: 2, metric: 'euclidean' })
    await collection.upsert(Array.from({ length: 20 }, (_, n) => ({ id: `d${n}`, vector: [n, 0], payload: { n } })))
    for (const flush of [false, true]) {
      if (flush) await collection.flush()
      const ids = async (request: object) =>
        (await collection.search({ near: 'd5', ...request })).hits.map(({ id }) => id)
      expect(await ids({ k: 4 })).toEqual(['d4', 'd6', 'd3', 'd7'])
      expect(await ids({ k: 2, offset: 1 })).toEqual(['d6', 'd3'])
      expect(await ids({ k: 3, filter: { n: { $gt: 4 } } })).toEqual(['d6', 'd7', 'd8'])
      expect(await ids({ k: 3, filter: { n: { $gt: 5 } } })).toEqual(['d6', 'd7', 'd8'])
      expect(await ids({ k: 100 })).toHaveLength(19)
    }
    await expectFailure(collection.search({ near: 'x' }), 'NOT_FOUND', { id: 'x' })
    await expectFailure(collection.search({ near: 'd5', vector: [1, 1] }), 'INVALID_ARGUMENT', {
      field: 'request.near',
    })
    await expectFailure(collection.search({}), 'INVALID_ARGUMENT', { field: 'request.vector' })
  })
})

describe('patches', () => {
  it('say whether there is such a document, and merge top-level fields', async () => {
    const { collection } = await newCollection<{ a?: number; b?: { c: number; d?: number } }>({ dimension: 2 })
    expect(await collection.patch('x', { a: 1 })).toBe(false)
    await collection.upsert({ id: 'x', vector: [1, 2], payload: { a: 1, b: { c: 1, d: 2 } } })
    expect(await collection.patch('x', { b: { c: 3 } })).toBe(true)
    expect((await collection.get('x'))?.payload).toEqual({ a: 1, b: { c: 3 } })
    await collection.flush()
    expect(await collection.patch('x', {}, { unset: ['a'] })).toBe(true)
    expect(await collection.get('x')).toEqual({
      id: 'x',
      vector: Float32Array.of(1, 2),
      payload: { b: { c: 3 } },
    })
    await expectFailure(collection.patch('x', { a: 1 }, { unset: ['a'] }), 'INVALID_ARGUMENT', { field: 'patch.unset' })
  })

  it('that wait together build on each other', async () => {
    const { collection } = await newCollection<{ [key: string]: number }>({ dimension: 2 })
    await Promise.all([
      collection.upsert({ id: 'x', vector: [1, 2], payload: { n: 0 } }),
      ...Array.from({ length: 50 }, (_, i) => collection.patch('x', { [`f${i}`]: i, n: i })),
      collection.write([
        { delete: 'y' },
        { upsert: { id: 'y', vector: [1, 1] } },
        { patch: { id: 'y', payload: { n: 7 } } },
      ]),
    ])
    expect(Object.keys((await collection.get('x'))!.payload!)).toHaveLength(51)
    expect((await collection.get('x'))!.payload!.n).toBe(49)
    expect((await collection.get('y'))!.payload).toEqual({ n: 7 })
  })

  it('that would make a payload too large are refused alone', async () => {
    const { collection } = await newCollection<{ [key: string]: string }>({ dimension: 2 })
    await collection.upsert({ id: 'x', vector: [1, 2], payload: { a: 'a'.repeat(900_000) } })
    const [large, small] = await Promise.allSettled([
      collection.patch('x', { b: 'b'.repeat(900_000) }),
      collection.patch('x', { c: 'c' }),
    ])
    expect(large).toMatchObject({ status: 'rejected', reason: { code: 'INVALID_ARGUMENT', outcome: 'none' } })
    expect(small).toEqual({ status: 'fulfilled', value: true })
    expect(Object.keys((await collection.get('x'))!.payload!)).toEqual(['a', 'c'])
  })

  it('hold that come while segments are written and merged', async () => {
    const store = await newStore('memory')
    const database = await store.open()
    const options = { dimension: 24, metric: 'euclidean', compaction: 'manual', index: 'manual' } as const
    const collection = await database.createCollection<Rounds>('c', options)
    const vector = (n: number) => Array.from({ length: 24 }, (_, i) => Math.sin(n * (i + 1)))
    const rounds = new Map<number, number>()
    for (let part = 0; part < 3; part++) {
      await collection.ingest(
        Array.from({ length: 18000 }, (_, i) => part * 18000 + i).map((n) => {
          rounds.set(n, 0)
          return { id: String(n), vector: vector(n), payload: { n, round: 0 } }
        }),
      )
      await collection.flush()
    }
    let turns = 0
    let round = 0
    for (const work of [() => collection.compact(), () => collection.flush(), () => collection.compact()]) {
      let isDone = false
      const done = work().finally(() => {
        isDone = true
      })
      do {
        round++
        const n = (round * 7919) % 54000
        if (round % 5 === 0 && rounds.delete(n)) await collection.delete(String(n))
        else if (rounds.has(n)) {
          rounds.set(n, round)
          await collection.patch(String(n), { round })
        }
        if (round % 3 === 0 && rounds.has(n)) {
          rounds.set(n, -round)
          await collection.upsert({ id: String(n), vector: vector(n), payload: { n, round: -round } })
        }
        turns++
        // In memory nothing but this lets others run.
        await new Promise(setImmediate)
      } while (!isDone)
      await done
    }
    expect(turns).toBeGreaterThan(50)
    for (const isReopened of [false, true]) {
      const read = isReopened ? await (await reopened(store, database)).openCollection<Rounds>('c') : collection
      const found = new Map<number, number>()
      for await (const { id, payload } of read.iterate({ include: { vector: false } })) {
        found.set(Number(id), payload!.round)
      }
      expect(found).toEqual(rounds)
      const patched = [...rounds.values()].filter((each) => each > 0).length
      expect(await read.count({ round: { $gt: 0 } })).toBe(patched)
    }
  })

  it('rewrite no vector and no graph', async () => {
    const { collection } = await newCollection<{ n: number }>({ dimension: 16, metric: 'euclidean', index: 'manual' })
    const vector = (n: number) => Array.from({ length: 16 }, (_, i) => Math.sin(n * (i + 1)))
    await collection.ingest(
      Array.from({ length: 2000 }, (_, n) => ({ id: String(n), vector: vector(n), payload: { n } })),
    )
    await collection.compact()
    await collection.buildIndex()
    const before = await collection.stats()
    for (let n = 0; n < 100; n++) await collection.patch(String(n), { n: -n })
    await collection.flush()
    const after = await collection.stats()
    expect(after).toMatchObject({ segments: 1, memtableDocs: 0, deleted: 0, indexBytes: before.indexBytes })
    expect(after.bytes - before.bytes).toBeLessThan(100 * 40)
    // A number that is all different takes eight bytes and its row.
    expect(after.columnBytes).toBe(before.columnBytes)
    expect(after.columnBytes / 2000).toBeGreaterThan(8)
    expect(after.columnBytes / 2000).toBeLessThan(14)
    expect(await collection.hasIndex()).toBe(true)
    expect(await collection.count({ n: { $lt: 0 } })).toBe(99)
  })
})

describe('projections', () => {
  it('give the parts that paths lead to', async () => {
    const { collection } = await newCollection<JsonObject>({ dimension: 2 })
    const payload = { a: { b: 1, c: [1, 2] }, list: [{ x: 1, y: 2 }, 3, { y: 4 }], d: null, 'e.f': 5 }
    await collection.upsert({ id: 'x', vector: [1, 2], payload })
    const get = async (paths: string[]) => (await collection.get('x', { include: { payload: paths } }))?.payload
    expect(await get(['a.b'])).toEqual({ a: { b: 1 } })
    expect(await get(['a', 'a.b'])).toEqual({ a: payload.a })
    expect(await get(['a.b', 'a'])).toEqual({ a: payload.a })
    expect(await get(['list.x', 'd', 'e.f', 'none', 'd.e'])).toEqual({ list: [{ x: 1 }, {}], d: null })
    expect(await get([])).toEqual({})
    const { hits } = await collection.search({ vector: [1, 2], include: { payload: ['a.c'] } })
    expect(hits[0]!.payload).toEqual({ a: { c: [1, 2] } })
    await expectFailure(collection.get('x', { include: { payload: ['a..b'] } }), 'INVALID_ARGUMENT', {
      field: 'options.include.payload[0]',
    })
  })
})
