import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Choice, imageKey, seededChoice } from '../../src/directory/crash-image.ts'
import { faultyBackend } from '../../src/directory/faulty.ts'
import type { StoreImage } from '../../src/directory/memory.ts'
import { openDatabase } from '../../src/index.ts'
import { type CrashKind, digestOf, History, Timeline } from '../support/history.ts'
import { checkRecovery, readDatabase } from '../support/recovered.ts'
import { Scenario } from '../support/scenario.ts'
import { seed, seedCrypto } from '../support/seed.ts'

/** Every image that was recovered, over all tests. */
const states = new Set<string>()
const recoveryStates = new Set<string>()
let restoreCrypto: () => void

beforeAll(() => {
  restoreCrypto = seedCrypto(seed)
})
afterAll(() => {
  restoreCrypto()
  console.log(
    `crash states: ${states.size} distinct, ${recoveryStates.size} of them in recovery itself (ISOVEC_SEED=${seed})`,
  )
})

/** Recovers what each kind of crash leaves at every call. */
async function crashEverywhere(scenario: Scenario, powerImages: number, recoveryStep: number): Promise<void> {
  const { backend, history } = scenario
  for (let at = 0; at <= backend.changes.length; at++) {
    for (let round = -2; round < powerImages; round++) {
      const choose = seededChoice(seed ^ Math.imul(at * 64 + round + 2, 0x9e3779b1))
      const kind: CrashKind = round < 0 ? 'process' : 'power'
      // The first image of a process is between two calls, the second within one.
      const image = backend.crashImage(round === -2 ? { kind, at } : { kind, at, choose })
      await checkOnce(image, history, kind, at, choose)
      if (at % recoveryStep === 0 && round === (at / recoveryStep) % powerImages) {
        await crashInRecovery(image, kind, at, choose)
      }
    }
  }
}

async function checkOnce(
  image: StoreImage,
  history: History,
  kind: CrashKind,
  at: number,
  choose: Choice,
): Promise<void> {
  const key = imageKey(image)
  if (states.has(key)) return
  states.add(key)
  try {
    await checkRecovery(image, history, kind, at, choose)
  } catch (error) {
    throw new Error(`${kind} crash after change ${at} (ISOVEC_SEED=${seed}): ${(error as Error).message}`, {
      cause: error,
    })
  }
}

/** Recovers, with a crash at every call of that, from which recovery must still give the same. */
async function crashInRecovery(image: StoreImage, kind: CrashKind, at: number, choose: Choice): Promise<void> {
  const backend = faultyBackend({ image })
  const db = await openDatabase(backend)
  const found = await readDatabase(db, choose, 1)
  const names = new Map([...found.keys()].map((name, index) => [name, index]))
  const recovered = new History(0, names)
  for (const [name, contents] of found) recovered.collections.set(names.get(name)!, new Timeline(0, digestOf(contents)))
  await db.close()
  for (let stop = 0; stop <= backend.changes.length; stop++) {
    for (const again of ['process', 'power', 'power'] as const) {
      const second = backend.crashImage({ kind: again, at: stop, choose })
      const key = imageKey(second)
      if (states.has(key)) continue
      recoveryStates.add(key)
      try {
        await checkOnce(second, recovered, again, stop, choose)
      } catch (error) {
        throw new Error(
          `after a ${kind} crash at ${at}, at change ${stop} of the recovery: ${(error as Error).message}`,
          {
            cause: error,
          },
        )
      }
    }
  }
}

