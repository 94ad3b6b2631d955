import * as fc from 'fast-check'
import { afterAll, describe, expect, test } from 'vitest'
import type { Collection, Database, Filter, Metric } from '../../src/api.ts'
import { type FaultyBackend, faultyBackend } from '../../src/directory/faulty.ts'
import { memoryBackend } from '../../src/directory/memory.ts'
import { openDatabase } from '../../src/index.ts'
import { textOf } from '../support/history.ts'
import { readContents } from '../support/recovered.ts'

const given = process.env.ISOVEC_SEED === undefined ? {} : { seed: Number(process.env.ISOVEC_SEED) }
let commandCount = 0
afterAll(() => console.log(`model: ${commandCount} commands`))

type Fields = { n?: number; m?: number }
type Doc = { id: string; vector: number[]; payload?: Fields }
type Patch = { id: string; payload: Fields; unset: ('n' | 'm')[] }
/** A filter and whether a payload passes it. */
type Test = { filter: Filter; passes: (payload: Fields | undefined) => boolean }
type Change =
  | { do: 'upsert'; docs: Doc[] }
  | {
      do: 'write'
      operations: ({ upsert: Doc } | { patch: Patch } | { delete: string })[]
      durability: 'strict' | 'buffered'
    }
  | { do: 'delete'; ids: string[] }
  | { do: 'patch'; patch: Patch }
  | { do: 'deleteWhere'; test: Test }
type Work = { do: 'flush' | 'compact' | 'buildIndex' | 'dropIndex' | 'sync' }
type Command =
  | Change
  | Work
  | { do: 'get' | 'has'; id: string }
  | { do: 'getMany'; ids: string[] }
  | { do: 'reopen' | 'crash' }
  | { do: 'count'; test: Test | undefined }
  | {
      do: 'configure'
      options: { durability?: 'strict' | 'buffered'; compaction?: 'auto' | 'manual'; index?: 'auto' | 'manual' }
    }
  | {
      do: 'search'
      vector: number[]
      k: number
      offset: number
      mode: 'auto' | 'exact' | 'approximate'
      test: Test | undefined
    }
  | { do: 'iterate'; meanwhile: (Change | Work)[]; batchSize: number; test: Test | undefined }
  | { do: 'at once'; changes: (Change | Work)[] }

// Whole numbers make scores exact and ties frequent; the last component keeps cosine's vectors from being zero.
const id = fc.integer({ min: 0, max: 11 }).map((n) => `id${n}`)
const vector = fc.tuple(
  fc.integer({ min: -3, max: 3 }),
  fc.integer({ min: -3, max: 3 }),
  fc.integer({ min: 1, max: 2 }),
)
const doc: fc.Arbitrary<Doc> = fc.record(
  { id, vector, payload: fc.record({ n: fc.nat(9) }) },
  { requiredKeys: ['id', 'vector'] },
) as fc.Arbitrary<Doc>
const patch: fc.Arbitrary<Patch> = fc
  .record({
    id,
    payload: fc.record({ n: fc.nat(9), m: fc.nat(9) }, { requiredKeys: [] }) as fc.Arbitrary<Fields>,
    unset: fc.uniqueArray(fc.constantFrom('n' as const, 'm' as const), { maxLength: 1 }),
  })
  .map((each) => ({ ...each, unset: each.unset.filter((field) => each.payload[field] === undefined) }))
const condition: fc.Arbitrary<Test> = fc.oneof(
  fc.nat(9).map((n) => ({ filter: { n }, passes: (payload?: Fields) => payload?.n === n })),
  fc.nat(9).map((m) => ({ filter: { m: { $gte: m } }, passes: (payload?: Fields) => (payload?.m ?? -1) >= m })),
  fc.constant({ filter: { n: { $exists: false } }, passes: (payload?: Fields) => payload?.n === undefined }),
  fc.nat(9).map((n) => ({
    filter: { $or: [{ n: { $lt: n } }, { m: n }] },
    passes: (payload?: Fields) => (payload?.n ?? 10) < n || payload?.m === n,
  })),
)
const maybe = fc.option(condition, { nil: undefined })
const durability = fc.constantFrom('strict' as const, 'buffered' as const)
const automatic = fc.constantFrom('auto' as const, 'manual' as const)

