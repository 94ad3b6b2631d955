import { afterAll, beforeAll, describe, test } from 'vitest'
import { FaultSeries, faultWorks } from '../support/fault-work.ts'
import { seed, seedCrypto } from '../support/seed.ts'

const series = new FaultSeries()
let restoreCrypto: () => void
beforeAll(() => {
  restoreCrypto = seedCrypto(seed)
})
afterAll(() => {
  restoreCrypto()
  console.log(`faults: ${series.runs} runs, ${series.struck} calls failed (ISOVEC_SEED=${seed})`)
})

describe('a fault at every call', () => {
  test('of work on a small collection', { timeout: 300_000 }, () => series.failEverywhere(faultWorks.small))

  test('of work with patches', { timeout: 300_000 }, () => series.failEverywhere(faultWorks.patched))

  test('of recoveries', { timeout: 300_000 }, () => series.failEverywhere(faultWorks.crashed))

  test('of work on a collection that is dropped', { timeout: 300_000 }, () => series.failEverywhere(faultWorks.dropped))

  test('of work with graphs', { timeout: 300_000 }, () =>
    series.failEverywhere(faultWorks.indexed, ['failed sync', 'full once, half an append']),
  )
})
