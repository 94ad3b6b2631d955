import type { Collection, Database, Filter, JsonObject } from '../../src/api.ts'
import type { Choice } from '../../src/directory/crash-image.ts'
import { type MemoryBackend, memoryBackend, type StoreImage } from '../../src/directory/memory.ts'
import { openDatabase } from '../../src/index.ts'
import { type CrashKind, digestOf, type History, textOf } from './history.ts'
import { sameNames } from './scenario.ts'

/** All documents of a collection, as the public API gives them. */
export async function readContents(collection: Collection): Promise<Map<string, string>> {
  const contents = new Map<string, string>()
  for await (const { id, vector, payload } of collection.iterate()) {
    if (contents.has(id)) throw new Error(`${id} came twice`)
    contents.set(id, textOf(vector!, payload))
  }
  return contents
}

/** What was found in a database, by the names of its collections. */
export type Found = ReadonlyMap<string, ReadonlyMap<string, string>>

/** Opens every collection and reads all of it, checking that counting, getting and searching say the same. */
export async function readDatabase(db: Database, choose: Choice, sampleMax = 8): Promise<Found> {
  const found = new Map<string, Map<string, string>>()
  for (const name of await db.listCollections()) {
    const collection = await db.openCollection(name)
    const contents = await readContents(collection)
    found.set(name, contents)
    const count = await collection.count()
    if (count !== contents.size) throw new Error(`${name} counts ${count} documents and lists ${contents.size}`)
    await checkLookUps(collection, contents, choose, sampleMax)
  }
  return found
}

async function checkLookUps(
  collection: Collection,
  contents: ReadonlyMap<string, string>,
  choose: Choice,
  sampleMax: number,
): Promise<void> {
  const ids = [...contents.keys()]
  const step = Math.max(1, Math.floor(ids.length / sampleMax))
  for (let i = ids.length === 0 ? 0 : choose(Math.min(step, ids.length)); i < ids.length; i += step) {
    const id = ids[i]!
    const stored = await collection.get(id)
    if (stored === undefined || textOf(stored.vector!, stored.payload) !== contents.get(id)) {
      throw new Error(`get gives another ${id} than iterate`)
    }
    const mode = choose(2) === 0 ? 'exact' : 'auto'
    // Under the inner product a longer vector may be nearer than the one itself.
    const metric = collection.options.metric === 'dot' ? 'euclidean' : collection.options.metric
    const { hits } = await collection.search({ vector: stored.vector!, k: 3, mode, metric, include: { vector: true } })
    const nearest = hits[0]
    if (nearest?.id !== id && textOf(nearest?.vector ?? [], undefined) !== textOf(stored.vector!, undefined)) {
      throw new Error(`${mode} search finds ${nearest?.id} nearest to ${id}`)
    }
    await checkFilter(collection, contents, stored.payload)
    for (const hit of hits) if (!contents.has(hit.id)) throw new Error(`search finds ${hit.id}, which is not there`)
    if (new Set(hits.map((hit) => hit.id)).size !== hits.length) throw new Error('search finds a document twice')
  }
}

/** What columns and patches say must be what payloads say. */
async function checkFilter(
  collection: Collection,
  contents: ReadonlyMap<string, string>,
  payload: JsonObject | undefined,
): Promise<void> {
  for (const key of ['n', 'm']) {
    const value = payload?.[key]
    const filter = (value === undefined ? { [key]: { $exists: true } } : { [key]: value }) as Filter
    const expected = [...contents.values()].filter((text) => {
      const found = (JSON.parse(text.slice(text.indexOf(' ') + 1) || '{}') as JsonObject)[key]
      return value === undefined ? found !== undefined : found === value
    }).length
    const count = await collection.count(filter)
    if (count !== expected) throw new Error(`${count} documents pass ${JSON.stringify(filter)} instead of ${expected}`)
  }
}

/** Throws unless what was found is a state that a crash of a kind after so many changes may leave. */
export function judge(found: Found, history: History, kind: CrashKind, at: number): void {
  const digests = new Map([...found].map(([name, contents]) => [name, digestOf(contents)]))
  const candidates = history.root.allowed(kind, at).filter((names) => sameNames(names, [...found.keys()]))
  if (candidates.length === 0) throw new Error(`recovered the collections ${[...found.keys()]}`)
  const problems: string[] = []
  for (const names of candidates) {
    const wrong = [...names].filter(([name, number]) => {
      const timeline = history.collections.get(number)!
      return !timeline.allowed(kind, at).includes(digests.get(name)!)
    })
    if (wrong.length === 0) return
    for (const [name, number] of wrong) {
      const allowed = history.collections.get(number)!.allowed(kind, at)
      problems.push(`${name} is ${digests.get(name)}, not one of ${allowed.slice(0, 4)} … ${allowed.at(-1)}`)
    }
  }
  throw new Error(`recovered what was lost or never written: ${problems.join('; ')}`)
}

/** How a database goes on after it was recovered once. */
const continuations = ['reopen', 'write and reopen', 'write and crash'] as const

/**
 * Recovers an image, compares it with the history, goes on in one of several ways and compares once more: what recovery showed must
 * still be there at the next opening.
 */
export async function checkRecovery(
  image: StoreImage,
  history: History,
  kind: CrashKind,
  at: number,
  choose: Choice,
): Promise<void> {
  const backend = memoryBackend(image)
  const continuation = continuations[choose(continuations.length)]!
  const db = await openDatabase(backend)
  let expected: Found
  let crashed: StoreImage
  try {
    const found = await readDatabase(db, choose)
    judge(found, history, kind, at)
    expected = continuation === 'reopen' ? found : await writeMore(db, found)
    crashed = backend.image()
  } finally {
    await db.close()
  }
  const again = await reopened(continuation === 'write and crash' ? memoryBackend(crashed) : backend, choose)
  for (const [name, contents] of expected) {
    if (digestOf(contents) !== digestOf(again.get(name) ?? new Map())) {
      throw new Error(`${name} has other contents at the second opening (${continuation})`)
    }
  }
  if (again.size !== expected.size) throw new Error('there are other collections at the second opening')
}

async function reopened(backend: MemoryBackend, choose: Choice): Promise<Found> {
  const db = await openDatabase(backend)
  try {
    return await readDatabase(db, choose, 2)
  } finally {
    await db.close()
  }
}

async function writeMore(db: Database, found: Found): Promise<Found> {
  const expected = new Map<string, Map<string, string>>()
  for (const [name, contents] of found) {
    const after = new Map(contents)
    const collection = await db.openCollection(name)
    const vector = Array.from({ length: collection.options.dimension }, (_, i) => i + 0.5)
    const known = contents.keys().next().value
    await collection.write([
      { upsert: { id: 'after', vector, payload: { n: 0 } } },
      ...(known === undefined ? [] : [{ delete: known }]),
    ])
    if (known !== undefined) after.delete(known)
    after.set('after', textOf(vector, { n: 0 }))
    expected.set(name, after)
  }
  return expected
}