const change: fc.Arbitrary<Change> = fc.oneof(
  fc.record({ do: fc.constant('upsert' as const), docs: fc.array(doc, { maxLength: 5 }) }),
  fc.record({
    do: fc.constant('write' as const),
    operations: fc.array(fc.oneof(fc.record({ upsert: doc }), fc.record({ patch }), fc.record({ delete: id })), {
      maxLength: 6,
    }),
    durability,
  }),
  fc.record({ do: fc.constant('delete' as const), ids: fc.array(id, { maxLength: 4 }) }),
  fc.record({ do: fc.constant('patch' as const), patch }),
  fc.record({ do: fc.constant('deleteWhere' as const), test: condition }),
)
const work: fc.Arbitrary<Work> = fc.record({
  do: fc.constantFrom(
    'flush' as const,
    'flush' as const,
    'compact' as const,
    'buildIndex' as const,
    'dropIndex' as const,
    'sync' as const,
  ),
})
const command: fc.Arbitrary<Command> = fc.oneof(
  { weight: 8, arbitrary: change },
  { weight: 4, arbitrary: work },
  { weight: 2, arbitrary: fc.record({ do: fc.constantFrom('get' as const, 'has' as const), id }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('getMany' as const), ids: fc.array(id) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constantFrom('reopen' as const, 'crash' as const) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('count' as const), test: maybe }) },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('configure' as const),
      options: fc.record(
        { durability, compaction: automatic, index: automatic },
        { requiredKeys: [] },
      ) as fc.Arbitrary<object>,
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('search' as const),
      vector,
      k: fc.integer({ min: 1, max: 14 }),
      offset: fc.integer({ min: 0, max: 3 }),
      mode: fc.constantFrom('auto' as const, 'exact' as const, 'approximate' as const),
      test: maybe,
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('iterate' as const),
      meanwhile: fc.array(fc.oneof(change, work), { maxLength: 4 }),
      batchSize: fc.integer({ min: 1, max: 4 }),
      test: maybe,
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('at once' as const),
      changes: fc.array(fc.oneof(change, work), { maxLength: 5 }),
    }),
  },
)

/** The database and the plain map that it must be like. */
class Pair {
  readonly model = new Map<string, Doc>()
  readonly #metric: Metric
  #backend: FaultyBackend = faultyBackend()
  #db!: Database
  #collection!: Collection

  constructor(metric: Metric) {
    this.#metric = metric
  }

