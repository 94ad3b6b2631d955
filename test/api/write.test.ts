import { Readable } from 'node:stream'
import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Collection, WriteOperation } from '../../src/index.ts'
import { expectFailure } from '../support/failure.ts'
import { runs } from '../support/property.ts'
import { newCollection, storeKinds } from '../support/store.ts'

type Numbered = { number: number }

function doc(id: string, number: number): { id: string; vector: number[]; payload: Numbered } {
  return { id, vector: [number, 1], payload: { number } }
}

async function contentOf(collection: Collection<Numbered>): Promise<Map<string, number>> {
  const content = new Map<string, number>()
  for await (const { id, payload, vector } of collection.iterate()) {
    expect(content.has(id)).toBe(false)
    expect(vector![0]).toBe(payload!.number)
    content.set(id, payload!.number)
  }
  expect(await collection.count()).toBe(content.size)
  return content
}

/** A way to change a collection: a batch, or work that must change nothing that anybody sees. */
type Step = WriteOperation<Numbered>[] | 'flush' | 'compact' | 'reopen'

const ids = fc.constantFrom('a', 'b', 'c', 'd', 'e', 'é', '__proto__')
const operation: fc.Arbitrary<WriteOperation<Numbered>> = fc.oneof(
  fc.tuple(ids, fc.nat(1000)).map(([id, number]) => ({ upsert: doc(id, number) })),
  ids.map((id) => ({ delete: id })),
)
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: fc.array(operation, { maxLength: 6 }) },
  { weight: 1, arbitrary: fc.constantFrom<Step>('flush', 'compact', 'reopen') },
)

describe.each(storeKinds)('writes on the %s backend', (kind) => {
  it('do what a map does, a later operation on an id wins, and work behind them shows nowhere', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 12 }), async (steps) => {
        const opened = await newCollection<Numbered>({ dimension: 2, durability: 'buffered' }, kind)
        let { database, collection } = opened
        const model = new Map<string, number>()
        for (const step of steps) {
          if (step === 'flush') await collection.flush()
          else if (step === 'compact') await collection.compact()
          else if (step === 'reopen') {
            await database.close()
            database = await opened.store.open()
            collection = await database.openCollection('c')
          } else {
            await collection.write(step)
            for (const each of step) {
              if ('upsert' in each) model.set(each.upsert.id, each.upsert.payload!.number)
              else if ('delete' in each) model.delete(each.delete)
            }
          }
        }
        expect(await contentOf(collection)).toEqual(model)
        const asked = ['a', 'nobody', 'b', 'c', 'd', 'e', 'a']
        const found = await collection.getMany(asked)
        expect(found.map((each) => each?.payload?.number)).toEqual(asked.map((id) => model.get(id)))
        for (const id of asked) expect(await collection.has(id)).toBe(model.has(id))
        await database.close()
      }),
      runs(kind === 'memory' ? 40 : 12),
    )
  })

  it('take effect in the order of their calls, whether or not anybody waits', async () => {
    const { collection } = await newCollection<Numbered>({ dimension: 2 }, kind)
    const seen: Promise<unknown>[] = []
    const expected: unknown[] = []
    for (let number = 0; number < 40; number++) {
      void collection.upsert(doc('a', number), { durability: number % 3 === 0 ? 'strict' : 'buffered' })
      seen.push(collection.get('a').then((found) => found?.payload?.number))
      expected.push(number)
      if (number % 10 === 5) void collection.flush()
      if (number % 7 === 3) {
        seen.push(collection.delete('a'), collection.delete(['a', 'b']), collection.count(), collection.has('a'))
        expected.push(1, 0, 0, false)
      }
      seen.push(collection.search({ vector: [1, 1] }).then(({ hits }) => hits.map(({ payload }) => payload?.number)))
      expected.push(number % 7 === 3 ? [] : [number])
    }
    expect(await Promise.all(seen)).toEqual(expected)
  })

  it('that come after a read are not seen by it, also where the read must load first', async () => {
    const { store, database, collection } = await newCollection<Numbered>({ dimension: 2 }, kind)
    await collection.upsert([doc('a', 1), doc('b', 2)])
    await collection.flush()
    await database.close()
    const reopened = await (await store.open()).openCollection<Numbered>('c')
    const reads = [
      reopened.get('a').then((found) => found?.payload?.number),
      reopened.search({ vector: [1, 1] }).then(({ hits }) => hits.length),
      reopened.count(),
    ]
    const deleted = reopened.delete('a')
    const rest = reopened.count()
    const replaced = reopened.upsert(doc('b', 3))
    expect(await Promise.all(reads)).toEqual([1, 2, 2])
    expect([await deleted, await rest]).toEqual([1, 1])
    await replaced
    expect(await contentOf(reopened)).toEqual(new Map([['b', 3]]))
  })
})

describe('delete', () => {
  it('counts the documents that existed, each once', async () => {
    const { collection } = await newCollection<Numbered>({ dimension: 2 })
    await collection.upsert([doc('a', 1), doc('b', 2), doc('c', 3)])
    expect(await collection.delete(['a', 'a', 'nobody'])).toBe(1)
    await collection.flush()
    expect(await collection.delete('b')).toBe(1)
    expect(await collection.delete('b')).toBe(0)
    expect(await collection.delete([])).toBe(0)
    expect(await collection.count()).toBe(1)
  })
})

