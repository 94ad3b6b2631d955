import * as fc from 'fast-check'
import { afterAll, describe, test } from 'vitest'
import { changeWhileMerging } from '../support/merge-work.ts'
import { type Command, command, runCommands } from '../support/model.ts'

const given = process.env.ISOVEC_SEED === undefined ? {} : { seed: Number(process.env.ISOVEC_SEED) }
let commandCount = 0
afterAll(() => console.log(`model: ${commandCount} commands`))

describe('a collection is like a map', () => {
  test.each(['euclidean', 'dot', 'cosine'] as const)('under %s', { timeout: 120_000 }, async (metric) => {
    const commands = fc.array(command, { minLength: 10, maxLength: 60, size: 'max' })
    const run = async (list: Command[]): Promise<void> => {
      commandCount += await runCommands(metric, 0, list)
    }
    await fc.assert(fc.asyncProperty(commands, run), { numRuns: 30, ...given })
  })

  test('with graphs', { timeout: 120_000 }, async () => {
    const commands = fc.array(command, { minLength: 10, maxLength: 40, size: 'max' })
    const run = async (list: Command[]): Promise<void> => {
      commandCount += await runCommands('euclidean', 1060, [{ do: 'buildIndex' }, ...list])
    }
    await fc.assert(fc.asyncProperty(commands, run), { numRuns: 6, ...given })
  })
})

describe('while a compaction runs', () => {
  test('deletes, replacements and patches hold afterwards and after reopening, and a snapshot stays as it was', () =>
    changeWhileMerging())
})
