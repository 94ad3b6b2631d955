/**
 * How long does a graph take, against hnswlib-node's over the same vectors with the same parameters?
 *
 * isovec's time is that of `buildIndex` on one flushed segment, including the file that it writes; hnswlib-node's is that of its
 * calls of `addPoint`. Rounds alternate in this process.
 */
import { readArguments } from './support/arguments.js'
import { hnsw, withFilled } from './support/database.js'
import { buildPeerGraph } from './support/peer.js'
import { recallOf } from './support/recall.js'
import { fixed, Report, whole } from './support/report.js'
import { eachSet, neighbourCount, setNames } from './support/sets.js'
import { median } from './support/statistics.js'

/** @typedef {import('./support/sets.js').VectorSet} VectorSet */

/** The beam at which both graphs must answer alike, so that no time is compared with that of a worse graph. */
const checkedEf = 100
const recallLossMax = 0.03

const given = readArguments({ rounds: 3, quickRounds: 1, base: 20_000, quickBase: 3000 })

/** @param {VectorSet} set */
async function measure(set) {
  const rounds = []
  for (let round = 0; round < given.rounds; round++) {
    const ours = await withFilled(set, { folder: given.folder, graph: true }, async (filled) => {
      const answers = []
      for (const vector of set.queries) {
        const { hits } = await filled.collection.search({
          vector,
          k: neighbourCount,
          ef: checkedEf,
          include: { payload: false },
        })
        answers.push(hits.map(({ id }) => Number(id)))
      }
      const { build, ingest } = filled
      return { build, storedMs: build.wallMs + ingest.wallMs, recall: recallOf(set.truth, answers) }
    })
    const { graph, build } = await buildPeerGraph(set)
    graph.setEf(checkedEf)
    const answers = set.queries.map((query) => graph.searchKnn(Array.from(query), neighbourCount).neighbors)
    const recall = recallOf(set.truth, answers)
    if (ours.recall < recall - recallLossMax) {
      throw new Error(`${set.name}: recall ${ours.recall} is no match for ${recall}: the times don't compare`)
    }
    rounds.push({ ...ours, peer: build, peerRecall: recall })
  }
  const seconds = (/** @type {number[]} */ values) => fixed(median(values) / 1000)
  return [
    set.name,
    `${whole(set.base.length)} x ${set.dimension}`,
    seconds(rounds.map(({ build }) => build.wallMs)),
    seconds(rounds.map(({ peer }) => peer.wallMs)),
    fixed(median(rounds.map(({ build, peer }) => build.wallMs / peer.wallMs))),
    fixed(median(rounds.map(({ build, peer }) => build.cpuMs / peer.cpuMs))),
    seconds(rounds.map(({ storedMs }) => storedMs)),
    fixed(median(rounds.map(({ storedMs, peer }) => storedMs / peer.wallMs))),
    fixed(median(rounds.map(({ recall }) => recall)), 3),
    fixed(median(rounds.map(({ peerRecall }) => peerRecall)), 3),
  ]
}

const report = new Report('build', given.write)
await report.begin()
const rows = []
for (const set of eachSet(given.sets ?? setNames, { base: given.base, queries: 200 })) {
  console.error(`${set.name} …`)
  rows.push(await measure(set))
}
report.table(
  `Seconds to build a graph of M ${hnsw.M}, efConstruction ${hnsw.efConstruction}; "stored" is ingest, merge and graph, synced`,
  [
    'set',
    'size',
    'isovec',
    'hnswlib-node',
    'ratio',
    'ratio CPU',
    'stored',
    'ratio stored',
    `recall, ef ${checkedEf}`,
    'hnswlib-node',
  ],
  rows,
)
report.end()
