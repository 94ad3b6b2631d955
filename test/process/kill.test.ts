import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { seededChoice } from '../../src/directory/crash-image.ts'
import { nodeBackend } from '../../src/directory/node.ts'
import { openDatabase } from '../../src/index.ts'
import { bundleForChild } from '../support/bundle.ts'
import { Child } from '../support/child.ts'
import { temporaryFolder } from '../support/folder.ts'
import { digestOf } from '../support/history.ts'
import { readContents, readDatabase } from '../support/recovered.ts'
import { seed } from '../support/seed.ts'
import { dimension, Ledger, type Message, type Phase, phases, stepsOf } from './work.ts'

const roundCount = Number(process.env.ISOVEC_KILL_ROUNDS ?? 50)
const choose = seededChoice(seed)
const open = (path: string) => openDatabase(nodeBackend(path), { lockTimeout: 10_000 })

let script: string

beforeAll(async () => {
  script = await bundleForChild(new URL('./kill-child.ts', import.meta.url), { keep: true })
})

afterAll(() => rm(join(script, '..'), { recursive: true }))

/** What to be killed in, round by round. A recovery is only worth it behind a log of some size, and may need several attempts. */
function* targets(): Generator<Phase, never> {
  const sets: readonly (readonly Phase[])[] = [
    ['write'],
    ['write', 'flush'],
    ['flush', 'compact'],
    ['build'],
    ['bulk', 'recovery', 'recovery'],
    ['compact', 'close'],
  ]
  for (;;) {
    const rest = [...sets]
    while (rest.length > 0) yield* rest.splice(choose(rest.length), 1)[0]!
  }
}

/** Milliseconds that phases take on this machine, as far as is known, so that kills come at any moment of them. */
const durations = new Map<Phase, number>()

/** Lets a writer work on the database and kills it. Returns the phase in which it was. */
async function killedWriter(
  path: string,
  writerSeed: number,
  target: Phase,
  ledger: Ledger,
): Promise<Phase | 'between'> {
  const child = new Child<Message>(script, path, String(writerSeed), target)
  const steps = stepsOf(writerSeed, target === 'bulk' ? 'bulk' : 'mixed')
  const duration = durations.get(target) ?? 30
  // Before the end of a bulk there is no log of the wanted size.
  const delay = target === 'bulk' ? duration * (0.5 + choose(1000) / 1000) : (duration * choose(1100)) / 1000
  let now: Phase | 'between' = 'between'
  let timer: NodeJS.Timeout | undefined
  let targetDone = false
  try {
    for (let message = await child.next(); message !== undefined; message = await child.next()) {
      if ('phase' in message) {
        now = message.phase
        if (now === target) timer ??= setTimeout(() => child.signal('SIGKILL'), delay)
      } else if ('done' in message) {
        now = 'between'
        if (message.done !== target) continue
        targetDone = true
        durations.set(target, message.ms)
      } else if ('found' in message) {
        if (ledger.settle(message.found)) continue
        await child.kill()
        throw new Error(`recovered what was lost or never written: ${await difference(path, ledger)}`)
      } else if ('issued' in message) ledger.issue(steps.next().value)
      else if ('acknowledged' in message) ledger.acknowledge(message.acknowledged, message.outcome)
      else throw new Error(message.failure)
    }
  } finally {
    clearTimeout(timer)
    child.signal('SIGKILL')
  }
  expect(await child.ended, `a writer under way to ${target} ended by itself`).toEqual({
    code: null,
    signal: 'SIGKILL',
  })
  // Kills that never meet the end of a phase come too early to meet all of it.
  if (!targetDone) durations.set(target, duration * 1.2)
  return now
}

async function difference(path: string, ledger: Ledger): Promise<string> {
  const database = await open(path)
  try {
    return ledger.describe(await readContents(await database.openCollection('c')))
  } finally {
    await database.close()
  }
}

/** Opens the database in this process, looks at it in every way, and closes it. */
async function inspect(path: string, ledger: Ledger): Promise<void> {
  const database = await open(path)
  try {
    const found = await readDatabase(database, choose)
    expect([...found.keys()]).toEqual(['c'])
    if (!ledger.settle(digestOf(found.get('c')!))) throw new Error(`recovered ${ledger.describe(found.get('c')!)}`)
    expect((await (await database.openCollection('c')).stats()).lastBackgroundError).toBeUndefined()
  } finally {
    await database.close()
  }
}

test(
  'nothing that was acknowledged is lost, and nothing else appears, however often the writer is killed',
  async () => {
    onTestFinished(({ task }) => {
      if (task.result?.state === 'fail') console.log(`kill -9: failed (ISOVEC_SEED=${seed})`)
    })
    const path = join(await temporaryFolder(), 'data')
    const database = await open(path)
    await database.createCollection('c', { dimension })
    await database.close()

    const ledger = new Ledger()
    const kills = new Map<Phase | 'between', number>()
    const target = targets()
    for (let round = 0; round < roundCount; round++) {
      const phase = await killedWriter(path, seed + 7919 * round, target.next().value, ledger)
      kills.set(phase, (kills.get(phase) ?? 0) + 1)
      // Most of the time the next writer finds what the kill has left, and says what that is.
      if (choose(5) === 0) await inspect(path, ledger)
    }
    await inspect(path, ledger)
    const byPhase = [...phases, 'between' as const].map((phase) => `${phase} ${kills.get(phase) ?? 0}`).join(', ')
    console.log(
      `kill -9: ${roundCount} rounds (${byPhase}), ${ledger.acknowledgedCount} acknowledged batches, 0 lost (ISOVEC_SEED=${seed})`,
    )
    expect(ledger.acknowledgedCount).toBeGreaterThan(roundCount)
    // What takes long enough to be met by chance alone.
    const wanted: readonly Phase[] = roundCount < 50 ? [] : ['recovery', 'write', 'flush', 'compact', 'build']
    for (const phase of wanted) expect(kills.get(phase), `kills during ${phase}`).toBeGreaterThan(0)
  },
  60_000 + roundCount * 10_000,
)
