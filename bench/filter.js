/**
 * What do filters cost, and do they cost hits?
 *
 * One collection of a large segment, a small one and fresh documents, with deletes; every filter leaves a known share of the documents:
 * unrelated to the questions, at their own end of a direction, or at the other end. Peers hold the same vectors: hnswlib-node asks a
 * callback for each row that it meets, Orama looks at the rows that its own filter leaves.
 */
import { writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'
import { readArguments } from './support/arguments.js'
import { hnsw, inTemporaryFolder } from './support/database.js'
import { buildPeerGraph } from './support/peer.js'
import { plot } from './support/plot.js'
import { fixed, Report, whole } from './support/report.js'
import { eachSet, nearestRows } from './support/sets.js'
import { median, randomFrom } from './support/statistics.js'

/** @typedef {import('./support/sets.js').VectorSet} VectorSet */
/** @typedef {{ bucket: number, rank: number }} Attributes */

/**
 * A database under question.
 *
 * @typedef {object} Side
 * @property {string} name
 * @property {(vector: Float32Array, filter: Chosen) => Promise<string[]>} search
 */

/**
 * A filter that leaves a share of the documents, as each side takes it.
 *
 * @typedef {object} Chosen
 * @property {import('isovec').Filter<Attributes>} filter
 * @property {object} where the same for Orama
 * @property {(row: number) => boolean} passes
 */

const shares = [1, 0.5, 0.1, 0.01, 0.001, 0.0001]
const k = 10
const peerEf = 100
const { openDatabase } = await import('isovec')
const given = readArguments({ rounds: 5, quickRounds: 2, quickBase: 8000 })

/**
 * @param {VectorSet} set
 * @returns {{ attributes: Attributes[], questions: Float32Array[], isDead: (row: number) => boolean }}
 */
function describe(set) {
  const direction = set.queries[0] ?? new Float32Array(set.dimension)
  const random = randomFrom(11)
  const likeness = set.base.map((vector) => {
    let sum = 0
    for (let i = 0; i < vector.length; i++) {
      const [a, b] = [vector[i] ?? 0, direction[i] ?? 0]
      sum += set.metric === 'euclidean' ? -((a - b) ** 2) : a * b
    }
    return sum
  })
  const order = [...likeness.keys()].sort((a, b) => (likeness[a] ?? 0) - (likeness[b] ?? 0))
  const attributes = set.base.map(() => ({ bucket: random(), rank: 0 }))
  for (const [place, row] of order.entries()) /** @type {Attributes} */ (attributes[row]).rank = place / order.length
  // Beside stored vectors at the near end of the direction.
  const questions = Array.from({ length: given.quick ? 20 : 60 }, (_, i) => {
    const vector = set.base[order[order.length - 1 - ((i * 29) % order.length)] ?? 0] ?? direction
    const moved = vector.map((component) => component * (1 + 0.1 * (random() - 0.5)))
    const length = set.metric === 'cosine' ? Math.hypot(...moved) : 1
    return moved.map((component) => component / length)
  })
  return { attributes, questions, isDead: (row) => row % 37 === 0 }
}

/**
 * @param {string} kind
 * @param {number} share
 * @param {readonly Attributes[]} attributes
 * @returns {Chosen}
 */
function chosen(kind, share, attributes) {
  const own = (/** @type {number} */ row) => /** @type {Attributes} */ (attributes[row])
  if (kind === 'independent') {
    return {
      filter: { bucket: { $lt: share } },
      where: { bucket: { lt: share } },
      passes: (row) => own(row).bucket < share,
    }
  }
  if (kind === 'correlated') {
    return {
      filter: { rank: { $gte: 1 - share } },
      where: { rank: { gte: 1 - share } },
      passes: (row) => own(row).rank >= 1 - share,
    }
  }
  return { filter: { rank: { $lt: share } }, where: { rank: { lt: share } }, passes: (row) => own(row).rank < share }
}

/**
 * @param {VectorSet} set
 * @param {readonly Attributes[]} attributes
 * @param {(row: number) => boolean} isDead
 * @param {string} folder
 */
async function fill(set, attributes, isDead, folder) {
  const database = await openDatabase(folder)
  /** @type {import('isovec').Collection<Attributes>} */
  const collection = await database.createCollection('vectors', {
    dimension: set.dimension,
    metric: set.metric,
    hnsw,
    durability: 'buffered',
    compaction: 'manual',
    index: 'manual',
  })
  const rows = [...set.base.entries()]
  const documents = (/** @type {number} */ from, /** @type {number} */ to) =>
    rows
      .slice(from, to)
      .map(([row, vector]) => ({ id: String(row), vector, payload: /** @type {Attributes} */ (attributes[row]) }))
  const [large, small] = [Math.floor(rows.length * 0.9), Math.floor(rows.length * 0.98)]
  await collection.ingest(documents(0, large))
  await collection.compact()
  await collection.ingest(documents(large, small))
  await collection.flush()
  await collection.buildIndex()
  await collection.ingest(documents(small, rows.length))
  await collection.delete(rows.filter(([row]) => isDead(row)).map(([row]) => String(row)))
  return { database, collection }
}

/**
 * Orama from npm, all in JavaScript: it compares the rows that its filter leaves, by cosine alone.
 *
 * @param {VectorSet} set
 * @param {readonly Attributes[]} attributes
 * @param {(row: number) => boolean} isDead
 * @returns {Promise<Side | undefined>}
 */
async function orama(set, attributes, isDead) {
  if (set.metric !== 'cosine') return undefined
  const { create, insertMultiple, search } = createRequire(new URL('./peers/package.json', import.meta.url))(
    '@orama/orama',
  )
  const store = create({ schema: { bucket: 'number', rank: 'number', vector: `vector[${set.dimension}]` } })
  const rows = [...set.base.entries()].filter(([row]) => !isDead(row))
  await insertMultiple(
    store,
    rows.map(([row, vector]) => ({ id: String(row), vector: Array.from(vector), ...attributes[row] })),
    5000,
  )
  return {
    name: 'Orama',
    async search(vector, { where }) {
      const { hits } = await search(store, {
        mode: 'vector',
        vector: { value: Array.from(vector), property: 'vector' },
        similarity: -1,
        where,
        limit: k,
        includeVectors: false,
      })
      return hits.map((/** @type {{ id: string }} */ { id }) => id)
    },
  }
}

/** @param {VectorSet} set */
async function measure(set) {
  const { attributes, questions, isDead } = describe(set)
  return inTemporaryFolder(given.folder, async (folder) => {
    const { database, collection } = await fill(set, attributes, isDead, folder)
    const other = await orama(set, attributes, isDead)
    const { graph } = await buildPeerGraph(set)
    graph.setEf(peerEf)
    /** @type {Side[]} */
    const sides = [
      {
        name: 'isovec',
        search: async (vector, { filter }) =>
          (await collection.search({ vector, k, filter, include: { payload: false } })).hits.map(({ id }) => id),
      },
      {
        name: 'hnswlib-node',
        async search(vector, { passes }) {
          const isOpen = (/** @type {number} */ row) => !isDead(row) && passes(row)
          return graph.searchKnn(Array.from(vector), k, isOpen).neighbors.map(String)
        },
      },
      ...(other === undefined ? [] : [other]),
    ]
    try {
      const rows = []
      /** @type {{ kind: string, share: number, name: string, ms: number, recall: number }[]} */
      const points = []
      for (const kind of ['independent', 'correlated', 'anti-correlated']) {
        for (const share of shares) {
          const filter = chosen(kind, share, attributes)
          const count = await collection.count(filter.filter)
          if (count === 0) continue
          console.error(`${set.name}, ${kind}, ${share * 100} % …`)
          const exact = (/** @type {Float32Array} */ vector) =>
            collection.search({ vector, k, filter: filter.filter, mode: 'exact', include: { payload: false } })
          /** @type {Set<string>[]} */
          const truths = []
          for (const vector of questions) truths.push(new Set((await exact(vector)).hits.map(({ id }) => id)))
          check(set, filter, isDead, questions, truths)
          const [free = 0, scan = 0, ...own] = await timed(questions, [
            (vector) => collection.search({ vector, k, include: { payload: false } }),
            exact,
            ...sides.map((side) => (/** @type {Float32Array} */ vector) => side.search(vector, filter)),
          ])
          const { plan, visited } = await collection.search({
            vector: questions[0] ?? [],
            k,
            filter: filter.filter,
            include: { payload: false },
          })
          const cells = [set.name, kind, `${share * 100} %`, whole(count), plan, whole(visited), fixed(free, 3)]
          for (const [index, side] of sides.entries()) {
            let [found, wanted, least] = [0, 0, k]
            for (const [i, vector] of questions.entries()) {
              const ids = await side.search(vector, filter)
              wanted += truths[i]?.size ?? 0
              found += ids.filter((id) => truths[i]?.has(id)).length
              least = Math.min(least, ids.length)
            }
            const ms = own[index] ?? Number.NaN
            const recall = found / wanted
            points.push({ kind, share, name: side.name, ms, recall })
            cells.push(`${fixed(ms, 3)} (${fixed(recall, 3)}, ${least})`)
            if (side.name !== 'isovec') continue
            if (least < Math.min(k, count)) throw new Error(`${least} hits of ${count} matches`)
            cells.push(fixed(ms / Math.max(free, scan)))
          }
          if (other === undefined) cells.push('')
          rows.push(cells)
        }
      }
      return { rows, points }
    } finally {
      await database.close()
    }
  })
}

/**
 * Median milliseconds of searches of several kinds, asked in turn.
 *
 * @param {readonly Float32Array[]} questions
 * @param {readonly ((vector: Float32Array) => Promise<unknown>)[]} searches
 */
async function timed(questions, searches) {
  const times = searches.map(() => /** @type {number[]} */ ([]))
  for (let round = 0; round < given.rounds; round++) {
    for (const vector of questions) {
      for (const [i, search] of searches.entries()) {
        const started = performance.now()
        await search(vector)
        times[i]?.push(performance.now() - started)
      }
    }
  }
  return times.map(median)
}

/**
 * Compares exact answers with those of a plain loop over what passes.
 *
 * @param {VectorSet} set
 * @param {Chosen} filter
 * @param {(row: number) => boolean} isDead
 * @param {readonly Float32Array[]} questions
 * @param {readonly ReadonlySet<string>[]} truths
 */
function check(set, filter, isDead, questions, truths) {
  const open = [...set.base.keys()].filter((row) => !isDead(row) && filter.passes(row))
  const vectors = open.map((row) => /** @type {Float32Array} */ (set.base[row]))
  for (const [i, vector] of questions.slice(0, 5).entries()) {
    const nearest = new Set([...nearestRows(vectors, vector, k)].map((place) => String(open[place])))
    const found = [...(truths[i] ?? [])]
    // Where several are equally far, more than k are among the nearest.
    if (found.length !== Math.min(k, open.length) || found.some((id) => !nearest.has(id))) {
      throw new Error(`${set.name}: the exact answer to question ${i} is wrong`)
    }
  }
}

const report = new Report('filter', given.write)
await report.begin()
const rows = []
/** @type {Awaited<ReturnType<typeof measure>>['points']} */
let drawn = []
for (const set of eachSet(given.sets ?? ['clusters-128', 'mnist-784'], { base: given.base, queries: 100 })) {
  const found = await measure(set)
  rows.push(...found.rows)
  if (drawn.length === 0) drawn = found.points.filter(({ kind }) => kind === 'anti-correlated')
}
report.table(
  `Milliseconds of a search under a filter (recall@10, fewest hits); "free" is isovec without a filter, "ratio" isovec under the filter to the slower of that and its exact scan of the matches; hnswlib-node with ef ${peerEf}`,
  ['set', 'filter', 'leaves', 'documents', 'plan', 'visited', 'free', 'isovec', 'ratio', 'hnswlib-node', 'Orama'],
  rows,
)
report.end()
if (given.write) {
  const names = [...new Set(drawn.map(({ name }) => name))]
  const lines = (/** @type {'ms' | 'recall'} */ what) =>
    names.map((name) => ({
      name,
      points: drawn
        .filter((point) => point.name === name)
        .map((point) => /** @type {const} */ ([point.share * 100, point[what]])),
    }))
  const panels = [
    { title: 'milliseconds', lines: lines('ms'), ticks: [0.01, 0.1, 1, 10, 100], isLog: true },
    { title: 'recall@10', lines: lines('recall'), ticks: [0.8, 0.85, 0.9, 0.95, 1], isLog: false },
  ]
  const ticks = [0.01, 0.1, 1, 10, 100]
  await writeFile(
    fileURLToPath(new URL('../docs/filter.svg', import.meta.url)),
    plot(panels, { label: '% of the documents pass, far from the question', ticks }),
  )
}
