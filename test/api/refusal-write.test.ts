import { runInNewContext } from 'node:vm'
import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Collection, IsovecErrorCode, IsovecErrorFields, Metric } from '../../src/index.ts'
import { expectFailure } from '../support/failure.ts'
import { runs } from '../support/property.ts'
import { newCollection, storeKinds } from '../support/store.ts'

const dimension = 3
const vector = [1, 2, 3]
const mebibyte = 1024 * 1024

/** Checks that a collection holds nothing but `kept`, now and after it was opened again. */
async function expectOnly(collection: Collection<object>, kept: readonly string[]): Promise<void> {
  const idsIn = async (from: Collection<object>): Promise<string[]> => {
    const ids: string[] = []
    for await (const { id } of from.iterate()) ids.push(id)
    expect(await from.count()).toBe(ids.length)
    return ids.sort()
  }
  expect(await idsIn(collection)).toEqual([...kept].sort())
}

/** Two values with a hole between them. */
function holed(first: unknown, last: unknown): unknown[] {
  return Object.assign(new Array(3), { 0: first, 2: last })
}

type Refusal = [what: string, document: unknown, code: IsovecErrorCode, fields: IsovecErrorFields]

const invalid = (what: string, document: unknown, field: string): Refusal => [
  what,
  document,
  'INVALID_ARGUMENT',
  { field },
]

function payloadRefusal(what: string, payload: unknown, field: string): Refusal {
  return invalid(`a payload with ${what}`, { id: 'x', vector, payload }, `docs.payload${field}`)
}

const cycle: Record<string, unknown> = { list: [] }
;(cycle.list as unknown[]).push(cycle)

function nested(levels: number, leaf: unknown = 1): Record<string, unknown> {
  let payload: Record<string, unknown> = { leaf }
  for (let level = 1; level < levels; level++) payload = { a: payload }
  return payload
}

class Point {
  x = 1
}
class NullPrototype {}
Object.setPrototypeOf(NullPrototype.prototype, null)

