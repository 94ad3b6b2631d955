/**
 * What a user of the package does, by its published names alone, in whatever runtime this is: on a folder at argv[2] and in memory, then
 * the conformance suite on both backends. Prints what was found as JSON, which must not depend on the runtime.
 */
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import process from 'node:process'
import { isIsovecError, openDatabase, restore } from 'isovec'
import { memoryBackend } from 'isovec/memory'
import { nodeBackend } from 'isovec/node'
import { conformanceCases } from 'isovec/testing'

const folder = /** @type {string} */ (process.argv[2])

let state = 7
/** Numbers from 0 to 1, the same everywhere. */
function random() {
  state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
  return state / 2 ** 32
}

const vector = () => Float32Array.from({ length: 16 }, () => random() + random() - 1)
const documents = Array.from({ length: 1500 }, (_, i) => ({
  id: `d${i}`,
  vector: vector(),
  payload: { group: i % 7, title: `№ ${i}` },
}))
const queries = Array.from({ length: 3 }, vector)

/** @param {import('isovec').Collection<{ group: number; title: string }>} docs */
async function answersOf(docs) {
  const answers = []
  for (const query of queries) {
    const exact = await docs.search({ vector: query, mode: 'exact', k: 5 })
    const approximate = await docs.search({ vector: query, mode: 'approximate', k: 5 })
    const filtered = await docs.search({ vector: query, filter: { group: 3 }, k: 5, include: { vector: true } })
    const vectors = filtered.hits.map((hit) => [.../** @type {Float32Array} */ (hit.vector)])
    answers.push({
      exact: exact.hits,
      plans: [exact.plan, approximate.plan],
      approximate: approximate.hits,
      filtered: filtered.hits.map(({ id, score, payload }) => ({ id, score, payload })),
      vectors,
    })
  }
  return answers
}

/** @param {string | import('isovec').StorageBackend} location  @param {string | import('isovec').StorageBackend} copy  @param {string | import('isovec').StorageBackend} restored */
async function use(location, copy, restored) {
  const database = await openDatabase(location)
  const docs = await database.createCollection('docs', { dimension: 16, index: 'manual' })
  const early = docs.search({ vector: new Float32Array(16).fill(1), signal: AbortSignal.abort('enough') })
  const aborted = await early.catch((error) => (isIsovecError(error) ? [error.code, error.cause] : error))
  await docs.ingest(documents)
  await docs.buildIndex()
  await docs.patch('d1', { group: 3 })
  await docs.delete('d2')
  const answers = await answersOf(docs)
  const report = await database.snapshot(copy)
  const { lock, backend } = await database.info()
  await docs.delete(['d3', 'd4'])
  await database.close()
  await restore(copy, restored)
  const again = await openDatabase(restored, { mustExist: true })
  const restoredDocs = await again.openCollection('docs')
  const isSame = JSON.stringify(await answersOf(restoredDocs)) === JSON.stringify(answers)
  const { ok } = await again.verify({ full: true })
  const count = await restoredDocs.count()
  await again.close()
  const reader = await openDatabase(location, { readOnly: true })
  const left = await (await reader.openCollection('docs')).count()
  await reader.close()
  return { aborted, answers, docs: report.docs, lock, backend, isSame, ok, count, left }
}

const onDisk = await use(join(folder, 'data'), join(folder, 'copy'), join(folder, 'restored'))
const inMemory = await use(memoryBackend(), memoryBackend(), memoryBackend())

let places = 0
for (const { run } of conformanceCases) {
  await run(async () => ({ backend: memoryBackend() }))
  const place = join(folder, `case${places++}`)
  await run(async () => ({
    backend: nodeBackend(join(place, 'deep')),
    again: () => nodeBackend(join(place, 'deep')),
    dispose: () => rm(place, { recursive: true, force: true }),
  }))
}
console.log(JSON.stringify({ onDisk, inMemory, cases: conformanceCases.length }))
