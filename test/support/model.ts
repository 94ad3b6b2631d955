import assert from 'node:assert/strict'
import * as fc from 'fast-check'
import type { Collection, Database, Filter, Metric } from '../../src/api.ts'
import { type FaultyBackend, faultyBackend } from '../../src/directory/faulty.ts'
import { openDatabase } from '../../src/index.ts'
import { textOf } from './history.ts'
import { readContents } from './recovered.ts'

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
export type Command =
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
/** What may be asked of a collection. */
export const command: fc.Arbitrary<Command> = fc.oneof(
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
  /** Commands that were run. */
  commandCount = 0
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
    this.commandCount++
    const collection = this.#collection
    switch (command.do) {
      case 'get':
        return this.#same(await collection.get(command.id), command.id)
      case 'has':
        return assert.equal(await collection.has(command.id), this.model.has(command.id))
      case 'getMany': {
        const found = await collection.getMany(command.ids)
        command.ids.forEach((id, i) => {
          this.#same(found[i], id)
        })
        return
      }
      case 'count':
        return assert.equal(await collection.count(command.test?.filter), this.#passing(command.test).length)
      case 'configure':
        await collection.configure(command.options)
        return assert.deepEqual({ ...collection.options, ...command.options }, { ...collection.options })
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
    assert.deepEqual(await readContents(this.#collection), this.#texts())
    assert.equal(await this.#collection.count(), this.model.size)
    assert.equal((await this.#collection.stats()).docs, this.model.size)
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
        return collection.delete(change.ids).then((deleted) => assert.equal(deleted, existed))
      }
      case 'patch': {
        const { id, payload, unset } = change.patch
        const exists = this.#patch(change.patch)
        return collection.patch(id, payload, { unset }).then((found) => assert.equal(found, exists))
      }
      case 'deleteWhere': {
        const passing = this.#passing(change.test)
        for (const { id } of passing) this.model.delete(id)
        return collection.deleteWhere(change.test.filter).then((deleted) => assert.equal(deleted, passing.length))
      }
      case 'flush':
        return collection.flush()
      case 'sync':
        return collection.sync()
      case 'compact':
        return collection.compact().then(({ docsAfter, docsBefore }) => assert.ok(docsAfter <= docsBefore))
      case 'buildIndex':
        return collection.buildIndex().then(async () => {})
      case 'dropIndex':
        return collection.dropIndex()
    }
  }

  #same(found: { id: string; vector?: Float32Array; payload?: object } | undefined, id: string): void {
    const doc = this.model.get(id)
    assert.equal(found?.id, doc?.id)
    if (doc !== undefined) assert.equal(textOf(found!.vector!, found!.payload), textOf(doc.vector, doc.payload))
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
    if (mode === 'exact') assert.equal(exact, true)
    const scored = this.#passing(test).map(({ id, vector: other }) => ({
      id,
      score: scoreOf(this.#metric, vector, other),
    }))
    scored.sort((a, b) => b.score - a.score || (a.id < b.id ? -1 : 1))
    const truth = scored.slice(offset, offset + k)
    assert.equal(hits.length, truth.length)
    if (!exact) return this.#checkApproximate(hits, test)
    hits.forEach((hit, i) => {
      assert.ok(Math.abs(hit.score - truth[i]!.score) < 5e-7)
      // The two ways of computing a cosine may round ties apart.
      if (this.#metric !== 'cosine') assert.equal(hit.id, truth[i]!.id)
    })
  }

  #checkApproximate(hits: readonly { id: string }[], test: Test | undefined): void {
    assert.equal(new Set(hits.map((hit) => hit.id)).size, hits.length)
    const passing = this.#texts(test)
    for (const hit of hits) assert.ok(passing.has(hit.id))
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
      assert.ok(!found.has(id))
      found.set(id, textOf(vector!, payload))
      if (running.length > 0) await Promise.race(running)
    }
    assert.deepEqual(found, expected)
    await Promise.all(running)
  }
}

function scoreOf(metric: Metric, a: readonly number[], b: readonly number[]): number {
  const dot = a.reduce((sum, value, i) => sum + value * b[i]!, 0)
  if (metric === 'dot') return dot
  if (metric === 'cosine') return dot / (Math.hypot(...a) * Math.hypot(...b))
  return -Math.sqrt(a.reduce((sum, value, i) => sum + (value - b[i]!) ** 2, 0))
}

/**
 * Runs commands on a new collection and on the map, with a crash and a reopening behind them.
 * @returns how many commands were run
 */
export async function runCommands(metric: Metric, rowCount: number, commands: readonly Command[]): Promise<number> {
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
  return pair.commandCount
}
