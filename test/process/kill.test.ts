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
import { Killer, type PhaseReport } from './killer.ts'
import { NameLedger, type NamePhase, type NameReport, namePhases } from './names.ts'
import { dimension, Ledger, type Phase, phases, type Report, stepsOf } from './work.ts'

const roundCount = Number(process.env.ISOVEC_KILL_ROUNDS ?? 60)
/** Rounds in which collections come and go; the others work on one. */
const nameRoundCount = Math.round(roundCount * 0.4)
const workRoundCount = roundCount - nameRoundCount
const choose = seededChoice(seed)
const open = (path: string) => openDatabase(nodeBackend(path), { lockTimeout: 10_000 })

let workScript: string
let nameScript: string

beforeAll(async () => {
  workScript = await bundleForChild(new URL('./kill-child.ts', import.meta.url), { keep: true })
  nameScript = await bundleForChild(new URL('./names-child.ts', import.meta.url), { keep: true })
})

afterAll(async () => {
  for (const script of [workScript, nameScript]) await rm(join(script, '..'), { recursive: true })
})

/** Sets of targets, each as often as the others, in an order by chance. */
function* shuffled<Target>(sets: readonly (readonly Target[])[]): Generator<Target, never> {
  for (;;) {
    const rest = [...sets]
    while (rest.length > 0) yield* rest.splice(choose(rest.length), 1)[0]!
  }
}

/** What to be killed in, round by round. A recovery is only worth it behind a log of some size, and may need several attempts. */
const workTargets: readonly (readonly Phase[])[] = [
  ['write'],
  ['write', 'flush'],
  ['flush', 'compact'],
  ['build'],
  ['bulk', 'recovery', 'recovery'],
  ['compact', 'close'],
]
const nameTargets: readonly (readonly NamePhase[])[] = [
  ['create'],
  ['rename', 'recovery'],
  ['replace', 'replace'],
  ['drop'],
  ['write'],
]

function printSeedOfFailure(): void {
  onTestFinished(({ task }) => {
    if (task.result?.state === 'fail') console.log(`kill -9: failed (ISOVEC_SEED=${seed})`)
  })
}

/** Lets a writer work on the database and kills it. */
async function killWriter(
  path: string,
  writerSeed: number,
  target: Phase,
  ledger: Ledger,
  killer: Killer<Phase>,
): Promise<void> {
  const child = new Child<PhaseReport<Phase> | Report>(workScript, path, String(writerSeed), target)
  const steps = stepsOf(writerSeed, target === 'bulk' ? 'bulk' : 'mixed')
  const hear = async (report: Report): Promise<void> => {
    if ('found' in report) {
      if (ledger.settle(report.found)) return
      await child.kill()
      throw new Error(`recovered what was lost or never written: ${await difference(path, ledger)}`)
    }
    if ('issued' in report) ledger.issue(steps.next().value)
    else if ('acknowledged' in report) ledger.acknowledge(report.acknowledged, report.outcome)
    else throw new Error(report.failure)
  }
  // Before the end of a bulk there is no log of the wanted size.
  await killer.round(child, target, hear, target === 'bulk' ? 0.5 : 0)
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
    printSeedOfFailure()
    const path = join(await temporaryFolder(), 'data')
    const database = await open(path)
    await database.createCollection('c', { dimension })
    await database.close()

    const ledger = new Ledger()
    const killer = new Killer<Phase>(choose)
    const target = shuffled(workTargets)
    for (let round = 0; round < workRoundCount; round++) {
      await killWriter(path, seed + 7919 * round, target.next().value, ledger, killer)
      // Most of the time the next writer finds what the kill has left, and says what that is.
      if (choose(5) === 0) await inspect(path, ledger)
    }
    await inspect(path, ledger)
    console.log(
      `kill -9: ${workRoundCount} rounds (${killer.describe(phases)}), ` +
        `${ledger.acknowledgedCount} acknowledged batches, 0 lost (ISOVEC_SEED=${seed})`,
    )
    expect(ledger.acknowledgedCount).toBeGreaterThan(workRoundCount)
    // What takes long enough to be met by chance alone.
    const wanted: readonly Phase[] = roundCount < 50 ? [] : ['recovery', 'write', 'flush', 'compact', 'build']
    for (const phase of wanted) expect(killer.kills.get(phase), `kills during ${phase}`).toBeGreaterThan(0)
  },
  60_000 + workRoundCount * 10_000,
)

/** What a kill has left, read without changing anything, so that the next writer has to recover it. */
async function look(path: string, ledger: NameLedger): Promise<void> {
  const database = await openDatabase(nodeBackend(path), { readOnly: true })
  try {
    ledger.settle(await readDatabase(database, choose, 4))
  } finally {
    await database.close()
  }
}

/** Opens the database as a writer, which must find what was there at the last look, and leaves nothing that belongs to nobody. */
async function tidy(path: string, ledger: NameLedger): Promise<void> {
  const backend = nodeBackend(path)
  const database = await open(path)
  try {
    ledger.settle(await readDatabase(database, choose, 4))
    // Whatever the two newest generations name is kept: after a change that is what there is now.
    await database.createCollection('last', { dimension: 1 })
    await database.dropCollection('last')
  } finally {
    await database.close()
  }
  await (await open(path)).close()
  expect(await backend.directories()).toHaveLength(ledger.names.size)
}

test(
  'the set of collections and what is in each are as acknowledged, however often the writer is killed while they come and go',
  async () => {
    printSeedOfFailure()
    const path = join(await temporaryFolder(), 'data')
    await (await open(path)).close()

    const ledger = new NameLedger()
    const killer = new Killer<NamePhase>(choose)
    const target = shuffled(nameTargets)
    for (let round = 0; round < nameRoundCount; round++) {
      const wanted = target.next().value
      const names = JSON.stringify(Object.fromEntries(ledger.names))
      const task = [path, String(seed + 104_729 * (round + 1)), wanted, names, String(ledger.nextNumber)]
      const child = new Child<PhaseReport<NamePhase> | NameReport>(nameScript, ...task)
      await killer.round(child, wanted, (report) => ledger.hear(report))
      await look(path, ledger)
    }
    await tidy(path, ledger)
    const { changes, batches } = ledger.acknowledged
    console.log(
      `kill -9 among names: ${nameRoundCount} rounds (${killer.describe(namePhases)}), ` +
        `${changes} acknowledged changes and ${batches} batches, 0 lost (ISOVEC_SEED=${seed})`,
    )
    expect(changes).toBeGreaterThan(nameRoundCount)
    expect(batches).toBeGreaterThan(nameRoundCount)
    // Each of them takes a few milliseconds.
    const met = namePhases.filter((phase) => killer.kills.has(phase))
    if (roundCount >= 50) expect(met.length, `kills during ${met}`).toBeGreaterThanOrEqual(4)
  },
  60_000 + nameRoundCount * 10_000,
)
