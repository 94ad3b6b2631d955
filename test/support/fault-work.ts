import assert from 'node:assert/strict'
import { seededChoice } from '../../src/directory/crash-image.ts'
import type { Fault } from '../../src/directory/faulty.ts'
import { type FaultOperation, FaultRun, faultsAt } from './fault-run.ts'
import { seed } from './seed.ts'

/** Work that a fault may strike. */
export type FaultWork = (run: FaultRun) => Promise<void>

const upsert = (id: string, value: number): FaultOperation => ({
  upsert: { id, vector: [value, 1 / (1 + value)], payload: { value } },
})

const patch = (id: string, value: number): FaultOperation => ({ patch: { id, payload: { value } } })

/** Every kind of call on one small collection. */
export async function smallWork(run: FaultRun): Promise<void> {
  if (!(await run.open())) return
  const options = { dimension: 2, metric: 'euclidean', compaction: 'manual', index: 'manual' } as const
  if (!(await run.create('alpha', options))) return
  await run.write([upsert('a', 1), upsert('b', 2), upsert('c', 3)])
  await run.write([upsert('d', 4), { delete: 'a' }])
  await run.write([upsert('e', 5)], 'buffered')
  await run.settle(() => run.collection!.sync())
  await run.settle(() => run.collection!.flush())
  await Promise.all([
    run.write([upsert('f', 6), { delete: 'b' }]),
    run.write([upsert('f', 7)]),
    run.write([upsert('c', 8)]),
  ])
  await run.settle(() => run.collection!.flush())
  await run.write([{ delete: 'd' }, upsert('g', 9)])
  await run.settle(() => run.collection!.compact())
  await run.rename('omega')
  await run.write([upsert('h', 10)])
  await run.checkLive(seededChoice(seed))
  await run.settle(() => run.db!.close())
  if (!(await run.open())) return
  await run.write([upsert('i', 11), { delete: 'g' }])
  await run.settle(() => run.collection!.flush())
  await run.write([upsert('j', 12)])
}

/** Graphs: built, outdated, merged. */
export async function indexedWork(run: FaultRun): Promise<void> {
  const options = {
    dimension: 2,
    metric: 'euclidean',
    compaction: 'manual',
    index: 'manual',
    hnsw: { M: 4, efConstruction: 8 },
  } as const
  if (!(await run.open()) || !(await run.create('alpha', options))) return
  await run.write(Array.from({ length: 1040 }, (_, i) => upsert(`a${i}`, i)))
  await run.settle(() => run.collection!.buildIndex())
  await run.write([{ delete: 'a7' }, upsert('a9', 4000)])
  await run.settle(() => run.collection!.compact())
  await run.write([{ delete: 'a11' }])
}

/** Patches over rows of segments and of memtables, kept in files, merged, and deletes of what a filter finds. */
export async function patchedWork(run: FaultRun): Promise<void> {
  const options = { dimension: 2, metric: 'euclidean', compaction: 'manual', index: 'manual' } as const
  if (!(await run.open()) || !(await run.create('alpha', options))) return
  await run.write([upsert('a', 1), upsert('b', 2), upsert('c', 3), upsert('d', 4)])
  await run.settle(() => run.collection!.flush())
  await run.write([patch('a', 11), upsert('e', 5), patch('e', 12), patch('missing', 1)])
  await run.write([{ patch: { id: 'b', payload: {}, unset: ['value'] } }, { delete: 'c' }], 'buffered')
  await run.settle(() => run.collection!.flush())
  await run.deleteBelow(5)
  await run.write([patch('a', 3), patch('b', 13)])
  await run.settle(() => run.collection!.flush())
  await run.deleteBelow(12)
  await run.write([patch('e', 14), upsert('f', 6)])
  await run.settle(() => run.collection!.compact())
  await run.write([patch('b', 15)])
  await run.settle(() => run.db!.close())
  if (!(await run.open())) return
  await run.write([patch('e', 16)])
  await run.settle(() => run.collection!.flush())
}

/** Recoveries, each of an end of the process that nothing was prepared for. */
export async function crashedWork(run: FaultRun): Promise<void> {
  const options = { dimension: 2, metric: 'euclidean', compaction: 'manual', index: 'manual' } as const
  if (!(await run.open()) || !(await run.create('alpha', options))) return
  await run.write([upsert('a', 1), upsert('b', 2)])
  await run.write([upsert('c', 3), { delete: 'a' }], 'buffered')
  if (!(await run.crash())) return
  await run.write([upsert('d', 4), patch('b', 12)])
  await run.settle(() => run.collection!.flush())
  await run.write([{ delete: 'c' }], 'buffered')
  if (!(await run.crash())) return
  await run.write([upsert('e', 5)])
  await run.settle(() => run.collection!.flush())
}