describe('iterate', () => {
  it('gives one moment from start to end, whatever is written meanwhile', async () => {
    const { collection } = await newCollection<Numbered>({ dimension: 2, index: 'manual' })
    for (let part = 0; part < 3; part++) {
      await collection.upsert(Array.from({ length: 50 }, (_, i) => doc(`${part}-${i}`, 50 * part + i)))
      if (part < 2) await collection.flush()
    }
    const seen = new Map<string, number>()
    for await (const { id, payload } of collection.iterate({ batchSize: 7 })) {
      if (seen.size === 10) {
        await collection.delete(Array.from({ length: 50 }, (_, i) => `1-${i}`))
        await collection.upsert(Array.from({ length: 100 }, (_, i) => doc(`2-${i}`, -i)))
        await collection.flush()
        await collection.compact()
      }
      expect(seen.has(id)).toBe(false)
      seen.set(id, payload!.number)
    }
    expect(seen).toEqual(new Map(Array.from({ length: 150 }, (_, i) => [`${Math.floor(i / 50)}-${i % 50}`, i])))
    expect(await collection.count()).toBe(150)
  })

  it('frees what it holds when the loop is left', async () => {
    const { database, collection } = await newCollection<Numbered>({ dimension: 512, index: 'manual' })
    const vectors = (from: number) =>
      Array.from({ length: 500 }, (_, i) => ({
        id: `${i}`,
        vector: new Float32Array(512).fill(from + i),
        payload: { number: i },
      }))
    await collection.upsert(vectors(1))
    await collection.flush()
    const leave = [
      async () => {
        for await (const _ of collection.iterate()) break
      },
      async () => {
        const iterator = collection.iterate()
        await iterator.next()
        await iterator.return!()
      },
      async () => {
        const failure = new Error('out')
        const loop = async () => {
          for await (const _ of collection.iterate()) throw failure
        }
        await expect(loop()).rejects.toBe(failure)
      },
      async () => {
        const controller = new AbortController()
        const iterator = collection.iterate({ signal: controller.signal, batchSize: 1 })
        await iterator.next()
        controller.abort('enough')
        await expectFailure(iterator.next(), 'ABORTED', { cause: 'enough' })
      },
    ]
    const { memoryBytes } = await database.info()
    for (let round = 0; round < 4; round++) {
      for (const each of leave) {
        await each()
        await collection.upsert(vectors(round + 2))
        await collection.compact()
      }
    }
    // Sixteen generations of 1 MB, of which at most a few may be there at a time.
    expect((await database.info()).memoryBytes).toBeLessThan(memoryBytes + 8e6)
  })
})

describe('ingest', () => {
  const count = 2600
  function* numbered(upTo = count): Generator<ReturnType<typeof doc>> {
    for (let i = 0; i < upTo; i++) yield doc(`${i}`, i)
  }
  async function* slowly(upTo = count): AsyncGenerator<ReturnType<typeof doc>> {
    for (const each of numbered(upTo)) {
      if (Number(each.id) % 500 === 0) await new Promise((resolve) => setTimeout(resolve, 1))
      yield each
    }
  }

  it.each([
    ['an array', () => [...numbered()]],
    ['a generator', () => numbered()],
    ['an async generator', () => slowly()],
    ['a stream', () => Readable.from(slowly()) as AsyncIterable<ReturnType<typeof doc>>],
  ])('stores all of %s and tells how far it is', async (_, source) => {
    const { collection } = await newCollection<Numbered>({ dimension: 2, durability: 'buffered' }, 'node')
    const progress: number[] = []
    expect(await collection.ingest(source(), { onProgress: ({ count }) => progress.push(count) })).toEqual({ count })
    expect(await collection.count()).toBe(count)
    expect((await collection.get('2599'))?.payload).toEqual({ number: 2599 })
    expect(progress.at(-1)).toBe(count)
    expect(progress).toEqual([...new Set(progress)].sort((a, b) => a - b))
    expect(await collection.ingest([])).toEqual({ count: 0 })
  })

  it('takes no more from the source than it can store', async () => {
    const { collection } = await newCollection<Numbered>({ dimension: 2, durability: 'buffered' }, 'node')
    let taken = 0
    let acknowledged = 0
    let ahead = 0
    function* watched() {
      for (const each of numbered(20_000)) {
        taken++
        ahead = Math.max(ahead, taken - acknowledged)
        yield each
      }
    }
    await collection.ingest(watched(), { onProgress: ({ count }) => (acknowledged = count) })
    expect(acknowledged).toBe(20_000)
    expect(ahead).toBeLessThanOrEqual(2500)
  })

  it.each([
    ['a source that fails', new Error('no more')],
    ['a document that is none', undefined],
  ])('passes on the failure of %s, and what it stored are whole batches', async (_, failure) => {
    const { store, database, collection } = await newCollection<Numbered>({ dimension: 2 }, 'node')
    let isLeft = false
    async function* source() {
      try {
        yield* numbered()
        if (failure !== undefined) throw failure
        yield { id: 'bad', vector: [Number.NaN, 1], payload: { number: 0 } }
      } finally {
        isLeft = true
      }
    }
    const ingesting = collection.ingest(source())
    if (failure !== undefined) await expect(ingesting).rejects.toBe(failure)
    else await expectFailure(ingesting, 'INVALID_ARGUMENT', { field: `docs[${count}].vector[0]` })
    const stored = await collection.count()
    expect(isLeft).toBe(true)
    expect(stored).toBe(2500)
    await new Promise((resolve) => setTimeout(resolve, 50))
    expect(await collection.count()).toBe(stored)
    await database.close()
    expect(await (await (await store.open()).openCollection('c')).count()).toBe(stored)
  })

  it('ends at once when it is aborted, also while it waits for the source', async () => {
    const { collection } = await newCollection<Numbered>({ dimension: 2 })
    const controller = new AbortController()
    let isLeft = false
    const source: AsyncIterator<ReturnType<typeof doc>> = {
      next: (() => {
        const docs = numbered(1100)
        return () => {
          const { done, value } = docs.next()
          if (!done) return Promise.resolve({ done: false, value })
          // Once whatever was sent is stored: counting comes after it.
          void collection.count().then(() => controller.abort('enough'))
          return new Promise(() => {})
        }
      })(),
      return: async () => {
        isLeft = true
        return { done: true, value: undefined }
      },
    }
    const ingesting = collection.ingest({ [Symbol.asyncIterator]: () => source }, { signal: controller.signal })
    await expectFailure(ingesting, 'ABORTED', { cause: 'enough' })
    expect(isLeft).toBe(true)
    expect(await collection.count()).toBe(1000)
  })
})