  async begin(rowCount: number): Promise<void> {
    this.#db = await openDatabase(this.#backend)
    this.#collection = await this.#db.createCollection('docs', {
      dimension: 3,
      metric: this.#metric,
      hnsw: { M: 4, efConstruction: 12 },
    })
    const docs = Array.from({ length: rowCount }, (_, i) => ({
      id: `bulk${i}`,
      vector: [i % 31, i >> 5, 5],
      payload: { n: i },
    }))
    if (rowCount > 0) await this.#change({ do: 'upsert', docs })
  }

  async end(): Promise<void> {
    await this.#db.close()
  }

  async run(command: Command): Promise<void> {
    commandCount++
    const collection = this.#collection
    switch (command.do) {
      case 'get':
        return this.#same(await collection.get(command.id), command.id)
      case 'has':
        return expect(await collection.has(command.id)).toBe(this.model.has(command.id))
      case 'getMany': {
        const found = await collection.getMany(command.ids)
        command.ids.forEach((id, i) => {
          this.#same(found[i], id)
        })
        return
      }
      case 'count':
        return expect(await collection.count(command.test?.filter)).toBe(this.#passing(command.test).length)
      case 'configure':
        await collection.configure(command.options)
        return expect(collection.options).toMatchObject(command.options)
      case 'search':
        return this.#search(command)
      case 'iterate':
        return this.#iterate(command)
      case 'at once':
        await Promise.all(command.changes.map((change) => this.#change(change)))
        return
      case 'reopen':
        await this.#db.close()
        return this.#open()
      case 'crash': {
        const image = this.#backend.crashImage({ kind: 'process' })
        await this.#db.close()
        this.#backend = faultyBackend({ image })
        return this.#open()
      }
      default:
        return this.#change(command)
    }
  }

  async checkAll(): Promise<void> {
    expect(await readContents(this.#collection)).toEqual(this.#texts())
    expect(await this.#collection.count()).toBe(this.model.size)
    expect((await this.#collection.stats()).docs).toBe(this.model.size)
  }

  async #open(): Promise<void> {
    this.#db = await openDatabase(this.#backend)
    this.#collection = await this.#db.openCollection('docs')
  }

  /** Changes the model in the turn of the call, since that is when a call takes its place in the order. */
  #change(change: Change | Work): Promise<void> {
    const collection = this.#collection
    switch (change.do) {
      case 'upsert':
        for (const doc of change.docs) this.model.set(doc.id, doc)
        return collection.upsert(change.docs)
      case 'write':
        for (const operation of change.operations) {
          if ('delete' in operation) this.model.delete(operation.delete)
          else if ('patch' in operation) this.#patch(operation.patch)
          else this.model.set(operation.upsert.id, operation.upsert)
        }
        return collection.write(change.operations, { durability: change.durability })
      case 'delete': {
        let existed = 0
        for (const id of change.ids) if (this.model.delete(id)) existed++
        return collection.delete(change.ids).then((deleted) => expect(deleted).toBe(existed))
      }
      case 'patch': {
        const { id, payload, unset } = change.patch
        const exists = this.#patch(change.patch)
        return collection.patch(id, payload, { unset }).then((found) => expect(found).toBe(exists))
      }
      case 'deleteWhere': {
        const passing = this.#passing(change.test)
        for (const { id } of passing) this.model.delete(id)
        return collection.deleteWhere(change.test.filter).then((deleted) => expect(deleted).toBe(passing.length))
      }
      case 'flush':
        return collection.flush()
      case 'sync':
        return collection.sync()
      case 'compact':
        return collection
          .compact()
          .then(({ docsAfter, docsBefore }) => expect(docsAfter).toBeLessThanOrEqual(docsBefore))
      case 'buildIndex':
        return collection.buildIndex().then(async () => {})
      case 'dropIndex':
        return collection.dropIndex()
    }
  }

  #same(found: { id: string; vector?: Float32Array; payload?: object } | undefined, id: string): void {
    const doc = this.model.get(id)
    expect(found && { ...found, vector: [...found.vector!] }).toEqual(doc)
  }

  /** Whether there is such a document. */
  #patch({ id, payload, unset }: Patch): boolean {
    const doc = this.model.get(id)
    if (doc === undefined) return false
    const after = { ...doc.payload, ...payload }
    for (const field of unset) delete after[field]
    const isBare = doc.payload === undefined && Object.keys(after).length === 0
    this.model.set(id, { id, vector: doc.vector, ...(isBare ? {} : { payload: after }) })
    return true
  }

  #passing(test: Test | undefined): Doc[] {
    return [...this.model.values()].filter(({ payload }) => test === undefined || test.passes(payload))
  }

  #texts(test?: Test): Map<string, string> {
    return new Map(this.#passing(test).map(({ id, vector, payload }) => [id, textOf(vector, payload)]))
  }

  async #search(command: Extract<Command, { do: 'search' }>): Promise<void> {
    const { vector, k, offset, mode, test } = command
    const filter = test?.filter
    const { hits, exact } = await this.#collection.search({ vector, k, offset, mode, ...(filter && { filter }) })
    if (mode === 'exact') expect(exact).toBe(true)
    const scored = this.#passing(test).map(({ id, vector: other }) => ({
      id,
      score: scoreOf(this.#metric, vector, other),
    }))
    scored.sort((a, b) => b.score - a.score || (a.id < b.id ? -1 : 1))
    const truth = scored.slice(offset, offset + k)
    expect(hits.length).toBe(truth.length)
    if (!exact) return this.#checkApproximate(hits, test)
    hits.forEach((hit, i) => {
      expect(hit.score).toBeCloseTo(truth[i]!.score, 6)
      // The two ways of computing a cosine may round ties apart.
      if (this.#metric !== 'cosine') expect(hit.id).toBe(truth[i]!.id)
    })
  }

  #checkApproximate(hits: readonly { id: string }[], test: Test | undefined): void {
    expect(new Set(hits.map((hit) => hit.id)).size).toBe(hits.length)
    const passing = this.#texts(test)
    for (const hit of hits) expect(passing.has(hit.id)).toBe(true)
  }

  /** Reads one snapshot to its end while other things happen. */
  async #iterate({ meanwhile, batchSize, test }: Extract<Command, { do: 'iterate' }>): Promise<void> {
    const expected = this.#texts(test)
    const found = new Map<string, string>()
    const rest = this.#collection.iterate({ batchSize, ...(test && { filter: test.filter }) })
    const first = await rest.next()
    const running = meanwhile.map((change) => this.#change(change))
    if (first.done !== true) found.set(first.value.id, textOf(first.value.vector!, first.value.payload))
    for await (const { id, vector, payload } of rest) {
      expect(found.has(id)).toBe(false)
      found.set(id, textOf(vector!, payload))
      if (running.length > 0) await Promise.race(running)
    }
    expect(found).toEqual(expected)
    await Promise.all(running)
  }
}

