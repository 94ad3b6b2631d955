/**
 * Opens the database at argv[2], reports what it holds, changes it in the way of step argv[3], reports that too, and then either closes
 * it (argv[4] is `close`) or goes on writing, with a report of each document, until it is killed.
 */
import { writeSync } from 'node:fs'
import type { Collection, SearchRequest } from '../../src/api.ts'
import { type JsonObject, openDatabase } from '../../src/index.ts'
import { digestOf } from '../support/history.ts'
import { readContents } from '../support/recovered.ts'
import { randomNumbers } from '../support/vectors.ts'

const dimension = 24

/** Sums and quotients alone: what engines compute as sine or logarithm differs in the last bits. */
function vectorOf(random: () => number): Float32Array {
  return Float32Array.from({ length: dimension }, () => random() + random() + random() - 1.5)
}

function say(message: object): void {
  writeSync(1, `${JSON.stringify(message)}\n`)
}

function bitsOf(score: number): string {
  return new BigUint64Array(Float64Array.of(score).buffer)[0]!.toString(16)
}

/** What a collection answers to the same questions in every runtime, to the last bit. */
async function answersOf(collection: Collection): Promise<string[]> {
  const random = randomNumbers(99)
  const answers: string[] = []
  for (let i = 0; i < 4; i++) {
    const vector = vectorOf(random)
    const requests: SearchRequest<JsonObject>[] = [
      { vector, mode: 'exact', k: 20 },
      { vector, mode: 'approximate', k: 20 },
      { vector, mode: 'approximate', k: 20, ef: 24 },
      { vector, filter: { group: { $lt: 3 } }, k: 20 },
      { vector, mode: 'exact', metric: 'euclidean', k: 20 },
    ]
    for (const request of requests) {
      const { hits, plan, exact } = await collection.search(request)
      answers.push(`${plan} ${exact} ${hits.map(({ id, score }) => `${id}=${bitsOf(score)}`).join(' ')}`)
    }
  }
  return answers
}

async function change(collection: Collection, step: number): Promise<void> {
  const random = randomNumbers(step)
  const documents = (prefix: string, count: number) =>
    Array.from({ length: count }, (_, i) => ({
      id: `${prefix}${i}`,
      vector: vectorOf(random),
      payload: { step, group: i % 10, text: `é${i}` },
    }))
  if (step === 0) {
    await collection.upsert(documents('first', 1500))
    await collection.buildIndex({ M: 8 })
  }
  await collection.upsert(documents(`step${step}-`, 120))
  if (step % 2 === 0) await collection.flush()
  await collection.patch('first7', { group: step })
  await collection.delete([`first${100 + step}`, `step${step - 1}-5`])
  // What replaces a row of a segment, and is in the log alone.
  await collection.upsert(documents('first', 10 + step))
  if (step === 3) await collection.compact()
}

const [, , path, step, ending] = process.argv
const database = await openDatabase(path!)
const docs = await database.createCollection('docs', {
  dimension,
  index: 'manual',
  compaction: 'manual',
  ifExists: 'open',
})
const tail = await database.createCollection('tail', { dimension: 2, ifExists: 'open' })
const stateOf = async () => ({ digest: digestOf(await readContents(docs)), answers: await answersOf(docs) })

const { ok } = await database.verify({ full: true })
say({ ok, tail: await tail.count(), ...(await stateOf()) })
await change(docs, Number(step))
say({ ok: (await database.verify({ full: true })).ok, tail: await tail.count(), ...(await stateOf()) })
if (ending === 'close') await database.close()
else {
  const before = await tail.count()
  for (let i = before; ; i++) {
    await tail.upsert({ id: `${i}`, vector: [1, i] })
    say({ written: i + 1 })
  }
}
