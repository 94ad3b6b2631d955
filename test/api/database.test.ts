import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join, relative } from 'node:path'
import { pathToFileURL } from 'node:url'
import { describe, expect, it } from 'vitest'
import { memoryBackend } from '../../src/directory/memory.ts'
import { nodeBackend } from '../../src/directory/node.ts'
import { type Database, openDatabase } from '../../src/index.ts'
import { expectFailure } from '../support/failure.ts'
import { temporaryFolder } from '../support/folder.ts'
import { newStore, storeAt, storeKinds } from '../support/store.ts'

const vector = [1, 2]

describe.each(storeKinds)('collections on the %s backend', (kind) => {
  it('are made, found, listed in order, renamed and dropped, also by the next to open', async () => {
    const store = await newStore(kind)
    let database = await store.open()
    const reopen = async (): Promise<void> => {
      await database.close()
      database = await store.open()
    }
    for (const name of ['b', 'a', 'a-1', 'a_1', '0', 'aa']) {
      const collection = await database.createCollection(name, { dimension: 2 })
      expect(collection.name).toBe(name)
      await collection.upsert({ id: name, vector })
    }
    const all = ['0', 'a', 'a-1', 'a_1', 'aa', 'b']
    expect(await database.listCollections()).toEqual(all)
    await reopen()
    expect(await database.listCollections()).toEqual(all)

    await database.renameCollection('b', 'c')
    await expectFailure(database.renameCollection('nobody', 'd'), 'COLLECTION_NOT_FOUND', { collection: 'nobody' })
    await expectFailure(database.renameCollection('a', 'c'), 'COLLECTION_EXISTS', { collection: 'c' })
    await database.renameCollection('c', 'c')
    await database.dropCollection('aa')
    await expectFailure(database.dropCollection('aa'), 'COLLECTION_NOT_FOUND', { collection: 'aa' })
    await reopen()
    expect(await database.listCollections()).toEqual(['0', 'a', 'a-1', 'a_1', 'c'])
    expect([await database.hasCollection('b'), await database.hasCollection('c')]).toEqual([false, true])
    expect(await (await database.openCollection('c')).has('b')).toBe(true)
    await expectFailure(database.openCollection('b'), 'COLLECTION_NOT_FOUND', { collection: 'b' })

    const replaced = await database.openCollection('a')
    const renamed = await database.openCollection('c')
    await database.renameCollection('c', 'a', { replace: true })
    expect(await database.listCollections()).toEqual(['0', 'a', 'a-1', 'a_1'])
    expect(renamed.name).toBe('a')
    expect(await renamed.has('b')).toBe(true)
    await expectFailure(replaced.get('a'), 'CLOSED')
    await reopen()
    const after = await database.openCollection('a')
    expect([await after.has('b'), await after.has('a'), await after.count()]).toEqual([true, false, 1])
  })

  it('are opened instead of made if they agree', async () => {
    const database = await (await newStore(kind)).open()
    const options = { dimension: 2, model: 'm', metric: 'dot' } as const
    const collection = await database.createCollection('c', { ...options, ifExists: 'open' })
    await collection.upsert({ id: 'a', vector })
    await expectFailure(database.createCollection('c', options), 'COLLECTION_EXISTS', { collection: 'c' })
    await expectFailure(database.createCollection('c', { ...options, ifExists: 'error' }), 'COLLECTION_EXISTS')
    const again = await database.createCollection('c', { ...options, ifExists: 'open', durability: 'buffered' })
    expect(await again.count()).toBe(1)
    const differing = async (
      other: object,
      code: 'WRONG_DIMENSION' | 'INVALID_ARGUMENT' | 'MODEL_MISMATCH',
      fields: object,
    ) => expectFailure(database.createCollection('c', { ...options, ifExists: 'open', ...other }), code, fields)
    await differing({ dimension: 3 }, 'WRONG_DIMENSION', { expected: 2, actual: 3, collection: 'c' })
    await differing({ metric: 'cosine' }, 'INVALID_ARGUMENT', { field: 'options.metric' })
    await differing({ model: 'n' }, 'MODEL_MISMATCH', { expected: 'm', actual: 'n', collection: 'c' })
  })

  it('are not opened under the name of another model', async () => {
    const store = await newStore(kind)
    const database = await store.open()
    await database.createCollection('c', { dimension: 2, model: 'm' })
    await database.createCollection('nameless', { dimension: 2 })
    await database.close()
    const reopened = await store.open()
    await expectFailure(reopened.openCollection('c', { model: 'n' }), 'MODEL_MISMATCH', { expected: 'm', actual: 'n' })
    expect((await reopened.openCollection('c', { model: 'm' })).options.model).toBe('m')
    expect((await reopened.openCollection('c')).options.model).toBe('m')
    expect('model' in (await reopened.openCollection('nameless', { model: 'm' })).options).toBe(false)
  })

  it('have handles that are closed one by one', async () => {
    const database = await (await newStore(kind)).open()
    const first = await database.createCollection('c', { dimension: 2 })
    const second = await database.openCollection('c')
    await first.upsert({ id: 'a', vector })
    const pending = first.upsert({ id: 'b', vector })
    await first.close()
    await first.close()
    await pending
    for (const use of [() => first.get('a'), () => first.upsert({ id: 'c', vector }), () => first.search({ vector })]) {
      await expectFailure(use(), 'CLOSED', { collection: 'c' })
    }
    expect(await second.count()).toBe(2)
    await database.dropCollection('c')
    await expectFailure(second.count(), 'CLOSED')
    const again = await database.createCollection('c', { dimension: 3 })
    expect(await again.count()).toBe(0)
  })

  it('that are made, opened and dropped all at once end as in that order', async () => {
    const database = await (await newStore(kind)).open()
    const results = await Promise.allSettled([
      database.createCollection('c', { dimension: 2 }),
      database.createCollection('c', { dimension: 2 }),
      database.openCollection('c'),
      database.listCollections(),
      database.dropCollection('c'),
      database.openCollection('c'),
      database.createCollection('c', { dimension: 4 }),
    ])
    const codes = results.map((result) => (result.status === 'rejected' ? result.reason.code : 'done'))
    expect(codes).toEqual(['done', 'COLLECTION_EXISTS', 'done', 'done', 'done', 'COLLECTION_NOT_FOUND', 'done'])
    expect((await database.openCollection('c')).options.dimension).toBe(4)
  })
})

