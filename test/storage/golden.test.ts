import { afterAll, beforeAll, expect, test } from 'vitest'
import { memoryBackend } from '../../src/directory/memory.ts'
import { openDatabase } from '../../src/index.ts'
import { seedCrypto } from '../support/seed.ts'
import { xxh64 } from '../support/xxh64.ts'

// The files of a small database, read by the offsets of docs/format.md alone: a change of the format is noticed here.

let restoreCrypto: () => void
let root: ReadonlyMap<string, Uint8Array>
let files: ReadonlyMap<string, Uint8Array>

beforeAll(async () => {
  restoreCrypto = seedCrypto(42)
  const backend = memoryBackend()
  const db = await openDatabase(backend)
  const docs = await db.createCollection('docs', {
    dimension: 3,
    metric: 'euclidean',
    compaction: 'manual',
    index: 'manual',
  })
  await docs.upsert([
    { id: 'a', vector: [1, 2, 3], payload: { n: 1 } },
    { id: 'bé', vector: [4, 5, 6] },
    { id: 'c', vector: [7, 8, 9], payload: { n: 3 } },
  ])
  await docs.flush()
  await docs.delete('bé')
  await docs.flush()
  await docs.upsert({ id: 'd', vector: [0.5, 0, -1], payload: { n: 4 } })
  await docs.delete('a')
  await db.close()
  root = backend.image().root!
  files = backend.image().directories.get(1)!
})
afterAll(() => restoreCrypto())

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes)
const view = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
const u64 = (bytes: Uint8Array, offset: number) => view(bytes).getBigUint64(offset, true)
const u32 = (bytes: Uint8Array, offset: number) => view(bytes).getUint32(offset, true)
const f32s = (bytes: Uint8Array, offset: number, count: number) =>
  Array.from({ length: count }, (_, i) => view(bytes).getFloat32(offset + 4 * i, true))
const concat = (...parts: Uint8Array[]) => Uint8Array.from(parts.flatMap((part) => [...part]))

function manifest(
  bytes: Uint8Array,
  generation: number,
  kind: number,
): { uuid: Uint8Array; body: Record<string, unknown> } {
  expect(text(bytes.subarray(0, 8))).toBe('isovecMF')
  expect([u32(bytes, 8), u32(bytes, 12), u32(bytes, 16), u32(bytes, 20)]).toEqual([1, 1, bytes.length - 64, kind])
  expect(u64(bytes, 24)).toBe(BigInt(generation))
  expect(u64(bytes, 48)).toBe(0n)
  expect(u64(bytes, 56)).toBe(xxh64(concat(bytes.subarray(0, 56), bytes.subarray(64))))
  return { uuid: bytes.subarray(32, 48), body: JSON.parse(text(bytes.subarray(64))) }
}

const newest = () => {
  const generations = [...files.keys()]
    .filter((name) => name.endsWith('.manifest'))
    .map((name) => Number.parseInt(name, 10))
  expect(generations.length).toBe(2)
  const generation = Math.max(...generations)
  return manifest(files.get(`${generation}.manifest`)!, generation, 2)
}

test('the root manifest names the collection', () => {
  expect([...root.keys()].sort()).toEqual(['1.reserve', '3.manifest', '4.manifest'])
  for (const generation of [3, 4]) {
    const { body } = manifest(root.get(`${generation}.manifest`)!, generation, 1)
    expect(body).toEqual({ nextDirectory: 2, collections: [{ name: 'docs', directory: 1 }] })
  }
})

