/**
 * Much of what other tests do little of, in a process of its own: `node child.mjs <models|bits> <count> <seed>`. Says in JSON what was done,
 * or ends with an error.
 */
import * as fc from 'fast-check'
import { filesOf } from '../support/damage.ts'
import { DamageRun, readDamaged, segmentedImage, segmentedQueries } from '../support/damage-run.ts'
import { type Command, command, runCommands } from '../support/model.ts'
import { seedCrypto } from '../support/seed.ts'

/** Runs commands on databases and on maps beside them. */
async function models(count: number, seed: number): Promise<object> {
  const commands = fc.array(command, { minLength: 10, maxLength: 60, size: 'max' })
  const metrics = ['euclidean', 'dot', 'cosine'] as const
  let done = 0
  for (let round = 0; done < count; round++) {
    const isLarge = round % 5 === 4
    const run = async (list: Command[]): Promise<void> => {
      done += await runCommands(metrics[round % metrics.length]!, isLarge ? 1060 : 0, list)
    }
    await fc.assert(fc.asyncProperty(commands, run), { numRuns: isLarge ? 3 : 20, seed: seed + round })
  }
  return { done }
}

/** Flips bits of a database with files of every kind, evenly spread over all of them. */
async function bits(count: number, seed: number): Promise<object> {
  const image = await segmentedImage()
  const whole = (await readDamaged(image, segmentedQueries))!
  const files = filesOf(image)
  const total = files.reduce((sum, { bytes }) => sum + bytes.length * 8, 0)
  const step = Math.floor(total / count)
  const run = new DamageRun()
  let first = 0
  for (const file of files) {
    const end = first + file.bytes.length * 8
    for (let bit = first + ((step + (seed % step) - (first % step)) % step); bit < end; bit += step) {
      await run.flip(image, file, bit - first, whole, segmentedQueries)
    }
    first = end
  }
  return { done: run.bits, of: total, ...run.counts }
}

const [what, count, seed] = process.argv.slice(2) as ['models' | 'bits', string, string]
seedCrypto(Number(seed))
const done = await { models, bits }[what](Number(count), Number(seed))
process.stdout.write(JSON.stringify(done), () => process.exit())
