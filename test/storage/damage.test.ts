import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { seededChoice } from '../../src/directory/crash-image.ts'
import { memoryBackend, type StoreImage } from '../../src/directory/memory.ts'
import { isIsovecError } from '../../src/errors.ts'
import { openDatabase } from '../../src/index.ts'
import { changed, filesOf, flipped, ofKind } from '../support/damage.ts'
import { type Contents, digestOf, textOf } from '../support/history.ts'
import { readContents } from '../support/recovered.ts'
import { seed, seedCrypto } from '../support/seed.ts'

let restoreCrypto: () => void
const counts = { equal: 0, refused: 0 }
beforeAll(() => {
  restoreCrypto = seedCrypto(seed)
})
afterAll(() => {
  restoreCrypto()
  console.log(`damage: ${counts.refused} refused, ${counts.equal} with nothing lost (ISOVEC_SEED=${seed})`)
})

const refusals = ['CORRUPTION', 'UNSUPPORTED_VERSION']

/** What is read of a damaged store; undefined if it is refused with an error that says so. Any other error is a failure of the test. */
async function readDamaged(
  image: StoreImage,
  queries: readonly number[][] = [],
): Promise<{ contents: Contents; found: string[] } | undefined> {
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
async function expectSound(
  image: StoreImage,
  whole: { contents: Contents; found: string[] },
  queries: readonly number[][] = [],
): Promise<'equal' | 'refused'> {
  const read = await readDamaged(image, queries)
  if (read === undefined) {
    counts.refused++
    return 'refused'
  }
  if (digestOf(read.contents) !== digestOf(whole.contents)) {
    throw new Error(`silently ${read.contents.size} documents instead of ${whole.contents.size}, or others`)
  }
  if (read.found.join() !== whole.found.join()) throw new Error('silently other hits')
  counts.equal++
  return 'equal'
}

const states: string[] = []

/** A database in which everything is in the log, with what it held after each write. */
async function loggedImage(end: 'close' | 'crash'): Promise<StoreImage> {
  const backend = memoryBackend()
  const db = await openDatabase(backend)
  const docs = await db.createCollection('docs', { dimension: 1, metric: 'dot' })
  const contents = new Map<string, string>()
  states.splice(0, states.length, digestOf(contents))
  for (let i = 0; i < 3; i++) {
    await docs.write([{ upsert: { id: `d${i}`, vector: [i + 1] } }, ...(i === 2 ? [{ delete: 'd0' }] : [])])
    contents.set(`d${i}`, textOf([i + 1], undefined))
    if (i === 2) contents.delete('d0')
    states.push(digestOf(contents))
  }
  const crashed = backend.image()
  await db.close()
  return end === 'crash' ? crashed : backend.image()
}

const queries = [
  [0.5, 3, 0, 1],
  [20, 700, 1, 0],
]

/** A database with segments, tombstones, patches, a graph and a log. */
async function segmentedImage(): Promise<StoreImage> {
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

describe('damage is told or costs nothing', () => {
  test('a log that ends too early is read up to its last whole record', { timeout: 120_000 }, async () => {
    const image = await loggedImage('crash')
    const wal = filesOf(image).find(({ name }) => name.endsWith('.wal'))!
    const seen = new Set<number>()
    for (let size = 0; size < wal.bytes.length; size++) {
      const read = await readDamaged(changed(image, wal.directory, wal.name, wal.bytes.slice(0, size)))
      if (size < 128) {
        expect(read, `cut at ${size}`).toBeUndefined()
        continue
      }
      const step = states.indexOf(digestOf(read!.contents))
      expect(step, `cut at ${size}`).toBeGreaterThanOrEqual(0)
      // A longer log never shows less.
      expect(step).toBeGreaterThanOrEqual(Math.max(0, ...seen))
      seen.add(step)
    }
    expect([...seen]).toEqual([0, 1, 2, 3])
  })

  test.each(['crash', 'close'] as const)(
    'every bit of a small database, after a %s',
    { timeout: 300_000 },
    async (end) => {
      const image = await loggedImage(end)
      const whole = (await readDamaged(image))!
      expect(digestOf(whole.contents)).toBe(states.at(-1))
      for (const { directory, name, bytes } of filesOf(image)) {
        // After a close only the log differs.
        if (end === 'close' && !name.endsWith('.wal')) continue
        const outcomes = { equal: 0, refused: 0 }
        for (let bit = 0; bit < bytes.length * 8; bit++) {
          try {
            outcomes[await expectSound(changed(image, directory, name, flipped(bytes, bit)), whole)]++
          } catch (error) {
            throw new Error(`bit ${bit} of ${directory}/${name}: ${(error as Error).message}`, { cause: error })
          }
        }
        // A manifest has another one to stand in for it. Of a log everything matters but the padding of two records and, of 40 bytes
        // each, the last mark and the close record.
        if (name.endsWith('.manifest')) expect(outcomes.refused, name).toBe(0)
        else expect(outcomes.equal, name).toBe(8 * (4 + (end === 'crash' ? 40 : 80)))
      }
    },
  )

  test('bits here and there of a database with segments, tombstones and a graph', { timeout: 300_000 }, async () => {
    const image = await segmentedImage()
    const whole = (await readDamaged(image, queries))!
    const kinds = new Set(filesOf(image).map(({ name }) => name.split('.')[1]))
    expect([...kinds].sort()).toEqual(['del', 'graph', 'manifest', 'patch', 'seg', 'wal'])
    const choose = seededChoice(seed)
    const newestSegment = ofKind(image, 'seg').at(-1)!.name
    const isSpared = (name: string): boolean => /graph|manifest/.test(name) || name === newestSegment
    for (const { directory, name, bytes } of filesOf(image)) {
      for (let sample = 0; sample < 40; sample++) {
        // Half of them among the first bytes, where the structure is.
        const bit = choose((sample % 2 === 0 ? Math.min(256, bytes.length) : bytes.length) * 8)
        try {
          const outcome = await expectSound(changed(image, directory, name, flipped(bytes, bit)), whole, queries)
          // A graph can be built again; what the newest generation introduced is there in the one before and its logs, too.
          if (isSpared(name)) expect(outcome).toBe('equal')
        } catch (error) {
          throw new Error(`bit ${bit} of ${directory}/${name}: ${(error as Error).message}`, { cause: error })
        }
      }
    }
  })

  test('files that are missing, cut, empty, doubled or in the place of others', { timeout: 300_000 }, async () => {
    for (const image of [await segmentedImage(), await loggedImage('crash'), await loggedImage('close')]) {
      const whole = (await readDamaged(image))!
      const files = filesOf(image)
      const attempt = async (what: string, damaged: StoreImage): Promise<void> => {
        try {
          await expectSound(damaged, whole)
        } catch (error) {
          throw new Error(`${what}: ${(error as Error).message}`, { cause: error })
        }
      }
      for (const { directory, name, bytes } of files) {
        const [number, kind] = name.split('.') as [string, string]
        await attempt(`${directory}/${name} missing`, changed(image, directory, name, undefined))
        await attempt(`${directory}/${name} empty`, changed(image, directory, name, new Uint8Array(0)))
        // The end of a log that was not closed may be torn, so that cutting it is no damage that can be told.
        if (kind !== 'wal')
          await attempt(`${directory}/${name} cut`, changed(image, directory, name, bytes.slice(0, -9)))
        await attempt(`${directory}/${name} longer`, changed(image, directory, name, Uint8Array.of(...bytes, 1, 2, 3)))
        await attempt(
          `${directory}/${name} doubled`,
          changed(image, directory, `${Number(number) + 50}.${kind}`, bytes),
        )
        for (const other of files) {
          if (other === files.find((file) => file.name === name && file.directory === directory)) continue
          await attempt(`${other.name} in place of ${name}`, changed(image, directory, name, other.bytes))
        }
      }
    }
  })

  test('a manifest alone, or a collection alone, is no new database', async () => {
    const image = await loggedImage('close')
    const withoutRoot: StoreImage = { root: new Map(), directories: image.directories }
    expect(await readDamaged(withoutRoot)).toBeUndefined()
    const withoutCollection: StoreImage = { root: image.root, directories: new Map() }
    expect(await readDamaged(withoutCollection)).toBeUndefined()
    const bothDamaged = new Map([...image.root!].map(([name, bytes]) => [name, flipped(bytes, 700)]))
    expect(await readDamaged({ root: bothDamaged, directories: image.directories })).toBeUndefined()
    expect(await readDamaged({ root: bothDamaged, directories: new Map() })).toBeUndefined()
  })
})