test('the manifest of the collection names its files', () => {
  const { body } = newest()
  expect(body).toMatchObject({
    options: {
      dimension: 3,
      metric: 'euclidean',
      durability: 'strict',
      hnsw: { M: 16, efConstruction: 200 },
      quantization: 'auto',
      vectors: 'memory',
      compaction: 'manual',
      index: 'manual',
    },
    lastSequence: 2,
    isIndexDropped: false,
    segments: [
      {
        file: { rowCount: 3, firstSequence: 1, lastSequence: 1 },
        tombstones: { length: 80, count: 1, lastSequence: 2 },
      },
    ],
  })
  const { file, tombstones } = (body.segments as { file: { number: number }; tombstones: { number: number } }[])[0]!
  expect([...files.keys()]).toEqual(
    expect.arrayContaining([`${file.number}.seg`, `${tombstones.number}.del`, `${body.firstWal}.wal`]),
  )
})

test('the log holds what no segment holds', () => {
  const { uuid, body } = newest()
  const wal = files.get(`${body.firstWal}.wal`)!
  expect(text(wal.subarray(0, 8))).toBe('isovecWL')
  expect([u32(wal, 8), u32(wal, 12)]).toEqual([1, 1])
  expect(wal.subarray(16, 32)).toEqual(uuid)
  expect(u64(wal, 32)).toBe(BigInt(body.firstWal as number))
  expect(u64(wal, 48)).toBeGreaterThan(0n)
  expect([u64(wal, 64), u64(wal, 80)]).toEqual([2n, 2n])
  expect(wal.subarray(88, 120).every((byte) => byte === 0)).toBe(true)
  expect(u64(wal, 120)).toBe(xxh64(wal.subarray(0, 120)))
  const salt = u64(wal, 40)
  const seen: { type: number; sequence: bigint; durable: bigint; payload: Uint8Array }[] = []
  for (let at = 128; at < wal.length; ) {
    const header = wal.subarray(at, at + 32)
    const size = u32(header, 8)
    const payload = wal.subarray(at + 32, at + 32 + size)
    const end = at + 32 + Math.ceil(size / 8) * 8
    expect(BigInt(u32(header, 0))).toBe(xxh64(header.subarray(4), salt) & 0xffffffffn)
    expect([header[5], header[6], header[7], u32(header, 12)]).toEqual([0, 0, 0, 0])
    expect(u64(wal, end)).toBe(xxh64(concat(header, payload), salt))
    seen.push({ type: header[4]!, sequence: u64(header, 16), durable: u64(header, 24), payload })
    at = end + 8
  }
  expect(seen.map(({ type, sequence, durable }) => [type, sequence, durable])).toEqual([
    [1, 3n, 2n],
    [2, 0n, 3n],
    [1, 4n, 3n],
    [2, 0n, 4n],
    [3, 0n, 4n],
  ])
  const upsert = seen[0]!.payload
  expect([
    u32(upsert, 0),
    u32(upsert, 4),
    upsert[8],
    upsert[9],
    view(upsert).getUint16(10, true),
    u32(upsert, 12),
  ]).toEqual([1, 0, 1, 1, 1, 7])
  expect(text(upsert.subarray(16, 24))).toBe('d{"n":4}')
  expect(f32s(upsert, 24, 3)).toEqual([0.5, 0, -1])
  expect([...seen[2]!.payload]).toEqual([1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 1, 0, 0, 0, 0, 0, 97])
})