const refusals: Refusal[] = [
  invalid('null', null, 'docs'),
  invalid('a text', 'x', 'docs'),
  invalid('an unknown property', { id: 'x', vector, tags: [] }, 'docs.tags'),
  invalid('no id', { vector }, 'docs.id'),
  invalid('a number as id', { id: 1, vector }, 'docs.id'),
  invalid('an empty id', { id: '', vector }, 'docs.id'),
  invalid('an id of 1,025 bytes', { id: 'a'.repeat(1025), vector }, 'docs.id'),
  invalid('an id of 1,026 bytes in 513 characters', { id: 'é'.repeat(513), vector }, 'docs.id'),
  invalid('an id with a high surrogate at its end', { id: 'a\ud800', vector }, 'docs.id'),
  invalid('an id with a low surrogate', { id: '\udc00a', vector }, 'docs.id'),
  invalid('an id with surrogates the wrong way round', { id: '\udc00\ud800', vector }, 'docs.id'),
  invalid('no vector', { id: 'x' }, 'docs.vector'),
  invalid('a text as vector', { id: 'x', vector: 'abc' }, 'docs.vector'),
  invalid('bytes as vector', { id: 'x', vector: new Uint8Array(3) }, 'docs.vector'),
  invalid('an array-like as vector', { id: 'x', vector: { length: 3, 0: 1, 1: 2, 2: 3 } }, 'docs.vector'),
  invalid('a buffer as vector', { id: 'x', vector: new ArrayBuffer(12) }, 'docs.vector'),
  invalid('NaN', { id: 'x', vector: [1, Number.NaN, 3] }, 'docs.vector[1]'),
  invalid('NaN in a Float32Array', { id: 'x', vector: Float32Array.of(1, 2, Number.NaN) }, 'docs.vector[2]'),
  invalid('an infinity', { id: 'x', vector: [1, 2, Number.POSITIVE_INFINITY] }, 'docs.vector[2]'),
  invalid(
    'a negative infinity',
    { id: 'x', vector: Float64Array.of(Number.NEGATIVE_INFINITY, 2, 3) },
    'docs.vector[0]',
  ),
  invalid('what rounds to infinity', { id: 'x', vector: [1, 3.5e38, 3] }, 'docs.vector[1]'),
  invalid('the least that rounds to infinity', { id: 'x', vector: [1, 2 ** 128 - 2 ** 103, 3] }, 'docs.vector[1]'),
  invalid('a hole', { id: 'x', vector: holed(1, 3) }, 'docs.vector[1]'),
  invalid('a text in the vector', { id: 'x', vector: [1, '2', 3] }, 'docs.vector[1]'),
  invalid('null in the vector', { id: 'x', vector: [1, null, 3] }, 'docs.vector[1]'),
  invalid('a bigint in the vector', { id: 'x', vector: [1, 2n, 3] }, 'docs.vector[1]'),
  invalid('a zero vector', { id: 'x', vector: [0, 0, 0] }, 'docs.vector'),
  invalid('a negative zero vector', { id: 'x', vector: [-0, 0, -0] }, 'docs.vector'),
  invalid('a vector that rounds to zero', { id: 'x', vector: [1e-50, 0, -1e-46] }, 'docs.vector'),
  ['too few dimensions', { id: 'x', vector: [1, 2] }, 'WRONG_DIMENSION', { expected: 3, actual: 2 }],
  ['too many dimensions', { id: 'x', vector: new Float32Array(4) }, 'WRONG_DIMENSION', { expected: 3, actual: 4 }],
  ['no dimension', { id: 'x', vector: [] }, 'WRONG_DIMENSION', { expected: 3, actual: 0 }],
  ...[null, 'text', 1, true, [], [1], 1n, Symbol('s'), () => 1].map((payload) =>
    invalid(`${String(payload) || '[]'} (${typeof payload}) as payload`, { id: 'x', vector, payload }, 'docs.payload'),
  ),
  ...[new Date(0), new Map(), new Set(), new Point(), /x/, new Error('x'), Promise.resolve(), new Uint8Array(2)].map(
    (payload) =>
      invalid(`${Object.prototype.toString.call(payload)} as payload`, { id: 'x', vector, payload }, 'docs.payload'),
  ),
  payloadRefusal('a date', { a: { b: [1, new Date(0)] } }, '.a.b[1]'),
  payloadRefusal('a date of another realm', { a: runInNewContext('new Date(0)') }, '.a'),
  payloadRefusal('a map', { a: new Map([[1, 2]]) }, '.a'),
  payloadRefusal('a map of another realm', { a: runInNewContext('new Map()') }, '.a'),
  payloadRefusal('a set', { a: new Set([1]) }, '.a'),
  payloadRefusal('a typed array', { a: new Float32Array(2) }, '.a'),
  payloadRefusal('an instance', { a: [{ b: new Point() }] }, '.a[0].b'),
  payloadRefusal('an instance of a class without a base', { a: new NullPrototype() }, '.a'),
  payloadRefusal('an instance of another realm', { a: runInNewContext('new (class A { x = 1 })()') }, '.a'),
  payloadRefusal('a kind of array', { a: new (class List extends Array {})() }, '.a'),
  payloadRefusal('a boxed number', { a: new Number(1) }, '.a'),
  payloadRefusal('an object that inherits', { a: Object.create({ b: 1 }) }, '.a'),
  payloadRefusal('a bigint', { a: 1n }, '.a'),
  payloadRefusal('a symbol', { a: Symbol('s') }, '.a'),
  payloadRefusal('a symbol as key', { a: { [Symbol('s')]: 1 } }, '.a'),
  payloadRefusal('a function', { a: () => 1 }, '.a'),
  payloadRefusal('a toJSON', { a: { toJSON: () => 1 } }, '.a.toJSON'),
  payloadRefusal('NaN', { a: [0, { b: Number.NaN }] }, '.a[1].b'),
  payloadRefusal('an infinity', { a: Number.NEGATIVE_INFINITY }, '.a'),
  payloadRefusal('undefined in an array', { a: [1, undefined] }, '.a[1]'),
  payloadRefusal('a hole', { a: holed(1, 3) }, '.a[1]'),
  payloadRefusal('itself', cycle, '.list[0]'),
  payloadRefusal('65 levels', nested(65), `${'.a'.repeat(64)}`),
  payloadRefusal('64 levels and a list', nested(64, []), `${'.a'.repeat(63)}.leaf`),
  payloadRefusal('more than 1 MiB', { a: 'x'.repeat(mebibyte - 7) }, ''),
  payloadRefusal('more than 1 MiB in UTF-8', { a: 'é'.repeat(mebibyte / 2) }, ''),
  payloadRefusal('more than 1 MiB by its escapes', { a: '\n'.repeat(mebibyte / 2) }, ''),
]

