/**
 * What do fresh writes cost a search? They lie in the memtable, which is scanned beside the graph until it is flushed.
 */
import { openDatabase } from 'isovec'
import { readArguments } from './support/arguments.js'
import { documentsOf, withFilled } from './support/database.js'
import { recallOf } from './support/recall.js'
import { fixed, Report, whole } from './support/report.js'
import { eachSet, nearestRows, neighbourCount, setNames } from './support/sets.js'
import { median } from './support/statistics.js'

/** @typedef {import('./support/sets.js').VectorSet} VectorSet */
/** @typedef {import('isovec').Collection} Collection */

const batchRows = 64
const recallLossMax = 0.05

const given = readArguments({ rounds: 7, quickRounds: 3, base: 30_000, quickBase: 6000 })

/**
 * The most rows that a memtable of a collection holds before it is flushed by itself, found by filling one.
 *
 * @param {VectorSet} set
 */
async function memtableRows({ dimension, metric, base }) {
  const database = await openDatabase(':memory:')
  try {
    const collection = await database.createCollection('probe', {
      dimension,
      metric,
      index: 'manual',
      compaction: 'manual',
    })
    for (let from = 0; ; from += batchRows) {
      const vectors = Array.from({ length: batchRows }, (_, place) => base[(from + place) % base.length] ?? [])
      await collection.upsert(vectors.map((vector, place) => ({ id: String(from + place), vector })))
      // The first segment is what filled the memtable; writes may be ahead of it by now.
      const { segments, segmentDocs } = await collection.stats()
      if (segments > 0) return segmentDocs / segments - batchRows
    }
  } finally {
    await database.close()
  }
}

/**
 * Median queries per second, and recall.
 *
 * @param {Collection} collection
 * @param {VectorSet} set
 * @param {readonly ReadonlySet<number>[]} truth
 */
async function rateOf(collection, { queries }, truth) {
  const times = []
  let recall = 0
  for (let round = 0; round < given.rounds; round++) {
    const answers = []
    const started = performance.now()
    for (const vector of queries) {
      const { hits } = await collection.search({ vector, k: neighbourCount, include: { payload: false } })
      answers.push(hits.map(({ id }) => Number(id)))
    }
    times.push(performance.now() - started)
    recall = recallOf(truth, answers)
  }
  return { rate: (queries.length / median(times)) * 1000, recall }
}

/** @param {VectorSet} set */
async function measure(set) {
  const fullRows = Math.min(await memtableRows(set), Math.floor(set.base.length / 2))
  // The last rows of the set are the fresh ones; the truth over all rows is the same as before.
  const settled = set.base.slice(0, set.base.length - fullRows)
  const fresh = set.base.slice(settled.length)
  const settledTruth = set.queries.map((query) => nearestRows(settled, query, neighbourCount))
  return withFilled({ ...set, base: settled }, { folder: given.folder, graph: true }, async ({ collection }) => {
    const empty = await rateOf(collection, set, settledTruth)
    const documents = [...documentsOf(fresh, settled.length)]
    for (let from = 0; from < documents.length; from += batchRows)
      await collection.upsert(documents.slice(from, from + batchRows))
    const { memtableDocs, segments } = await collection.stats()
    if (memtableDocs !== fullRows || segments !== 1) throw new Error(`${memtableDocs} fresh rows, ${segments} segments`)
    const full = await rateOf(collection, set, set.truth)
    if (full.recall < empty.recall - recallLossMax)
      throw new Error(`recall fell from ${empty.recall} to ${full.recall}`)
    return [
      set.name,
      `${whole(settled.length)} x ${set.dimension}`,
      whole(empty.rate),
      whole(fullRows),
      whole(full.rate),
      fixed(full.rate / empty.rate),
      fixed(1000 / full.rate - 1000 / empty.rate),
      `${fixed(empty.recall, 3)} / ${fixed(full.recall, 3)}`,
    ]
  })
}

const report = new Report('memtable', given.write)
await report.begin()
const rows = []
for (const set of eachSet(given.sets ?? setNames, { base: given.base, queries: 200 })) {
  console.error(`${set.name} …`)
  rows.push(await measure(set))
}
report.table(
  'Queries per second beside a graph, with an empty and with a full memtable, beam as isovec picks it',
  ['set', 'graph', 'empty', 'rows of full', 'full', 'ratio', 'added ms', 'recall@10'],
  rows,
)
report.end()
