import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { memoryBackend } from '../../src/directory/memory.ts'
import { openDatabase } from '../../src/index.ts'
import { expectFailure } from '../support/failure.ts'
import { temporaryFolder } from '../support/folder.ts'
import { runs } from '../support/property.ts'
import { newCollection, newStore } from '../support/store.ts'

const vector = [1, 2, 3]

describe('a search refuses', () => {
  it('what is out of range or unknown', async () => {
    const { collection } = await newCollection({ dimension: 3 })
    const cases: [request: unknown, field: string][] = [
      [undefined, 'request'],
      [null, 'request'],
      [{}, 'request.vector'],
      [{ vector: 'abc' }, 'request.vector'],
      [{ vector: [1, 2, Number.NaN] }, 'request.vector[2]'],
      [{ vector: [1, 1e39, 3] }, 'request.vector[1]'],
      [{ vector: [0, -0, 0] }, 'request.vector'],
      [{ vector: [1e-60, 0, 0] }, 'request.vector'],
      [{ vector, limit: 3 }, 'request.limit'],
      ...[0, -1, 10_001, 1.5, Number.NaN, Number.POSITIVE_INFINITY, '3', null, 3n].map((k): [unknown, string] => [
        { vector, k },
        'request.k',
      ]),
      ...[-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, '0', null].map((offset): [unknown, string] => [
        { vector, offset },
        'request.offset',
      ]),
      ...[0, -1, 1.5, Number.NaN, '9', null].map((ef): [unknown, string] => [{ vector, ef }, 'request.ef']),
      ...[Number.NaN, '0.5', null].map((minScore): [unknown, string] => [{ vector, minScore }, 'request.minScore']),
      ...['best', '', null, 1].map((mode): [unknown, string] => [{ vector, mode }, 'request.mode']),
      ...['l2', 'Cosine', null].map((metric): [unknown, string] => [{ vector, metric }, 'request.metric']),
      [{ vector, include: { payload: 'yes' } }, 'request.include.payload'],
      [{ vector, include: { vectors: true } }, 'request.include.vectors'],
      [{ vector, include: true }, 'request.include'],
      [{ vector, signal: 1 }, 'request.signal'],
    ]
    for (const [request, field] of cases) {
      await expectFailure(collection.search(request as never), 'INVALID_ARGUMENT', { field })
      const inSecond = field.replace('request', 'requests[1]')
      await expectFailure(collection.searchMany([{ vector }, request] as never), 'INVALID_ARGUMENT', {
        field: inSecond,
      })
    }
    await expectFailure(collection.search({ vector: [1, 2] }), 'WRONG_DIMENSION', { expected: 3, actual: 2 })
    await expectFailure(collection.searchMany({ vector } as never), 'INVALID_ARGUMENT', { field: 'requests' })
    await expectFailure(collection.measureRecall({ samples: 0 }), 'INVALID_ARGUMENT', { field: 'options.samples' })
    await expectFailure(collection.measureRecall({ k: 10_001 }), 'INVALID_ARGUMENT', { field: 'options.k' })
  })

  it('a zero vector only where the search is by cosine', async () => {
    const { collection } = await newCollection({ dimension: 3, metric: 'dot' })
    const zero = [0, 0, 0]
    expect((await collection.search({ vector: zero })).hits).toEqual([])
    await expectFailure(collection.search({ vector: zero, metric: 'cosine' }), 'INVALID_ARGUMENT')
    const { collection: byCosine } = await newCollection({ dimension: 3 })
    expect((await byCosine.search({ vector: zero, metric: 'euclidean' })).hits).toEqual([])
  })

  it('what comes in a later version, by name', async () => {
    const { collection } = await newCollection({ dimension: 3 })
    for (const later of [{ groupBy: 'a' }, { groupSize: 2 }]) {
      await expectFailure(collection.search({ vector, ...later } as never), 'UNSUPPORTED')
    }
  })

  it('nothing at the ends of the ranges', async () => {
    const { collection } = await newCollection({ dimension: 3 })
    await collection.upsert({ id: 'a', vector })
    for (const k of [1, 10_000]) {
      for (const offset of [0, 1, 10_000, Number.MAX_SAFE_INTEGER]) {
        const { hits } = await collection.search({ vector, k, offset, ef: k === 1 ? 1 : 20_000 })
        expect(hits.map(({ id }) => id)).toEqual(offset === 0 ? ['a'] : [])
      }
    }
    expect((await collection.search({ vector, minScore: Number.NEGATIVE_INFINITY })).hits).toHaveLength(1)
    expect((await collection.search({ vector, minScore: Number.POSITIVE_INFINITY })).hits).toEqual([])
  })
})

