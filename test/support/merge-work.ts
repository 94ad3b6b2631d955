import assert from 'node:assert/strict'
import { faultyBackend } from '../../src/directory/faulty.ts'
import { memoryBackend } from '../../src/directory/memory.ts'
import { openDatabase } from '../../src/index.ts'
import { textOf } from './history.ts'
import { readContents } from './recovered.ts'

/** What is done each time that the compaction makes a file. */
const changesPerFile = 20

/**
 * Deletes, replaces and patches documents of segments while these are merged, and fails unless that holds then, after reopening and
 * after the end of the process, and a snapshot stays as it was.
 */
export async function changeWhileMerging(): Promise<void> {
  let onCreate: (() => Promise<void>) | undefined
  const backend = faultyBackend({ beforeCall: ({ kind }) => (kind === 'create' ? onCreate?.() : undefined) })
  let db = await openDatabase(backend)
  let docs = await db.createCollection('docs', {
    dimension: 3,
    metric: 'euclidean',
    compaction: 'manual',
    index: 'manual',
  })
  for (let part = 0; part < 3; part++) {
    await docs.upsert(
      Array.from({ length: 700 }, (_, i) => ({ id: `${part}-${i}`, vector: [part, i, 1], payload: { part } })),
    )
    await docs.flush()
  }
  const before = await readContents(docs)
  const snapshot = docs.iterate({ batchSize: 7 })
  const first = (await snapshot.next()).value!
  // Whenever the compaction makes a file, some documents go, some are replaced and some patched before it gets it.
  let changed = 0
  let created = 0
  onCreate = async () => {
    created++
    for (const last = changed + changesPerFile; changed < last; changed++) {
      assert.equal(await docs.delete(`1-${7 * changed}`), 1)
      await docs.upsert({ id: `2-${7 * changed}`, vector: [9, 7 * changed, 9] })
      assert.equal(await docs.patch(`0-${7 * changed}`, { part: 10 + changed }), true)
    }
  }
  const { segmentsMerged } = await docs.compact()
  onCreate = undefined
  assert.equal(segmentsMerged, 3)
  const frozen = new Map([[first.id, textOf(first.vector!, first.payload)]])
  for await (const { id, vector, payload } of snapshot) frozen.set(id, textOf(vector!, payload))
  assert.deepEqual(frozen, before)

  const expected = new Map(before)
  for (let i = 0; i < changed; i++) {
    expected.delete(`1-${7 * i}`)
    expected.set(`2-${7 * i}`, textOf([9, 7 * i, 9], undefined))
    expected.set(`0-${7 * i}`, textOf([0, 7 * i, 1], { part: 10 + i }))
  }
  const check = async () => {
    assert.deepEqual(await readContents(docs), expected)
    assert.equal(await docs.count({ part: { $gte: 10 } }), changed)
    const { hits } = await docs.search({ vector: [1, 0, 1], k: 2, mode: 'approximate' })
    assert.ok(!hits.some(({ id }) => id === '1-0'))
  }
  await check()
  const crashed = memoryBackend(backend.crashImage({ kind: 'process' }))
  await db.close()
  for (const next of [backend, crashed]) {
    db = await openDatabase(next)
    docs = await db.openCollection('docs')
    await check()
    await docs.compact()
    await check()
    await db.close()
    db = await openDatabase(next)
    docs = await db.openCollection('docs')
    await check()
    await db.close()
  }
  // The merged segment, and the tombstones or patches that were settled with it.
  assert.ok(created >= 2)
}
