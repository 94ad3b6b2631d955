import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Collection, Database, Filter, Metric } from '../../src/index.ts'
import { openDatabase } from '../../src/index.ts'
import { loadSet } from '../support/sets.ts'
import { newCollection } from '../support/store.ts'
import { clusteredDocuments, randomNumbers } from '../support/vectors.ts'

type Attributes = { bucket: number; rank: number }

const count = 50_000
const dimension = 24
const k = 10
const questionCount = 40
const selectivities = [1, 0.5, 0.3, 0.1, 0.01, 0.001, 0.0001]

type Kind = {
  readonly filterOf: (share: number) => Filter<Attributes>
  readonly passes: (attributes: Attributes, share: number) => boolean
}

/** Filters that leave a share of the documents: unrelated to the question, at its own end of a direction, at the other end. */
const kinds: { readonly [name: string]: Kind } = {
  independent: {
    filterOf: (share) => ({ bucket: { $lt: share } }),
    passes: ({ bucket }, share) => bucket < share,
  },
  correlated: {
    filterOf: (share) => ({ rank: { $gte: 1 - share } }),
    passes: ({ rank }, share) => rank >= 1 - share,
  },
  'anti-correlated': {
    filterOf: (share) => ({ rank: { $lt: share } }),
    passes: ({ rank }, share) => rank < share,
  },
}

type Stored = { readonly id: string; readonly vector: Float32Array; readonly payload: Attributes }

function similarity(a: Float32Array, b: Float32Array): number {
  let [product, aa, bb] = [0, 0, 0]
  for (let i = 0; i < a.length; i++) {
    product += a[i]! * b[i]!
    aa += a[i]! * a[i]!
    bb += b[i]! * b[i]!
  }
  return product / Math.sqrt(aa * bb)
}

/** Ids of the nearest by comparing with each. */
function nearest(documents: readonly Stored[], question: Float32Array): Set<string> {
  const likeness = documents.map(({ vector }) => similarity(vector, question))
  const least = Float64Array.from(likeness).sort().at(-k) ?? Number.NEGATIVE_INFINITY
  return new Set(documents.filter((_, i) => likeness[i]! >= least).map(({ id }) => id))
}

describe('searches under a filter, among 50,000 documents in segments, fresh ones and deletes', () => {
  let database: Database
  let collection: Collection<Attributes>
  let questions: Float32Array[]
  let alive: Stored[]
  let visitedFreely = 0

  beforeAll(async () => {
    const documents = [...clusteredDocuments(count, dimension, 3)]
    const random = randomNumbers(4)
    const direction = documents[17]!.vector
    const likeness = documents.map(({ vector }) => similarity(vector, direction))
    const order = [...likeness.keys()].sort((a, b) => likeness[a]! - likeness[b]!)
    const rank = new Float64Array(count)
    for (const [place, row] of order.entries()) rank[row] = place / count
    const attributed = documents.map(({ id, vector }, row) => ({
      id,
      vector,
      payload: { bucket: random(), rank: rank[row]! },
    }))
    // Questions near the one end of the direction, a little beside what is stored.
    questions = Array.from({ length: questionCount }, (_, i) =>
      documents[order[count - 1 - i * 40]!]!.vector.map((component) => component + 0.2 * (random() - 0.5)),
    )
    alive = attributed.filter((_, row) => row % 29 !== 0)
    database = await openDatabase(':memory:')
    collection = await database.createCollection<Attributes>('c', {
      dimension,
      compaction: 'manual',
      index: 'manual',
      hnsw: { efConstruction: 80 },
    })
    await collection.ingest(attributed.slice(0, 42_000))
    await collection.compact()
    await collection.ingest(attributed.slice(42_000, 47_000))
    await collection.flush()
    await collection.buildIndex()
    await collection.ingest(attributed.slice(47_000, 49_000))
    await collection.flush()
    await collection.ingest(attributed.slice(49_000))
    await collection.delete(documents.filter((_, row) => row % 29 === 0).map(({ id }) => id))
    const { segments, memtableDocs, deleted } = await collection.stats()
    expect([segments, memtableDocs > 500, deleted > 1000]).toEqual([3, true, true])
    for (const vector of questions) visitedFreely += (await collection.search({ vector, k })).visited / questionCount
  }, 300_000)

  afterAll(() => database.close())

  for (const [name, { filterOf, passes }] of Object.entries(kinds)) {
    for (const share of selectivities) {
      it(`find ${share * 100} % that are ${name}`, { timeout: 60_000 }, async () => {
        const filter = filterOf(share)
        const open = alive.filter(({ payload }) => passes(payload, share))
        const available = await collection.count(filter)
        expect(available).toBe(open.length)
        expect(available).toBeGreaterThan(0)
        const openIds = new Set(open.map(({ id }) => id))
        let found = 0
        let wanted = 0
        let visited = 0
        for (const vector of questions) {
          const result = await collection.search({ vector, k, filter })
          const truth = await collection.search({ vector, k, filter, mode: 'exact' })
          const ids = nearest(open, vector)
          expect(truth.exact).toBe(true)
          expect(new Set(truth.hits.map(({ id }) => id))).toEqual(ids)
          expect(result.hits).toHaveLength(Math.min(k, available))
          for (const { id } of result.hits) expect(openIds.has(id)).toBe(true)
          for (const { id } of result.hits) if (ids.has(id)) found++
          wanted += ids.size
          visited += result.visited / questionCount
        }
        expect(found / wanted).toBeGreaterThanOrEqual(0.95)
        // The time of a search goes with what it visits, which doesn't depend on the machine.
        expect(visited).toBeLessThan(2 * Math.max(visitedFreely, available))
      })
    }
  }
})

