import type { Choice } from '../../src/directory/crash-image.ts'
import { memoryBackend, type StoreImage } from '../../src/directory/memory.ts'
import { isIsovecError } from '../../src/errors.ts'
import { openDatabase } from '../../src/index.ts'
import { changed, filesOf, flipped, ofKind, type StoredFile } from './damage.ts'
import { type Contents, digestOf, textOf } from './history.ts'
import { readContents } from './recovered.ts'

/** What is read of a store: its documents, and what searches and filters find. */
export type Read = { contents: Contents; found: string[] }

/** What damage came to. */
export type Outcome = 'refused' | 'equal'

const refusals = ['CORRUPTION', 'UNSUPPORTED_VERSION']

/** What is read of a damaged store; undefined if it is refused with an error that says so. Any other error is a failure of the test. */
export async function readDamaged(image: StoreImage, queries: readonly number[][] = []): Promise<Read | undefined> {
  let db: Awaited<ReturnType<typeof openDatabase>> | undefined
  try {
    db = await openDatabase(memoryBackend(image))
    const collection = await db.openCollection('docs')
    const contents = await readContents(collection)
    const found: string[] = []
    for (const vector of queries) {
      const { hits } = await collection.search({ vector, k: 5, mode: 'approximate' })
      found.push(hits.map(({ id, score }) => `${id} ${score}`).join())
    }
    // Columns and patches must not answer otherwise than payloads do.
    for (const filter of [{ i: { $lt: 100 } }, { i: { $exists: true } }] as const) {
      found.push(String(await collection.count(filter)))
    }
    return { contents, found }
  } catch (error) {
    if (!isIsovecError(error) || !refusals.includes(error.code)) throw error
    return undefined
  } finally {
    await db?.close()
  }
}

/** Fails unless damage is either refused or costs nothing. */
export async function expectSound(image: StoreImage, whole: Read, queries: readonly number[][] = []): Promise<Outcome> {
  const read = await readDamaged(image, queries)
  if (read === undefined) return 'refused'
  if (digestOf(read.contents) !== digestOf(whole.contents)) {
    throw new Error(`silently ${read.contents.size} documents instead of ${whole.contents.size}, or others`)
  }
  if (read.found.join() !== whole.found.join()) throw new Error('silently other hits')
  return 'equal'
}

/** A database in which everything is in the log, with digests of what it held at first and after each write. */
export async function loggedImage(end: 'close' | 'crash'): Promise<{ image: StoreImage; states: string[] }> {
  const backend = memoryBackend()
  const db = await openDatabase(backend)
  const docs = await db.createCollection('docs', { dimension: 1, metric: 'dot' })
  const contents = new Map<string, string>()
  const states = [digestOf(contents)]
  for (let i = 0; i < 3; i++) {
    await docs.write([{ upsert: { id: `d${i}`, vector: [i + 1] } }, ...(i === 2 ? [{ delete: 'd0' }] : [])])
    contents.set(`d${i}`, textOf([i + 1], undefined))
    if (i === 2) contents.delete('d0')
    states.push(digestOf(contents))
  }
  const crashed = backend.image()
  await db.close()
  return { image: end === 'crash' ? crashed : backend.image(), states }
}

/** Vectors that are asked for in what {@link segmentedImage} gives. */
export const segmentedQueries = [
  [0.5, 3, 0, 1],
  [20, 700, 1, 0],
]

/** A database with segments, tombstones, patches, a graph and a log. */
export async function segmentedImage(): Promise<StoreImage> {
  const backend = memoryBackend()
  const db = await openDatabase(backend)
  const docs = await db.createCollection('docs', {
    dimension: 4,
    metric: 'euclidean',
    index: 'manual',
    compaction: 'manual',
    hnsw: { M: 4, efConstruction: 16 },
  })
  await docs.upsert(
    Array.from({ length: 1030 }, (_, i) => ({ id: `a${i}`, vector: [i % 7, i, 1, i % 3], payload: { i } })),
  )
  await docs.buildIndex()
  await docs.delete(['a3', 'a4'])
  await docs.patch('a9', { i: -9 })
  await docs.patch('a10', {}, { unset: ['i'] })
  await docs.upsert(Array.from({ length: 20 }, (_, i) => ({ id: `b${i}`, vector: [i, -i, 1, 0], payload: { i } })))
  await docs.flush()
  await docs.upsert({ id: 'a5', vector: [0, 0, 0, 0] })
  await docs.delete('b1')
  await db.close()
  return backend.image()
}

