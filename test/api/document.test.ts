import { runInNewContext } from 'node:vm'
import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { JsonObject, Metric, StoredDocument, VectorInput } from '../../src/index.ts'
import { expectFailure } from '../support/failure.ts'
import { runs } from '../support/property.ts'
import { newCollection, storeKinds } from '../support/store.ts'

const metrics: readonly Metric[] = ['cosine', 'dot', 'euclidean']
const vector = [1, 2, 3]

function bitsOf(vector: Float32Array): number[] {
  return [...new Uint32Array(vector.buffer.slice(vector.byteOffset, vector.byteOffset + vector.byteLength))]
}

const component = fc.oneof(
  fc.float({ noNaN: true, noDefaultInfinity: true }),
  fc.constantFrom(-0, 0, 1e30, -1e30, 1.401298464324817e-45, -1.1754942106924411e-38, 3.4028234663852886e38),
)

/** Payloads as JSON has them, with every key that could be mistaken for something else. */
const payloads = fc.dictionary(
  fc.oneof(fc.string(), fc.constantFrom('__proto__', 'constructor', 'toString', 'toJSON', 'a.b', '$id', '')),
  fc.jsonValue({ maxDepth: 3 }),
  { noNullPrototype: true },
)

describe.each(storeKinds)('documents on the %s backend', (kind) => {
  it.each(metrics)('come back bit for bit under %s, from memory, segments and after reopening', async (metric) => {
    const { store, database, collection } = await newCollection<JsonObject>({ dimension: 5, metric }, kind)
    const stored = new Map<string, { vector: Float32Array; payload?: JsonObject }>()
    const document = fc.record(
      {
        vector: fc.tuple(component, component, component, component, component),
        payload: payloads as fc.Arbitrary<JsonObject>,
      },
      { requiredKeys: ['vector'] },
    )
    const expectAll = async (from: typeof collection): Promise<void> => {
      for (const [id, { vector, payload }] of stored) {
        const found = (await from.get(id))!
        expect(bitsOf(found.vector!)).toEqual(bitsOf(vector))
        expect('payload' in found).toBe(payload !== undefined)
        // -0 is no JSON number of its own.
        if (payload !== undefined) expect(JSON.stringify(found.payload)).toBe(JSON.stringify(payload))
      }
      expect(await from.count()).toBe(stored.size)
    }
    await fc.assert(
      fc.asyncProperty(fc.string({ minLength: 1, maxLength: 3, unit: 'grapheme' }), document, async (id, given) => {
        fc.pre(metric !== 'cosine' || given.vector.some((x) => x !== 0))
        await collection.upsert({ id, ...given }, { durability: 'buffered' })
        stored.set(id, { ...given, vector: Float32Array.from(given.vector) })
        const found = await collection.get(id)
        expect(bitsOf(found!.vector!)).toEqual(bitsOf(stored.get(id)!.vector))
      }),
      runs(60),
    )
    await expectAll(collection)
    await collection.flush()
    await expectAll(collection)
    await database.close()
    await expectAll(await (await store.open()).openCollection<JsonObject>('c'))
  })
})

describe('vectors', () => {
  it('are taken from every kind of input and rounded to 32 bits', async () => {
    const { collection } = await newCollection({ dimension: 3, metric: 'dot' })
    const given = [0.1, -1 / 3, 16777217]
    const inputs: VectorInput[] = [given, Object.freeze([...given]), Float64Array.from(given), Float32Array.from(given)]
    inputs.push(runInNewContext('Float32Array.of(0.1, -1 / 3, 16777217)'))
    inputs.push(runInNewContext('Float64Array.of(0.1, -1 / 3, 16777217)'))
    inputs.push(runInNewContext('[0.1, -1 / 3, 16777217]'))
    inputs.push(new Float64Array(Float64Array.of(9, ...given, 9).buffer, 8, 3))
    inputs.push(Float32Array.of(9, ...given).subarray(1))
    for (const [i, input] of inputs.entries()) {
      await collection.upsert({ id: `${i}`, vector: input })
      const found = (await collection.get(`${i}`))!.vector!
      expect(found).toBeInstanceOf(Float32Array)
      expect(found).toEqual(Float32Array.of(0.1, -1 / 3, 16777216))
      expect((await collection.search({ vector: input, k: 100 })).hits).toHaveLength(i + 1)
    }
  })

  it('and payloads are copied before a call returns, and never detached', async () => {
    const { collection } = await newCollection<{ list: number[] }>({ dimension: 3, metric: 'dot' }, 'node')
    const given = Float32Array.from(vector)
    const doubles = Float64Array.from(vector)
    const numbers = [...vector]
    const payload = { list: [1] }
    const docs = [given, doubles, numbers].map((vector, i) => ({ id: `${i}`, vector, payload }))
    const ids = ['gone']
    const spoil = (): void => {
      for (const input of [given, doubles, numbers]) input.fill(9)
      payload.list.push(2)
      for (const doc of docs) doc.id = 'other'
      docs.length = 0
      ids[0] = '0'
    }
    await collection.upsert({ id: 'gone', vector })
    const writing = collection.upsert(docs)
    const deleting = collection.delete(ids)
    spoil()
    await writing
    expect(await deleting).toBe(1)
    for (const id of ['0', '1', '2']) {
      expect(await collection.get(id)).toEqual({ id, vector: Float32Array.from(vector), payload: { list: [1] } })
    }
    expect([given.length, doubles.length]).toEqual([3, 3])

    const query = Float32Array.from(vector)
    const searching = collection.search({ vector: query, k: 1 })
    query.fill(0)
    expect((await searching).hits[0]!.score).toBe(14)
    const wanted = ['0', '1']
    const reading = collection.getMany(wanted)
    wanted.fill('2')
    expect((await reading).map((doc) => doc!.id)).toEqual(['0', '1'])
  })

  it('are a fresh copy each time', async () => {
    const { collection } = await newCollection<{ list: number[] }>({ dimension: 3 })
    await collection.upsert({ id: 'a', vector, payload: { list: [1] } })
    const reads = [
      async () => (await collection.get('a'))!,
      async () => (await collection.getMany(['a']))[0]!,
      async () => (await collection.search({ vector, include: { vector: true } })).hits[0]!,
      async () => (await collection.iterate().next()).value as StoredDocument<{ list: number[] }>,
    ]
    for (const flush of [false, true]) {
      if (flush) await collection.flush()
      for (const read of reads) {
        const first = await read()
        first.vector!.fill(9)
        first.payload!.list.push(2)
        const second = await read()
        expect(second.vector).toEqual(Float32Array.from(vector))
        expect(second.payload).toEqual({ list: [1] })
        expect(Object.getPrototypeOf(second.payload)).toBe(Object.prototype)
      }
    }
  })
})