describe.each(storeKinds)('a write on the %s backend refuses, and stores nothing of', (kind) => {
  it('any document that is not one', async () => {
    const { store, database, collection } = await newCollection({ dimension }, kind)
    await collection.upsert({ id: 'kept', vector })
    for (const [what, document, code, fields] of refusals) {
      await expectFailure(collection.upsert(document as never), code, fields).catch((error) => {
        throw new Error(`${what}: ${error.message}`, { cause: error })
      })
    }
    await expectOnly(collection, ['kept'])
    await database.close()
    await expectOnly(await (await store.open()).openCollection('c'), ['kept'])
  })

  it('an atomic batch of which one part is bad, wherever it stands', async () => {
    const { store, database, collection } = await newCollection({ dimension }, kind)
    await collection.upsert({ id: 'kept', vector })
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 0, max: 5 }),
        fc.integer({ min: 0, max: 5 }),
        fc.nat(refusals.length - 1),
        async (before, after, which) => {
          const [, document, code, { field, ...fields }] = refusals[which]!
          const good = (count: number) => Array.from({ length: count }, (_, i) => ({ id: `good${i}`, vector }))
          const docs = [...good(before), document, ...good(after)] as never[]
          const at = (place: string) => (field === undefined ? {} : { field: field.replace(/^docs/, place) })
          await expectFailure(collection.upsert(docs), code, { ...fields, ...at(`docs[${before}]`) })
          const operations = [{ delete: 'kept' }, ...docs.map((upsert) => ({ upsert }))] as never[]
          await expectFailure(collection.write(operations), code, {
            ...fields,
            ...at(`operations[${before + 1}].upsert`),
          })
        },
      ),
      runs(60),
    )
    await expectOnly(collection, ['kept'])
    await database.close()
    await expectOnly(await (await store.open()).openCollection('c'), ['kept'])
  })
})