describe('how a search under a filter goes', () => {
  const rowCount = 20_000
  let database: Database
  let collection: Collection<{ bucket: number; rank: number }>
  let question: Float32Array

  beforeAll(async () => {
    const documents = [...clusteredDocuments(rowCount, dimension, 5)]
    const random = randomNumbers(6)
    question = documents[3]!.vector
    const likeness = documents.map(({ vector }) => similarity(vector, question))
    const order = [...likeness.keys()].sort((a, b) => likeness[a]! - likeness[b]!)
    const rank = new Float64Array(rowCount)
    for (const [place, row] of order.entries()) rank[row] = place / rowCount
    database = await openDatabase(':memory:')
    collection = await database.createCollection('c', { dimension, index: 'manual', compaction: 'manual' })
    await collection.ingest(
      documents.map(({ id, vector }, row) => ({ id, vector, payload: { bucket: random(), rank: rank[row]! } })),
    )
    await collection.compact()
    await collection.buildIndex()
  }, 120_000)

  afterAll(() => database.close())

  it('walks the graph past what does not pass, if much does', async () => {
    const filter = { bucket: { $lt: 0.5 } }
    const { plan, exact, visited, hits } = await collection.search({ vector: question, k, filter })
    expect([plan, exact, hits.length]).toEqual(['filtered-graph', false, k])
    expect(visited).toBeLessThan(rowCount / 8)
    expect((await collection.search({ vector: question, k, filter, mode: 'exact' })).plan).toBe('scan')
  })

  it('scans what passes, if little does', async () => {
    const filter = { bucket: { $lt: 0.05 } }
    const { plan, exact, visited } = await collection.search({ vector: question, k, filter })
    expect([plan, exact, visited]).toEqual(['scan', true, await collection.count(filter)])
  })

  it('scans what passes after a walk that found too little of it, and stops that walk early', async () => {
    const filter = { rank: { $lt: 0.5 } }
    const { plan, exact, visited, hits } = await collection.search({ vector: question, k, filter })
    const matches = await collection.count(filter)
    expect([plan, exact]).toEqual(['scan', true])
    expect(visited).toBeGreaterThan(matches)
    expect(visited).toBeLessThan(1.5 * matches)
    const truth = await collection.search({ vector: question, k, filter, mode: 'exact' })
    expect(hits.map(({ id, score }) => [id, score])).toEqual(truth.hits.map(({ id, score }) => [id, score]))
  })
})

describe('a target for recall is met within 0.01', () => {
  const sets: readonly (readonly [name: string, dimension: number, metric: Metric])[] = [
    ['mlnotes-bge-micro-384', 384, 'cosine'],
    ['wikimovies-lsa-256', 256, 'cosine'],
  ]
  for (const [name, size, metric] of sets) {
    it(`on ${name}`, { timeout: 120_000 }, async () => {
      const { rows, questions } = loadSet(name, size, 8000, 300)
      const { collection: stored } = await newCollection({ dimension: size, metric, index: 'manual' })
      await stored.ingest(rows.map((vector, row) => ({ id: String(row), vector })))
      await stored.compact()
      await stored.buildIndex()
      const truths: Set<string>[] = []
      for (const vector of questions) {
        const { hits } = await stored.search({ vector, k, mode: 'exact' })
        truths.push(new Set(hits.map(({ id }) => id)))
      }
      let visitedBefore = 0
      for (const recall of [0.8, 0.95, 0.99]) {
        let found = 0
        let visited = 0
        for (const [i, vector] of questions.entries()) {
          const result = await stored.search({ vector, k, recall })
          expect(result.plan).toBe('graph')
          visited += result.visited
          for (const { id } of result.hits) if (truths[i]!.has(id)) found++
        }
        expect(found / (questions.length * k), `target ${recall}`).toBeGreaterThanOrEqual(recall - 0.01)
        // More is asked of the graph for more recall, and no more than a scan would.
        expect(visited).toBeGreaterThan(visitedBefore)
        expect(visited / questions.length).toBeLessThan(rows.length / 2)
        visitedBefore = visited
      }
    })
  }
})
