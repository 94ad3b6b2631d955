import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { faultyBackend } from '../../src/directory/faulty.ts'
import { memoryBackend } from '../../src/directory/memory.ts'
import { type Collection, type Database, IsovecError, openDatabase, type StorageBackend } from '../../src/index.ts'
import { loadKernel, VectorImage } from '../../src/kernel/index.ts'
import { Generations } from '../../src/storage/generations.ts'
import { manifestSizeMax, writeManifest } from '../../src/storage/manifest.ts'
import { Memtable } from '../../src/storage/memtable.ts'
import { expectFailure } from '../support/failure.ts'
import { gate, type Hook, hookedBackend } from '../support/hooked-backend.ts'

const options = { dimension: 2, metric: 'euclidean', compaction: 'manual', index: 'manual' } as const

async function opened(backend: StorageBackend): Promise<Database> {
  const database = await openDatabase(backend)
  onTestFinished(() => database.close().catch(() => {}))
  return database
}

function fails(code: 'IO' | 'QUOTA_EXCEEDED', name: string): IsovecError {
  return new IsovecError(code, 'it fails, as it was told to', { file: name })
}

async function contentOf(collection: Collection): Promise<Map<string, number>> {
  const content = new Map<string, number>()
  for await (const { id, vector } of collection.iterate()) content.set(id, vector![0]!)
  return content
}

describe('a write', () => {
  it('that is logged while other work stops the writer may have happened', async () => {
    const reached = gate()
    const logged = gate()
    const stopped = gate()
    let isArmed = false
    let isReached = false
    const hook: Hook = async ({ kind, name }, run) => {
      if (!isArmed) return run()
      if (kind === 'sync' && name.endsWith('.manifest')) {
        isReached = true
        reached.open()
        await logged.opened
        throw fails('IO', name)
      }
      if (isReached && kind === 'append' && name.endsWith('.wal')) {
        const result = await run()
        logged.open()
        await stopped.opened
        return result
      }
      return run()
    }
    const inner = memoryBackend()
    const database = await opened(hookedBackend(inner, hook))
    const collection = await database.createCollection('c', options)
    await collection.upsert({ id: 'a', vector: [1, 1] })
    isArmed = true
    const flushing = collection.flush()
    await reached.opened
    const write = collection.upsert({ id: 'b', vector: [2, 1] })
    await expectFailure(flushing, 'IO')
    stopped.open()
    await expectFailure(write, 'READ_ONLY', { outcome: 'unknown' })
    await expectFailure(collection.upsert({ id: 'c', vector: [3, 1] }), 'READ_ONLY', { outcome: 'none' })
    expect(await contentOf(collection)).toEqual(new Map([['a', 1]]))
    await database.close().catch(() => {})
    // It is in the log, and this time it did happen.
    const again = await (await opened(memoryBackend(inner.image()))).openCollection('c')
    expect(await contentOf(again)).toEqual(
      new Map([
        ['a', 1],
        ['b', 2],
      ]),
    )
  })

  it('that cannot be applied stops the writer and may have happened', async () => {
    const backend = memoryBackend()
    const database = await opened(backend)
    const collection = await database.createCollection('c', options)
    const failure = new Error('a mistake')
    const spy = vi.spyOn(Memtable.prototype, 'append').mockImplementationOnce(() => {
      throw failure
    })
    onTestFinished(() => spy.mockRestore())
    const writes = [collection.upsert({ id: 'a', vector: [1, 1] }), collection.upsert({ id: 'b', vector: [2, 1] })]
    for (const write of writes) await expectFailure(write, 'IO', { outcome: 'unknown', cause: failure })
    await expectFailure(collection.upsert({ id: 'c', vector: [3, 1] }), 'READ_ONLY', { outcome: 'none' })
    await database.close().catch(() => {})
    const again = await (await opened(memoryBackend(backend.image()))).openCollection('c')
    expect(await contentOf(again)).toEqual(
      new Map([
        ['a', 1],
        ['b', 2],
      ]),
    )
  })

  it('is not lost to a lack of memory for codes', async () => {
    const spy = vi.spyOn(VectorImage.prototype, 'setQuantizer').mockImplementation(() => {
      throw new IsovecError('OUT_OF_MEMORY', 'no room')
    })
    onTestFinished(() => spy.mockRestore())
    const database = await opened(memoryBackend())
    const collection = await database.createCollection('c', { ...options, dimension: 32, quantization: 'sq8' })
    const vectorOf = (i: number): number[] => Array.from({ length: 32 }, (_, j) => Math.sin((i + 1) * (j + 1)))
    await collection.upsert(Array.from({ length: 1500 }, (_, i) => ({ id: `${i}`, vector: vectorOf(i) })))
    expect(spy).toHaveBeenCalled()
    await collection.upsert({ id: 'more', vector: vectorOf(-7) })
    expect(await collection.count()).toBe(1501)
    const { hits } = await collection.search({ vector: vectorOf(1200), k: 1 })
    expect(hits[0]!.id).toBe('1200')
  })
})

