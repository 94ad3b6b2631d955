import { describe, expect, test } from 'vitest'
import { imageKey, seededChoice } from '../../src/directory/crash-image.ts'
import { type MemoryBackend, memoryBackend, type StoreImage } from '../../src/directory/memory.ts'
import type { Collection, CollectionOptions, SalvageReport } from '../../src/index.ts'
import { openDatabase, salvage } from '../../src/index.ts'
import { loadKernel } from '../../src/kernel/index.ts'
import { repairFile } from '../fuzz/repair.ts'
import { changed, flipped, ofKind, sectionsOf } from '../support/damage.ts'
import { readContents } from '../support/recovered.ts'
import { seed } from '../support/seed.ts'
import { normalVector, randomNumbers } from '../support/vectors.ts'

const options: CollectionOptions = {
  dimension: 16,
  metric: 'euclidean',
  index: 'manual',
  compaction: 'manual',
  model: 'some-model',
}
const random = randomNumbers(51)
const documents = (prefix: string, count: number) =>
  Array.from({ length: count }, (_, n) => ({
    id: `${prefix}${n}`,
    vector: normalVector(16, random),
    payload: { n, text: 'x'.repeat(200) },
  }))

type Built = { image: StoreImage; contents: ReadonlyMap<string, string> }

async function built(work: (docs: Collection) => Promise<unknown>, end: 'close' | 'crash' = 'close'): Promise<Built> {
  const place = memoryBackend()
  const db = await openDatabase(place)
  const docs = await db.createCollection('docs', options)
  await work(docs)
  const contents = await readContents(docs)
  const crashed = place.image()
  await db.close()
  return { image: end === 'crash' ? crashed : place.image(), contents }
}

/** Segments of two generations, with deletes, replaced and patched documents, and more in the log. */
async function rich(docs: Collection): Promise<void> {
  await docs.upsert(documents('a', 300))
  await docs.flush()
  await docs.upsert([...documents('b', 40), ...documents('a', 20)])
  await docs.delete(['a30', 'a31', 'b3'])
  await docs.patch('a40', { n: -1 })
  await docs.patch('b4', {}, { unset: ['n'] })
  await docs.flush()
  await docs.upsert(documents('c', 10))
  await docs.write([
    { delete: 'a50' },
    { upsert: { id: 'a50', vector: Array(16).fill(1) } },
    { patch: { id: 'a50', payload: { n: 1 } } },
    { upsert: { id: 'gone', vector: Array(16).fill(2) } },
    { delete: 'gone' },
    { patch: { id: 'a51', payload: { n: -2 } } },
    { delete: 'b5' },
  ])
  await docs.upsert({ id: 'a52', vector: Array(16).fill(3) })
}

/** What is saved of an image. */
async function saved(
  image: StoreImage,
): Promise<{ report: SalvageReport; found: Map<string, string>; place: MemoryBackend }> {
  const place = memoryBackend()
  const source = memoryBackend(image)
  const report = await salvage(source, place)
  expect(imageKey(source.image())).toBe(imageKey(image))
  const db = await openDatabase(place)
  const found = new Map<string, string>()
  for (const name of await db.listCollections()) {
    for (const [id, text] of await readContents(await db.openCollection(name))) found.set(id, text)
  }
  expect(await db.verify({ full: true })).toMatchObject({ ok: true })
  await db.close()
  return { report, found, place }
}