describe.each(storeKinds)('closing on the %s backend', (kind) => {
  it('waits for writes under way, and everything after it is CLOSED', async () => {
    const store = await newStore(kind)
    const database = await store.open()
    const collection = await database.createCollection('c', { dimension: 2 })
    await collection.upsert({ id: 'first', vector })
    const iterator = collection.iterate({ batchSize: 1 })
    await iterator.next()
    const writes = Array.from({ length: 20 }, (_, i) => collection.upsert({ id: `${i}`, vector }))
    const flushed = collection.flush()
    const search = collection.search({ vector })
    const closing = database.close()
    await Promise.all([...writes, flushed, closing, database.close()])
    expect((await search).hits).toHaveLength(10)

    const uses: (() => Promise<unknown>)[] = [
      () => collection.upsert({ id: 'x', vector }),
      () => collection.write([]),
      () => collection.ingest([{ id: 'x', vector }]),
      () => collection.delete('first'),
      () => collection.get('first'),
      () => collection.getMany(['first']),
      () => collection.has('first'),
      () => collection.count(),
      () => collection.iterate().next(),
      () => iterator.next(),
      () => collection.search({ vector }),
      () => collection.searchMany([{ vector }]),
      () => collection.measureRecall(),
      () => collection.flush(),
      () => collection.sync(),
      () => collection.compact(),
      () => collection.buildIndex(),
      () => collection.dropIndex(),
      () => collection.hasIndex(),
      () => collection.configure({}),
      () => collection.stats(),
      () => database.createCollection('d', { dimension: 2 }),
      () => database.openCollection('c'),
      () => database.hasCollection('c'),
      () => database.listCollections(),
      () => database.renameCollection('c', 'd'),
      () => database.dropCollection('c'),
      () => database.info(),
    ]
    for (const use of uses) await expectFailure(use(), 'CLOSED')
    await collection.close()
    await database.close()
    expect(await (await (await store.open()).openCollection('c')).count()).toBe(21)
  })

  it('ends a long build and an iteration, and lets a search end well', async () => {
    const database = await (await newStore(kind)).open()
    const collection = await database.createCollection('c', { dimension: 64, durability: 'buffered', index: 'manual' })
    const long = Array.from({ length: 8000 }, (_, i) => ({
      id: `${i}`,
      vector: new Float32Array(64).fill(1).fill(i, 7, 9),
    }))
    await collection.ingest(long)
    let begun = (): void => {}
    const isBegun = new Promise<void>((resolve) => {
      begun = resolve
    })
    const building = collection.buildIndex({ onProgress: () => begun() })
    const built = building.then(
      () => 'done',
      (error) => error.code,
    )
    await isBegun
    const searches = Array.from({ length: 5 }, () =>
      collection.search({ vector: long[5]!.vector, mode: 'exact', k: 3 }).then(({ hits }) => hits.length),
    )
    await database.close()
    expect(await Promise.all(searches)).toEqual(new Array(5).fill(3))
    expect(['done', 'ABORTED', 'CLOSED']).toContain(await built)
  })

  it('waits for reads that are in the middle of a file', async () => {
    const store = await newStore(kind)
    const made = await store.open()
    const text = 'x'.repeat(400_000)
    const first = await made.createCollection('c', { dimension: 2 })
    await first.upsert(['a', 'b', 'c'].map((id) => ({ id, vector, payload: { text } })))
    await first.flush()
    await made.close()
    const database = await store.open()
    const collection = await database.openCollection('c')
    await collection.search({ vector, include: { payload: false } })
    const search = collection.search({ vector })
    const get = collection.get('c')
    await database.close()
    expect((await search).hits.map(({ payload }) => payload)).toEqual([{ text }, { text }, { text }])
    expect((await get)!.payload).toEqual({ text })
  })

  it('is what disposing of it does', async () => {
    const store = await newStore(kind)
    let outer: Database
    {
      await using database = await openDatabase(store.location)
      await using collection = await database.createCollection('c', { dimension: 2 })
      await collection.upsert({ id: 'a', vector })
      outer = database
    }
    await expectFailure(outer.listCollections(), 'CLOSED')
    const collection = await (await store.open()).openCollection('c')
    await collection[Symbol.asyncDispose]()
    await expectFailure(collection.count(), 'CLOSED')
  })
})