test('the segment holds the rows', () => {
  const { uuid, body } = newest()
  const { file } = (body.segments as { file: { number: number; length: number; checksum: string } }[])[0]!
  const seg = files.get(`${file.number}.seg`)!
  expect(text(seg.subarray(0, 8))).toBe('isovecSG')
  expect([u32(seg, 8), u32(seg, 12)]).toEqual([1, 1])
  expect(seg.subarray(16, 32)).toEqual(uuid)
  expect([u64(seg, 32), u64(seg, 4080)]).toEqual([BigInt(file.number), BigInt(seg.length)])
  expect(seg.length).toBe(file.length)
  expect(u64(seg, 4088)).toBe(xxh64(seg.subarray(0, 4088)))
  expect(u64(seg, 4088).toString(16).padStart(16, '0')).toBe(file.checksum)
  expect([40, 44, 48, 52, 56, 60].map((offset) => u32(seg, offset))).toEqual([3, 3, 2, 16, 0, 16_384])
  expect([u64(seg, 64), u64(seg, 72), u32(seg, 92)]).toEqual([1n, 1n, u32(uuid, 0)])
  const salt = u64(seg, 80)

  const sections = new Map<number, Uint8Array>()
  for (let i = 0; i < u32(seg, 4072); i++) {
    const entry = seg.subarray(128 + 32 * i, 160 + 32 * i)
    const offset = Number(u64(entry, 8))
    const section = seg.subarray(offset, offset + Number(u64(entry, 16)))
    expect(offset % 64).toBe(0)
    expect(u64(entry, 24)).toBe(u32(entry, 0) === 11 ? 0n : xxh64(section))
    sections.set(u32(entry, 0), section)
  }
  expect([...sections.keys()]).toEqual([1, 2, 3, 4, 5, 32, 6, 7, 11])
  const words = (id: number) =>
    Array.from({ length: sections.get(id)!.length / 4 }, (_, i) => u32(sections.get(id)!, 4 * i))
  expect(words(1)).toEqual([0, 1, 4, 5])
  expect(text(sections.get(2)!)).toBe('abéc')
  expect(
    words(3)
      .filter((_, i) => i % 2 === 1)
      .sort(),
  ).toEqual([0, 0, 0, 1, 2, 3])
  expect(words(4)).toEqual([0, 7, 7, 14])
  expect(words(5)).toEqual([1, 0, 1, 0, 1, 0])
  expect(f32s(sections.get(6)!, 0, 12)).toEqual([1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9, 0])
  expect(f32s(sections.get(7)!, 0, 3)).toEqual([14, 77, 194].map((square) => Math.fround(Math.sqrt(square))))
  const payloads = sections.get(11)!
  expect(text(payloads.subarray(0, 14))).toBe('{"n":1}{"n":3}')
  expect(u64(payloads, 14)).toBe(xxh64(payloads.subarray(0, 14), salt))
  expect(payloads.length).toBe(22)
})

test('the tombstones name the row that died', () => {
  const { uuid, body } = newest()
  const { file, tombstones } = (body.segments as { file: { number: number }; tombstones: { number: number } }[])[0]!
  const del = files.get(`${tombstones.number}.del`)!
  expect(text(del.subarray(0, 8))).toBe('isovecDL')
  expect([u32(del, 8), u32(del, 12)]).toEqual([1, 1])
  expect(del.subarray(16, 32)).toEqual(uuid)
  expect([u64(del, 32), BigInt(u32(del, 40))]).toEqual([BigInt(file.number), 1n])
  expect(u64(del, 56)).toBe(xxh64(concat(del.subarray(0, 56), del.subarray(64))))
  expect([u32(del, 64), u32(del, 68), u64(del, 72)]).toEqual([1, 0, 2n])
})