describe('payloads', () => {
  it('lose what is undefined, and minus zero becomes zero', async () => {
    const { collection } = await newCollection({ dimension: 3 })
    await collection.upsert({ id: 'a', vector, payload: { a: undefined, b: { c: undefined, d: -0 }, e: [-0] } })
    const { payload } = (await collection.get('a'))!
    expect(payload).toStrictEqual({ b: { d: 0 }, e: [0] })
    await collection.upsert({ id: 'a', vector, payload: undefined } as never)
    expect(await collection.get('a')).toStrictEqual({ id: 'a', vector: Float32Array.from(vector) })
    await collection.upsert({ id: 'a', vector, payload: {} })
    expect(await collection.get('a')).toStrictEqual({ id: 'a', vector: Float32Array.from(vector), payload: {} })
  })

  it('keep keys that mean something to JavaScript, and touch no prototype', async () => {
    const { collection } = await newCollection({ dimension: 3 })
    const payload = JSON.parse(
      '{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}},"hasOwnProperty":1}',
    )
    await collection.upsert({ id: '__proto__', vector, payload })
    await collection.upsert({ id: 'constructor', vector })
    const found = (await collection.get('__proto__'))!.payload!
    expect(JSON.stringify(found)).toBe(JSON.stringify(payload))
    expect(Object.keys(found)).toContain('__proto__')
    expect(({} as { polluted?: number }).polluted).toBeUndefined()
    expect((await collection.get('constructor'))!.payload).toBeUndefined()
    expect(await collection.get('hasOwnProperty')).toBeUndefined()
    expect(await collection.has('toString')).toBe(false)
    expect(await collection.delete(['__proto__', 'toString'])).toBe(1)
  })

  it('are taken from other realms, frozen, without a prototype, and with objects in several places', async () => {
    const { collection } = await newCollection({ dimension: 3 })
    const shared = { a: 1 }
    const plain = Object.assign(Object.create(null), { list: [shared, shared], shared })
    const foreign = runInNewContext('({ list: [{ a: 1 }, { a: 1 }], shared: { a: 1 } })')
    for (const payload of [plain, foreign, Object.freeze({ ...plain })]) {
      await collection.upsert({ id: 'a', vector, payload })
      expect((await collection.get('a'))!.payload).toStrictEqual({ list: [{ a: 1 }, { a: 1 }], shared: { a: 1 } })
    }
  })
})

describe('include', () => {
  it('says what comes back', async () => {
    const { collection } = await newCollection({ dimension: 3 })
    await collection.upsert({ id: 'a', vector, payload: { a: 1 } })
    const whole = { vector: Float32Array.from(vector), payload: { a: 1 } }
    const cases = [
      [undefined, ['id', 'payload', 'vector']],
      [{}, ['id', 'payload', 'vector']],
      [{ payload: false }, ['id', 'vector']],
      [{ vector: false }, ['id', 'payload']],
      [{ vector: false, payload: false }, ['id']],
    ] as const
    for (const flush of [false, true]) {
      if (flush) await collection.flush()
      for (const [include, keys] of cases) {
        const options = include === undefined ? {} : { include }
        const got = await collection.get('a', options)
        expect(Object.keys(got!).sort()).toEqual(keys)
        expect(got).toMatchObject(
          Object.fromEntries(Object.entries(whole).filter(([key]) => keys.includes(key as never))),
        )
        expect(await collection.getMany(['a'], options)).toEqual([got])
        expect((await collection.iterate(options).next()).value).toEqual(got)
      }
      const hit = async (include?: object): Promise<string[]> => {
        const { hits } = await collection.search({ vector, ...(include === undefined ? {} : { include }) })
        return Object.keys(hits[0]!).sort()
      }
      expect(await hit()).toEqual(['id', 'payload', 'score'])
      expect(await hit({ vector: true })).toEqual(['id', 'payload', 'score', 'vector'])
      expect(await hit({ payload: false })).toEqual(['id', 'score'])
    }
    await expectFailure(collection.get('a', { include: { vector: 1 } as never }), 'INVALID_ARGUMENT')
  })
})
