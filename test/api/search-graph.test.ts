import { describe, expect, it } from 'vitest'
import type { Collection, Metric } from '../../src/index.ts'
import { ranking } from '../support/reference.ts'
import { newCollection } from '../support/store.ts'
import { clusteredDocuments, randomNumbers } from '../support/vectors.ts'

const dimension = 32
const metrics: readonly Metric[] = ['cosine', 'dot', 'euclidean']

type Numbered = { number: number }

async function collectionOf(
  count: number,
  options: { metric?: Metric; quantization?: 'auto' | 'sq8' | 'none' } = {},
): Promise<{ collection: Collection<Numbered>; documents: Map<string, Float32Array> }> {
  const { collection } = await newCollection<Numbered>({
    dimension,
    durability: 'buffered',
    index: 'manual',
    compaction: 'manual',
    ...options,
  })
  const documents = new Map<string, Float32Array>()
  function* noted() {
    for (const document of clusteredDocuments(count, dimension)) {
      documents.set(document.id, document.vector)
      yield document
    }
  }
  await collection.ingest(noted())
  return { collection, documents }
}

/** Stored vectors with a little noise: what people ask is near what there is. */
function queriesNear(documents: ReadonlyMap<string, Float32Array>, count: number): Float32Array[] {
  const random = randomNumbers(11)
  const all = [...documents.values()]
  return Array.from({ length: count }, () =>
    all[Math.floor(random() * all.length)]!.map((component) => component + 0.4 * (random() - 0.5)),
  )
}

describe.each(metrics)('a search by graph under %s', (metric) => {
  it.each(['auto', 'none'] as const)(
    'finds nearly all of the nearest, with exact scores (quantization %s)',
    async (quantization) => {
      const { collection, documents } = await collectionOf(6000, { metric, quantization })
      await collection.compact()
      await collection.buildIndex()
      expect(await collection.hasIndex()).toBe(true)
      const queries = queriesNear(documents, 40)
      let found = 0
      for (const vector of queries) {
        const truth = ranking(metric, vector, documents)
        const scores = new Map(truth.map(({ id, score }) => [id, score]))
        const result = await collection.search({ vector })
        expect(result).toMatchObject({ exact: false, plan: 'graph' })
        expect(result.visited).toBeLessThan(documents.size / 2)
        expect(result.hits).toHaveLength(10)
        for (const [i, { id, score }] of result.hits.entries()) {
          expect(score).toBeCloseTo(scores.get(id)!, 9)
          if (i > 0) expect(score).toBeLessThanOrEqual(result.hits[i - 1]!.score)
        }
        const nearest = new Set(truth.slice(0, 10).map(({ id }) => id))
        found += result.hits.filter(({ id }) => nearest.has(id)).length

        const exact = await collection.search({ vector, mode: 'exact' })
        expect(exact).toMatchObject({ exact: true, plan: 'scan' })
        expect(exact.hits.map(({ id }) => id)).toEqual(truth.slice(0, 10).map(({ id }) => id))
      }
      expect(found / (10 * queries.length)).toBeGreaterThan(0.95)
      const report = await collection.measureRecall({ samples: 50, k: 5 })
      expect(report).toMatchObject({ samples: 50, k: 5 })
      expect(report.recall).toBeGreaterThan(0.9)
      expect(report.visited).toBeLessThan(documents.size / 2)
    },
  )
})

