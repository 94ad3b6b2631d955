/**
 * Workers that are ended at random moments while they write, and what the next one finds. Runs in the page, which notes what it is
 * about to ask for before the worker hears of it, and what was acknowledged when it hears of that.
 */

import type { CollectionOptions } from '../../src/api.ts'
import { type Choice, seededChoice } from '../../src/directory/crash-image.ts'
import { settled, TestWorker } from '../support/browser-calls.ts'
import {
  type Acknowledge,
  type Contents,
  digestOf,
  History,
  type Names,
  patchedText,
  Timeline,
  textOf,
} from '../support/history.ts'
import { judge } from '../support/recovered.ts'
import type { BackendKind } from './methods.ts'

type Operation =
  | { upsert: { id: string; vector: number[]; payload?: { n: number } } }
  | { patch: { id: string; payload: { n?: number; m?: number } } }
  | { delete: string }

export type CrashReport = { rounds: number; issued: number; acknowledged: number; openingsCut: number }

const collectionOptions: { readonly [name: string]: CollectionOptions } = {
  alpha: { dimension: 24, metric: 'euclidean' },
  beta: { dimension: 3, durability: 'buffered' },
  gamma: { dimension: 2, metric: 'dot' },
}

/** @throws Error as soon as anything acknowledged is lost or anything is found that was not asked for */
export async function crashRounds(kind: BackendKind, seed: number, rounds: number): Promise<CrashReport> {
  const work = new CrashWork(kind, `crash ${seed}`, seededChoice(seed))
  for (let round = 0; round < rounds; round++) {
    try {
      await work.round(seed + round)
    } catch (error) {
      throw new Error(`round ${round} of seed ${seed}`, { cause: error })
    }
  }
  return { rounds, issued: work.issued, acknowledged: work.acknowledged, openingsCut: work.openingsCut }
}

/** In ms, for a machine on which nothing is acknowledged in time. */
const roundTimeMax = 10_000

class CrashWork {
  issued = 0
  acknowledged = 0
  openingsCut = 0
  readonly #kind: BackendKind
  readonly #name: string
  readonly #choose: Choice
  readonly #history = new History()
  #worker = new TestWorker('/worker.js')
  #contents = new Map<number, Contents>()
  #collectionCount = 0
  #counter = 0
  #time = 0
  /** Of the present round: it ends with the last of them, or when its time is over. */
  #acknowledgementsLeft = 0
  #isOver = true
  #end: () => void = () => {}
  #failure: unknown
  readonly #pending = new Set<Promise<void>>()

  constructor(kind: BackendKind, name: string, choose: Choice) {
    this.#kind = kind
    this.#name = name
    this.#choose = choose
  }

