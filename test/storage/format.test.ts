import * as fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Directory } from '../../src/directory/directory.ts'
import { memoryBackend } from '../../src/directory/memory.ts'
import { openDatabase } from '../../src/index.ts'
import { type Kernel, loadKernel } from '../../src/kernel/index.ts'
import { BatchBuilder, decodeBatch } from '../../src/storage/batch.ts'
import { type CollectionBody, collectionFormat } from '../../src/storage/collection-manifest.ts'
import { Generations } from '../../src/storage/generations.ts'
import { readManifests, writeManifest } from '../../src/storage/manifest.ts'
import { BlockCache, BlockReader, BlockWriter, blockedSize, dataSizeOf } from '../../src/storage/payload-blocks.ts'
import { encodeSectionHeader, layOut, readSectionHeader } from '../../src/storage/section-file.ts'
import { readTombstones, Tombstones, writeTombstones } from '../../src/storage/tombstones.ts'
import { readWal, readWalChain, WalWriter } from '../../src/storage/wal.ts'
import { seed, seedCrypto } from '../support/seed.ts'
import { xxh64 } from '../support/xxh64.ts'

const given = process.env.ISOVEC_SEED === undefined ? {} : { seed: Number(process.env.ISOVEC_SEED) }
const uuid = Uint8Array.from({ length: 16 }, (_, i) => i + 1)
let kernel: Kernel
let restoreCrypto: () => void

beforeAll(async () => {
  restoreCrypto = seedCrypto(seed)
  kernel = await loadKernel()
})
afterAll(() => restoreCrypto())

const emptyDirectory = (): Promise<Directory> => memoryBackend().open({ create: true })
const corruption = { name: 'IsovecError', code: 'CORRUPTION' }

