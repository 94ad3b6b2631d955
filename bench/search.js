/**
 * How many queries a second do isovec and hnswlib-node answer at equal recall?
 *
 * Both get a graph of the same parameters over the same vectors. For each target of recall@10 the smallest beam that reaches it is
 * looked for, on each side; then both answer the same queries in this process, in turns of a hundred, so that whatever else the machine
 * does meets both alike.
 */
import { readArguments } from './support/arguments.js'
import { withFilled } from './support/database.js'
import { buildPeerGraph } from './support/peer.js'
import { recallOf, smallestBeam } from './support/recall.js'
import { fixed, Report, whole } from './support/report.js'
import { eachSet, neighbourCount, setNames } from './support/sets.js'
import { median } from './support/statistics.js'
import { Stopwatch } from './support/stopwatch.js'

/** @typedef {import('./support/sets.js').VectorSet} VectorSet */

/**
 * One side of the comparison.
 *
 * @typedef {object} Side
 * @property {(ef: number | undefined) => Promise<number[][]>} answer rows for every query, best first
 * @property {(ef: number | undefined, from: number, to: number) => Promise<void>} run answers a range of the queries, nothing kept
 */

const targets = [0.9, 0.95, 0.98, 0.99]
const efMost = 800
/** Queries that one side answers before it is the other's turn. */
const queriesPerTurn = 100

const given = readArguments({ rounds: 7, quickRounds: 3, quickBase: 4000 })

/**
 * @param {import('isovec').Collection} collection
 * @param {VectorSet} set
 * @returns {Side}
 */
function isovecSide(collection, { queries }) {
  const search = (/** @type {Float32Array} */ vector, /** @type {number | undefined} */ ef) =>
    collection.search({ vector, k: neighbourCount, include: { payload: false }, ...(ef === undefined ? {} : { ef }) })
  return {
    async answer(ef) {
      const answers = []
      for (const vector of queries) {
        const { hits, plan } = await search(vector, ef)
        if (plan !== 'graph') throw new Error(`the graph is not what was measured: ${plan}`)
        answers.push(hits.map(({ id }) => Number(id)))
      }
      return answers
    },
    async run(ef, from, to) {
      for (let query = from; query < to; query++) await search(/** @type {Float32Array} */ (queries[query]), ef)
    },
  }
}

/**
 * @param {import('./support/peer.js').PeerGraph} graph
 * @param {VectorSet} set
 * @returns {Side}
 */
function peerSide(graph, { queries }) {
  // Only plain arrays are taken; making them is not part of the measurement.
  const plain = queries.map((query) => Array.from(query))
  return {
    async answer(ef = neighbourCount) {
      graph.setEf(ef)
      return plain.map((query) => graph.searchKnn(query, neighbourCount).neighbors)
    },
    async run(ef = neighbourCount, from, to) {
      graph.setEf(ef)
      for (let query = from; query < to; query++)
        graph.searchKnn(/** @type {number[]} */ (plain[query]), neighbourCount)
    },
  }
}

/**
 * Recall of a side at a beam, each beam measured once.
 *
 * @param {Side} side
 * @param {VectorSet} set
 */
function recallsOf(side, set) {
  /** @type {Map<number | undefined, number>} */
  const known = new Map()
  return async (/** @type {number | undefined} */ ef) => {
    const recall = known.get(ef) ?? recallOf(set.truth, await side.answer(ef))
    known.set(ef, recall)
    return recall
  }
}

/**
 * Median queries a second of both sides, and the medians of their ratios over the rounds.
 *
 * @param {number} queryCount
 * @param {(from: number, to: number) => Promise<void>} ours answers a range of the queries
 * @param {(from: number, to: number) => Promise<void>} theirs
 */
async function compare(queryCount, ours, theirs) {
  /** @type {{ our: Stopwatch, their: Stopwatch }[]} */
  const rounds = []
  for (let round = 0; round < given.rounds; round++) {
    const our = new Stopwatch()
    const their = new Stopwatch()
    for (let from = 0; from < queryCount; from += queriesPerTurn) {
      const to = Math.min(queryCount, from + queriesPerTurn)
      await our.run(() => ours(from, to))
      await their.run(() => theirs(from, to))
    }
    rounds.push({ our, their })
  }
  return {
    ours: median(rounds.map(({ our }) => (queryCount / our.wallMs) * 1000)),
    theirs: median(rounds.map(({ their }) => (queryCount / their.wallMs) * 1000)),
    ratio: median(rounds.map(({ our, their }) => their.wallMs / our.wallMs)),
    cpuRatio: median(rounds.map(({ our, their }) => their.cpuMs / our.cpuMs)),
  }
}

/**
 * @param {VectorSet} set
 * @returns {Promise<{ rows: string[][], chosen: string[] }>} a line for each target, and one for the beam that isovec picks by itself
 */
function measure(set) {
  return withFilled(set, { folder: given.folder, graph: true }, async ({ collection }) => {
    const ours = isovecSide(collection, set)
    const theirs = peerSide((await buildPeerGraph(set)).graph, set)
    const ourRecall = recallsOf(ours, set)
    const theirRecall = recallsOf(theirs, set)
    const size = `${whole(set.base.length)} x ${set.dimension}`
    const rows = []
    for (const target of targets) {
      const ourEf = await smallestBeam(target, neighbourCount, efMost, ourRecall)
      const theirEf = await smallestBeam(target, neighbourCount, efMost, theirRecall)
      if (ourEf === undefined || theirEf === undefined) {
        rows.push([
          set.name,
          size,
          fixed(target),
          ...[ourEf, theirEf].map((ef) => (ef === undefined ? 'not reached' : `ef ${ef}`)),
        ])
        continue
      }
      const rate = await compare(
        set.queries.length,
        (from, to) => ours.run(ourEf, from, to),
        (from, to) => theirs.run(theirEf, from, to),
      )
      rows.push([
        set.name,
        size,
        fixed(target),
        `${whole(rate.ours)} (ef ${ourEf}, ${fixed(await ourRecall(ourEf), 3)})`,
        `${whole(rate.theirs)} (ef ${theirEf}, ${fixed(await theirRecall(theirEf), 3)})`,
        fixed(rate.ratio),
        fixed(rate.cpuRatio),
      ])
    }
    const times = []
    for (let round = 0; round < given.rounds; round++) {
      const watch = new Stopwatch()
      await watch.run(() => ours.run(undefined, 0, set.queries.length))
      times.push(watch.wallMs)
    }
    const visited = (await collection.search({ vector: set.queries[0] ?? [], include: { payload: false } })).visited
    const chosenRate = (set.queries.length / median(times)) * 1000
    return { rows, chosen: [set.name, size, whole(chosenRate), fixed(await ourRecall(undefined), 3), whole(visited)] }
  })
}

const report = new Report('search', given.write)
await report.begin()
const rows = []
const chosen = []
for (const set of eachSet(given.sets ?? setNames, { base: given.base, queries: given.quick ? 200 : 500 })) {
  console.error(`${set.name} …`)
  const found = await measure(set)
  rows.push(...found.rows)
  chosen.push(found.chosen)
}
report.table(
  'Queries per second at equal recall@10 (beam and recall in brackets); the last column compares processor time',
  ['set', 'size', 'recall >=', 'isovec', 'hnswlib-node', 'ratio', 'ratio CPU'],
  rows,
)
report.table(
  'isovec with the beam that it picks by itself',
  ['set', 'size', 'queries/s', 'recall@10', 'visited'],
  chosen,
)
report.end()