/** A collection that goes. */
export async function droppedWork(run: FaultRun): Promise<void> {
  const options = { dimension: 2, metric: 'euclidean', compaction: 'manual', index: 'manual' } as const
  if (!(await run.open()) || !(await run.create('alpha', options))) return
  await run.write([upsert('a', 1), upsert('b', 2)])
  await run.settle(() => run.collection!.flush())
  await run.write([{ delete: 'a' }])
  await run.rename('beta')
  await run.drop()
}

/** The five workloads that faults strike, by name. */
export const faultWorks = {
  small: smallWork,
  patched: patchedWork,
  indexed: indexedWork,
  crashed: crashedWork,
  dropped: droppedWork,
} satisfies { [name: string]: FaultWork }

const needRoom = ['open', 'directory', 'create', 'append']

/** Whether a fault strikes at its very call, not only later, where it is tried too. */
function strikes({ error, on, among, at }: Fault, kinds: readonly string[], looks: number): boolean {
  if (among === 'looks') return at < looks
  const fitting = on ?? (error === 'ENOSPC' ? needRoom : undefined)
  return fitting === undefined || (fitting as readonly string[]).includes(kinds[at]!)
}

/** Work under faults, one after the other. */
export class FaultSeries {
  /** Runs of work. */
  runs = 0
  /** Calls that failed in them. */
  struck = 0
  readonly #seed: number

  /** @param randomSeed decides what power loss leaves, and is named in failures */
  constructor(randomSeed = seed) {
    this.#seed = randomSeed
  }

  /**
   * Lets every sort of fault strike at every call of work.
   *
   * @param labels the sorts, by default all of `faultsAt`
   * @throws Error where something is not as it was said
   */
  async failEverywhere(work: FaultWork, labels?: readonly string[], isEnough = (): boolean => false): Promise<void> {
    const { kinds, looks } = await this.#callsOf(work)
    assert.ok(kinds.length > 20)
    for (let at = 0; at < kinds.length; at++) {
      for (const { label, ...fault } of faultsAt(at)) {
        if (isEnough()) return
        if (!strikes(fault, kinds, looks)) continue
        if (labels !== undefined && !labels.includes(label)) continue
        try {
          await this.#runUnder(fault, work)
        } catch (error) {
          throw new Error(`${label} at ${at} (ISOVEC_SEED=${this.#seed}): ${(error as Error).message}`, {
            cause: error,
          })
        }
      }
    }
  }

  /** The calls of work that nothing befalls. */
  async #callsOf(work: FaultWork): Promise<{ kinds: string[]; looks: number }> {
    const { backend, failures } = await this.#runUnder(undefined, work)
    assert.deepEqual(failures, [])
    return { kinds: backend.changes.map(({ kind }) => kind), looks: backend.lookCount }
  }

  /** Runs work under a fault, then looks at what is left. Gives back the run, closed. */
  async #runUnder(fault: Fault | undefined, work: FaultWork): Promise<FaultRun> {
    const run = new FaultRun(fault)
    this.runs++
    await work(run)
    this.struck += run.backend.faultCount
    await run.checkLive(seededChoice(this.#seed))
    if (fault !== undefined) await checkPromises(run, fault)
    // A database whose collection could not be opened has nothing to make durable.
    if (run.collection !== undefined) await run.settle(() => run.db!.close())
    else await run.attempt(async () => run.db?.close())
    await run.checkReopened(seededChoice(this.#seed + this.runs))
    return run
  }
}

/** What must be true after a fault, beside the contents. */
async function checkPromises(run: FaultRun, fault: Fault): Promise<void> {
  if (run.collection === undefined) return
  const { hasSyncFailed, hasAnySyncFailed, hasLogFailed } = run
  const hasStruck = run.backend.faultCount > 0
  const failure = await run.write([upsert('last', 99)])
  if (hasSyncFailed || (hasLogFailed && fault.error === 'EIO')) {
    assert.deepEqual(
      [failure?.code, failure?.outcome, (failure?.cause as { code?: unknown } | undefined)?.code],
      ['READ_ONLY', 'none', 'IO'],
    )
  }
  if (fault.error === 'ENOSPC' && fault.lasting !== true && !hasAnySyncFailed && hasStruck) {
    assert.equal(failure, undefined)
    assert.equal(await run.collection.has('last'), true)
  }
  if (failure?.code === 'READ_ONLY') assert.notEqual(failure.cause, undefined)
}
