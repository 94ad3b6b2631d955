/** What the writers report that are killed while collections come, change their names and go, and what it must come to. */
import type { Choice } from '../../src/directory/crash-image.ts'
import { digestOf, History, type Names, Timeline } from '../support/history.ts'
import { type Found, judge } from '../support/recovered.ts'
import { sameNames } from '../support/scenario.ts'

/** What such a writer can be killed in. Writes to all collections go on beside each. */
export const namePhases = ['recovery', 'create', 'rename', 'replace', 'drop', 'write'] as const
export type NamePhase = (typeof namePhases)[number]

/** A change of the set of collections. The number of a collection stays with it whatever its name. */
export type NameChange =
  | { readonly create: string; readonly number: number }
  | { readonly rename: string; readonly to: string; readonly replace: boolean }
  | { readonly drop: string }

/** What is asked for: a change of the names, or a batch, by what the collection then holds. */
export type NameStep = NameChange | { readonly write: number; readonly digest: string }

/** What such a writer reports beside its phases, a line of JSON each. */
export type NameReport =
  /** Digests of all that was found at opening, by name. */
  | { readonly found: { readonly [name: string]: string } }
  /** What is asked for, numbered from 0 on. */
  | { readonly issued: NameStep }
  | { readonly acknowledged: number }
  /** What must never come: a failure in the background. */
  | { readonly failure: string }

/** The names after a change. */
export function changedNames(names: Names, change: NameChange): Names {
  const after = new Map(names)
  if ('create' in change) after.set(change.create, change.number)
  else if ('drop' in change) after.delete(change.drop)
  else {
    const number = after.get(change.rename)!
    after.delete(change.rename)
    after.set(change.to, number)
  }
  return after
}

/** All names that are ever given, few enough for them to be taken over and over again. */
const nameSet = ['a', 'b', 'c', 'd', 'e']

/** A change of a kind that can be made of these names, or of another kind where there is none. */
export function chooseChange(names: Names, kind: NamePhase | undefined, number: number, choose: Choice): NameChange {
  const pick = (from: readonly string[]): string => from[choose(from.length)]!
  const taken = [...names.keys()]
  const free = nameSet.filter((name) => !names.has(name))
  const canRename = taken.length > 0 && free.length > 0
  const wanted = kind ?? pick(namePhases)
  if (wanted === 'drop' && taken.length > 0) return { drop: pick(taken) }
  if (wanted === 'rename' && canRename) {
    // Also where nothing has to give way it may be said that it would.
    return { rename: pick(taken), to: pick(free), replace: choose(2) === 0 }
  }
  if (wanted === 'replace' && taken.length > 1) {
    const from = pick(taken)
    return { rename: from, to: pick(taken.filter((name) => name !== from)), replace: true }
  }
  return free.length > 0 ? { create: pick(free), number } : { drop: pick(taken) }
}

/** The kind of a change. */
export function phaseOf(change: NameChange, names: Names): NamePhase {
  if ('create' in change) return 'create'
  if ('drop' in change) return 'drop'
  return names.has(change.to) ? 'replace' : 'rename'
}

/** What the writers of one database were asked for and what they have acknowledged, on a clock that each report moves on by one. */
export class NameLedger {
  readonly #history = new History()
  #now = 0
  #acknowledge: (() => void)[] = []
  /** What was found at the last look, which the next writer must find too. */
  #digests = new Map<string, string>()
  #changeCount = 0
  #batchCount = 0

  /** Which collections there are, as was found at the last look. */
  get names(): Names {
    return this.#history.root.latest
  }

  /** A number that no collection has had. */
  get nextNumber(): number {
    return Math.max(0, ...this.#history.collections.keys()) + 1
  }

  /** Changes of names and batches that were acknowledged. */
  get acknowledged(): { changes: number; batches: number } {
    return { changes: this.#changeCount, batches: this.#batchCount }
  }

  /** Takes a report of a writer. */
  hear(report: NameReport): void {
    this.#now++
    if ('found' in report) this.#expectFound(report.found)
    else if ('issued' in report) this.#issue(report.issued)
    else if ('acknowledged' in report) {
      const acknowledge = this.#acknowledge[report.acknowledged]
      if (acknowledge === undefined) throw new Error(`${report.acknowledged} was acknowledged before it was asked for`)
      acknowledge()
    } else throw new Error(report.failure)
  }

  #issue(step: NameStep): void {
    const { root, collections } = this.#history
    if ('write' in step) {
      const acknowledge = collections.get(step.write)!.issue(this.#now, step.digest)
      this.#acknowledge.push(() => {
        this.#batchCount++
        acknowledge(['process'], this.#now)
      })
      return
    }
    if ('create' in step) collections.set(step.number, new Timeline(this.#now, digestOf(new Map())))
    const acknowledge = root.issue(this.#now, changedNames(root.latest, step))
    this.#acknowledge.push(() => {
      this.#changeCount++
      acknowledge(['process'], this.#now)
    })
  }

  /** What a look has shown, the next recovery brings back, nothing more and nothing less. */
  #expectFound(found: { readonly [name: string]: string }): void {
    const names = Object.keys(found)
    const wrong = names.filter((name) => found[name] !== this.#digests.get(name))
    if (sameNames(this.names, names) && wrong.length === 0) return
    throw new Error(`recovered ${JSON.stringify(found)} where ${JSON.stringify([...this.#digests])} was seen`)
  }

  /**
   * Compares what was found after the end of a writer with what was acknowledged and asked for. From here on that is what must be there.
   * @throws Error unless it is one of the states that may be found
   */
  settle(found: Found): void {
    judge(found, this.#history, 'process', this.#now)
    const { root, collections } = this.#history
    const digests = new Map([...found].map(([name, contents]) => [name, digestOf(contents)]))
    const allows = ([name, number]: readonly [string, number]): boolean =>
      collections.get(number)!.allowed('process', this.#now).includes(digests.get(name)!)
    const names = root
      .allowed('process', this.#now)
      .findLast((each) => sameNames(each, [...found.keys()]) && [...each].every(allows))!
    this.#now++
    root.begin(this.#now, names)
    for (const [name, number] of names) collections.get(number)!.begin(this.#now, digests.get(name)!)
    this.#digests = digests
    this.#acknowledge = []
  }
}
