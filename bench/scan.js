/**
 * How many exact searches a second, against hnswlib-node's exhaustive index?
 */
import { readArguments } from './support/arguments.js'
import { withFilled } from './support/database.js'
import { fillPeerScan } from './support/peer.js'
import { recallOf } from './support/recall.js'
import { fixed, Report, whole } from './support/report.js'
import { eachSet, neighbourCount, setNames } from './support/sets.js'
import { median } from './support/statistics.js'
import { Stopwatch } from './support/stopwatch.js'

/** @typedef {import('./support/sets.js').VectorSet} VectorSet */

/** What single precision may lose among neighbours that are all but equally near. */
const recallMin = 0.998
/** Queries that one side answers before it is the other's turn. */
const queriesPerTurn = 10

const given = readArguments({ rounds: 7, quickRounds: 3, quickBase: 4000 })

/** @param {VectorSet} set */
function measure(set) {
  return withFilled(set, { folder: given.folder, graph: false }, async ({ collection }) => {
    const scan = await fillPeerScan(set)
    const plain = set.queries.map((query) => Array.from(query))
    const rounds = []
    for (let round = 0; round < given.rounds; round++) {
      /** @type {number[][]} */
      const ours = []
      /** @type {number[][]} */
      const theirs = []
      const our = new Stopwatch()
      const their = new Stopwatch()
      for (let from = 0; from < plain.length; from += queriesPerTurn) {
        await our.run(async () => {
          for (const vector of set.queries.slice(from, from + queriesPerTurn)) {
            const { hits } = await collection.search({
              vector,
              k: neighbourCount,
              mode: 'exact',
              include: { payload: false },
            })
            ours.push(hits.map(({ id }) => Number(id)))
          }
        })
        await their.run(() => {
          for (const query of plain.slice(from, from + queriesPerTurn))
            theirs.push(scan.searchKnn(query, neighbourCount).neighbors)
        })
      }
      for (const answers of [ours, theirs]) {
        const recall = recallOf(set.truth, answers)
        if (recall < recallMin) throw new Error(`${set.name}: an exact search with recall ${recall}`)
      }
      rounds.push({ our, their })
    }
    const rate = (/** @type {number[]} */ times) => fixed((set.queries.length / median(times)) * 1000, 1)
    return [
      set.name,
      `${whole(set.base.length)} x ${set.dimension}`,
      rate(rounds.map(({ our }) => our.wallMs)),
      rate(rounds.map(({ their }) => their.wallMs)),
      fixed(median(rounds.map(({ our, their }) => their.wallMs / our.wallMs))),
      fixed(median(rounds.map(({ our, their }) => their.cpuMs / our.cpuMs))),
    ]
  })
}

const report = new Report('scan', given.write)
await report.begin()
const rows = []
for (const set of eachSet(given.sets ?? setNames, { base: given.base, queries: given.quick ? 50 : 100 })) {
  console.error(`${set.name} …`)
  rows.push(await measure(set))
}
report.table('Exact searches per second', ['set', 'size', 'isovec', 'hnswlib-node', 'ratio', 'ratio CPU'], rows)
report.end()
