/**
 * Reads the database at argv[2] beside its writer until it is told `end`, moving on to its present state again and again. Other lines of
 * its input say which batches are acknowledged, by group: from the next refresh on nothing older may be seen. Ends with an error where
 * a read sees what it must not.
 */
import assert from 'node:assert/strict'
import { writeSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { setTimeout as pause } from 'node:timers/promises'
import { nodeBackend } from '../../src/directory/node.ts'
import { isIsovecError, openDatabase } from '../../src/index.ts'
import { type Batches, groups, type Payload, type ReaderReport, readGroup, readingCount } from './load.ts'

/** Synchronous, so that a report is out before anything else happens. */
function say(report: ReaderReport): void {
  writeSync(1, `${JSON.stringify(report)}\n`)
}

let isOver = false
let acknowledged: Batches = { awaited: 0, unawaited: 0 }
createInterface({ input: process.stdin }).on('line', (line) => {
  if (line === 'end') isOver = true
  else acknowledged = JSON.parse(line) as Batches
})

let stale = 0
/** Repeats what the writer was too quick for. */
async function patiently<T>(run: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await run()
    } catch (error) {
      if (!isIsovecError(error) || error.code !== 'STALE_READER') throw error
      stale++
      await pause(5)
    }
  }
}

const database = await patiently(() => openDatabase(nodeBackend(process.argv[2]!), { readOnly: true }))
const collection = await patiently(() => database.openCollection<Payload>('c'))
let reads = 0
let refreshes = 0
async function readState(): Promise<void> {
  const least = acknowledged
  await database.refresh()
  refreshes++
  for (const group of groups) {
    const seen = new Set<number>()
    for (let way = 0; way < readingCount; way++, reads++) seen.add(await readGroup(collection, group, way))
    // Between two refreshes nothing moves.
    assert.equal(seen.size, 1, `${group} was ${[...seen]} without a refresh`)
    assert.ok([...seen][0]! >= least[group], `${group} was ${[...seen]} behind ${least[group]}`)
  }
}

let sampledAt = 0
while (!isOver) {
  await patiently(readState)
  // As a reader that looks now and then, so that the writer has the processor, too.
  await pause(50)
  if (performance.now() - sampledAt < 250) continue
  sampledAt = performance.now()
  const { memoryBytes: linear } = await database.info()
  say({ sample: { resident: process.memoryUsage.rss(), linear } })
}
await database.close()
say({ over: { reads, refreshes, stale } })
process.exit()