/** Writes, flushes, merges, renames, drops, closes and crashes in an order that the seed decides. */
async function mixedWork(scenario: Scenario, steps: number): Promise<void> {
  const { choose } = scenario
  await scenario.open()
  await scenario.create('alpha', { dimension: 3, metric: 'euclidean' })
  await scenario.create('beta', { dimension: 2, durability: 'buffered', compaction: 'manual' })
  for (let step = 0; step < steps; step++) {
    const name = choose(2) === 0 ? 'alpha' : 'beta'
    const action = choose(21)
    if (action < 5) await scenario.write(name, 1 + choose(4))
    else if (action < 7) await scenario.write(name, 1 + choose(4), choose(2) === 0 ? 'strict' : 'buffered')
    else if (action < 9)
      for (let i = 0; i < 4; i++) void scenario.write(choose(2) === 0 ? 'alpha' : 'beta', 1 + choose(3))
    else if (action < 12) await scenario.barrier(name, (collection) => collection.flush())
    else if (action === 12) void scenario.barrier(name, (collection) => collection.flush())
    else if (action === 13) await scenario.barrier(name, (collection) => collection.compact())
    else if (action === 14) await scenario.barrier(name, (collection) => collection.sync())
    else if (action === 15) await changeCollections(scenario)
    else if (action < 18) await scenario.reopen()
    else if (action === 18) void scenario.deleteWhere(name)
    else {
      for (let i = 0; i < 3; i++) void scenario.write(choose(2) === 0 ? 'alpha' : 'beta', 1 + choose(3))
      if (choose(2) === 0) void scenario.barrier(name, (collection) => collection.compact())
      await scenario.crash(choose(16))
    }
  }
  await scenario.settle()
  await scenario.close()
}

async function changeCollections(scenario: Scenario): Promise<void> {
  await scenario.settle()
  if (!scenario.names.has('gamma')) {
    await scenario.create('gamma', { dimension: 1, metric: 'dot' })
    await scenario.write('gamma', 2)
  } else if (scenario.choose(2) === 0) {
    await scenario.rename('gamma', 'delta')
  } else {
    await scenario.drop('gamma')
  }
}

/** A collection with graphs: built, outdated by writes and deletes, merged. */
async function indexedWork(scenario: Scenario): Promise<void> {
  const { choose } = scenario
  await scenario.open()
  await scenario.create('big', {
    dimension: 4,
    metric: 'euclidean',
    index: 'manual',
    compaction: 'manual',
    hnsw: { M: 4, efConstruction: 16 },
  })
  const documents = (count: number) =>
    Array.from({ length: count }, () => ({ upsert: scenario.document(undefined, 4) }))
  const half = documents(600)
  await scenario.writeOperations('big', half, 'buffered')
  await scenario.writeOperations('big', documents(500))
  await scenario.barrier('big', (collection) => collection.buildIndex())
  await scenario.writeOperations(
    'big',
    half.slice(0, 30).map(({ upsert }) => ({ delete: upsert.id })),
  )
  await scenario.write('big', 20)
  await scenario.barrier('big', (collection) => collection.flush())
  await scenario.write('big', 8)
  const compacting = scenario.barrier('big', (collection) => collection.compact())
  await scenario.write('big', 12)
  await compacting
  await scenario.write('big', 5)
  await scenario.reopen()
  await scenario.write('big', 5)
  await scenario.barrier('big', (collection) => collection.dropIndex())
  void scenario.barrier('big', (collection) => collection.buildIndex({ M: 5, efConstruction: 12 }))
  await scenario.write('big', 3)
  await scenario.crash(10 + choose(10))
  await scenario.write('big', 3)
  await scenario.barrier('big', (collection) => collection.flush())
  await scenario.close()
}

describe('a crash at every call', () => {
  test.each([1, 2])('of mixed work, seed + %i', { timeout: 600_000 }, async (round) => {
    const scenario = new Scenario(seededChoice(seed + round))
    await mixedWork(scenario, 30)
    expect(scenario.backend.changes.length).toBeGreaterThan(200)
    await crashEverywhere(scenario, 5, 48)
  })

  test('of work with graphs', { timeout: 600_000 }, async () => {
    const scenario = new Scenario(seededChoice(seed + 99))
    await indexedWork(scenario)
    await crashEverywhere(scenario, 2, 48)
  })

  test('counts enough states', () => {
    expect(states.size).toBeGreaterThan(5000)
    expect(recoveryStates.size).toBeGreaterThanOrEqual(2000)
  })
})