function scoreOf(metric: Metric, a: readonly number[], b: readonly number[]): number {
  const dot = a.reduce((sum, value, i) => sum + value * b[i]!, 0)
  if (metric === 'dot') return dot
  if (metric === 'cosine') return dot / (Math.hypot(...a) * Math.hypot(...b))
  return -Math.sqrt(a.reduce((sum, value, i) => sum + (value - b[i]!) ** 2, 0))
}

async function runAll(metric: Metric, rowCount: number, commands: readonly Command[]): Promise<void> {
  const pair = new Pair(metric)
  await pair.begin(rowCount)
  try {
    for (const command of commands) await pair.run(command)
    await pair.checkAll()
    await pair.run({ do: 'crash' })
    await pair.checkAll()
    await pair.run({ do: 'reopen' })
    await pair.checkAll()
  } finally {
    await pair.end()
  }
}

describe('a collection is like a map', () => {
  test.each(['euclidean', 'dot', 'cosine'] as const)('under %s', { timeout: 120_000 }, async (metric) => {
    const commands = fc.array(command, { minLength: 10, maxLength: 60, size: 'max' })
    await fc.assert(
      fc.asyncProperty(commands, (list) => runAll(metric, 0, list)),
      { numRuns: 30, ...given },
    )
  })

  test('with graphs', { timeout: 120_000 }, async () => {
    const commands = fc.array(command, { minLength: 10, maxLength: 40, size: 'max' })
    await fc.assert(
      fc.asyncProperty(commands, (list) => runAll('euclidean', 1060, [{ do: 'buildIndex' }, ...list])),
      { numRuns: 6, ...given },
    )
  })
})

describe('while a compaction runs', () => {
  test('deletes and replacements hold afterwards and after reopening, and a snapshot stays as it was', async () => {
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
    // Whenever the compaction makes a file, some documents go and some are replaced before it gets it.
    let deleted = 0
    let created = 0
    onCreate = async () => {
      created++
      for (const last = deleted + 20; deleted < last; deleted++) {
        expect(await docs.delete(`1-${7 * deleted}`)).toBe(1)
        await docs.upsert({ id: `2-${7 * deleted}`, vector: [9, 7 * deleted, 9] })
      }
    }
    expect(await docs.compact()).toMatchObject({ segmentsMerged: 3 })
    onCreate = undefined
    expect(created).toBe(2)
    const frozen = new Map([[first.id, textOf(first.vector!, first.payload)]])
    for await (const { id, vector, payload } of snapshot) frozen.set(id, textOf(vector!, payload))
    expect(frozen).toEqual(before)

    const check = async () => {
      const now = await readContents(docs)
      expect(now.size).toBe(2100 - deleted)
      for (let i = 0; i < deleted; i++) {
        expect(now.has(`1-${7 * i}`)).toBe(false)
        expect(now.get(`2-${7 * i}`)).toBe(textOf([9, 7 * i, 9], undefined))
      }
      const { hits } = await docs.search({ vector: [1, 0, 1], k: 2, mode: 'approximate' })
      expect(hits.map(({ id }) => id)).not.toContain('1-0')
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
  })
})