describe('a collection with a graph', () => {
  it('shows fresh writes at once, hides what was deleted, and gives what was replaced once', async () => {
    const { collection, documents } = await collectionOf(3000)
    await collection.buildIndex()
    const [[victim, vector]] = [...documents] as [[string, Float32Array]]
    const target = vector.map((x) => x * 2)
    const top = async () => (await collection.search({ vector: target, k: 20 })).hits

    expect((await top())[0]!.id).toBe(victim)
    await collection.upsert({ id: 'fresh', vector: target, payload: { number: -1 } })
    let result = await collection.search({ vector: target, k: 20 })
    expect(result.plan).toBe('mixed')
    expect(result.hits.slice(0, 2).map(({ id }) => id)).toEqual([victim, 'fresh'])

    await collection.upsert({ id: victim, vector: target, payload: { number: -2 } })
    result = await collection.search({ vector: target, k: 20 })
    expect(result.hits.filter(({ id }) => id === victim)).toHaveLength(1)
    expect(result.hits.find(({ id }) => id === victim)!.payload).toEqual({ number: -2 })

    await collection.delete([victim, 'fresh'])
    expect((await top()).map(({ id }) => id)).not.toContain(victim)
    await collection.flush()
    await collection.compact()
    const hits = await top()
    expect(hits).toHaveLength(20)
    expect(hits.map(({ id }) => id)).not.toContain(victim)
    expect(hits.map(({ id }) => id)).not.toContain('fresh')
  })

  it('gives k hits although most of it is deleted', async () => {
    const { collection, documents } = await collectionOf(3000)
    await collection.buildIndex()
    const survivors = new Map([...documents].filter((_, i) => i % 60 === 0))
    await collection.delete([...documents.keys()].filter((id) => !survivors.has(id)))
    for (const vector of queriesNear(documents, 10)) {
      const { hits } = await collection.search({ vector, k: 30 })
      expect(new Set(hits.map(({ id }) => id)).size).toBe(30)
      for (const { id } of hits) expect(survivors.has(id)).toBe(true)
      const all = await collection.search({ vector, k: 10_000 })
      expect(all.hits.map(({ id }) => id).sort()).toEqual([...survivors.keys()].sort())
    }
  })

  it('gives all there is for a k beyond it, and pages that neither repeat nor leave out', async () => {
    const { collection, documents } = await collectionOf(1500)
    await collection.buildIndex()
    const [vector] = queriesNear(documents, 1) as [Float32Array]
    const { hits } = await collection.search({ vector, k: 10_000 })
    expect(hits).toHaveLength(1500)
    const paged: string[] = []
    for (let offset = 0; offset < 1600; offset += 100) {
      const page = await collection.search({ vector, k: 100, offset, mode: 'exact' })
      paged.push(...page.hits.map(({ id }) => id))
    }
    expect(paged).toEqual(ranking('cosine', vector, documents).map(({ id }) => id))
  })

  it('is searched exactly by a metric that is not its own', async () => {
    const { collection, documents } = await collectionOf(2500)
    await collection.buildIndex()
    const [vector] = queriesNear(documents, 1) as [Float32Array]
    for (const metric of ['dot', 'euclidean'] as const) {
      const result = await collection.search({ vector, metric, mode: 'approximate' })
      expect(result).toMatchObject({ exact: true, plan: 'scan' })
      expect(result.hits.map(({ id }) => id)).toEqual(
        ranking(metric, vector, documents)
          .slice(0, 10)
          .map(({ id }) => id),
      )
    }
    expect((await collection.search({ vector, metric: 'cosine' })).plan).toBe('graph')
  })

  it('searches wider with a wider beam', async () => {
    const { collection, documents } = await collectionOf(6000)
    await collection.buildIndex({ M: 4, efConstruction: 20 })
    const queries = queriesNear(documents, 20)
    const recallAt = async (ef: number): Promise<number> => {
      let found = 0
      for (const vector of queries) {
        const nearest = new Set(
          ranking('cosine', vector, documents)
            .slice(0, 10)
            .map(({ id }) => id),
        )
        const { hits } = await collection.search({ vector, ef })
        found += hits.filter(({ id }) => nearest.has(id)).length
      }
      return found / (10 * queries.length)
    }
    const [narrow, wide] = [await recallAt(10), await recallAt(1000)]
    expect(wide).toBeGreaterThan(narrow)
    expect(wide).toBeGreaterThan(0.98)
  })
})
