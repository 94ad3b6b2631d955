/**
 * A writer that works until it is killed: `<path> <seed> <target>`. It tells each step before it asks for it and once it was
 * acknowledged, and in which phase of its work it is, one line of JSON each. The first phase after some writing is the target.
 */
import { writeSync } from 'node:fs'
import { seededChoice } from '../../src/directory/crash-image.ts'
import { nodeBackend } from '../../src/directory/node.ts'
import { openDatabase } from '../../src/index.ts'
import { onFailure } from '../support/events.ts'
import { digestOf } from '../support/history.ts'
import { readContents } from '../support/recovered.ts'
import type { PhaseReport } from './killer.ts'
import { type Payload, type Phase, type Report, runStep, stepsOf } from './work.ts'

/** Synchronous, so that the line is out before anything else happens. */
function say(report: PhaseReport<Phase> | Report): void {
  writeSync(1, `${JSON.stringify(report)}\n`)
}

async function during<T>(phase: Phase, run: () => Promise<T>): Promise<T> {
  say({ phase })
  const began = performance.now()
  const result = await run()
  say({ done: phase, ms: performance.now() - began })
  return result
}

async function main(path: string, seed: number, target: Phase): Promise<never> {
  const choose = seededChoice(seed + 1)
  const { database, collection } = await during('recovery', async () => {
    // Whoever was killed while the lock was being taken may have left the helper that takes it, for a few milliseconds.
    const database = await openDatabase(nodeBackend(path), {
      lockTimeout: 10_000,
      onEvent: onFailure((error) => say({ failure: String(error) })),
    })
    return { database, collection: await database.openCollection<Payload>('c') }
  })
  say({ found: digestOf(await readContents(collection)) })

  const steps = stepsOf(seed, target === 'bulk' ? 'bulk' : 'mixed')
  let issuedCount = 0
  const step = async (): Promise<void> => {
    const number = issuedCount++
    const { value } = steps.next()
    say({ issued: number })
    const outcome = await runStep(collection, value)
    say({ acknowledged: number, outcome })
  }
  const write = async (count: number): Promise<void> => {
    const depth = 1 + choose(4)
    for (let done = 0; done < count; done += depth) await Promise.all(Array.from({ length: depth }, step))
  }
  const long: Record<'flush' | 'compact' | 'build', () => Promise<unknown>> = {
    flush: () => collection.flush(),
    compact: () => collection.compact(),
    // Other parameters than before, so that there is something to build.
    build: () => collection.buildIndex({ efConstruction: 100 + choose(100) }),
  }
  const runPhase = (phase: Phase): Promise<void> =>
    during(phase, async () => {
      if (phase === 'close') return database.close()
      if (phase !== 'flush' && phase !== 'compact' && phase !== 'build') return write(phase === 'bulk' ? 16 : 80)
      let isRunning = true
      const running = long[phase]().finally(() => {
        isRunning = false
      })
      if (choose(2) === 0) while (isRunning) await write(4)
      await running
    })

  // The writes before, so that there is something to flush and a state that the next process finds.
  if (target !== 'bulk' && target !== 'write') await during('write', () => write(5 + choose(25)))
  if (target !== 'recovery') await runPhase(target)
  for (;;) {
    if (target === 'close') await new Promise((resolve) => setTimeout(resolve, 1000))
    // After bulk nothing is flushed: the next process shall find the log.
    else await runPhase(target === 'bulk' ? 'write' : (['write', 'flush', 'compact', 'build'] as const)[choose(4)]!)
  }
}

const [, , path, seed, target] = process.argv
await main(path!, Number(seed), target as Phase)
