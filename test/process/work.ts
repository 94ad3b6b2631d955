/** What the writers that are killed do, step by step as a seed decides, and what it must come to. */
import type { Collection } from '../../src/api.ts'
import { seededChoice } from '../../src/directory/crash-image.ts'
import { digestOf, patchedText, textOf } from '../support/history.ts'

export type Payload = { n: number; m?: number; text?: string }
type Upsert = { id: string; vector: number[]; payload?: Payload }
type Patch = { id: string; payload: { n?: number; m?: number }; unset: readonly 'm'[] }
type Operation = { upsert: Upsert } | { patch: Patch } | { delete: string }
type Durability = 'strict' | 'buffered'

/** One call of a writer. */
export type Step = { readonly durability: Durability } & (
  | { readonly write: readonly Operation[] }
  | { readonly patch: Patch }
  | { readonly delete: readonly string[] }
  | { readonly deleteWhere: { readonly from: number; readonly to: number } }
)

/** What a call resolves with. */
export type Outcome = number | boolean | null

/** `mixed`: small batches of everything. `bulk`: large upserts, for a log of some MB. */
export type Style = 'mixed' | 'bulk'

export const dimension = 64
const idCount = 2500
/** Values of `n`, by which `deleteWhere` chooses. */
const classCount = 1000

/** What a writer can be killed in. */
export const phases = ['recovery', 'write', 'bulk', 'flush', 'compact', 'build', 'close'] as const
export type Phase = (typeof phases)[number]

/** What a writer reports beside its phases, a line of JSON each. */
export type Report =
  /** The digest of all that was found at opening. */
  | { found: string }
  | { issued: number }
  | { acknowledged: number; outcome: Outcome }
  /** What must never come: a failure in the background. */
  | { failure: string }

/** Endless, and the same for the same seed. */
export function* stepsOf(seed: number, style: Style): Generator<Step, never> {
  const choose = seededChoice(seed)
  const id = (): string => `d${choose(idCount)}`
  const upsert = (textMax: number): Operation => {
    const vector = Array.from({ length: dimension }, () => choose(1 << 20) / 1024 - 512 + 1 / 3)
    const text = choose(36).toString(36).repeat(choose(textMax))
    const payload = choose(8) === 0 ? {} : { payload: { n: choose(classCount), text } }
    return { upsert: { id: id(), vector, ...payload } }
  }
  const patch = (): Patch => {
    const way = choose(4)
    const payload = way === 0 ? {} : way === 1 ? { n: choose(classCount) } : { m: choose(classCount) }
    return { id: id(), payload, unset: way === 0 ? ['m'] : [] }
  }
  const operation = (): Operation => {
    const fate = choose(10)
    return fate === 0 ? { delete: id() } : fate < 4 ? { patch: patch() } : upsert(200)
  }
  for (;;) {
    const durability = choose(3) === 0 ? 'buffered' : 'strict'
    const fate = choose(10)
    if (style === 'bulk') {
      yield { durability: 'buffered', write: Array.from({ length: 200 }, () => upsert(3000)) }
    } else if (fate === 0) yield { durability, patch: patch() }
    else if (fate === 1) yield { durability, delete: Array.from({ length: 1 + choose(4) }, id) }
    else if (fate === 2) {
      const from = choose(classCount)
      yield { durability, deleteWhere: { from, to: from + 5 } }
    } else if (fate === 3) yield { durability, write: Array.from({ length: 150 }, () => upsert(200)) }
    else yield { durability, write: Array.from({ length: 1 + choose(30) }, operation) }
  }
}

/** Asks a collection for a step. */
export async function runStep(collection: Collection<Payload>, step: Step): Promise<Outcome> {
  const { durability } = step
  if ('write' in step) {
    await collection.write(step.write, { durability })
    return null
  }
  if ('patch' in step) {
    const { id, payload, unset } = step.patch
    return collection.patch(id, payload, { durability, unset })
  }
  if ('delete' in step) return collection.delete(step.delete, { durability })
  const { from, to } = step.deleteWhere
  return collection.deleteWhere({ n: { $gte: from, $lt: to } }, { durability })
}

