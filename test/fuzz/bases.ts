/**
 * The valid databases that inputs begin with: small, and each kind of file and record is among them.
 */
import { seededChoice } from '../../src/directory/crash-image.ts'
import type { Directory } from '../../src/directory/directory.ts'
import { type MemoryBackend, memoryBackend, type StoreImage } from '../../src/directory/memory.ts'
import type { Collection, CollectionOptions, Document, JsonObject } from '../../src/index.ts'
import { openDatabase } from '../../src/index.ts'
import { type ImagePool, type Kernel, loadKernel } from '../../src/kernel/index.ts'
import { collectionFormat } from '../../src/storage/collection-manifest.ts'
import { writeGraph } from '../../src/storage/graph-file.ts'
import { readManifests, writeManifest } from '../../src/storage/manifest.ts'
import { BlockCache } from '../../src/storage/payload-blocks.ts'
import { Reserve } from '../../src/storage/reserve.ts'
import { Segment, type StorageContext } from '../../src/storage/segment.ts'
import { Tombstones } from '../../src/storage/tombstones.ts'
import { digestOf } from '../support/history.ts'
import { readContents } from '../support/recovered.ts'

/** A database and what may be read of it. */
export type Base = {
  readonly image: StoreImage
  /** Digests of what the first collection held after each of its writes, the last one being what it holds. */
  readonly states: readonly string[]
}

/** Runs with uuids and salts that follow from a seed, so that a base is the same each time. */
export async function withSeededCrypto<T>(seed: number, run: () => Promise<T>): Promise<T> {
  const choose = seededChoice(seed)
  const original = Object.getOwnPropertyDescriptor(crypto, 'getRandomValues')
  const fill = (view: ArrayBufferView): ArrayBufferView => {
    const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength)
    for (let i = 0; i < bytes.length; i++) bytes[i] = choose(256)
    return view
  }
  Object.defineProperty(crypto, 'getRandomValues', { value: fill, configurable: true, writable: true })
  try {
    return await run()
  } finally {
    if (original === undefined) Reflect.deleteProperty(crypto, 'getRandomValues')
    else Object.defineProperty(crypto, 'getRandomValues', original)
  }
}

const options: CollectionOptions = { dimension: 3, metric: 'euclidean', index: 'manual', compaction: 'manual' }

/** Payloads of many shapes; some have none. */
export function payloadOf(i: number): JsonObject | undefined {
  switch (i % 6) {
    case 0:
      return { i, tag: i % 4 === 0 ? 'a' : 'b', list: [i, 'x', null, { deep: i }] }
    case 1:
      return { i, nested: { flag: i % 4 === 1, text: 'long '.repeat(30 + i) } }
    case 2:
      return { i, tag: 'c', n: i / 7 }
    case 3:
      return undefined
    case 4:
      return { i, '\u00e9': '\u{1f600}', none: null }
    default:
      return { i: String(i), empty: {}, tags: ['a', 'c'] }
  }
}

function documents(prefix: string, count: number, dimension = 3): Document[] {
  return Array.from({ length: count }, (_, i) => {
    const payload = payloadOf(i)
    const vector = Array.from({ length: dimension }, (_, d) => ((i * (d + 3)) % 11) - 4.5)
    return { id: `${prefix}${i}`, vector, ...(payload === undefined ? {} : { payload }) }
  })
}

/** Keeps what a collection holds after each write. */
async function noting(collection: Collection, states: string[]): Promise<void> {
  states.push(digestOf(await readContents(collection)))
}

/** Segments with codes and without, tombstones, patches, a sealed log and one that isn't. */
async function segmented(backend: MemoryBackend, end: 'close' | 'crash'): Promise<Base> {
  const db = await openDatabase(backend)
  const states: string[] = []
  const docs = await db.createCollection('docs', { ...options, quantization: 'sq8' })
  const other = await db.createCollection('other', { ...options, dimension: 2, metric: 'cosine', quantization: 'none' })
  await other.upsert(documents('o', 9, 2))
  await other.flush()
  await docs.upsert(documents('a', 24))
  await docs.flush()
  await docs.delete(['a3', 'a4', 'a20'])
  await docs.patch('a0', { i: -9, more: 'patched' })
  await docs.patch('a2', {}, { unset: ['i', 'tag', 'n'] })
  await docs.patch('a8', { tag: 'patched', list: [1, 2] })
  await docs.upsert(documents('b', 12))
  await docs.flush()
  await noting(docs, states)
  await docs.upsert({ id: 'a5', vector: [0, 1, 0], payload: { i: 5 } })
  await noting(docs, states)
  await docs.write([{ delete: 'b1' }, { patch: { id: 'a1', payload: { i: 77 }, unset: ['nested'] } }])
  await noting(docs, states)
  await docs.patch('a5', { late: true })
  await noting(docs, states)
  const crashed = backend.image()
  await db.close()
  return { image: end === 'crash' ? crashed : backend.image(), states }
}