describe('what is written is read', () => {
  const vector = fc.array(fc.float({ noNaN: true, noDefaultInfinity: true }), { minLength: 2, maxLength: 2 })
  const operation = fc.record(
    {
      id: fc.string({ minLength: 1, maxLength: 20, unit: 'grapheme' }),
      vector: fc.option(vector),
      payload: fc.dictionary(fc.string(), fc.oneof(fc.string(), fc.nat(), fc.boolean())),
    },
    { requiredKeys: ['id', 'vector'] },
  )
  const build = (operations: { id: string; vector: number[] | null; payload?: object }[]) => {
    const builder = new BatchBuilder(2, false)
    for (const { id, vector, payload } of operations) {
      if (vector === null) builder.delete(id, 'id')
      else builder.upsert(id, vector, payload, 'doc')
    }
    return builder.build()
  }

  test('batches', () => {
    fc.assert(
      fc.property(fc.array(operation), (operations) => {
        const decoded = decodeBatch(build(operations).batch!.bytes, 2, 'batch', 0)
        expect(decoded.length).toBe(operations.length)
        decoded.forEach((entry, i) => {
          const wanted = operations[i]!
          expect(entry.id).toBe(wanted.id)
          expect(entry.kind).toBe(wanted.vector === null ? 'delete' : 'upsert')
          if (entry.kind !== 'upsert') return
          expect(new Float32Array(entry.vector.slice().buffer)).toEqual(Float32Array.from(wanted.vector!))
          const payload = entry.payload && JSON.parse(new TextDecoder().decode(entry.payload))
          expect(payload).toEqual(wanted.payload && JSON.parse(JSON.stringify(wanted.payload)))
        })
      }),
      given,
    )
  })

  test('batches of any bytes are read or refused', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat({ max: 3 }), (bytes, count) => {
        const claimed = Uint8Array.of(count, 0, 0, 0, 0, 0, 0, 0, ...bytes)
        try {
          expect(decodeBatch(claimed, 2, 'batch', 0).length).toBe(count)
        } catch (error) {
          expect((error as { code?: string }).code).toMatch(/CORRUPTION|UNSUPPORTED_VERSION/)
        }
      }),
      { numRuns: 2000, ...given },
    )
  })

  test('logs, one sealing the other', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.array(operation, { maxLength: 4 }), { maxLength: 8 }),
        fc.nat(8),
        async (batches, cut) => {
          const directory = await emptyDirectory()
          const bytes = batches.map((batch) => build(batch).batch!.bytes)
          const first = await WalWriter.create(kernel, directory, 1, uuid, 7, undefined)
          await first.append(bytes.slice(0, cut))
          await first.sync()
          await first.mark()
          const second = await WalWriter.create(kernel, directory, 2, uuid, first.lastSequence, first.seal)
          for (const batch of bytes.slice(cut)) await second.append([batch])
          await second.end()
          await second.abandon()
          const logs = await readWalChain(kernel, directory, uuid, 1, [2, 1])
          const records = logs.flatMap((log) => log.records)
          expect(records.map(({ sequence }) => sequence)).toEqual(bytes.map((_, i) => 8 + i))
          expect(records.map((record) => [...record.bytes])).toEqual(bytes.map((batch) => [...batch]))
          expect(logs.map(({ closed }) => closed)).toEqual([false, true])
        },
      ),
      { numRuns: 50, ...given },
    )
  })

  test('tombstones', async () => {
    const entries: [number, number][] = [
      [0, 5],
      [3, 2 ** 40],
      [9, 6],
    ]
    const directory = await emptyDirectory()
    const tombstones = new Tombstones()
    for (const [row, sequence] of entries.toReversed()) tombstones.add(row, sequence)
    tombstones.add(1, 2 ** 40 + 1)
    const file = await writeTombstones(kernel, directory, 4, uuid, 2, tombstones, 2 ** 40)
    expect(file).toEqual({ number: 4, length: 64 + 3 * 16, count: 3, lastSequence: 2 ** 40 })
    expect([...(await readTombstones(kernel, directory, file, uuid, 2, 10)).entries()]).toEqual(entries)
    await expect(readTombstones(kernel, directory, file, uuid, 2, 9)).rejects.toMatchObject(corruption)
    await expect(readTombstones(kernel, directory, file, uuid, 3, 10)).rejects.toMatchObject(corruption)
    await expect(readTombstones(kernel, directory, { ...file, count: 2 }, uuid, 2, 10)).rejects.toMatchObject(
      corruption,
    )
    await expect(readTombstones(kernel, directory, file, new Uint8Array(16), 2, 10)).rejects.toMatchObject(corruption)
  })

  test('payload blocks, at every boundary', async () => {
    const salt = { low: 1, high: 2 }
    for (const size of [0, 1, 16375, 16376, 16377, 40_000]) {
      const bytes = Uint8Array.from({ length: size }, (_, i) => (i * 31) >> 3)
      const blocks: Uint8Array[] = []
      const writer = new BlockWriter(kernel, salt, async (block) => void blocks.push(block.slice()))
      for (let at = 0; at < size; at += 999) await writer.write(bytes.subarray(at, at + 999))
      await writer.finish()
      const directory = await emptyDirectory()
      const file = await directory.create('1.bin')
      await file.append(blocks)
      await file.close()
      expect(file.size).toBe(blockedSize(size))
      expect(dataSizeOf(file.size)).toBe(size)
      const reader = await directory.open('1.bin')
      const read = new BlockReader(
        kernel,
        reader,
        '1.bin',
        { offset: 0, dataSize: size },
        salt,
        new BlockCache(1e6),
        'k',
      )
      for (const [start, end] of [
        [0, size],
        [size >> 1, size],
        [16_370, 16_380],
      ] as const) {
        if (start < end && end <= size) expect(await read.read(start, end)).toEqual(bytes.subarray(start, end))
      }
    }
    for (const impossible of [1, 8, 16384 + 8]) expect(dataSizeOf(impossible)).toBeUndefined()
  })

  test('the two newest generations of a manifest', async () => {
    const directory = await emptyDirectory()
    const generations = await Generations.create(kernel, directory, collectionFormat, uuid, body)
    const third = { ...body, lastSequence: 3, nextFile: 9, firstWal: 8 }
    expect((await generations.commit(third))?.generation).toBe(1)
    const loaded = (await Generations.load(kernel, directory, collectionFormat))!
    expect(loaded.kept.map(({ generation }) => generation)).toEqual([3, 2])
    expect(loaded.current.body).toEqual(third)
    expect(loaded.uuid).toEqual(uuid)
    // Another writer's commit is seen.
    await loaded.commit(third)
    await expect(generations.commit(third)).rejects.toMatchObject({ code: 'READ_ONLY' })
  })
})

const body: CollectionBody = {
  options: {
    dimension: 2,
    metric: 'dot',
    durability: 'strict',
    hnsw: { M: 16, efConstruction: 200 },
    quantization: 'auto',
    vectors: 'memory',
    compaction: 'auto',
    index: 'auto',
  },
  nextFile: 5,
  firstWal: 1,
  lastSequence: 2,
  isIndexDropped: false,
  segments: [
    {
      file: {
        number: 2,
        length: 5000,
        checksum: { low: 1, high: 0xffffffff },
        rowCount: 3,
        firstSequence: 1,
        lastSequence: 2,
      },
      tombstones: { number: 3, length: 80, count: 1, lastSequence: 2 },
      graph: { number: 4, length: 9000, checksum: { low: 0, high: 7 }, M: 4, efConstruction: 8 },
    },
  ],
}