describe('a write refuses', () => {
  it('arguments of the wrong shape', async () => {
    const { collection } = await newCollection({ dimension })
    const good = { id: 'x', vector }
    const hole = Object.assign(new Array(2), { 0: good }) as never
    const cases: [Promise<unknown>, string][] = [
      [collection.upsert(undefined as never), 'docs'],
      [collection.upsert(hole), 'docs[1]'],
      [collection.write(undefined as never), 'operations'],
      [collection.write({ upsert: good } as never), 'operations'],
      [collection.write(holed({ upsert: good }, { upsert: good }) as never), 'operations[1]'],
      [collection.write([null] as never), 'operations[0]'],
      [collection.write([{}] as never), 'operations[0]'],
      [collection.write([{ upsert: good, delete: 'x' }] as never), 'operations[0]'],
      [collection.write([{ insert: good }] as never), 'operations[0].insert'],
      [collection.write([{ delete: '' }]), 'operations[0].delete'],
      [collection.write([{ delete: 1 }] as never), 'operations[0].delete'],
      [collection.delete(undefined as never), 'ids'],
      [collection.delete(''), 'ids'],
      [collection.delete(['a', '\ud800']), 'ids[1]'],
      [collection.delete(holed('a', 'b') as never), 'ids[1]'],
      [collection.upsert(good, { durability: 'none' } as never), 'options.durability'],
      [collection.upsert(good, { signal: {} } as never), 'options.signal'],
      [collection.upsert(good, { sync: true } as never), 'options.sync'],
      [collection.upsert(good, null as never), 'options'],
      [collection.upsert([], { durability: 'none' } as never), 'options.durability'],
      [collection.ingest(undefined as never), 'docs'],
      [collection.ingest({} as never), 'docs'],
      [collection.ingest(7 as never), 'docs'],
      [collection.ingest([good], { onProgress: 1 } as never), 'options.onProgress'],
      [collection.ingest([good, null] as never), 'docs[1]'],
      [collection.ingest([good], { durability: 'none' } as never), 'options.durability'],
      [collection.get(''), 'id'],
      [collection.get(undefined as never), 'id'],
      [collection.get('x', { include: { payload: 1 } } as never), 'options.include.payload'],
      [collection.get('x', { include: { score: true } } as never), 'options.include.score'],
      [collection.get('x', { include: null } as never), 'options.include'],
      [collection.getMany('x' as never), 'ids'],
      [collection.getMany(holed('a', 'b') as never), 'ids[1]'],
      [collection.getMany(['a', '']), 'ids[1]'],
      [collection.getMany(['a'], { signal: 1 } as never), 'options.signal'],
      [collection.has(''), 'id'],
      [collection.iterate({ batchSize: 0 }).next(), 'options.batchSize'],
      [collection.iterate({ limit: 1 } as never).next(), 'options.limit'],
      [collection.count(undefined, { signal: 1 } as never), 'options.signal'],
    ]
    for (const [promise, field] of cases) await expectFailure(promise, 'INVALID_ARGUMENT', { field })
    expect(await collection.count()).toBe(0)
  })

  it('a payload that refers to one object exponentially often, at once', async () => {
    const { collection } = await newCollection({ dimension })
    let payload: object = { a: 1 }
    for (let level = 0; level < 40; level++) payload = { a: payload, b: payload }
    await expectFailure(collection.upsert({ id: 'x', vector, payload }), 'INVALID_ARGUMENT', { field: 'docs.payload' })
  })

  it('a batch of more than 64 MiB of vectors, ids and payloads, and takes one of just that', async () => {
    const { collection } = await newCollection({ dimension })
    const text = 'x'.repeat(mebibyte - 4 - 4 * dimension - JSON.stringify({ text: '' }).length)
    const docs = Array.from({ length: 64 }, (_, i) => ({ id: `id${i + 10}`, vector, payload: { text } }))
    const one = { id: 'y', vector: [0, 0, 1] }
    await expectFailure(collection.upsert([...docs, one]), 'INVALID_ARGUMENT', { field: 'docs[64]' })
    expect(await collection.count()).toBe(0)
    await collection.upsert(docs)
    expect(await collection.count()).toBe(64)
    expect((await collection.get('id73'))?.payload).toEqual({ text })
  })

  it.each(['dot', 'euclidean'] as Metric[])('no zero vector under %s', async (metric) => {
    const { collection } = await newCollection({ dimension, metric })
    await collection.upsert([
      { id: 'zero', vector: [0, 0, 0] },
      { id: 'tiny', vector: [1e-50, -1e-50, 0] },
    ])
    expect((await collection.get('zero'))?.vector).toEqual(Float32Array.of(0, 0, 0))
    expect((await collection.get('tiny'))?.vector).toEqual(Float32Array.of(0, -0, 0))
  })

  it('nothing that just fits', async () => {
    const { collection } = await newCollection({ dimension })
    const docs = [
      { id: 'a'.repeat(1024), vector },
      { id: 'é'.repeat(512), vector },
      { id: '\u{1f600}'.repeat(256), vector },
      { id: '\0', vector },
      { id: '\ufeff ../', vector },
      { id: 'largest', vector: [3.4028234663852886e38, -3.4028234663852886e38, 2 ** 128 - 2 ** 103 - 2 ** 75] },
      { id: 'smallest', vector: [1.401298464324817e-45, 0, 0] },
      { id: 'deep', vector, payload: nested(64) },
      { id: 'deep list', vector, payload: nested(63, []) },
      { id: 'large', vector, payload: { a: 'x'.repeat(mebibyte - 8) } },
      { id: 'surrogate', vector, payload: { '\ud800': '\udfff' } },
    ]
    for (const doc of docs) {
      await collection.upsert(doc as never)
      expect(await collection.get(doc.id)).toEqual({ ...doc, vector: Float32Array.from(doc.vector) })
    }
    expect(await collection.count()).toBe(docs.length)
  })
})