describe('an abort', () => {
  it('before a write or read leaves everything as it was', async () => {
    const { collection } = await newCollection<Numbered>({ dimension: 2 }, 'node')
    await collection.upsert(doc('kept', 1))
    const cause = new Error('enough')
    const options = { signal: AbortSignal.abort(cause) }
    const writes = [
      collection.upsert(doc('a', 1), options),
      collection.upsert([], options),
      collection.write([{ delete: 'kept' }], options),
      collection.delete('kept', options),
    ]
    for (const write of writes) await expectFailure(write, 'ABORTED', { outcome: 'none', cause })
    const others = [
      collection.ingest([doc('a', 1)], options),
      collection.getMany(['kept'], options),
      collection.count(undefined, options),
      collection.search({ vector: [1, 1], ...options }),
      collection.searchMany([{ vector: [1, 1] }], options),
      collection.searchMany([{ vector: [1, 1], ...options }]),
      collection.iterate(options).next(),
      collection.measureRecall(options),
      collection.compact(options),
      collection.buildIndex(options),
    ]
    for (const other of others) await expectFailure(other, 'ABORTED', { cause })
    expect(await contentOf(collection)).toEqual(new Map([['kept', 1]]))
  })

  it('of a write that waits for its turn keeps it from happening', async () => {
    const { collection } = await newCollection<Numbered>({ dimension: 2 }, 'node')
    const controller = new AbortController()
    const { signal } = controller
    // Batches of more than 8 MB are not logged together.
    const large = Array.from({ length: 10 }, (_, i) => ({
      ...doc(`${i}`, i),
      payload: { number: i, text: 'x'.repeat(1e6) },
    }))
    const first = collection.upsert(large)
    const second = collection.upsert(doc('second', 1), { signal })
    const third = collection.upsert(doc('third', 1))
    await Promise.resolve()
    await Promise.resolve()
    controller.abort('enough')
    await expectFailure(second, 'ABORTED', { outcome: 'none', cause: 'enough' })
    await Promise.all([first, third])
    expect(await collection.has('second')).toBe(false)
    expect(await collection.count()).toBe(11)
  })

  it('of a write under way says that it may have happened', async () => {
    const { store, database, collection } = await newCollection<Numbered>({ dimension: 2 }, 'node')
    let unknown = 0
    for (let i = 0; i < 20; i++) {
      const controller = new AbortController()
      const write = collection.upsert(doc(`${i}`, i), { signal: controller.signal })
      setTimeout(() => controller.abort(), i % 5 === 0 ? 0 : 1)
      const outcome = await write.then(
        () => 'done',
        (error) => {
          expect(error).toMatchObject({ code: 'ABORTED', cause: controller.signal.reason })
          return error.outcome as string
        },
      )
      expect(['done', 'none', 'unknown']).toContain(outcome)
      const isThere = await collection.has(`${i}`)
      if (outcome === 'done') expect(isThere).toBe(true)
      if (outcome === 'none') expect(isThere).toBe(false)
      if (outcome === 'unknown') unknown++
    }
    expect(unknown).toBeGreaterThan(0)
    const content = await contentOf(collection)
    await database.close()
    expect(await contentOf(await (await store.open()).openCollection('c'))).toEqual(content)
  })
})
