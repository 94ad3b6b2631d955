import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { seededChoice } from '../../src/directory/crash-image.ts'
import { CrashRun } from '../support/crash-run.ts'
import { indexedWork, mixedWork, shortWork } from '../support/crash-work.ts'
import { Scenario } from '../support/scenario.ts'
import { seed, seedCrypto } from '../support/seed.ts'

const run = new CrashRun(seed)
let restoreCrypto: () => void

beforeAll(() => {
  restoreCrypto = seedCrypto(seed)
})
afterAll(() => {
  restoreCrypto()
  const { states, recoveryStates } = run
  console.log(
    `crash states: ${states.size} distinct, ${recoveryStates.size} of them in recovery itself (ISOVEC_SEED=${seed})`,
  )
})

describe('a crash at every call', () => {
  test.each([1, 2])('of mixed work, seed + %i', { timeout: 600_000 }, async (round) => {
    const scenario = new Scenario(seededChoice(seed + round))
    await mixedWork(scenario, 30)
    expect(scenario.backend.changes.length).toBeGreaterThan(200)
    await run.crashEverywhere(scenario, 5, 36)
  })

  test('of work with graphs', { timeout: 600_000 }, async () => {
    const scenario = new Scenario(seededChoice(seed + 99))
    await indexedWork(scenario)
    await run.crashEverywhere(scenario, 2, 36)
  })

  test('counts enough states', () => {
    expect(run.states.size).toBeGreaterThan(5000)
    expect(run.recoveryStates.size).toBeGreaterThanOrEqual(2000)
  })
})

describe('a short history', () => {
  test('is recovered from every image that power loss leaves', { timeout: 300_000 }, async () => {
    const scenario = new Scenario(seededChoice(seed))
    await shortWork(scenario)
    const every = new CrashRun(seed)
    const callCount = scenario.backend.changes.length + 1
    const completeCount = await every.crashEveryWay(scenario, 2, 3000)
    console.log(
      `every crash of a short history: ${every.states.size} distinct states, all there are at ${completeCount} of ` +
        `${callCount} calls, the others drawn by seed (ISOVEC_SEED=${seed})`,
    )
    // Only a segment is written with so many calls before its sync that its images can't all be tried.
    const writing = scenario.backend.changes.filter(({ kind, ...place }) => kind === 'append' && isSegment(place))
    expect(completeCount).toBeGreaterThanOrEqual(callCount - writing.length)
    expect(every.states.size).toBeGreaterThan(2000)
  })
})

const isSegment = (place: object): boolean => 'name' in place && String(place.name).endsWith('.seg')