  get #names(): Names {
    return this.#history.root.latest
  }

  async round(seed: number): Promise<void> {
    const opening = this.#worker.outcome('open', this.#kind, this.#name, { lockTimeout: 20_000 })
    if (this.#choose(4) === 0) {
      await Promise.race([sleep(this.#choose(60)), opening])
      this.#restart()
      this.openingsCut++
      return
    }
    settled(await opening)
    const found = (await this.#worker.call('read', seed)) as [string, [string, string][]][]
    this.#begin(new Map(found.map(([name, contents]) => [name, new Map(contents)])))
    this.#acknowledgementsLeft = this.#choose(14)
    this.#isOver = this.#acknowledgementsLeft === 0
    const over = new Promise<void>((resolve) => {
      this.#end = resolve
    })
    const timer = setTimeout(() => this.#endWork(), roundTimeMax)
    while (!this.#isOver) {
      await this.#step(over)
      while (!this.#isOver && this.#pending.size > this.#choose(12)) await Promise.race([over, ...this.#pending])
      if (this.#failure !== undefined) throw this.#failure
      if (this.#choose(4) === 0) await sleep(this.#choose(20))
    }
    clearTimeout(timer)
    await sleep(this.#choose(12))
    if (this.#failure !== undefined) throw this.#failure
    this.#restart()
  }

  #endWork(): void {
    this.#isOver = true
    this.#end()
  }

  /** What is told after this is told to nobody. */
  #restart(): void {
    this.#worker.terminate()
    this.#pending.clear()
    this.#worker = new TestWorker('/worker.js')
  }

  #begin(found: ReadonlyMap<string, Contents>): void {
    const at = ++this.#time
    judge(found, this.#history, 'process', at)
    const names = this.#history.root.allowed('process', at).findLast((state) => sameNames(state, found))!
    this.#history.root.begin(at, names)
    for (const [name, number] of names) {
      this.#contents.set(number, found.get(name)!)
      this.#history.collections.get(number)!.begin(at, digestOf(found.get(name)!))
    }
  }

  async #step(over: Promise<void>): Promise<void> {
    const names = [...this.#names.keys()]
    const missing = Object.keys(collectionOptions).filter((name) => !this.#names.has(name))
    const action = this.#choose(40)
    if (names.length === 0 || (missing.length > 0 && action < 8) || action === 8) {
      // What is under way on a collection would fail when it's dropped, and nothing can be asked of one that is being made.
      await Promise.race([over, Promise.all(this.#pending)])
      if (this.#isOver) return
      const name = missing[this.#choose(missing.length)]
      const done = name === undefined ? this.#drop(names[this.#choose(names.length)]!) : this.#create(name)
      await Promise.race([over, done])
      return
    }
    const name = names[this.#choose(names.length)]!
    if (action < 30) this.#write(name)
    else
      void this.#ask(this.#timelineOf(name).barrier(), action < 35 ? 'flush' : action < 38 ? 'sync' : 'compact', name)
  }

  #timelineOf(name: string): Timeline<string> {
    return this.#history.collections.get(this.#names.get(name)!)!
  }

  #create(name: string): Promise<void> {
    const number = ++this.#collectionCount
    this.#history.collections.set(number, new Timeline(++this.#time, digestOf(new Map())))
    this.#contents.set(number, new Map())
    const acknowledge = this.#history.root.issue(this.#time, new Map([...this.#names, [name, number]]))
    return this.#ask(acknowledge, 'create', name, collectionOptions[name])
  }

  #drop(name: string): Promise<void> {
    const names = new Map([...this.#names].filter(([other]) => other !== name))
    return this.#ask(this.#history.root.issue(++this.#time, names), 'drop', name)
  }

  #write(name: string): void {
    const number = this.#names.get(name)!
    const contents = new Map(this.#contents.get(number)!)
    const operations = this.#operations([...contents.keys()], collectionOptions[name]!.dimension)
    for (const operation of operations) {
      if ('delete' in operation) contents.delete(operation.delete)
      else if ('patch' in operation) {
        const text = patchedText(contents.get(operation.patch.id), operation.patch.payload, [])
        if (text !== undefined) contents.set(operation.patch.id, text)
      } else contents.set(operation.upsert.id, textOf(operation.upsert.vector, operation.upsert.payload))
    }
    this.#contents.set(number, contents)
    const durability = this.#choose(3) === 0 ? { durability: this.#choose(2) === 0 ? 'strict' : 'buffered' } : {}
    void this.#ask(
      this.#timelineOf(name).issue(++this.#time, digestOf(contents)),
      'write',
      name,
      operations,
      durability,
    )
  }

  #operations(ids: readonly string[], dimension: number): Operation[] {
    const size = this.#choose(12) === 0 ? 400 : 1 + this.#choose(6)
    return Array.from({ length: size }, (): Operation => {
      const n = ++this.#counter
      const known = ids[this.#choose(ids.length + 1)]
      const fate = this.#choose(12)
      if (known !== undefined && fate < (size > 6 ? 1 : 3)) return { delete: known }
      if (known !== undefined && fate < 6) return { patch: { id: known, payload: fate === 5 ? { n } : { m: n } } }
      const vector = Array.from({ length: dimension }, () => this.#choose(1 << 20) / 1024 - 512 + 1 / 3)
      const id = known !== undefined && fate < 8 ? known : `d${n}`
      return { upsert: { id, vector, ...(fate === 11 ? {} : { payload: { n } }) } }
    })
  }

  #ask(acknowledge: Acknowledge, method: string, ...args: unknown[]): Promise<void> {
    this.issued++
    const worker = this.#worker
    const asked = worker.call(method, ...args).then(
      () => {
        this.acknowledged++
        acknowledge(['process'], ++this.#time)
        if (--this.#acknowledgementsLeft === 0) this.#endWork()
      },
      (error: unknown) => {
        this.#failure ??= error
      },
    )
    this.#pending.add(asked)
    return asked.finally(() => this.#pending.delete(asked))
  }
}

function sameNames(names: Names, found: ReadonlyMap<string, Contents>): boolean {
  return names.size === found.size && [...found.keys()].every((name) => names.has(name))
}

function sleep(time: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, Math.max(0, time)))
}
