import assert from 'node:assert/strict'
import { memoryBackend, type StoreImage } from '../../src/directory/memory.ts'
import { type Collection, IsovecError, openDatabase, type StorageBackend } from '../../src/index.ts'
import { changed, flipped, ofKind, sectionsOf } from './damage.ts'
import { gate, type Hook, hookedBackend } from './hooked-backend.ts'
import { readContents } from './recovered.ts'

const options = { dimension: 2, metric: 'euclidean', compaction: 'manual', index: 'manual' } as const
const document = (id: string) => ({ id, vector: [id.charCodeAt(0), 1], payload: { n: 0 } })

type Worked = {
  /** What the end of the process leaves, and a close. */
  readonly images: readonly StoreImage[]
  readonly expected: Map<string, string>
}

/** Works on a collection, and fails unless it is found as it was left. */
async function worked(work: (docs: Collection) => Promise<void>, hook: Hook = (_, run) => run()): Promise<Worked> {
  const store = memoryBackend()
  const db = await openDatabase(hookedBackend(store, hook))
  const docs = await db.createCollection('docs', options)
  await work(docs)
  const expected = await readContents(docs)
  const crashed = store.image()
  await db.close()
  const images = [crashed, store.image()]
  for (const image of images) await expectContents(memoryBackend(image), expected, 'undamaged')
  return { images, expected }
}

async function expectContents(store: StorageBackend, expected: Map<string, string>, what: string): Promise<void> {
  const db = await openDatabase(store)
  try {
    assert.deepEqual(await readContents(await db.openCollection('docs')), expected, what)
  } finally {
    await db.close()
  }
}

/** Damages each section of the newest segment, which is to cost nothing: neither now nor once it was read again. */
async function damageNewest({ images, expected }: Worked): Promise<void> {
  for (const image of images) {
    const newest = ofKind(image, 'seg').at(-1)!
    for (const { id, offset } of sectionsOf(newest.bytes)) {
      const store = memoryBackend(changed(image, 1, newest.name, flipped(newest.bytes, offset * 8)))
      await expectContents(store, expected, `section ${id}`)
      await expectContents(store, expected, `section ${id}, opened again`)
    }
  }
}

/** One batch patches a document twice, in a segment that is damaged then. */
export async function patchTwiceInOneBatch(): Promise<void> {
  const done = await worked(async (docs) => {
    for (const id of ['a', 'b']) {
      await docs.upsert(document(id))
      await docs.flush()
    }
    await docs.compact()
    await docs.write([
      { patch: { id: 'a', payload: { n: 1 } } },
      { patch: { id: 'b', payload: { n: 2 } } },
      { patch: { id: 'a', payload: { n: 3 } } },
      { patch: { id: 'b', payload: {}, unset: ['n'] } },
    ])
  })
  await damageNewest(done)
}

/** Segments are patched while they are merged, the later one first, and a generation is to hold the first of these patches alone. */
export async function patchWhileMergingAndFlushing(): Promise<void> {
  const [isMerging, mayMerge, isFlushing, mayFlush] = [gate(), gate(), gate(), gate()]
  let created = 0
  const hook: Hook = async ({ kind, name }, run) => {
    if (kind === 'create' && name.endsWith('.seg')) {
      created++
      if (created === 3) {
        isMerging.open()
        await mayMerge.opened
      } else if (created === 4) {
        isFlushing.open()
        await mayFlush.opened
      }
    }
    return run()
  }
  await worked(async (docs) => {
    for (const id of ['a', 'b']) {
      await docs.upsert(document(id))
      await docs.flush()
    }
    const compacted = docs.compact()
    await isMerging.opened
    await docs.patch('b', { n: 1 })
    await docs.upsert(document('c'))
    const flushed = docs.flush()
    await isFlushing.opened
    await docs.patch('a', { n: 2 })
    const before = await readContents(docs)
    mayMerge.open()
    await compacted
    mayFlush.open()
    await flushed
    assert.deepEqual(await readContents(docs), before)
    await docs.upsert(document('d'))
    await docs.flush()
  }, hook)
}

