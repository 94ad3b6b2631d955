/**
 * What is run against a mutant, and against the sources as they are: each harness throws for the first thing that is not as it was
 * said. They are the tests of storage, with budgets that end after seconds and with what is caught most often tried first.
 */
import assert from 'node:assert/strict'
import { seededChoice } from '../../src/directory/crash-image.ts'
import { faultyBackend } from '../../src/directory/faulty.ts'
import { memoryBackend, type StoreImage } from '../../src/directory/memory.ts'
import { type Collection, type IsovecError, isIsovecError, openDatabase, type StorageBackend } from '../../src/index.ts'
import { repaired } from '../fuzz/repair.ts'
import { CrashRun } from '../support/crash-run.ts'
import { bufferedWork, mixedWork, namedWork, shortWork } from '../support/crash-work.ts'
import { changed, filesOf, flipped, ofKind, sectionsOf } from '../support/damage.ts'
import { DamageRun, loggedImage, readDamaged, segmentedImage } from '../support/damage-run.ts'
import { onFailure } from '../support/events.ts'
import type { FaultRun } from '../support/fault-run.ts'
import { FaultSeries } from '../support/fault-work.ts'
import { changeWhileMerging } from '../support/merge-work.ts'
import { MortalProcess } from '../support/mortal.ts'
import {
  patchBeforeFlushOnFullDisk,
  patchTwiceInOneBatch,
  patchWhileFlushing,
  patchWhileMergingAndFlushing,
} from '../support/patch-work.ts'
import { Scenario } from '../support/scenario.ts'
import { SpareRun } from '../support/spare-run.ts'

/** Images that one harness recovers at most. */
const crashStatesMax = 700

/** Crashes of short work, then of mixed work. */
async function crashes(seed: number): Promise<string> {
  const run = new CrashRun(seed)
  const short = new Scenario(seededChoice(seed))
  await shortWork(short)
  await run.crashEverywhere(short, 1, 1000)
  for (let round = 1; run.states.size < crashStatesMax; round++) {
    const scenario = new Scenario(seededChoice(seed + round))
    await mixedWork(scenario, 12)
    await run.crashEverywhere(scenario, 2, 40, () => run.states.size >= crashStatesMax)
  }
  return `${run.states.size} crash states`
}

/** Crashes of work that is acknowledged before it is synced, the latest ones first. */
async function buffered(seed: number): Promise<string> {
  const run = new CrashRun(seed)
  const scenario = new Scenario(seededChoice(seed))
  await bufferedWork(scenario)
  const lateFrom = scenario.backend.changes.length - 40
  await run.crashEverywhere(scenario, 4, 1000, () => false, lateFrom)
  await run.crashEverywhere(scenario, 3, 1000)
  return `${run.states.size} crash states`
}

/** Crashes while collections come and go. */
async function names(seed: number): Promise<string> {
  const run = new CrashRun(seed)
  const scenario = new Scenario(seededChoice(seed))
  await namedWork(scenario)
  await run.crashEverywhere(scenario, 2, 1000)
  return `${run.states.size} crash states`
}

/** Damage where a process ends at any call of short work. */
async function spares(seed: number): Promise<string> {
  const run = new SpareRun(seededChoice(seed))
  const scenario = new Scenario(seededChoice(seed))
  await shortWork(scenario)
  await run.damageEverywhere(scenario)
  return `${run.checked} damaged crash states, ${run.refused} refused`
}

/** The same behind a crash, and up to a generation that replaces files of the one before. */
async function lateSpares(seed: number): Promise<string> {
  const run = new SpareRun(seededChoice(seed))
  const scenario = new Scenario(seededChoice(seed))
  await bufferedWork(scenario)
  await run.damageEverywhere(scenario, () => false, 48)
  return `${run.checked} damaged crash states, ${run.refused} refused`
}