describe('salvage', () => {
  test.each(['close', 'crash'] as const)('of a whole database takes all of it, after a %s', async (end) => {
    const { image, contents } = await built(rich, end)
    const { report, found, place } = await saved(image)
    expect(found).toEqual(contents)
    expect(report).toMatchObject({
      ok: true,
      problems: [],
      collections: [{ name: 'docs', docs: contents.size, lost: 0 }],
    })
    const db = await openDatabase(place)
    const docs = await db.openCollection('docs')
    expect(docs.options).toMatchObject({ ...options, durability: 'strict' })
    await db.close()
  })

  test('of what has one flipped bit gives nothing that is wrong, and tells what is missing', {
    timeout: 300_000,
  }, async () => {
    const { image, contents } = await built(rich)
    const choose = seededChoice(seed)
    let damaged = 0
    let missing = 0
    for (const [name, bytes] of image.directories.get(1)!) {
      for (let round = 0; round < 12; round++) {
        const bit = choose(bytes.length * 8)
        const { report, found } = await saved(changed(image, 1, name, flipped(bytes, bit)))
        const where = `${name}, bit ${bit} (ISOVEC_SEED=${seed})`
        const [collection] = report.collections
        if (!report.ok) damaged++
        // Deletes and patches that are lost with their file bring back what was there before.
        const isOlder = name.endsWith('.del') || name.endsWith('.patch') || name.endsWith('.wal')
        for (const [id, text] of found) {
          if (contents.get(id) === text) continue
          expect(isOlder && !report.ok, `${id} in ${where}`).toBe(true)
        }
        const lost = [...contents.keys()].filter((id) => !found.has(id))
        missing += lost.length
        const isTold = lost.length <= (collection?.lost ?? 0) + (collection?.unreadableRows ?? 0) || isOlder
        expect(lost.length === 0 || (!report.ok && isTold), where).toBe(true)
        for (const problem of report.problems) expect(problem.file, where).toContain('1/')
      }
    }
    expect(damaged).toBeGreaterThan(60)
    expect(missing).toBeGreaterThan(0)
  })

  test('takes what a damaged compaction was made of, and what a damaged flush came from', {
    timeout: 300_000,
  }, async () => {
    for (const work of [
      async (docs: Collection) => {
        await rich(docs)
        await docs.compact()
      },
      async (docs: Collection) => {
        await rich(docs)
        await docs.flush()
      },
    ]) {
      const { image, contents } = await built(work)
      const { name, bytes } = ofKind(image, 'seg').at(-1)!
      for (const section of sectionsOf(bytes).filter(({ length }) => length > 0)) {
        const hurt = changed(image, 1, name, flipped(bytes, (section.offset + (section.length >> 1)) * 8))
        const { report, found } = await saved(hurt)
        expect(found, `section ${section.id}`).toEqual(contents)
        expect(report.collections[0]!.lost).toBe(0)
      }
      expect((await saved(changed(image, 1, name, undefined))).found).toEqual(contents)
    }
  })

  test('names documents whose payload can be read nowhere', async () => {
    const { image, contents } = await built(async (docs) => {
      await docs.upsert(documents('a', 300))
      await docs.flush()
      await docs.upsert({ id: 'x', vector: Array(16).fill(1) })
      await docs.flush()
      await docs.upsert({ id: 'y', vector: Array(16).fill(1) })
      await docs.flush()
    })
    const { name, bytes } = ofKind(image, 'seg')[0]!
    const payloads = sectionsOf(bytes).find(({ id }) => id === 11)!
    const { report, found } = await saved(changed(image, 1, name, flipped(bytes, (payloads.offset + 20) * 8)))
    const [collection] = report.collections
    expect(collection!.lost).toBeGreaterThan(20)
    expect(collection!.lost).toBeLessThan(200)
    expect(collection!.lostIds).toHaveLength(collection!.lost)
    expect([...contents.keys()].filter((id) => !found.has(id)).sort()).toEqual([...collection!.lostIds].sort())
    expect(report).toMatchObject({ ok: false, problems: [{ file: `1/${name}` }] })
  })

  test('names documents that can be read and are no longer taken, and why', async () => {
    const { image, contents } = await built(async (docs) => {
      await docs.upsert([
        { id: 'a', vector: Array(16).fill(1), payload: { n: 1 } },
        { id: 'infinite', vector: Array(16).fill(1), payload: { n: 88888 } },
        { id: 'c', vector: Array(16).fill(1), payload: { n: 2 } },
      ])
    })
    const { name, bytes } = ofKind(image, 'wal')[0]!
    const hurt = bytes.slice()
    const at = Buffer.from(hurt.buffer).indexOf('{"n":88888}')
    hurt.set(new TextEncoder().encode('{"n":1e999}'), at)
    repairFile(await loadKernel(), 'wal', hurt, 'checksums')
    const { report, found } = await saved(changed(image, 1, name, hurt))
    expect([...found.keys()].sort()).toEqual(['a', 'c'])
    for (const [id, text] of found) expect(contents.get(id)).toBe(text)
    expect(report).toMatchObject({ ok: false, collections: [{ docs: 2, lost: 1, lostIds: ['infinite'] }] })
    expect(report.problems).toMatchObject([{ file: '1/' }])
    expect(report.problems[0]!.problem).toMatch(/"infinite".*payload\.n/)
  })

  test('names documents of which only a dead version can be read, unless they are known to be deleted', async () => {
    const { image } = await built(async (docs) => {
      await docs.upsert([...documents('a', 20), ...documents('b', 3), ...documents('d', 3)])
      await docs.flush()
      await docs.upsert(documents('a', 5))
      await docs.delete('b0')
      await docs.flush()
      await docs.delete(['b1', 'd0'])
      await docs.patch('a6', { n: -1 })
      await docs.upsert({ id: 'd1', vector: Array(16).fill(1) })
      await docs.patch('x', { n: 2 })
    })
    const [older, newer] = ofKind(image, 'seg')
    const { report, found } = await saved(changed(image, 1, newer!.name, undefined))
    const [collection] = report.collections
    // The log says that b0 was deleted, as it does of b1 and d0; of a0 to a4 it holds what was written.
    expect(collection).toMatchObject({ lost: 0, unreadableRows: 5 })
    expect(found.size).toBe(23)
    expect(older!.name).not.toBe(newer!.name)

    let without = changed(image, 1, newer!.name, undefined)
    for (const { name } of ofKind(image, 'wal').slice(0, -1)) without = changed(without, 1, name, undefined)
    const { report: told, found: left } = await saved(without)
    // What can't be read was written when a0 to a4 died, and not when b0 did.
    expect([...told.collections[0]!.lostIds].sort()).toEqual(['a0', 'a1', 'a2', 'a3', 'a4'])
    expect(told.collections[0]!.lost).toBe(5)
    expect(left.size).toBe(18)

    const noOlder = changed(image, 1, older!.name, undefined)
    let noLog = changed(noOlder, 1, newer!.name, undefined)
    for (const { name } of ofKind(image, 'wal').slice(0, -1)) noLog = changed(noLog, 1, name, undefined)
    const { report: last } = await saved(noLog)
    // Known by its patch alone.
    expect(last.collections[0]).toMatchObject({ docs: 1, lost: 1, lostIds: ['a6'] })
  })

  test('takes what lies behind damage in a log', async () => {
    const { image, contents } = await built(async (docs) => {
      for (const doc of documents('a', 30)) await docs.upsert(doc)
    })
    const { name, bytes } = ofKind(image, 'wal')[0]!
    const hurt = changed(image, 1, name, flipped(bytes, (bytes.length >> 1) * 8))
    await expect(openDatabase(memoryBackend(hurt)).then((db) => db.openCollection('docs'))).rejects.toMatchObject({
      code: 'CORRUPTION',
    })
    const { report, found } = await saved(hurt)
    expect(found.size).toBe(29)
    for (const [id, text] of found) expect(contents.get(id)).toBe(text)
    expect(report).toMatchObject({ ok: false, problems: [{ file: `1/${name}` }, { file: '1/' }] })
    expect(report.problems[1]!.problem).toBe('1 batches of the logs are missing')
  })

  test('tells logs that are missing, and batches that no log holds', async () => {
    const place = memoryBackend()
    for (let session = 0; session < 3; session++) {
      const db = await openDatabase(place)
      const docs = await db.createCollection('docs', { ...options, ifExists: 'open' })
      await docs.upsert(documents(`s${session}-`, 4))
      await db.close()
    }
    const image = place.image()
    const logs = ofKind(image, 'wal')
    expect(logs).toHaveLength(3)
    expect((await saved(image)).report.ok).toBe(true)
    for (const [index, { name, bytes }] of logs.entries()) {
      // Cut behind its header: nothing of it is damaged, and nothing is there.
      for (const hurt of [undefined, bytes.slice(0, 128)]) {
        const { report, found } = await saved(changed(image, 1, name, hurt))
        expect(found.size).toBe(8)
        // The end of the newest log, if that is cut, is not known to anybody.
        const isKnown = index < 2 || hurt === undefined
        if (index < 2) expect(report.ok, `${name} ${hurt?.length}`).toBe(false)
        if (isKnown && index < 2) expect(report.problems.some(({ problem }) => /missing/.test(problem!))).toBe(true)
      }
    }
  })

  test('does without manifests of the root, and tells collections that have none', async () => {
    const place = memoryBackend()
    const db = await openDatabase(place)
    for (const name of ['one', 'two']) {
      const docs = await db.createCollection(name, options)
      await docs.upsert(documents(name, 5))
    }
    await db.close()
    const image = place.image()
    const noRoot = { ...image, root: new Map([...image.root!].map(([name, bytes]) => [name, bytes.slice(0, 20)])) }
    const { report, found } = await saved(noRoot)
    expect(report.collections.map(({ name }) => name)).toEqual(['salvaged-1', 'salvaged-2'])
    expect(found.size).toBe(10)
    let hurt = image
    for (const { name } of ofKind(image, 'manifest')) hurt = changed(hurt, 1, name, new Uint8Array(100))
    const without = await saved(hurt)
    expect(without.report.collections.map(({ name }) => name)).toEqual(['two'])
    expect(without.found.size).toBe(5)
    expect(without.report.problems.map(({ file }) => file)).toContain('1/')
  })

  test('needs a source and an empty place, can be aborted, and leaves nothing behind then', async () => {
    await expect(salvage(memoryBackend(), memoryBackend())).rejects.toMatchObject({ code: 'NOT_FOUND' })
    const { image } = await built(rich)
    const used = memoryBackend(image)
    await expect(salvage(used, used)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT', field: 'destination' })
    const abort = new AbortController()
    const place = memoryBackend()
    const salvaging = salvage(used, place, { signal: abort.signal, onProgress: () => abort.abort('no') })
    await expect(salvaging).rejects.toMatchObject({ code: 'ABORTED', cause: 'no' })
    expect([place.image().root?.size ?? 0, place.image().directories.size]).toEqual([0, 0])
  })
})
