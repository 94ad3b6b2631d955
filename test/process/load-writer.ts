/**
 * Writes to a collection in three ways and reads it in many, for some seconds: `<path> <seconds>`. Ends with an error where a read sees
 * what it must not, or where a write fails that must not.
 */
import assert from 'node:assert/strict'
import { writeSync } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import { nodeBackend } from '../../src/directory/node.ts'
import { type IsovecError, openDatabase } from '../../src/index.ts'
import {
  type Batches,
  burstBatchSize,
  dimension,
  documentsOf,
  groupSize,
  groups,
  longSeconds,
  type Payload,
  readGroup,
  readingCount,
  type WriterReport,
} from './load.ts'

const [, , path, seconds] = process.argv
const readerCount = 12
/** Bytes of writes that may wait for their turn. */
const waitingSizeMax = 256 * 1024 * 1024
/** Batches of a burst: one that fits the queue, and one that doesn't. */
const smallBurst = 10
const largeBurst = Math.ceil((1.2 * waitingSizeMax) / burstBatchSize)
const ringSize = 4000
/** Documents that may have been taken from a source without having been stored. */
const takenMax = 5000

/** Synchronous, so that a report is out before anything else happens. */
function say(report: WriterReport): void {
  writeSync(1, `${JSON.stringify(report)}\n`)
}

const database = await openDatabase(nodeBackend(path!))
const collection = await database.createCollection<Payload>('c', { dimension, metric: 'euclidean' })
const issued: Batches = { awaited: 0, unawaited: 0 }
const acknowledged: Batches = { awaited: 0, unawaited: 0 }
for (const group of groups) await collection.upsert(documentsOf(group, 0))
say({ ready: true })

const until = performance.now() + Number(seconds) * 1000
const isOver = (): boolean => performance.now() >= until

async function writeAwaited(): Promise<void> {
  for (let batch = 1; !isOver(); batch++) {
    issued.awaited = batch
    await collection.upsert(documentsOf('awaited', batch), { durability: batch % 8 === 0 ? 'strict' : 'buffered' })
    acknowledged.awaited = batch
    if (batch % 100 === 0) await collection.flush()
    if (batch % 3000 === 0) await collection.compact()
  }
}

/** Bursts that are asked for in one turn. In a long run some are more than may wait, so that writes must be refused. */
let refused = 0
async function writeUnawaited(): Promise<void> {
  for (let burst = 1; !isOver(); burst++) {
    const isLarge = Number(seconds) >= longSeconds && burst % 16 === 4
    const outcomes = Array.from({ length: isLarge ? largeBurst : smallBurst }, () => {
      const batch = ++issued.unawaited
      return collection.upsert(documentsOf('unawaited', batch), { durability: 'buffered' }).then(
        () => {
          acknowledged.unawaited = batch
          return 'stored'
        },
        ({ code, outcome }: IsovecError) => `${code} ${outcome}`,
      )
    })
    const settled = await Promise.all(outcomes)
    const stored = settled.filter((outcome) => outcome === 'stored').length
    refused += settled.length - stored
    assert.ok(stored * burstBatchSize <= waitingSizeMax, `${stored} batches were let into the queue`)
    assert.deepEqual(new Set(settled), new Set(isLarge ? ['stored', 'OUT_OF_MEMORY none'] : ['stored']))
    await pause(200)
  }
}

let ingested = 0
async function ingest(): Promise<void> {
  let taken = 0
  async function* source() {
    for (; !isOver(); taken++) {
      // No faster than that, so that the processor is left to the readers, too.
      if (taken % 100 === 0) await pause(20)
      assert.ok(taken - ingested <= takenMax, `${taken - ingested} documents were taken and are not stored`)
      const vector = Array.from({ length: dimension }, (_, d) => Math.sin(taken * (d + 1)))
      yield { id: `ring-${taken % ringSize}`, vector, payload: { group: 'ring', batch: taken } }
    }
  }
  const onProgress = ({ count }: { count: number }): void => {
    ingested = count
  }
  const { count } = await collection.ingest(source(), { durability: 'buffered', onProgress })
  assert.equal(count, taken)
  ingested = count
}

let reads = 0
let slowestReadMs = 0
async function read(number: number): Promise<void> {
  const last: Batches = { awaited: 0, unawaited: 0 }
  for (let turn = number; !isOver(); turn++) {
    const group = groups[turn % groups.length]!
    const least = Math.max(last[group], acknowledged[group])
    const began = performance.now()
    const batch = await readGroup(collection, group, (turn >> 1) % readingCount)
    slowestReadMs = Math.max(slowestReadMs, performance.now() - began)
    assert.ok(batch >= least && batch <= issued[group], `${group} was ${batch} behind ${least}`)
    last[group] = batch
    reads++
  }
}

/** What was asked for may take longer than the time in which it is asked for; it is watched to its end. */
let isSettled = false
async function watchLog(): Promise<void> {
  while (!isSettled) {
    say({ logSize: (await collection.stats()).walBytes })
    await pause(250)
  }
}

async function watchMemory(): Promise<void> {
  while (!isSettled) {
    const { memoryBytes: linear } = await database.info()
    say({ sample: { resident: process.memoryUsage.rss(), linear }, acknowledged })
    await pause(250)
  }
}

const readers = Array.from({ length: readerCount }, (_, number) => read(number))
const watching = Promise.all([watchLog(), watchMemory()])
await Promise.all([writeAwaited(), writeUnawaited(), ingest(), ...readers])
isSettled = true
await watching
await collection.compact()
const { segmentDocs: mergedDocs } = await collection.stats()
assert.equal(mergedDocs, groups.length * groupSize + Math.min(ringSize, ingested))
await database.close()
say({ over: { batches: acknowledged, reads, slowestReadMs, refused, ingested, mergedDocs } })