/** Graphs that were acknowledged are there after power loss. Without one a search finds the same, only later. */
async function graphs(seed: number): Promise<string> {
  const backend = faultyBackend()
  const db = await openDatabase(backend)
  const docs = await db.createCollection('docs', { dimension: 2, metric: 'euclidean', index: 'manual' })
  await docs.upsert(Array.from({ length: 1100 }, (_, i) => ({ id: `d${i}`, vector: [i % 37, i] })))
  await docs.buildIndex()
  const builtAt = backend.changes.length
  await db.close()
  for (let round = 0; round < 8; round++) {
    const choose = round === 0 ? () => 0 : seededChoice(seed + round)
    const errors: IsovecError[] = []
    const again = await openDatabase(memoryBackend(backend.crashImage({ kind: 'power', at: builtAt, choose })), {
      onEvent: onFailure((error) => errors.push(error)),
    })
    try {
      const collection = await again.openCollection('docs')
      await collection.search({ vector: [1, 2], k: 3, mode: 'approximate' })
      assert.deepEqual(errors, [], 'a graph that was acknowledged is damaged')
    } finally {
      await again.close()
    }
  }
  return '8 power losses'
}

/** Changes while segments are merged. */
async function merge(): Promise<string> {
  await changeWhileMerging()
  return 'a compaction under changes'
}

/** Patches while their documents are on the way from one file to another, and before damage. */
async function patches(): Promise<string> {
  await patchTwiceInOneBatch()
  await patchWhileMergingAndFlushing()
  await patchWhileFlushing()
  await patchBeforeFlushOnFullDisk()
  return 'patches at four moments'
}

/** Bits of a database that is all in its log. */
async function bits(): Promise<string> {
  const run = new DamageRun()
  const { image } = await loggedImage('crash')
  const whole = (await readDamaged(image))!
  const files = filesOf(image).sort((a, b) => Number(b.name.endsWith('.wal')) - Number(a.name.endsWith('.wal')))
  for (const file of files) {
    const step = file.name.endsWith('.wal') ? 3 : 41
    for (let bit = 0; bit < file.bytes.length * 8; bit += step) {
      const outcome = await run.flip(image, file, bit, whole)
      if (file.name.endsWith('.manifest')) assert.equal(outcome, 'equal', `bit ${bit} of ${file.name}`)
    }
  }
  return `${run.bits} bits`
}

/** Bits of a database with files of every kind. */
async function segmentBits(seed: number): Promise<string> {
  const run = new DamageRun()
  const image = await segmentedImage()
  const whole = (await readDamaged(image, [[1, 2, 3, 4]]))!
  for (const file of filesOf(image).filter(({ name }) => /seg|graph|del|patch/.test(name))) {
    // Bytes at the beginning of every section: numbers, ids, and a digit of the first payload.
    const places = /seg|graph/.test(file.name)
      ? sectionsOf(file.bytes).flatMap(({ offset }) => [offset, offset + 5])
      : [64, 72]
    for (const place of places) await run.flip(image, file, place * 8, whole, [[1, 2, 3, 4]])
    for (let place = 40; place < 128; place += 8) await run.flip(image, file, place * 8, whole, [[1, 2, 3, 4]])
  }
  const wholeAgain = (await readDamaged(image, segmentQueries))!
  await run.flipSome(image, wholeAgain, seededChoice(seed), 8)
  return `${run.bits} bits`
}

const segmentQueries = [
  [0.5, 3, 0, 1],
  [20, 700, 1, 0],
]

/** Damage of what only the newest generation names, met by a database that goes on to commit, twice. */
async function proving(): Promise<string> {
  const backend = memoryBackend()
  const db = await openDatabase(backend)
  const docs = await db.createCollection('docs', { dimension: 2, metric: 'euclidean', compaction: 'manual' })
  for (const id of ['a', 'b']) {
    await docs.upsert([{ id, vector: [1, 2], payload: { id } }])
    await docs.flush()
  }
  await db.close()
  const image = backend.image()
  const newest = ofKind(image, 'seg').at(-1)!
  const sections = sectionsOf(newest.bytes)
  for (const { offset, id } of sections) {
    const store = memoryBackend(changed(image, 1, newest.name, flipped(newest.bytes, offset * 8)))
    await using(store, async (collection) => {
      await collection.upsert([{ id: 'c', vector: [3, 4], payload: { id: 'c' } }])
      // A flush that is asked for looks for damage by itself, other commits do so as a part of committing.
      await collection.configure({ index: 'manual' })
      await collection.flush()
      assert.deepEqual(await idsOf(collection), ['a', 'b', 'c'], `section ${id}`)
    })
    await using(store, async (collection) => assert.deepEqual(await idsOf(collection), ['a', 'b', 'c']))
    const second = store.image()
    const next = ofKind(second, 'seg').at(-1)!
    const again = memoryBackend(
      changed(second, 1, next.name, flipped(next.bytes, sectionsOf(next.bytes)[0]!.offset * 8)),
    )
    await using(again, async (collection) =>
      assert.deepEqual(await idsOf(collection), ['a', 'b', 'c'], 'damaged twice'),
    )
  }
  await fallBackWhileOpen(image, newest.name)
  return `${sections.length} sections`
}

