import { mkdir, readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { faultyBackend } from '../../src/directory/faulty.ts'
import { type MemoryBackend, memoryBackend } from '../../src/directory/memory.ts'
import type { Collection, CollectionOptions, Database, StorageBackend } from '../../src/index.ts'
import { openDatabase } from '../../src/index.ts'
import { changed, flipped, ofKind, sectionsOf } from '../support/damage.ts'
import { temporaryFolder } from '../support/folder.ts'
import { digestOf, textOf } from '../support/history.ts'
import { hookedBackend } from '../support/hooked-backend.ts'
import { readContents } from '../support/recovered.ts'
import { storeAt } from '../support/store.ts'
import { normalVector, randomNumbers } from '../support/vectors.ts'

type Payload = { n: number }

const manual: CollectionOptions = { dimension: 20, metric: 'euclidean', compaction: 'manual', index: 'manual' }
const random = randomNumbers(41)
const documents = (prefix: string, count: number) =>
  Array.from({ length: count }, (_, n) => ({ id: `${prefix}${n}`, vector: normalVector(20, random), payload: { n } }))

/** A collection with everything that a copy must take along: segments, a graph, deletes, patches, a memtable. */
async function filled(db: Database, name = 'docs'): Promise<Collection<Payload>> {
  const docs = await db.createCollection<Payload>(name, { ...manual, model: 'some-model' })
  await docs.upsert(documents('a', 1100))
  await docs.buildIndex({ M: 8 })
  await docs.upsert(documents('b', 300))
  await docs.flush()
  await docs.patch('a1', { n: 5000 })
  await docs.delete(['a2', 'b2'])
  await docs.flush()
  await docs.patch('b3', { n: 5001 })
  await docs.delete('a4')
  await docs.upsert(documents('c', 7))
  await docs.patch('c1', { n: 5002 })
  return docs
}

async function opened(place: StorageBackend): Promise<Database> {
  return storeAt(place).open()
}

/** What a copy holds: contents, and that it searches and filters as well as it was. */
async function checkCopy(place: StorageBackend, expected: ReadonlyMap<string, string>): Promise<void> {
  const copy = await openDatabase(place, { mustExist: true })
  const docs = await copy.openCollection<Payload>('docs')
  expect(digestOf(await readContents(docs))).toBe(digestOf(expected))
  expect(await docs.count({ n: { $gte: 5000 } })).toBe(3)
  expect(docs.options).toMatchObject({ model: 'some-model', hnsw: { M: 8 } })
  expect(await docs.hasIndex()).toBe(true)
  const { vector } = (await docs.get('a7'))!
  expect(await docs.search({ vector, k: 1, mode: 'approximate' })).toMatchObject({ hits: [{ id: 'a7', score: 0 }] })
  expect(await copy.verify({ full: true })).toMatchObject({ ok: true })
  // It goes on like any other.
  await docs.upsert({ id: 'later', vector })
  await docs.flush()
  await docs.compact()
  expect(await docs.count()).toBe(expected.size + 1)
  await copy.close()
  const again = await openDatabase(place)
  expect(await (await again.openCollection('docs')).has('later')).toBe(true)
  await again.close()
}

describe('a snapshot', () => {
  test.each([false, true])('holds all of the database, compact: %s', async (compact) => {
    const db = await opened(memoryBackend())
    const docs = await filled(db)
    await db.createCollection('empty', manual)
    const contents = await readContents(docs)
    const place = memoryBackend()
    const told: [string, number, number][] = []
    const report = await db.snapshot(place, {
      compact,
      onProgress: ({ phase, done, total }) => told.push([phase, done, total]),
    })
    expect(report).toMatchObject({ collections: 2, docs: contents.size })
    const copies = told.filter(([phase]) => phase === 'copy')
    expect(copies.at(-1)![1]).toBe(copies.at(-1)![2])
    const segments = ofKind(place.image(), 'seg')
    expect(segments.reduce((sum, { bytes }) => sum + bytes.length, 0)).toBeLessThanOrEqual(report.bytes)
    expect(segments).toHaveLength(compact ? 1 : 3)
    expect([...place.image().directories.keys()]).toEqual([1, 2])
    await checkCopy(place, contents)
    expect(digestOf(await readContents(docs))).toBe(digestOf(contents))
  })

  test('holds its place until it is whole', async () => {
    const db = await opened(memoryBackend())
    await filled(db)
    const place = memoryBackend()
    const attempts: Promise<string>[] = []
    await db.snapshot(place, {
      compact: true,
      onProgress: () => {
        const attempt = openDatabase(place).then(
          () => 'opened',
          ({ code }: { code: string }) => code,
        )
        attempts.push(attempt)
      },
    })
    const codes = new Set(await Promise.all(attempts))
    expect(attempts.length).toBeGreaterThan(3)
    expect(codes).toEqual(new Set(['LOCKED']))
    await (await openDatabase(place)).close()
  })

  test('goes to a folder, and from a reader', async () => {
    const place = memoryBackend()
    const db = await opened(place)
    const contents = await readContents(await filled(db))
    const reader = await storeAt(place).open({ readOnly: true })
    const folder = join(await temporaryFolder(), 'deep', 'copy')
    await reader.snapshot(folder)
    const { nodeBackend } = await import('../../src/directory/node.ts')
    await checkCopy(nodeBackend(folder), contents)
  })

  test('does without a graph that is gone: one that a writer has replaced, one that was lost', async () => {
    const place = memoryBackend()
    const db = await opened(place)
    const docs = await filled(db)
    const contents = await readContents(docs)
    const reader = await storeAt(place).open({ readOnly: true })
    const seen = await reader.openCollection('docs')
    // No kept generation names the graph any more that the reader knows of.
    await docs.buildIndex({ M: 9 })
    await docs.buildIndex({ M: 10 })
    const lost = await place.directory(1, { create: false })
    for (const [from, isGone] of [
      [reader, false],
      [db, true],
    ] as const) {
      if (isGone) for (const { name } of ofKind(place.image(), 'graph')) await lost.remove(name)
      const copy = memoryBackend()
      await from.snapshot(copy)
      const read = await opened(copy)
      expect(await read.verify({ full: true })).toMatchObject({ ok: true })
      const copied = await read.openCollection('docs')
      expect(digestOf(await readContents(copied))).toBe(digestOf(contents))
      expect(await copied.hasIndex()).toBe(false)
    }
    expect(await seen.count()).toBe(contents.size)
  })

  test('of a reader ends where more than a graph is gone', async () => {
    const place = memoryBackend()
    const db = await opened(place)
    const docs = await filled(db)
    const reader = await storeAt(place).open({ readOnly: true })
    await docs.compact()
    await db.dropCollection('docs')
    const copy = memoryBackend()
    await expect(reader.snapshot(copy)).rejects.toMatchObject({ code: 'STALE_READER' })
    expect([copy.image().root?.size ?? 0, copy.image().directories.size]).toEqual([0, 0])
  })

  test('is of one moment in all collections, while writes, flushes and compactions go on', async () => {
    const db = await opened(memoryBackend())
    const names = ['one', 'two', 'three']
    const all: Collection<Payload>[] = []
    for (const name of names) all.push(await db.createCollection<Payload>(name, { ...manual, dimension: 1 }))
    let isDone = false
    let n = 0
    // Each number is acknowledged in one collection before it goes to the next.
    const work = (async () => {
      while (!isDone) {
        n++
        for (const docs of all) await docs.upsert({ id: `${n % 50}`, vector: [n], payload: { n } })
        if (n % 7 === 0) await all[n % 3]!.flush()
        if (n % 40 === 0) await all[n % 3]!.compact()
      }
    })()
    const newest = async (docs: Collection<Payload>): Promise<number> => {
      let most = 0
      for await (const { payload } of docs.iterate()) most = Math.max(most, payload!.n)
      return most
    }
    const seen: number[][] = []
    for (let round = 0; round < 12; round++) {
      const place = memoryBackend()
      await db.snapshot(place, { compact: round % 4 === 3 })
      const copy = await openDatabase(place)
      const numbers: number[] = []
      for (const name of names) numbers.push(await newest(await copy.openCollection<Payload>(name)))
      seen.push(numbers)
      await copy.close()
    }
    isDone = true
    await work
    for (const [one, two, three] of seen as [number, number, number][]) {
      expect(one >= two && two >= three && one - three <= 1, `${one} ${two} ${three}`).toBe(true)
    }
    expect(seen.at(-1)![0]).toBeGreaterThan(seen[0]![0]!)
  })

  test('is refused where something is already, and changes nothing there', async () => {
    const db = await opened(memoryBackend())
    await filled(db)
    const folder = await temporaryFolder()
    await writeFile(join(folder, 'note.txt'), 'mine')
    await expect(db.snapshot(folder)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT', field: 'destination' })
    expect(await readdir(folder)).toEqual(['note.txt'])
    const other = join(await temporaryFolder(), 'other')
    await mkdir(join(other, '3'), { recursive: true })
    await expect(db.snapshot(other)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT', field: 'destination' })
    const used = memoryBackend()
    const holder = await opened(used)
    await expect(db.snapshot(used)).rejects.toMatchObject({ code: 'LOCKED' })
    await holder.close()
    await expect(db.snapshot('')).rejects.toMatchObject({ code: 'INVALID_ARGUMENT', field: 'destination' })
    await expect(db.snapshot(memoryBackend(), { compact: 1 } as never)).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
    })
  })

  test('leaves nothing behind where it fails or is aborted', { timeout: 60_000 }, async () => {
    const db = await opened(memoryBackend())
    const docs = await filled(db)
    const contents = digestOf(await readContents(docs))
    const whole = faultyBackend()
    await db.snapshot(whole)
    const { length } = whole.changes
    expect(length).toBeGreaterThan(20)
    for (let at = 0; at < length; at += 3) {
      const place = faultyBackend({ fault: { at, error: at % 2 === 0 ? 'EIO' : 'ENOSPC' } })
      const failure = await db.snapshot(place).then(
        () => undefined,
        (error: unknown) => error,
      )
      if (place.faultCount === 0) continue
      if (failure === undefined) {
        // What failed was of no weight, as the close of a file that is synced.
        await checkOpens(place)
        continue
      }
      expect(failure, `call ${at}`).toMatchObject({ code: at % 2 === 0 ? 'IO' : 'QUOTA_EXCEEDED' })
      const { root, directories } = place.image()
      expect([root?.size ?? 0, directories.size], `call ${at}`).toEqual([0, 0])
    }
    const abort = new AbortController()
    const place = memoryBackend()
    const copying = db.snapshot(place, { signal: abort.signal, onProgress: () => abort.abort('enough') })
    await expect(copying).rejects.toMatchObject({ code: 'ABORTED', cause: 'enough' })
    expect(place.image().directories.size).toBe(0)
    expect(digestOf(await readContents(docs))).toBe(contents)
  })

  test('takes what stands in for a damaged segment, and copies no damage', async () => {
    const place = memoryBackend()
    const first = await openDatabase(place)
    const docs = await filled(first)
    await docs.flush()
    const contents = await readContents(docs)
    await first.close()
    const image = place.image()
    for (const which of [-1, 0]) {
      const file = ofKind(image, 'seg').at(which)!
      const vectors = sectionsOf(file.bytes).find(({ id }) => id === 6)!
      const hurt = changed(image, 1, file.name, flipped(file.bytes, (vectors.offset + 40) * 8))
      const db = await opened(memoryBackend(hurt))
      const copy = memoryBackend()
      if (which === 0) {
        await expect(db.snapshot(copy)).rejects.toMatchObject({ code: 'CORRUPTION', file: file.name })
        expect(copy.image().directories.size).toBe(0)
      } else {
        await db.snapshot(copy)
        const read = await opened(copy)
        expect(digestOf(await readContents(await read.openCollection('docs')))).toBe(digestOf(contents))
      }
    }
  })

  test('removes only what it has made', async () => {
    const db = await opened(memoryBackend())
    await filled(db)
    const folder = await temporaryFolder()
    const place = join(folder, 'copy')
    const abort = new AbortController()
    let made: Promise<void> | undefined
    const copying = db.snapshot(place, {
      signal: abort.signal,
      onProgress: () => {
        made ??= writeFile(join(place, 'thesis.txt'), 'mine').then(() => abort.abort())
      },
      compact: true,
    })
    await expect(copying).rejects.toMatchObject({ code: 'ABORTED' })
    await made
    expect(await readdir(place)).toEqual(['thesis.txt'])
  })

  test('tells a collection that is dropped meanwhile', async () => {
    const db = await opened(memoryBackend())
    await filled(db)
    await filled(db, 'other')
    const place = memoryBackend()
    let dropping: Promise<void> | undefined
    const slow = hookedBackend(place, async (_, run) => {
      dropping ??= db.dropCollection('other')
      await dropping
      return run()
    })
    await expect(db.snapshot(slow)).rejects.toMatchObject({ code: 'COLLECTION_NOT_FOUND' })
    expect(place.image().directories.size).toBe(0)
    await db.snapshot(place)
  })

  test('ends when the database is closed', async () => {
    const db = await openDatabase(memoryBackend())
    await filled(db)
    const place = memoryBackend()
    let isUnderWay = (): void => {}
    const underWay = new Promise<void>((resolve) => {
      isUnderWay = resolve
    })
    const slow = hookedBackend(place, async (_, run) => {
      isUnderWay()
      await new Promise((resolve) => setTimeout(resolve, 5))
      return run()
    })
    const copying = db.snapshot(slow)
    copying.catch(() => {})
    await underWay
    await db.close()
    await expect(copying).rejects.toMatchObject({ code: 'CLOSED' })
    expect(place.image().directories.size).toBe(0)
    await expect(db.snapshot(memoryBackend())).rejects.toMatchObject({ code: 'CLOSED' })
  })
})

async function checkOpens(place: StorageBackend): Promise<void> {
  const copy = await openDatabase(place)
  expect(await (await copy.openCollection('docs')).count()).toBeGreaterThan(1000)
  await copy.close()
}

describe('verifying', () => {
  async function built(): Promise<MemoryBackend> {
    const place = memoryBackend()
    const db = await openDatabase(place)
    await filled(db)
    await db.close()
    return place
  }

  test('reports every file of a whole database, with its sections if all is read', async () => {
    const db = await opened(await built())
    const quick = await db.verify()
    expect(quick.ok).toBe(true)
    const kinds = new Set(quick.files.map(({ file }) => file.replace(/\d+/g, 'N')))
    expect([...kinds].sort()).toEqual([
      'N.manifest',
      'N/N.del',
      'N/N.graph',
      'N/N.manifest',
      'N/N.patch',
      'N/N.seg',
      'N/N.wal',
    ])
    const full = await db.verify({ full: true })
    expect(full.ok).toBe(true)
    const sections = new Set(full.files.flatMap(({ section }) => section ?? []))
    expect([...sections].sort()).toEqual([
      'codes',
      'columns',
      'idBytes',
      'idOffsets',
      'idSlots',
      'norms',
      'origin',
      'payloadOffsets',
      'payloads',
      'sequences',
      'terms',
      'vectors',
    ])
  })

  test('finds a flipped bit in any file, and says where', { timeout: 60_000 }, async () => {
    const image = (await built()).image()
    let found = 0
    for (const [name, bytes] of image.directories.get(1)!) {
      for (const share of [0.1, 0.5, 0.9]) {
        const at = Math.floor(bytes.length * share) * 8 + 2
        const db = await openDatabase(memoryBackend(changed(image, 1, name, flipped(bytes, at))))
        const { ok, files } = await db.verify({ full: true })
        await db.close()
        const bad = files.filter((each) => !each.ok)
        expect(ok).toBe(bad.length === 0)
        // Padding means nothing, and a damaged tail of the newest log is a torn one.
        const isMeaningless =
          bad.length === 0 && (name.endsWith('.seg') || name.endsWith('.graph') || name.endsWith('.wal'))
        if (isMeaningless) continue
        expect(
          bad.map(({ file }) => file),
          `${name} at ${at}`,
        ).toContain(`1/${name}`)
        for (const { problem } of bad) expect(problem).toMatch(/\w/)
        found++
      }
    }
    expect(found).toBeGreaterThan(15)
  })

  test('tells missing files, directories and manifests', async () => {
    const image = (await built()).image()
    const files = image.directories.get(1)!
    for (const name of files.keys()) {
      if (name.endsWith('.wal') && name !== ofKind(image, 'wal').at(-1)!.name) continue
      const db = await openDatabase(memoryBackend(changed(image, 1, name, undefined)))
      const { ok } = await db.verify()
      // One manifest of two is enough, and nothing says that there was another.
      expect(ok, name).toBe(name.endsWith('.manifest'))
      await db.close()
    }
    const gone = new Map([...image.directories].filter(([number]) => number !== 1))
    const db = await opened(memoryBackend({ ...image, directories: gone }))
    expect(await db.verify()).toMatchObject({ ok: false })
  })

  test('reads the logs that the generation before needs, and meets no manifest that is being written', async () => {
    const place = memoryBackend()
    const first = await openDatabase(place)
    const docs = await first.createCollection('docs', manual)
    for (const prefix of ['a', 'b', 'c']) {
      await docs.upsert(documents(prefix, 3))
      await docs.flush()
    }
    await first.close()
    const image = place.image()
    const logs = ofKind(image, 'wal')
    expect(logs.length).toBeGreaterThan(1)
    const { name, bytes } = logs[0]!
    const db = await opened(memoryBackend(changed(image, 1, name, flipped(bytes, 1100))))
    const { ok, files } = await db.verify()
    expect([ok, files.filter((each) => !each.ok).map(({ file }) => file)]).toEqual([false, [`1/${name}`]])

    const slow = hookedBackend(memoryBackend(), async ({ kind, name: file }, run) => {
      if (kind === 'append' && file.endsWith('.manifest')) await new Promise((resolve) => setTimeout(resolve, 20))
      return run()
    })
    const writer = await opened(slow)
    const written = await writer.createCollection('docs', manual)
    let isDone = false
    const work = (async () => {
      for (let n = 0; n < 12; n++) {
        await written.upsert(documents(`w${n}`, 2))
        await written.flush()
      }
      isDone = true
    })()
    let count = 0
    while (!isDone) {
      expect((await writer.verify()).files.filter((each) => !each.ok)).toEqual([])
      count++
      await new Promise((resolve) => setTimeout(resolve, 3))
    }
    await work
    expect(count).toBeGreaterThan(3)
  })

  test('goes on beside writes, and beside a writer in a reader', async () => {
    const place = memoryBackend()
    const db = await opened(place)
    const docs = await filled(db)
    const reader = await storeAt(place).open({ readOnly: true })
    let isDone = false
    const work = (async () => {
      for (let round = 0; !isDone; round++) {
        await docs.upsert(documents(`w${round % 5}`, 20))
        await docs.flush()
        if (round % 4 === 3) await docs.compact()
      }
    })()
    for (let round = 0; round < 8; round++) {
      expect(await db.verify({ full: true })).toMatchObject({ ok: true })
      await reader.refresh()
      expect((await reader.verify()).files.filter(({ ok }) => !ok)).toEqual([])
    }
    isDone = true
    await work
    expect(textOf((await docs.get('a1'))!.vector, undefined)).toMatch(/\w/)
  })

  test('can be aborted, and ends with the database', async () => {
    const db = await openDatabase(await built())
    await expect(db.verify({ signal: AbortSignal.abort('no') })).rejects.toMatchObject({ code: 'ABORTED' })
    const abort = new AbortController()
    const verifying = db.verify({ full: true, signal: abort.signal, onProgress: () => abort.abort('enough') })
    await expect(verifying).rejects.toMatchObject({ code: 'ABORTED', cause: 'enough' })
    const last = db.verify({ full: true })
    last.catch(() => {})
    onTestFinished(() => db.close())
    await db.close()
    await expect(last).rejects.toMatchObject({ code: 'CLOSED' })
  })
})
