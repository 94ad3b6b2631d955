import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Collection, Metric } from '../../src/index.ts'
import { runs } from '../support/property.ts'
import { ranking } from '../support/reference.ts'
import { newCollection } from '../support/store.ts'
import { clusteredDocuments, normalVector, randomNumbers } from '../support/vectors.ts'

const metrics: readonly Metric[] = ['cosine', 'dot', 'euclidean']
const metric = fc.constantFrom(...metrics)

type Write = { readonly id: string; readonly vector: number[] | undefined }

/** Writes spread over segments, sealed and active memtables; what is replaced or deleted leaves dead rows in all of them. */
async function apply(
  collection: Collection<object>,
  groups: readonly (readonly Write[])[],
): Promise<Map<string, Float32Array>> {
  const documents = new Map<string, Float32Array>()
  for (const [i, group] of groups.entries()) {
    for (const { id, vector } of group) {
      if (vector === undefined) {
        await collection.delete(id)
        documents.delete(id)
      } else {
        await collection.upsert({ id, vector })
        documents.set(id, Float32Array.from(vector))
      }
    }
    if (i < groups.length - 1) await collection.flush()
  }
  return documents
}

/** Whole numbers make sums exact in any order, so that scores, ties and order can be compared to the bit. */
function writesOf(dimension: number): fc.Arbitrary<Write[][]> {
  const components = fc.array(fc.integer({ min: -2, max: 2 }), { minLength: dimension, maxLength: dimension })
  const id = fc.oneof(fc.integer({ min: 0, max: 30 }).map(String), fc.constantFrom('é', 'z', '\u{1f600}', '\uffff'))
  const write = fc.record({ id, vector: fc.option(components, { nil: undefined, freq: 8 }) })
  return fc.array(fc.array(write, { maxLength: 25 }), { minLength: 1, maxLength: 4 })
}

const dimensions = fc.integer({ min: 1, max: 19 })