describe('a collection is refused', () => {
  it('with options that are unknown or out of range, and nothing is made', async () => {
    const store = await newStore('node')
    const database = await store.open()
    const cases: [options: unknown, field: string][] = [
      [undefined, 'options'],
      [null, 'options'],
      [{}, 'options.dimension'],
      ...[0, -1, 65_537, 1.5, Number.NaN, '3', null].map((dimension): [unknown, string] => [
        { dimension },
        'options.dimension',
      ]),
      [{ dimension: 3, metric: 'l2' }, 'options.metric'],
      [{ dimension: 3, durability: 'none' }, 'options.durability'],
      [{ dimension: 3, quantization: 'sq4' }, 'options.quantization'],
      [{ dimension: 3, vectors: 'gpu' }, 'options.vectors'],
      [{ dimension: 3, compaction: 'off' }, 'options.compaction'],
      [{ dimension: 3, index: true }, 'options.index'],
      [{ dimension: 3, hnsw: 16 }, 'options.hnsw'],
      [{ dimension: 3, hnsw: { m: 16 } }, 'options.hnsw.m'],
      ...[1, 129, 16.5, '16'].map((M): [unknown, string] => [{ dimension: 3, hnsw: { M } }, 'options.hnsw.M']),
      ...[0, 1.5, '200', 1e9].map((efConstruction): [unknown, string] => [
        { dimension: 3, hnsw: { efConstruction } },
        'options.hnsw.efConstruction',
      ]),
      ...['', 7, null].map((model): [unknown, string] => [{ dimension: 3, model }, 'options.model']),
      [{ dimension: 3, ifExists: 'replace' }, 'options.ifExists'],
      [{ dimension: 3, dimensions: 3 }, 'options.dimensions'],
    ]
    for (const [options, field] of cases) {
      await expectFailure(database.createCollection('c', options as never), 'INVALID_ARGUMENT', { field })
    }
    await expectFailure(database.createCollection('c', { dimension: 3, vectors: 'disk' } as never), 'UNSUPPORTED')
    expect(await database.listCollections()).toEqual([])
    await database.createCollection('widest', { dimension: 65_536, hnsw: { M: 128, efConstruction: 1 } })
  })

  it('under every name but those of the pattern', async () => {
    const database = await (await newStore('memory')).open()
    await database.createCollection('c', { dimension: 1 })
    const pattern = /^[a-z0-9][a-z0-9_-]{0,63}$/
    const names = fc.oneof(
      fc.string({ unit: fc.constantFrom(...'az09_-A.é/ \n\0'), maxLength: 3 }),
      fc.string({ unit: 'binary', maxLength: 70 }),
      fc.constantFrom('a'.repeat(64), 'a'.repeat(65), '__proto__', 'constructor', 'con', '..', 'a\n', ''),
    )
    await fc.assert(
      fc.asyncProperty(names, async (name) => {
        if (pattern.test(name)) {
          const collection = await database.createCollection(name, { dimension: 1, ifExists: 'open' })
          expect(collection.name).toBe(name)
          expect(await database.hasCollection(name)).toBe(true)
          if (name !== 'c') await database.dropCollection(name)
          return
        }
        const field = 'name'
        await expectFailure(database.createCollection(name, { dimension: 1 }), 'INVALID_ARGUMENT', { field })
        await expectFailure(database.openCollection(name), 'INVALID_ARGUMENT', { field })
        await expectFailure(database.hasCollection(name), 'INVALID_ARGUMENT', { field })
        await expectFailure(database.dropCollection(name), 'INVALID_ARGUMENT', { field })
        await expectFailure(database.renameCollection(name, 'd'), 'INVALID_ARGUMENT')
        await expectFailure(database.renameCollection('c', name), 'INVALID_ARGUMENT')
      }),
      runs(150),
    )
    expect(await database.listCollections()).toEqual(['c'])
    for (const name of [undefined, null, 7, ['c'], { toString: () => 'c' }]) {
      await expectFailure(database.openCollection(name as never), 'INVALID_ARGUMENT', { field: 'name' })
    }
  })

  it('other options of methods that take some', async () => {
    const { database, collection } = await newCollection({ dimension: 1 })
    const cases: [Promise<unknown>, string][] = [
      [database.openCollection('c', { models: 'x' } as never), 'options.models'],
      [database.openCollection('c', { model: 1 } as never), 'options.model'],
      [database.renameCollection('c', 'd', { replace: 1 } as never), 'options.replace'],
      [database.renameCollection('c', 'd', { force: true } as never), 'options.force'],
      [collection.configure({ durability: 'none' } as never), 'options.durability'],
      [collection.configure({ compaction: 1 } as never), 'options.compaction'],
      [collection.configure({ index: null } as never), 'options.index'],
      [collection.configure({ metric: 'dot' } as never), 'options.metric'],
      [collection.buildIndex({ M: 1 }), 'options.M'],
      [collection.buildIndex({ efConstruction: 0 }), 'options.efConstruction'],
      [collection.buildIndex({ ef: 10 } as never), 'options.ef'],
      [collection.buildIndex({ onProgress: 1 } as never), 'options.onProgress'],
      [collection.compact({ onProgress: 1 } as never), 'options.onProgress'],
      [collection.compact({ signal: 1 } as never), 'options.signal'],
      [collection.compact({ force: true } as never), 'options.force'],
    ]
    for (const [promise, field] of cases) await expectFailure(promise, 'INVALID_ARGUMENT', { field })
    await expectFailure(database.openCollection('c', { vectors: 'disk' } as never), 'UNSUPPORTED')
  })
})