/** Documents are patched while they are flushed, and what they have moved to is damaged. */
export async function patchWhileFlushing(): Promise<void> {
  const [isFlushing, mayFlush] = [gate(), gate()]
  const hook: Hook = async ({ kind, name }, run) => {
    if (kind === 'create' && name.endsWith('.seg')) {
      isFlushing.open()
      await mayFlush.opened
    }
    return run()
  }
  const done = await worked(async (docs) => {
    await docs.upsert(['a', 'b', 'c', 'd', 'e'].map(document))
    const flushed = docs.flush()
    await isFlushing.opened
    await docs.patch('a', { n: 1 })
    await docs.write([{ patch: { id: 'b', payload: { n: 2 } } }, { patch: { id: 'b', payload: { m: 2 } } }])
    await docs.write([{ patch: { id: 'c', payload: { n: 3 } } }, { delete: 'c' }])
    await docs.write([{ patch: { id: 'd', payload: { n: 4 } } }, { upsert: { ...document('d'), vector: [0, 0] } }])
    await docs.patch('a', { m: 5 })
    mayFlush.open()
    await flushed
    await docs.patch('e', { n: 6 })
    await docs.flush()
  }, hook)
  await damageNewest(done)
}

/** Documents are patched while they wait to be flushed, which happens on a full disk, where what is dead by then is left out. */
export async function patchBeforeFlushOnFullDisk(): Promise<void> {
  let room: 'enough' | 'none' | 'for the second' = 'enough'
  let onSegment = (): void => {}
  const hook: Hook = ({ kind, name }, run) => {
    if (kind !== 'create' || !name.endsWith('.seg')) return run()
    const isFull = room !== 'enough'
    if (room === 'for the second') room = 'enough'
    if (isFull) return Promise.reject(new IsovecError('QUOTA_EXCEEDED', 'the disk is full'))
    onSegment()
    return run()
  }
  await worked(async (docs) => {
    await docs.upsert(['a', 'b', 'c'].map(document))
    room = 'none'
    await assert.rejects(docs.flush(), { code: 'QUOTA_EXCEEDED' })
    await docs.patch('a', { n: 1 })
    await docs.delete('b')
    // The first attempt finds no room, the second leaves out what it can, and what follows it is of no interest.
    const abort = new AbortController()
    room = 'for the second'
    onSegment = () => {
      room = 'none'
      abort.abort()
    }
    await assert.rejects(docs.compact({ signal: abort.signal }))
    assert.equal((await docs.stats()).segments, 1)
  }, hook)
}

/**
 * A document is patched before each of two flushes, the later of which is damaged then: what was fallen back to is committed, although the
 * patches in memory are those of the later one.
 */
export async function patchAgainBeforeDamage(): Promise<void> {
  const { images, expected } = await worked(async (docs) => {
    await docs.upsert(document('a'))
    await docs.flush()
    for (const [n, id] of ['x', 'y'].entries()) {
      await docs.patch('a', { n: n + 1 })
      await docs.upsert(document(id))
      await docs.flush()
    }
  })
  for (const image of images) {
    const newest = ofKind(image, 'seg').at(-1)!
    for (const { id, offset } of sectionsOf(newest.bytes)) {
      const store = memoryBackend(changed(image, 1, newest.name, flipped(newest.bytes, offset * 8)))
      const db = await openDatabase(store)
      const docs = await db.openCollection('docs')
      assert.deepEqual(await readContents(docs), expected, `section ${id}`)
      await docs.configure({ durability: 'buffered' })
      const committed = store.image()
      await db.close()
      await expectContents(memoryBackend(committed), expected, `section ${id}, ended behind a commit`)
      await expectContents(store, expected, `section ${id}, closed behind a commit`)
    }
  }
}