test('patches are logged as what they come to, and kept in a file of their own', async () => {
  const backend = memoryBackend()
  const db = await openDatabase(backend)
  const docs = await db.createCollection<{ n: number; m?: number }>('docs', {
    dimension: 1,
    metric: 'dot',
    compaction: 'manual',
  })
  await docs.upsert([
    { id: 'a', vector: [1], payload: { n: 1 } },
    { id: 'b', vector: [2], payload: { n: 2 } },
    { id: 'c', vector: [3], payload: { n: 3 } },
  ])
  await docs.flush()
  await docs.write([{ patch: { id: 'c', payload: { m: 7 } } }, { patch: { id: 'a', unset: ['n'] } }])
  const log = [...backend.image().directories.get(1)!].filter(([name]) => name.endsWith('.wal')).at(-1)![1]
  const batch = log.subarray(128 + 32, 128 + 32 + u32(log, 128 + 8))
  expect([log[128 + 4], u32(batch, 0), batch[8], batch[9], view(batch).getUint16(10, true), u32(batch, 12)]).toEqual([
    1, 2, 2, 1, 1, 13,
  ])
  expect(text(batch.subarray(16, 30))).toBe('c{"n":3,"m":7}')
  expect([batch[30], batch[31], view(batch).getUint16(32, true), u32(batch, 34)]).toEqual([2, 1, 1, 2])
  expect(text(batch.subarray(38))).toBe('a{}')
  await docs.flush()
  await db.close()
  const found = backend.image().directories.get(1)!
  const [name, patch] = [...found].find(([name]) => name.endsWith('.patch'))!
  const generation = Math.max(
    ...[...found.keys()].filter((name) => name.endsWith('.manifest')).map((name) => Number.parseInt(name, 10)),
  )
  const { body, uuid } = manifest(found.get(`${generation}.manifest`)!, generation, 2)
  const number = Number.parseInt(name, 10)
  const [{ file, patches }] = body.segments as [{ file: { number: number }; patches: object }]
  expect(patches).toEqual({ number, length: patch.length, count: 2, lastSequence: 2 })
  expect(text(patch.subarray(0, 8))).toBe('isovecPT')
  expect([u32(patch, 8), u32(patch, 12)]).toEqual([1, 1])
  expect(patch.subarray(16, 32)).toEqual(uuid)
  expect([u64(patch, 32), BigInt(u32(patch, 40))]).toEqual([BigInt(file.number), 2n])
  expect(u64(patch, 56)).toBe(xxh64(concat(patch.subarray(0, 56), patch.subarray(64))))
  expect([u32(patch, 64), u32(patch, 68), u64(patch, 72)]).toEqual([0, 2, 2n])
  expect([u32(patch, 80), u32(patch, 84), u64(patch, 88)]).toEqual([2, 13, 2n])
  expect(text(patch.subarray(96))).toBe('{}{"n":3,"m":7}')
})

test('codes lie beside their terms and the origin', async () => {
  const backend = memoryBackend()
  const db = await openDatabase(backend)
  const docs = await db.createCollection('docs', {
    dimension: 16,
    metric: 'euclidean',
    quantization: 'sq8',
    compaction: 'manual',
  })
  const rowCount = 300
  await docs.upsert(
    Array.from({ length: rowCount }, (_, i) => ({
      id: `${i}`,
      vector: Array.from({ length: 16 }, (_, d) => Math.sin(i * 7 + d * 3)),
    })),
  )
  await docs.flush()
  await db.close()
  const seg = [...backend.image().directories.get(1)!].find(([name]) => name.endsWith('.seg'))![1]
  const sections = new Map<number, Uint8Array>()
  for (let i = 0; i < u32(seg, 4072); i++) {
    const entry = seg.subarray(128 + 32 * i, 160 + 32 * i)
    const offset = Number(u64(entry, 8))
    sections.set(u32(entry, 0), seg.subarray(offset, offset + Number(u64(entry, 16))))
  }
  const [vectors, codes, terms, origin] = [6, 8, 9, 10].map((id) => sections.get(id)!) as [
    Uint8Array,
    Uint8Array,
    Uint8Array,
    Uint8Array,
  ]
  const stride = u32(seg, 56)
  expect([codes.length, terms.length, origin.length]).toEqual([rowCount * stride, rowCount * 12, 16 * 4])
  const delta = view(seg).getFloat32(88, true)
  for (let row = 0; row < rowCount; row++) {
    const vector = f32s(vectors, row * u32(seg, 52), 16)
    for (const [d, low] of f32s(origin, 0, 16).entries()) {
      const code = codes[row * stride + d]!
      expect(code).toBeLessThanOrEqual(127)
      expect(Math.abs(low + (code - 64) * delta - vector[d]!)).toBeLessThanOrEqual(delta * 0.500001)
    }
  }
})
