import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { memoryBackend } from '../../src/directory/memory.ts'
import { nodeBackend } from '../../src/directory/node.ts'
import { type CollectionOptions, openDatabase, type StorageBackend } from '../../src/index.ts'
import { changed, flipped, ofKind } from '../support/damage.ts'
import { temporaryFolder } from '../support/folder.ts'
import { hookedBackend } from '../support/hooked-backend.ts'
import { type StoreKind, storeAt, storeKinds } from '../support/store.ts'
import { normalVector, randomNumbers } from '../support/vectors.ts'

const manual: CollectionOptions = { dimension: 4, metric: 'euclidean', compaction: 'manual', index: 'manual' }
const random = randomNumbers(71)
const documents = (prefix: string, count: number) =>
  Array.from({ length: count }, (_, n) => ({ id: `${prefix}${n}`, vector: normalVector(4, random), payload: { n } }))

async function newPlace(kind: StoreKind): Promise<StorageBackend> {
  return kind === 'memory' ? memoryBackend() : nodeBackend(join(await temporaryFolder(), 'data'))
}

describe.each(storeKinds)('verifying in a reader, %s', (kind) => {
  test('finds a whole database whole, however busy its writer is', { timeout: 120_000 }, async () => {
    const place = await newPlace(kind)
    // A manifest is there, and empty, for a while before it is written.
    const slow = hookedBackend(place, async ({ kind: call, name }, run) => {
      if (call === 'append' && name.endsWith('.manifest')) await new Promise((resolve) => setTimeout(resolve, 3))
      return run()
    })
    const writer = await storeAt(slow).open()
    const docs = await writer.createCollection('docs', manual)
    await docs.upsert(documents('a', 1200))
    await docs.buildIndex()
    const reader = await storeAt(place).open({ readOnly: true })
    let isDone = false
    const work = (async () => {
      for (let round = 0; round < 14; round++) {
        await docs.upsert(documents(`w${round % 5}`, 20))
        await docs.patch('a1', { n: round })
        await docs.delete(`a${100 + (round % 1000)}`)
        await docs.flush()
        if (round % 4 === 3) await docs.compact()
        const other = await writer.createCollection(`other${round % 2}`, manual)
        await other.upsert(documents('o', 5))
        await other.flush()
        await writer.dropCollection(other.name)
      }
      isDone = true
    })()
    const verified = new Set<string>()
    for (let round = 0; !isDone; round++) {
      const { ok, files } = await reader.verify({ full: round % 2 === 0 })
      expect(files.filter((each) => !each.ok)).toEqual([])
      expect(ok).toBe(true)
      for (const { file } of files) verified.add(file)
      await new Promise((resolve) => setTimeout(resolve, 3))
    }
    await work
    // It is told of what is there now, not of what the reader has opened.
    expect(verified.size).toBeGreaterThan(20)
  })

  test('tells damage all the same, and directories that are gone', async () => {
    const image = await built()
    const newest = ofKind(image, 'manifest').at(-1)!
    const segment = ofKind(image, 'seg')[0]!
    const cases: [string, typeof image][] = [
      [newest.name, changed(image, 1, newest.name, flipped(newest.bytes, 700))],
      [newest.name, changed(image, 1, newest.name, newest.bytes.slice(0, 30))],
      [segment.name, changed(image, 1, segment.name, undefined)],
      ['', { ...image, directories: new Map() }],
    ]
    for (const [name, hurt] of cases) {
      const reader = await storeAt(memoryBackend(hurt)).open({ readOnly: true })
      const { ok, files } = await reader.verify({ full: true })
      expect(ok).toBe(false)
      expect(files.filter((each) => !each.ok).map(({ file }) => file)).toContain(`1/${name}`)
    }
  })
})

async function built() {
  const place = memoryBackend()
  const writer = await openDatabase(place)
  const docs = await writer.createCollection('docs', manual)
  for (const prefix of ['a', 'b', 'c']) {
    await docs.upsert(documents(prefix, 10))
    await docs.flush()
  }
  await writer.close()
  return place.image()
}