describe('what is hostile is refused before anything is made for it', () => {
  test('bodies of manifests', async () => {
    const good = collectionFormat.encode(body) as Record<string, unknown>
    const segment = (good.segments as Record<string, unknown>[])[0]!
    const options = good.options as Record<string, unknown>
    const bad: object[] = [
      { ...good, segments: 'x' },
      { ...good, nextFile: -1 },
      { ...good, firstWal: 0.5 },
      { ...good, lastSequence: 2 ** 60 },
      { ...good, options: { ...options, dimension: 0 } },
      { ...good, options: { ...options, dimension: 1e9 } },
      { ...good, options: { ...options, metric: '__proto__' } },
      { ...good, options: { ...options, hnsw: { M: 1e6, efConstruction: 1 } } },
      { ...good, segments: [segment, segment] },
      { ...good, segments: [{ ...segment, file: { ...(segment.file as object), rowCount: 2 ** 32 } }] },
      { ...good, segments: [{ ...segment, file: { ...(segment.file as object), checksum: 'zz' } }] },
      { ...good, segments: [{ ...segment, tombstones: { number: 1 } }] },
      { ...good, isIndexDropped: 1 },
      [],
    ]
    for (const value of bad) {
      const directory = await emptyDirectory()
      await writeManifest(kernel, directory, 'collection', { generation: 5, uuid, body: value })
      const { valid, damaged } = await readManifests(kernel, directory, 'collection', collectionFormat.decode)
      expect(valid, JSON.stringify(value)).toEqual([])
      expect(damaged[0]).toMatchObject(corruption)
    }
  })

  test('counts and sizes in logs', async () => {
    const u32 = (...words: number[]) => new Uint8Array(Uint32Array.from(words).buffer)
    for (const payload of [
      u32(0xffffffff, 0),
      u32(1, 0),
      u32(1, 0, 0xffff0003, 0xffffffff),
      u32(0),
      new Uint8Array(0),
      u32(2, 0, 0x00010003, 0, 0x61),
    ]) {
      const backend = memoryBackend()
      const db = await openDatabase(backend)
      const docs = await db.createCollection('docs', { dimension: 2 })
      const { files, id } = await collectionOf(backend.image())
      await db.close()
      expect(docs.options.dimension).toBe(2)
      // A batch of this content, with checksums that hold, in a log of its own that follows.
      const store = memoryBackend(backend.image())
      await store.open({ create: false })
      const directory = await store.directory(1, { create: false })
      expect(files).toContain('1.wal')
      const wal = await WalWriter.create(kernel, directory, 9, id, 0, undefined)
      await wal.append([payload])
      await wal.end()
      await wal.abandon()
      const again = await openDatabase(store)
      await expect(again.openCollection('docs')).rejects.toMatchObject(corruption)
      await again.close()
    }
  })

  test('a record that claims more than the file holds', async () => {
    const directory = await emptyDirectory()
    const wal = await WalWriter.create(kernel, directory, 1, uuid, 0, undefined)
    await wal.append([new Uint8Array(8)])
    await wal.sync()
    await wal.mark()
    await wal.abandon()
    const reader = await directory.open('1.wal')
    const bytes = new Uint8Array(reader.size)
    await reader.read(0, bytes)
    // The record's size becomes 4 GiB, and its header's checksum is made to hold.
    const view = new DataView(bytes.buffer)
    view.setUint32(128 + 8, 0xfffffff8, true)
    const salt = view.getBigUint64(40, true)
    view.setUint32(128, Number(xxh64(bytes.subarray(132, 160), salt) & 0xffffffffn), true)
    const other = await emptyDirectory()
    const file = await other.create('1.wal')
    await file.append(bytes)
    await file.close()
    await expect(readWal(kernel, other, uuid, 1, undefined)).rejects.toMatchObject(corruption)
  })

  test('tables of sections', async () => {
    const magic = new TextEncoder().encode('isovecSG')
    const { sections, fileSize } = layOut([{ id: 1, length: 10, checksum: { low: 0, high: 0 } }])
    const attempts = [
      [{ ...sections[0]!, length: 2 ** 52 }],
      [{ ...sections[0]!, offset: 0 }],
      [{ ...sections[0]!, offset: 4097 }],
      [{ ...sections[0]!, offset: 2 ** 50 }],
      [sections[0]!, sections[0]!],
    ]
    for (const hostile of attempts) {
      const directory = await emptyDirectory()
      const file = await directory.create('3.seg')
      await file.append(encodeSectionHeader(kernel, magic, uuid, 3, hostile, fileSize, () => {}).bytes)
      await file.append(new Uint8Array(fileSize - 4096))
      await file.close()
      const reader = await directory.open('3.seg')
      await expect(readSectionHeader(kernel, reader, '3.seg', magic, uuid, 3)).rejects.toMatchObject(corruption)
    }
  })
})

async function collectionOf(
  image: ReturnType<ReturnType<typeof memoryBackend>['image']>,
): Promise<{ files: string[]; id: Uint8Array }> {
  const files = image.directories.get(1)!
  const manifest = [...files].find(([name]) => name.endsWith('.manifest'))![1]
  return { files: [...files.keys()], id: manifest.slice(32, 48) }
}