describe('an exact search', () => {
  it('gives what scoring everything gives: scores, order, ties, offsets, cuts and per-query metrics', async () => {
    const cases = dimensions.chain((dimension) =>
      fc.record({
        dimension: fc.constant(dimension),
        groups: writesOf(dimension),
        query: fc.array(fc.integer({ min: -3, max: 3 }), { minLength: dimension, maxLength: dimension }),
        stored: metric,
        asked: fc.option(metric, { nil: undefined }),
        k: fc.oneof(fc.integer({ min: 1, max: 12 }), fc.constant(10_000)),
        offset: fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 40 })),
        minScore: fc.option(
          fc.integer({ min: -8, max: 4 }).map((half) => half / 2),
          { nil: undefined },
        ),
        mode: fc.constantFrom('auto' as const, 'exact' as const, 'approximate' as const),
      }),
    )
    await fc.assert(
      fc.asyncProperty(cases, async ({ dimension, groups, query, stored, asked, k, offset, minScore, mode }) => {
        const by = asked ?? stored
        fc.pre(by !== 'cosine' || query.some((x) => x !== 0))
        const { database, collection } = await newCollection({ dimension, metric: stored, durability: 'buffered' })
        const isStorable = ({ vector }: Write) => stored !== 'cosine' || vector?.some((x) => x !== 0) !== false
        const documents = await apply(
          collection,
          groups.map((group) => group.filter(isStorable)),
        )
        const vector = Float32Array.from(query)
        const expected = ranking(by, vector, documents)
          .filter(({ score }) => score >= (minScore ?? Number.NEGATIVE_INFINITY))
          .slice(offset, offset + k)
        const result = await collection.search({
          vector,
          k,
          offset,
          mode,
          include: { payload: false },
          ...(asked === undefined ? {} : { metric: asked }),
          ...(minScore === undefined ? {} : { minScore }),
        })
        expect(result.hits).toEqual(
          expected.map(({ id, score }) => ({ id, score: score === 0 ? expect.closeTo(0) : score })),
        )
        expect(result.exact).toBe(true)
        expect(result.plan).toBe('scan')
        expect(result.visited).toBeGreaterThanOrEqual(offset < documents.size ? documents.size : 0)
        await database.close()
      }),
      runs(120),
    )
  })

  it.each(metrics)('scores real numbers under %s as 64-bit floats would, from 1e-30 to 1e30', async (metric) => {
    const random = randomNumbers(7)
    for (const dimension of [1, 3, 16, 37, 384]) {
      for (const scale of [1e-30, 1, 1e18, 1e30]) {
        const { database, collection } = await newCollection({ dimension, metric, durability: 'buffered' })
        const scaled = (): Float32Array => normalVector(dimension, random).map((x) => x * scale)
        const documents = new Map(Array.from({ length: 300 }, (_, i) => [`${i}`, scaled()]))
        await collection.upsert([...documents].map(([id, vector]) => ({ id, vector })))
        const query = scaled()
        const expected = ranking(metric, query, documents)
        const { hits, exact } = await collection.search({ vector: query, k: 20 })
        expect(exact).toBe(true)
        for (const [i, hit] of hits.entries()) {
          const { id, score } = expected[i]!
          expect(Math.abs(hit.score - score)).toBeLessThanOrEqual(1e-12 * Math.abs(score) + 1e-300)
          expect(hit.id).toBe(id)
        }
        await database.close()
      }
    }
  })

  it('breaks ties at the cut by id, in UTF-16 code units, over all sources', async () => {
    const { collection } = await newCollection({ dimension: 2, durability: 'buffered' })
    const ids = Array.from({ length: 3000 }, (_, i) => `${(i * 7919) % 3000}`)
    ids.push('\uffff', '\u{1f600}', '\u{1f600}a')
    const documents = ids.map((id) => ({ id, vector: [1, 1] }))
    const third = Math.ceil(documents.length / 3)
    for (let from = 0; from < documents.length; from += third) {
      await collection.upsert(documents.slice(from, from + third))
      if (from < 2 * third) await collection.flush()
    }
    const sorted = documents.map(({ id }) => id).sort()
    for (const [k, offset] of [
      [1, 0],
      [10, 0],
      [10, 2995],
      [5000, 0],
    ] as const) {
      const { hits } = await collection.search({ vector: [2, 2], k, offset, mode: 'exact' })
      expect(hits.map(({ id }) => id)).toEqual(sorted.slice(offset, offset + k))
      expect(new Set(hits.map(({ score }) => score)).size).toBe(1)
    }
  })

  it('lets others run between calls that are awaited one after the other, and within large answers', async () => {
    const { collection } = await newCollection<{ text: string }>({ dimension: 4 })
    const payload = { text: 'x'.repeat(2000) }
    await collection.upsert(Array.from({ length: 5000 }, (_, n) => ({ id: `d${n}`, vector: [n, 1, 2, 3], payload })))
    const vector = [1, 2, 3, 4]
    const calls: (() => Promise<unknown>)[] = [
      () => collection.get('d7'),
      () => collection.search({ vector, k: 1 }),
      () => collection.count(),
    ]
    for (const call of calls) {
      let turns = 0
      const timer = setInterval(() => turns++, 1)
      const end = performance.now() + 200
      let made = 0
      // Whatever the machine: calls that never let go would make no turn at all.
      while (performance.now() < end || made < 50) {
        await call()
        made++
      }
      clearInterval(timer)
      expect(turns).toBeGreaterThan(3)
    }
    const ids = Array.from({ length: 5000 }, (_, n) => `d${n}`)
    for (const call of [() => collection.search({ vector, k: 5000 }), () => collection.getMany(ids)]) {
      let turns = 0
      let isDone = false
      const answer = call().finally(() => {
        isDone = true
      })
      while (!isDone) {
        await new Promise(setImmediate)
        turns++
      }
      expect(await answer).toBeTruthy()
      expect(turns).toBeGreaterThan(2)
    }
  })

  it('does not slow down, and does not stop the event loop, where everything is equally near', async () => {
    const { collection } = await newCollection({ dimension: 4, durability: 'buffered', index: 'manual' })
    const count = 60_000
    await collection.upsert(Array.from({ length: count }, (_, i) => ({ id: `${i}`, vector: [1, 2, 3, 4] })))
    // Looking through all candidates for each new one would take billions of steps.
    const started = performance.now()
    const { hits } = await collection.search({ vector: [1, 0, 0, 0], k: 3, mode: 'exact' })
    expect(performance.now() - started).toBeLessThan(5000)
    expect(hits.map(({ id }) => id)).toEqual(['0', '1', '10'])
  })

  it('scores zero vectors 0 under a per-query cosine', async () => {
    const { collection } = await newCollection({ dimension: 2, metric: 'dot' })
    await collection.upsert([
      { id: 'zero', vector: [0, 0] },
      { id: 'same', vector: [3, 0] },
      { id: 'other', vector: [-1, 0] },
    ])
    const { hits } = await collection.search({ vector: [1, 0], metric: 'cosine' })
    expect(hits.map(({ id, score }) => [id, score])).toEqual([
      ['same', 1],
      ['zero', 0],
      ['other', -1],
    ])
  })

  it('of many at once gives what one after the other gives', async () => {
    const { collection } = await newCollection({ dimension: 16, durability: 'buffered' })
    await collection.ingest(clusteredDocuments(3000, 16))
    const random = randomNumbers(3)
    const requests = Array.from({ length: 20 }, (_, i) => ({ vector: normalVector(16, random), k: 1 + i }))
    const together = await collection.searchMany(requests)
    for (const [i, request] of requests.entries()) {
      expect(together[i]!.hits).toEqual((await collection.search(request)).hits)
      expect(together[i]!.hits).toHaveLength(request.k)
    }
    expect(await collection.searchMany([])).toEqual([])
  })
})
