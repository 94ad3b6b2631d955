/** Runs one harness in a process of its own: `node child.mjs <harness> <seed>`. Says in JSON what came of it. */
import { seedCrypto } from '../support/seed.ts'
import { type HarnessName, harnesses } from './harness.ts'

/** What came of a harness: what it has done, or the first thing that was not as it was said. */
export type Outcome = { readonly done: string } | { readonly violation: string }

const [name, seed] = [process.argv[2] as HarnessName, Number(process.argv[3])]
seedCrypto(seed)
let outcome: Outcome
try {
  outcome = { done: await harnesses[name](seed) }
} catch (error) {
  outcome = { violation: error instanceof Error ? error.message : String(error) }
}
// A mutant may leave work behind that never ends.
process.stdout.write(`${JSON.stringify(outcome)}\n`, () => process.exit())