/** Everything in logs. */
async function logged(backend: MemoryBackend, end: 'close' | 'crash'): Promise<Base> {
  const db = await openDatabase(backend)
  const states: string[] = []
  const docs = await db.createCollection('docs', { ...options, metric: 'dot' })
  await noting(docs, states)
  for (const doc of documents('d', 7)) {
    await docs.upsert(doc)
    await noting(docs, states)
  }
  await docs.write([
    { upsert: { id: 'd1', vector: [1, 2, 3] } },
    { delete: 'd0' },
    { patch: { id: 'd2', unset: ['n'] } },
  ])
  await noting(docs, states)
  await docs.upsert(documents('e', 4), { durability: 'buffered' })
  await noting(docs, states)
  await docs.delete('d5', { durability: 'strict' })
  await noting(docs, states)
  const crashed = backend.image()
  await db.close()
  return { image: end === 'crash' ? crashed : backend.image(), states }
}

/** What the sources of a collection share, for use without a database. */
export function contextOf(
  kernel: Kernel,
  pool: ImagePool,
  directory: Directory,
  uuid: Uint8Array,
  { dimension, metric }: Pick<StorageContext, 'dimension' | 'metric'>,
): StorageContext {
  return {
    kernel,
    pool,
    cache: new BlockCache(0),
    reserve: new Reserve(directory),
    directory,
    uuid,
    hashSeed: new DataView(uuid.buffer, uuid.byteOffset).getUint32(0, true),
    dimension,
    metric,
  }
}

/** A small segment with a graph, which no database would build: written beside it, and named by one more manifest. */
async function smallGraph(backend: MemoryBackend): Promise<Base> {
  const options = { dimension: 2, metric: 'euclidean' } as const
  const db = await openDatabase(backend)
  const docs = await db.createCollection('docs', { ...options, quantization: 'sq8', index: 'manual' })
  await docs.upsert(documents('g', 40, 2))
  await docs.flush()
  await docs.delete('g7')
  const states = [digestOf(await readContents(docs))]
  await db.close()
  const kernel = await loadKernel()
  const pool = kernel.createPool()
  const directory = await backend.directory(1, { create: false })
  const { valid } = await readManifests(kernel, directory, 'collection', collectionFormat.decode)
  const { uuid, body, generation } = valid[0]!
  const { file } = body.segments[0]!
  const context = contextOf(kernel, pool, directory, uuid, options)
  const segment = await Segment.open(context, file, new Tombstones())
  await segment.loadImage()
  segment.image.beginGraph({ M: 3, efConstruction: 8, seed: 11 })
  segment.image.buildGraph(file.rowCount)
  const beams = [{ k: 10, ef: 20, recall: 0.9 }]
  const graph = await writeGraph(context, body.nextFile, file, segment.image, beams)
  segment.release()
  pool.close()
  for (const next of [1, 2]) {
    await writeManifest(kernel, directory, 'collection', {
      generation: generation + next,
      uuid,
      body: collectionFormat.encode({ ...body, nextFile: body.nextFile + 1, segments: [{ file, graph }] }),
    })
  }
  return { image: backend.image(), states }
}

/** A segment large enough for a graph. */
async function graphed(backend: MemoryBackend): Promise<Base> {
  const db = await openDatabase(backend)
  const states: string[] = []
  const docs = await db.createCollection('docs', {
    ...options,
    dimension: 2,
    quantization: 'sq8',
    hnsw: { M: 3, efConstruction: 8 },
  })
  await docs.upsert(Array.from({ length: 1030 }, (_, i) => ({ id: `g${i}`, vector: [(i * 37) % 101, (i * 61) % 89] })))
  await docs.buildIndex()
  await docs.delete('g7')
  await noting(docs, states)
  await db.close()
  return { image: backend.image(), states }
}

export const baseNames = ['closed', 'crashed', 'logClosed', 'logCrashed', 'smallGraph', 'graph'] as const
export type BaseName = (typeof baseNames)[number]

const makers: { readonly [name in BaseName]: (backend: MemoryBackend) => Promise<Base> } = {
  closed: (backend) => segmented(backend, 'close'),
  crashed: (backend) => segmented(backend, 'crash'),
  logClosed: (backend) => logged(backend, 'close'),
  logCrashed: (backend) => logged(backend, 'crash'),
  smallGraph,
  graph: graphed,
}

const made = new Map<BaseName, Promise<Base>>()

/** A base, made at the first call. */
export function baseOf(name: BaseName): Promise<Base> {
  let base = made.get(name)
  if (base === undefined) {
    base = withSeededCrypto(baseNames.indexOf(name) + 1, () => makers[name](memoryBackend()))
    made.set(name, base)
  }
  return base
}

/** Makes all bases: one after the other, since the source of random numbers is shared. */
export async function makeBases(): Promise<void> {
  for (const name of baseNames) await baseOf(name)
}