describe('close', () => {
  it('succeeds on a full disk, where nothing acknowledged is at stake', async () => {
    for (const durability of ['strict', 'buffered'] as const) {
      const inner = faultyBackend()
      let isFull = false
      const backend = hookedBackend(inner, async ({ kind, name }, run) => {
        if (isFull && (kind === 'append' || kind === 'create')) throw fails('QUOTA_EXCEEDED', name)
        return run()
      })
      const database = await opened(backend)
      const collection = await database.createCollection('c', { ...options, durability })
      await collection.upsert([
        { id: 'a', vector: [1, 1] },
        { id: 'b', vector: [2, 1] },
      ])
      isFull = true
      await database.close()
      const image = inner.crashImage({ kind: 'power', choose: () => 0 })
      const again = await (await opened(memoryBackend(image))).openCollection('c')
      expect(await contentOf(again)).toEqual(
        new Map([
          ['a', 1],
          ['b', 2],
        ]),
      )
    }
  })

  it('gives every file back, whatever fails', async () => {
    for (const failing of ['append', 'sync', undefined] as const) {
      const open = new Set<string>()
      let isFailing = false
      const backend = hookedBackend(memoryBackend(), async ({ kind, name }, run) => {
        if (isFailing && kind === failing) throw fails('IO', name)
        if (kind === 'create') open.add(name)
        if (kind === 'close') open.delete(name)
        return run()
      })
      const database = await openDatabase(backend)
      const collection = await database.createCollection('c', { ...options, durability: 'buffered' })
      await collection.upsert({ id: 'a', vector: [1, 1] })
      expect(open.size).toBe(1)
      isFailing = true
      if (failing === undefined) await database.close()
      else await expectFailure(database.close(), 'IO')
      expect([...open]).toEqual([])
    }
  })

  it('comes before or after a configuration, never in the midst of one', async () => {
    const backend = memoryBackend()
    const database = await opened(backend)
    const collection = await database.createCollection('c', options)
    await collection.upsert({ id: 'a', vector: [1, 1] })
    const first = collection.configure({ durability: 'buffered' })
    const closed = database.close()
    const second = collection.configure({ compaction: 'auto' })
    const results = await Promise.allSettled([first, second])
    for (const result of results)
      if (result.status === 'rejected') expect(result.reason).toMatchObject({ code: 'CLOSED' })
    await closed
    await expectFailure(collection.configure({ durability: 'strict' }), 'CLOSED')
    const [isBuffered, isAutomatic] = results.map(({ status }) => status === 'fulfilled')
    const again = await (await opened(backend)).openCollection('c')
    expect(again.options.durability).toBe(isBuffered ? 'buffered' : 'strict')
    expect(again.options.compaction).toBe(isAutomatic ? 'auto' : 'manual')
    expect(await contentOf(again)).toEqual(new Map([['a', 1]]))
  })

  it.each([10, 300])('ends a loop over the documents, which come %i at a time', async (batchSize) => {
    const database = await opened(memoryBackend())
    const collection = await database.createCollection('c', options)
    await collection.upsert(Array.from({ length: 300 }, (_, i) => ({ id: `${i}`, vector: [i, 1] })))
    let seen = 0
    let closing: Promise<void> | undefined
    const loop = async (): Promise<void> => {
      for await (const _ of collection.iterate({ batchSize })) if (++seen === 15) closing = database.close()
    }
    await expectFailure(loop(), 'CLOSED')
    // Those that were read already may still come.
    expect(seen).toBeGreaterThanOrEqual(15)
    expect(seen).toBeLessThan(300)
    await closing
    await expectFailure(collection.iterate().next(), 'CLOSED')
  })
})