/** What a step does to plain contents: what it resolves with, and whether there is anything to be kept. */
export function applyStep(contents: Map<string, string>, step: Step): { outcome: Outcome; changed: boolean } {
  if ('write' in step) {
    let changed = false
    for (const operation of step.write) {
      if ('delete' in operation) changed = contents.delete(operation.delete) || changed
      else if ('patch' in operation) changed = applyPatch(contents, operation.patch) || changed
      else {
        contents.set(operation.upsert.id, textOf(operation.upsert.vector, operation.upsert.payload))
        changed = true
      }
    }
    return { outcome: null, changed }
  }
  if ('patch' in step) {
    const outcome = applyPatch(contents, step.patch)
    return { outcome, changed: outcome }
  }
  const ids = 'delete' in step ? step.delete : idsOf(contents, step.deleteWhere)
  const outcome = ids.filter((id) => contents.delete(id)).length
  return { outcome, changed: outcome > 0 }
}

function applyPatch(contents: Map<string, string>, { id, payload, unset }: Patch): boolean {
  const text = patchedText(contents.get(id), payload, unset)
  if (text === undefined) return false
  contents.set(id, text)
  return true
}

function idsOf(contents: ReadonlyMap<string, string>, { from, to }: { from: number; to: number }): string[] {
  const ids: string[] = []
  for (const [id, text] of contents) {
    const { n } = JSON.parse(text.slice(text.indexOf(' ') + 1) || '{}') as Partial<Payload>
    if (n !== undefined && n >= from && n < to) ids.push(id)
  }
  return ids
}

/** What one collection was asked for and what it has acknowledged: the judge of what is found after each kill. */
export class Ledger {
  /** How many steps were acknowledged so far. */
  acknowledgedCount = 0
  /** What must be there: all up to the last step that was acknowledged and changed anything. */
  readonly #kept = new Map<string, string>()
  /** What may be there too, in this order. */
  #open: Step[] = []
  /** After all that was asked for. */
  #latest = new Map<string, string>()
  /** What each step since the last {@link settle} comes to. */
  #expected: { outcome: Outcome; changed: boolean }[] = []

  /** Notes a step that is asked for, the next one. */
  issue(step: Step): void {
    this.#open.push(step)
    this.#expected.push(applyStep(this.#latest, step))
  }

  /** Notes that a step was acknowledged, by its number since the last {@link settle}, and with it what was asked for before. */
  acknowledge(number: number, outcome: Outcome): void {
    const expected = this.#expected[number]
    if (expected === undefined) throw new Error(`step ${number} was acknowledged before it was asked for`)
    if (outcome !== expected.outcome)
      throw new Error(`step ${number} came to ${outcome} instead of ${expected.outcome}`)
    this.acknowledgedCount++
    // What changes nothing has nothing to wait for, and so proves nothing about the steps before.
    if (!expected.changed) return
    const count = number + 1 - (this.#expected.length - this.#open.length)
    for (const step of this.#open.splice(0, Math.max(0, count))) applyStep(this.#kept, step)
  }

  /**
   * Compares what was found after the end of a process: all that was acknowledged, and a prefix of what was asked for behind it. From
   * here on that is what must be there.
   * @returns whether it is so
   */
  settle(digest: string): boolean {
    const candidate = new Map(this.#kept)
    let count = 0
    while (digestOf(candidate) !== digest) {
      const step = this.#open[count++]
      if (step === undefined) return false
      applyStep(candidate, step)
    }
    for (const step of this.#open.slice(0, count)) applyStep(this.#kept, step)
    this.#open = []
    this.#expected = []
    this.#latest = candidate
    return true
  }

  /** What is wrong with contents that were not among those that may be found. */
  describe(found: ReadonlyMap<string, string>): string {
    const name = (ids: readonly string[]): string => `${ids.length} (${ids.slice(0, 5)})`
    const lost = [...this.#kept.keys()].filter((id) => !found.has(id))
    const changed = [...this.#kept].filter(([id, text]) => found.has(id) && found.get(id) !== text)
    const foreign = [...found.keys()].filter((id) => !this.#kept.has(id))
    const ids = changed.map(([id]) => id)
    const behind = `${this.#open.length} steps were under way`
    return `beside what was acknowledged ${name(lost)} are not there, ${name(ids)} differ, ${name(foreign)} are new; ${behind}`
  }
}