/** A database that falls back while it is open and ends at some call of the flush, after which what it wrote last is damaged, too. */
async function fallBackWhileOpen(image: StoreImage, name: string): Promise<void> {
  const newest = ofKind(image, 'seg').find((file) => file.name === name)!
  for (const { offset } of sectionsOf(newest.bytes)) {
    const backend = faultyBackend({ image: changed(image, 1, name, flipped(newest.bytes, offset * 8)) })
    let writtenAt = 0
    await using(backend, async (collection) => {
      await collection.upsert([{ id: 'c', vector: [3, 4], payload: { id: 'c' } }])
      writtenAt = backend.changes.length
      await collection.flush()
    })
    for (let at = writtenAt; at <= backend.changes.length; at += 2) {
      const left = backend.crashImage({ kind: 'process', at })
      const last = ofKind(left, 'seg').at(-1)!
      const damaged = last.bytes.length === 0 ? left : changed(left, 1, last.name, flipped(last.bytes, 0))
      await using(memoryBackend(damaged), async (collection) =>
        assert.deepEqual(await idsOf(collection), ['a', 'b', 'c'], `damaged twice, with a crash at ${at} between`),
      )
    }
  }
}

async function using(store: StorageBackend, run: (collection: Collection) => Promise<unknown>): Promise<void> {
  const db = await openDatabase(store)
  try {
    await run(await db.openCollection('docs'))
  } finally {
    await db.close()
  }
}

async function idsOf(collection: Collection): Promise<string[]> {
  const ids: string[] = []
  for await (const { id, payload } of collection.iterate()) {
    assert.deepEqual({ ...payload }, { id })
    ids.push(id)
  }
  return ids.sort()
}

/** Databases whose root, or all of whose manifests, are gone. */
async function lostRoots(): Promise<string> {
  const { image } = await loggedImage('close')
  const damaged = new Map([...image.root!].map(([name, bytes]) => [name, flipped(bytes, 700)]))
  const images: StoreImage[] = [
    { root: new Map(), directories: image.directories },
    { root: image.root, directories: new Map() },
    { root: damaged, directories: image.directories },
    { root: damaged, directories: new Map() },
  ]
  for (const each of images) assert.equal(await readDamaged(each), undefined, 'what cannot be read was begun anew')
  return `${images.length} roots`
}

/** Two writers at once, as where the lock has failed. */
async function twoWriters(): Promise<string> {
  const store = memoryBackend()
  const first = await openDatabase(new MortalProcess(store))
  const docs = await first.createCollection('docs', { dimension: 1, metric: 'dot' })
  await docs.upsert({ id: 'a', vector: [1] })
  await docs.flush()
  const second = await openDatabase(new MortalProcess(store))
  const others = await second.openCollection('docs')
  for (let i = 0; i < 4; i++) {
    await others.upsert({ id: `b${i}`, vector: [1] })
    await others.flush()
  }
  // Enough of them for the number of the next generation of the first to be free again.
  await docs.upsert({ id: 'late', vector: [2] })
  const error = await docs.flush().then(
    () => undefined,
    (failure: unknown) => failure,
  )
  assert.ok(isIsovecError(error) && error.code === 'READ_ONLY', `a writer that was left behind committed: ${error}`)
  await second.close()
  await first.close().catch(() => {})
  const third = await openDatabase(store)
  assert.equal(await (await third.openCollection('docs')).count(), 5)
  await third.close()
  return 'two writers'
}

/** Logs that say what no writer writes, under checksums that hold. */
async function forgeries(): Promise<string> {
  const { image } = await loggedImage('crash')
  const log = ofKind(image, 'wal')[0]!
  const third = recordsOf(log.bytes)[2]!
  // The second operation of the third batch: behind the count, the first operation's header, its id and its vector.
  const halved = log.bytes.slice()
  halved[third + 32 + 8 + 8 + 2 + 4] = 9
  await expectRefused(image, '1.wal', halved, 'a batch with an operation of no kind')
  const gap = log.bytes.slice()
  viewOf(gap).setUint32(third + 16, 4, true)
  await expectRefused(image, '1.wal', gap, 'a log that leaves a sequence out')

  const { image: closed } = await loggedImage('close')
  const store = memoryBackend(closed)
  let two: StoreImage | undefined
  await using(store, async (collection) => {
    await collection.upsert({ id: 'e', vector: [9] })
    two = store.image()
  })
  const next = ofKind(two!, 'wal').at(-1)!
  const forged = next.bytes.slice()
  viewOf(forged).setUint32(80, 4, true)
  viewOf(forged).setUint32(recordsOf(forged)[0]! + 16, 5, true)
  await expectRefused(two!, next.name, forged, 'a log that begins later than the one before has ended')
  return '3 forged logs'
}