describe('a database is not opened', () => {
  it('at what is no place, or with options that are none', async () => {
    for (const location of [undefined, null, 7, '', {}, [], Symbol('x')]) {
      await expectFailure(openDatabase(location as never), 'INVALID_ARGUMENT', { field: 'location' })
    }
    await expectFailure(openDatabase(new URL('https://example.org/data')), 'INVALID_ARGUMENT', { field: 'location' })
    const cases: [options: unknown, field: string][] = [
      [null, 'options'],
      [{ lockTimeout: -1 }, 'options.lockTimeout'],
      [{ lockTimeout: Number.NaN }, 'options.lockTimeout'],
      [{ lockTimeout: '5' }, 'options.lockTimeout'],
      [{ mustExist: 'yes' }, 'options.mustExist'],
      [{ signal: {} }, 'options.signal'],
      [{ onEvent: true }, 'options.onEvent'],
      [{ wasm: 7 }, 'options.wasm'],
      [{ requestPersistence: 1 }, 'options.requestPersistence'],
      [{ worker: 'worker.js' }, 'options.worker'],
      [{ readonly: true }, 'options.readonly'],
    ]
    for (const [options, field] of cases) {
      const backend = memoryBackend()
      await expectFailure(openDatabase(backend, options as never), 'INVALID_ARGUMENT', { field })
      expect(await backend.exists()).toBe(false)
    }
  })

  it('with options of a later version', async () => {
    await expectFailure(openDatabase(':memory:', { memoryLimit: 1e9 } as never), 'UNSUPPORTED')
  })

  it('with bytes that are no kernel', async () => {
    await expectFailure(openDatabase(':memory:', { wasm: new Uint8Array(8) }), 'UNSUPPORTED')
    const missing = pathToFileURL(join(await temporaryFolder(), 'kernel.wasm'))
    await expectFailure(openDatabase(':memory:', { wasm: missing }), 'IO')
  })

  it('when its signal has fired', async () => {
    const signal = AbortSignal.abort('enough')
    const folder = join(await temporaryFolder(), 'data')
    await expectFailure(openDatabase(folder, { signal }), 'ABORTED', { cause: 'enough' })
    await expectFailure(openDatabase(folder, { mustExist: true }), 'NOT_FOUND')
  })
})
