/** Runs one target in a process of its own: `node child.mjs <target> <seed> <runs>`. Says in JSON what came of it. */
import { makeBases } from './bases.ts'
import { Meter } from './meter.ts'
import { fuzz } from './runner.ts'
import { type TargetName, targetOf } from './targets.ts'

const [name, seed, runs] = process.argv.slice(2) as [TargetName, string, string]
const meter = new Meter()
meter.on()
await makeBases()
const { target, inputs, refused, answered, findings } = await fuzz(await targetOf(name, meter), {
  seed: Number(seed),
  runs: Number(runs),
})
process.stdout.write(JSON.stringify({ target, inputs, refused, answered, findings }), () => process.exit())