async function expectRefused(image: StoreImage, name: string, bytes: Uint8Array, what: string): Promise<void> {
  const forged = await repaired(changed(image, 1, name, bytes), new Set([`1/${name}`]), 'checksums')
  assert.equal(await readDamaged(forged), undefined, `${what} was taken`)
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

/** Offsets of the batches of a log. */
function recordsOf(log: Uint8Array): number[] {
  const offsets: number[] = []
  for (let at = 128; at < log.length; at += 32 + Math.ceil(viewOf(log).getUint32(at + 8, true) / 8) * 8 + 8) {
    if (log[at + 4] === 1) offsets.push(at)
  }
  return offsets
}

/** A fault at every call, of the sorts that stand for a rule each. */
async function faults(seed: number): Promise<string> {
  const series = new FaultSeries(seed)
  const labels = ['half an append, EIO', 'failed sync', 'full once, half an append', 'full at a sync']
  await series.failEverywhere(briefWork, labels)
  return `${series.runs} runs, ${series.struck} calls failed`
}

async function briefWork(run: FaultRun): Promise<void> {
  const options = { dimension: 2, metric: 'euclidean', compaction: 'manual', index: 'manual' } as const
  if (!(await run.open()) || !(await run.create('alpha', options))) return
  const vector = [1, 2]
  await run.write([{ upsert: { id: 'a', vector } }, { upsert: { id: 'b', vector } }])
  await run.write([{ upsert: { id: 'c', vector } }, { delete: 'a' }])
  await run.settle(() => run.collection!.flush())
  await run.write([{ delete: 'b' }], 'buffered')
  await run.settle(() => run.collection!.flush())
  await run.write([{ upsert: { id: 'd', vector } }])
}

/** A disk that fills up, and what must be possible then. */
async function fullDisk(): Promise<string> {
  const backend = faultyBackend({ capacity: 1024 * 1024 })
  const db = await openDatabase(backend)
  const options = { dimension: 64, metric: 'euclidean', compaction: 'manual', index: 'manual' } as const
  const docs = await db.createCollection('docs', options)
  await db.createCollection('other', options)
  const ids = Array.from({ length: 640 }, (_, i) => `d${i}`)
  for (const id of ids) {
    const vector = Array.from({ length: 64 }, (_, i) => Number(id.slice(1)) + i)
    await docs.upsert({ id, vector, payload: { text: 'x'.repeat(200) } })
    if (id === 'd320') await docs.flush()
  }
  // What others take leaves nothing but the reserve.
  const file = await (await backend.open({ create: false })).create('other.bin')
  await assert.rejects(file.append(new Uint8Array(1 << 24)), { code: 'QUOTA_EXCEEDED' })
  await file.close()
  await db.dropCollection('other')
  const doomed = ids.filter((_, i) => i % 32 !== 0)
  for (let from = 0; from < doomed.length; from += 50) {
    const some = doomed.slice(from, from + 50)
    assert.equal(await docs.delete(some), some.length)
  }
  await docs.compact()
  await docs.upsert({ id: 'again', vector: Array.from({ length: 64 }, () => 1) })
  assert.equal(await docs.count(), ids.length - doomed.length + 1)
  await db.close()
  return `${ids.length} documents on a full disk`
}

/** Every harness; each is given a seed and says what it has done. */
export const harnesses = {
  crashes,
  buffered,
  names,
  spares,
  'late spares': lateSpares,
  graphs,
  merge,
  patches,
  bits,
  'segment bits': segmentBits,
  proving,
  'lost roots': lostRoots,
  'two writers': twoWriters,
  forgeries,
  faults,
  'full disk': fullDisk,
} satisfies { [name: string]: (seed: number) => Promise<string> }

export type HarnessName = keyof typeof harnesses