describe('a durability that was configured', () => {
  it.each([
    ['buffered', 0],
    ['strict', 1],
  ] as const)('as %s holds for writes that were called after', async (durability, syncs) => {
    const backend = faultyBackend()
    const database = await opened(backend)
    const collection = await database.createCollection('c', {
      ...options,
      durability: durability === 'strict' ? 'buffered' : 'strict',
    })
    await collection.upsert({ id: 'a', vector: [1, 1] })
    await collection.sync()
    const before = backend.changes.length
    const configured = collection.configure({ durability })
    const write = collection.upsert({ id: 'b', vector: [2, 1] })
    await write
    const synced = backend.changes
      .slice(before)
      .filter((change) => change.kind === 'sync' && change.name.endsWith('.wal'))
    expect(synced.length).toBe(syncs)
    await configured
    expect(collection.options.durability).toBe(durability)
  })
})

describe('a manifest that would be too large', () => {
  it('of the database refuses a collection and nothing else', async () => {
    const backend = memoryBackend()
    await (await openDatabase(backend)).close()
    const kernel = await loadKernel()
    const place = (i: number) => ({ name: `${i}`.padEnd(60, 'x'), directory: 10_000 + i })
    const entrySize = JSON.stringify(place(1)).length + 1
    const collections = Array.from({ length: Math.floor((manifestSizeMax - 500) / entrySize) }, (_, i) => place(i))
    await writeManifest(kernel, await backend.open({ create: false }), 'root', {
      generation: 3,
      uuid: new Uint8Array(16),
      body: { nextDirectory: 50_000, collections },
    })
    const database = await opened(backend)
    let refused: string | undefined
    for (let i = 0; refused === undefined; i++) {
      const name = `${'y'.repeat(60)}${i}`
      await database.createCollection(name, options).catch((error: IsovecError) => {
        expect(error.code).toBe('UNSUPPORTED')
        refused = name
      })
    }
    expect(await database.hasCollection(refused)).toBe(false)
    for (const { name } of collections.slice(0, 10)) await database.dropCollection(name)
    const collection = await database.createCollection(refused, options)
    await collection.upsert({ id: 'a', vector: [1, 1] })
    expect(await database.hasCollection(refused)).toBe(true)
  })

  it('of a collection refuses the flush, and merging makes room', async () => {
    const database = await opened(memoryBackend())
    const collection = await database.createCollection('c', options)
    for (const id of ['a', 'b', 'x']) {
      await collection.upsert({ id, vector: [1, 1] })
      await collection.flush()
    }
    await collection.upsert({ id: 'c', vector: [1, 1] })
    const { commit } = Generations.prototype
    const spy = vi.spyOn(Generations.prototype, 'commit').mockImplementation(async function (
      this: never,
      body: object,
    ) {
      const { segments } = body as { segments: unknown[] }
      if (segments.length > 3) throw new IsovecError('UNSUPPORTED', 'too many segments')
      return commit.call(this, body)
    })
    onTestFinished(() => spy.mockRestore())
    await expectFailure(collection.flush(), 'UNSUPPORTED')
    await collection.upsert({ id: 'd', vector: [1, 1] })
    await collection.compact()
    expect(await collection.stats()).toMatchObject({ docs: 5, segments: 1, memtableDocs: 0 })
  })
})