/** Images that were damaged, one after the other. */
export class DamageRun {
  /** Those that were refused, and those of which nothing was lost. */
  readonly counts = { refused: 0, equal: 0 }
  /** Bits that were flipped. */
  bits = 0

  /** Fails unless a damaged image is refused or nothing of it is lost. */
  async expectSound(what: string, image: StoreImage, whole: Read, queries?: readonly number[][]): Promise<Outcome> {
    try {
      const outcome = await expectSound(image, whole, queries)
      this.counts[outcome]++
      return outcome
    } catch (error) {
      throw new Error(`${what}: ${(error as Error).message}`, { cause: error })
    }
  }

  /** Flips one bit of a file. */
  flip(image: StoreImage, file: StoredFile, bit: number, whole: Read, queries?: readonly number[][]): Promise<Outcome> {
    this.bits++
    const { directory, name, bytes } = file
    const damaged = changed(image, directory, name, flipped(bytes, bit))
    return this.expectSound(`bit ${bit} of ${directory}/${name}`, damaged, whole, queries)
  }

  /** Flips every bit of a file, each in an image of its own. */
  async flipEvery(image: StoreImage, file: StoredFile, whole: Read): Promise<{ refused: number; equal: number }> {
    const outcomes = { equal: 0, refused: 0 }
    for (let bit = 0; bit < file.bytes.length * 8; bit++) outcomes[await this.flip(image, file, bit, whole)]++
    return outcomes
  }

  /** Flips bits of every file, half of them among the first bytes, where the structure is. */
  async flipSome(image: StoreImage, whole: Read, choose: Choice, perFile: number): Promise<void> {
    const newestSegment = ofKind(image, 'seg').at(-1)!.name
    const isSpared = (name: string): boolean => /graph|manifest/.test(name) || name === newestSegment
    for (const file of filesOf(image)) {
      const { length } = file.bytes
      for (let sample = 0; sample < perFile; sample++) {
        const bit = choose((sample % 2 === 0 ? Math.min(256, length) : length) * 8)
        const outcome = await this.flip(image, file, bit, whole, segmentedQueries)
        // A graph can be built again; what the newest generation introduced is there in the one before and its logs, too.
        if (isSpared(file.name) && outcome !== 'equal') throw new Error(`bit ${bit} of ${file.name}: ${outcome}`)
      }
    }
  }

  /** Takes files away, cuts and swaps them. */
  async misplaceFiles(image: StoreImage): Promise<void> {
    const whole = (await readDamaged(image))!
    const files = filesOf(image)
    for (const { directory, name, bytes } of files) {
      const [number, kind] = name.split('.') as [string, string]
      const attempt = async (what: string, as: Uint8Array | undefined, at = name): Promise<void> => {
        await this.expectSound(`${directory}/${name} ${what}`, changed(image, directory, at, as), whole)
      }
      await attempt('missing', undefined)
      await attempt('empty', new Uint8Array(0))
      // The end of a log that was not closed may be torn, so that cutting it is no damage that can be told.
      if (kind !== 'wal') await attempt('cut', bytes.slice(0, -9))
      await attempt('longer', Uint8Array.of(...bytes, 1, 2, 3))
      await attempt('doubled', bytes, `${Number(number) + 50}.${kind}`)
      for (const other of files) {
        if (other === files.find((file) => file.name === name && file.directory === directory)) continue
        await attempt(`replaced by ${other.name}`, other.bytes)
      }
    }
  }
}