describe.each(storeKinds)('a second writer on the %s backend', (kind) => {
  it('is refused until the first is closed, or waits that long', async () => {
    const store = await newStore(kind)
    const first = await store.open()
    const error = await expectFailure(openDatabase(store.location), 'LOCKED')
    if (kind === 'node' && error.pid !== undefined) expect(error.pid).toBe(process.pid)
    const started = performance.now()
    await expectFailure(openDatabase(store.location, { lockTimeout: 80 }), 'LOCKED')
    expect(performance.now() - started).toBeGreaterThanOrEqual(75)
    const controller = new AbortController()
    const aborted = openDatabase(store.location, { lockTimeout: 60_000, signal: controller.signal })
    setTimeout(() => controller.abort('enough'), 10)
    await expectFailure(aborted, 'ABORTED', { cause: 'enough' })
    const waiting = store.open({ lockTimeout: 60_000 })
    await first.createCollection('c', { dimension: 2 })
    await first.close()
    expect(await (await waiting).listCollections()).toEqual(['c'])
  })
})

describe('a location', () => {
  it('that must exist and does not is NOT_FOUND, and nothing is made', async () => {
    const parent = await temporaryFolder()
    await expectFailure(openDatabase(join(parent, 'data'), { mustExist: true }), 'NOT_FOUND')
    await expectFailure(openDatabase(':memory:', { mustExist: true }), 'NOT_FOUND')
    expect(await readdir(parent)).toEqual([])
    await mkdir(join(parent, 'empty'))
    await expectFailure(openDatabase(join(parent, 'empty'), { mustExist: true }), 'NOT_FOUND')
    await (await openDatabase(join(parent, 'data'))).close()
    await (await openDatabase(join(parent, 'data'), { mustExist: true })).close()
  })

  it('can be a path, relative too, a URL or a backend, all for the same database', async () => {
    const folder = join(await temporaryFolder(), 'döt %20 data')
    const database = await openDatabase(folder)
    expect(database.location).toBe(folder)
    await database.createCollection('c', { dimension: 2 })
    await database.close()
    for (const location of [pathToFileURL(folder), nodeBackend(folder), relative(process.cwd(), folder)]) {
      const again = await openDatabase(location)
      expect(await again.listCollections()).toEqual(['c'])
      await expectFailure(openDatabase(folder), 'LOCKED')
      await again.close()
    }
  })

  it("':memory:' is a new database each time, a memory backend keeps its own", async () => {
    const [one, other] = [await openDatabase(':memory:'), await openDatabase(':memory:')]
    await one.createCollection('c', { dimension: 2 })
    expect(await other.listCollections()).toEqual([])
    expect(one.location).toBe(':memory:')
    expect(await one.info()).toMatchObject({ backend: 'memory', role: 'writer', collections: 1 })
    await one.close()
    const store = storeAt(memoryBackend())
    await (await (await store.open()).createCollection('c', { dimension: 2 })).close()
    await expectFailure(openDatabase(store.location), 'LOCKED')
  })

  it('may be an empty folder, or one with files of others, which are left alone', async () => {
    const folder = await temporaryFolder()
    await writeFile(join(folder, 'notes.txt'), 'mine')
    await mkdir(join(folder, 'pictures'))
    await writeFile(join(folder, 'pictures', '1.seg'), 'mine too')
    for (let time = 0; time < 2; time++) {
      const database = await openDatabase(folder)
      const collection = await database.createCollection('c', { dimension: 2, ifExists: 'open' })
      const place = (await readdir(folder)).find((name) => /^[0-9]+$/.test(name))!
      await writeFile(join(folder, place, 'foreign.bak'), 'mine as well', { flag: time === 0 ? 'wx' : 'r+' })
      await collection.upsert({ id: `${time}`, vector })
      await collection.compact()
      await database.close()
      expect(await readFile(join(folder, 'notes.txt'), 'utf8')).toBe('mine')
      expect(await readFile(join(folder, 'pictures', '1.seg'), 'utf8')).toBe('mine too')
      expect(await readFile(join(folder, place, 'foreign.bak'), 'utf8')).toBe('mine as well')
    }
  })

  it('that holds collections but no manifest is CORRUPTION, and nothing is removed', async () => {
    const memory = memoryBackend()
    const database = await storeAt(memory).open()
    const collection = await database.createCollection('c', { dimension: 2 })
    await collection.upsert({ id: 'a', vector })
    await database.close()
    const { root, directories } = memory.image()
    const others = [...root!].filter(([name]) => !name.endsWith('.manifest'))
    expect(others.length).toBeLessThan(root!.size)
    const damaged = memoryBackend({ root: new Map(others), directories })
    await expectFailure(openDatabase(damaged), 'CORRUPTION')
    expect([...damaged.image().directories.keys()]).toEqual([...directories.keys()])
    await expectFailure(openDatabase(damaged), 'CORRUPTION')
  })

  it('where a folder cannot be is an error of ours', async () => {
    const folder = await temporaryFolder()
    await writeFile(join(folder, 'file'), '')
    await expectFailure(openDatabase(join(folder, 'file')), 'IO')
    await expectFailure(openDatabase(join(folder, 'file', 'data')), 'IO')
  })
})
