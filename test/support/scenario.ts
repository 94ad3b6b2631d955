import type { Collection, CollectionOptions, Database } from '../../src/api.ts'
import type { Choice } from '../../src/directory/crash-image.ts'
import { type FaultyBackend, faultyBackend } from '../../src/directory/faulty.ts'
import { openDatabase } from '../../src/index.ts'
import {
  type Acknowledge,
  type Contents,
  type CrashKind,
  digestOf,
  History,
  type Names,
  patchedText,
  Timeline,
  textOf,
} from './history.ts'
import { MortalProcess } from './mortal.ts'
import { readContents } from './recovered.ts'

type Operation =
  | { upsert: { id: string; vector: number[]; payload?: { n: number } } }
  | { patch: { id: string; payload: { n?: number; m?: number }; unset?: ('n' | 'm')[] } }
  | { delete: string }

const both: readonly CrashKind[] = ['process', 'power']
const processOnly: readonly CrashKind[] = ['process']

/** A database under work whose every call to the disk is recorded, with the history of what was asked and acknowledged. */
export class Scenario {
  readonly backend: FaultyBackend = faultyBackend()
  readonly history = new History()
  readonly choose: Choice
  #process = new MortalProcess(this.backend)
  #db: Database | undefined
  readonly #handles = new Map<number, Collection>()
  readonly #contents = new Map<number, Contents>()
  readonly #pending = new Set<Promise<unknown>>()
  #counter = 0
  #collectionCount = 0

  constructor(choose: Choice) {
    this.choose = choose
  }

  get now(): number {
    return this.backend.changes.length
  }

  get names(): Names {
    return this.history.root.latest
  }

  collection(name: string): Collection {
    return this.#handles.get(this.names.get(name)!)!
  }

  idsOf(name: string): string[] {
    return [...this.#contents.get(this.names.get(name)!)!.keys()]
  }

  async open(): Promise<void> {
    this.#db = await openDatabase(this.#process)
  }

  async create(name: string, options: CollectionOptions): Promise<void> {
    const number = ++this.#collectionCount
    this.history.collections.set(number, new Timeline(this.now, digestOf(new Map())))
    this.#contents.set(number, new Map())
    const done = this.#change(new Map([...this.names, [name, number]]))
    this.#handles.set(number, await this.#db!.createCollection(name, options))
    done()
  }

  async rename(from: string, to: string): Promise<void> {
    const names = new Map([...this.names].filter(([name]) => name !== from && name !== to))
    const done = this.#change(names.set(to, this.names.get(from)!))
    await this.#db!.renameCollection(from, to, { replace: true })
    done()
  }

  async drop(name: string): Promise<void> {
    const done = this.#change(new Map([...this.names].filter(([other]) => other !== name)))
    await this.#db!.dropCollection(name)
    done()
  }

  #change(names: Names): () => void {
    const acknowledge = this.history.root.issue(this.now, names)
    return () => acknowledge(both, this.now)
  }

  /** Writes a batch of its own making; the promise resolves when it was acknowledged. */
  write(name: string, size: number, durability?: 'strict' | 'buffered'): Promise<void> {
    const operations: Operation[] = []
    const { dimension } = this.collection(name).options
    const ids = this.idsOf(name)
    for (let i = 0; i < size; i++) {
      const known = ids.length > 0 ? ids[this.choose(ids.length)]! : undefined
      const fate = this.choose(12)
      if (known !== undefined && fate < 2) operations.push({ delete: known })
      else if (known !== undefined && fate < 6) operations.push({ patch: this.patch(known) })
      else operations.push({ upsert: this.document(known !== undefined && fate < 8 ? known : undefined, dimension) })
    }
    return this.writeOperations(name, operations, durability)
  }

  document(id: string | undefined, dimension: number): { id: string; vector: number[]; payload?: { n: number } } {
    const n = ++this.#counter
    const vector = Array.from({ length: dimension }, () => this.choose(1 << 20) / 1024 - 512 + 1 / 3)
    return { id: id ?? `d${n}`, vector, ...(this.choose(4) === 0 ? {} : { payload: { n } }) }
  }

  patch(id: string): { id: string; payload: { n?: number; m?: number }; unset?: ('n' | 'm')[] } {
    const m = ++this.#counter
    const kind = this.choose(4)
    if (kind === 0) return { id, payload: {}, unset: ['m'] }
    return { id, payload: kind === 1 ? { n: m } : { m } }
  }

  /** Deletes what a filter on payloads finds, which is as much a write as others. */
  deleteWhere(name: string): Promise<void> {
    const number = this.names.get(name)!
    const collection = this.#handles.get(number)!
    const bound = this.choose(this.#counter + 1)
    const contents = new Map(this.#contents.get(number)!)
    for (const [id, text] of contents) {
      const { n } = JSON.parse(text.slice(text.indexOf(' ') + 1) || '{}') as { n?: number }
      if (n !== undefined && n >= bound && n < bound + 5) contents.delete(id)
    }
    this.#contents.set(number, contents)
    const acknowledge = this.history.collections.get(number)!.issue(this.now, digestOf(contents))
    const isStrict = collection.options.durability === 'strict'
    const deleted = collection.deleteWhere({ n: { $gte: bound, $lt: bound + 5 } })
    return this.#acknowledged(deleted, acknowledge, isStrict ? both : processOnly)
  }

  writeOperations(name: string, operations: readonly Operation[], durability?: 'strict' | 'buffered'): Promise<void> {
    const number = this.names.get(name)!
    const collection = this.#handles.get(number)!
    const contents = new Map(this.#contents.get(number)!)
    for (const operation of operations) {
      if ('delete' in operation) contents.delete(operation.delete)
      else if ('patch' in operation) {
        const { id, payload, unset = [] } = operation.patch
        const text = patchedText(contents.get(id), payload, unset)
        if (text !== undefined) contents.set(id, text)
      } else contents.set(operation.upsert.id, textOf(operation.upsert.vector, operation.upsert.payload))
    }
    this.#contents.set(number, contents)
    const acknowledge = this.history.collections.get(number)!.issue(this.now, digestOf(contents))
    const isStrict = (durability ?? collection.options.durability) === 'strict'
    const written = collection.write(operations, durability === undefined ? {} : { durability })
    return this.#acknowledged(written, acknowledge, isStrict ? both : processOnly)
  }

  /** Runs what makes all that was written before it durable: a flush, a sync, a compaction. */
  barrier(name: string, run: (collection: Collection) => Promise<unknown>): Promise<void> {
    const number = this.names.get(name)!
    const acknowledge = this.history.collections.get(number)!.barrier()
    return this.#acknowledged(run(this.#handles.get(number)!), acknowledge, both)
  }

  /** What a process brings to an end that is none any more, since it needed the disk no longer, was said to nobody. */
  #acknowledged(call: Promise<unknown>, acknowledge: Acknowledge, kinds: readonly CrashKind[]): Promise<void> {
    const process = this.#process
    return this.#track(
      call.then(() => {
        if (!process.hasEnded) acknowledge(kinds, this.now)
      }),
    )
  }

  #track(promise: Promise<void>): Promise<void> {
    this.#pending.add(promise)
    const settled = (): boolean => this.#pending.delete(promise)
    promise.then(settled, settled)
    return promise
  }

  async settle(): Promise<void> {
    await Promise.all(this.#pending)
  }

  /** Closes and opens again. */
  async reopen(): Promise<void> {
    const barriers = [...this.names.values()].map((number) => this.history.collections.get(number)!.barrier())
    await this.#db!.close()
    await this.settle()
    for (const acknowledge of barriers) acknowledge(both, this.now)
    await this.#begin()
  }

  /** Ends the process after some more calls, while whatever was asked for is under way, and lets the next one recover. */
  async crash(calls: number): Promise<void> {
    this.#process.endAfter(calls)
    const idle = Promise.allSettled(this.#pending).then(() => this.#process.endAfter(0))
    await this.#process.ended
    const crashedAt = this.now
    await this.#db!.close().catch(() => {})
    await idle
    if (this.now !== crashedAt) throw new Error('a process that had ended changed the store')
    await this.#begin()
  }

  /** What is found takes the place of what was asked for. */
  async #begin(): Promise<void> {
    const crashedAt = this.now
    this.#process = new MortalProcess(this.backend)
    await this.open()
    const found = await this.#db!.listCollections()
    const names = this.history.root.allowed('process', crashedAt).findLast((state) => sameNames(state, found))
    if (names === undefined) throw new Error(`recovered the collections ${found}`)
    if (names !== this.names) this.history.root.begin(this.now, names)
    for (const [name, number] of names) {
      const collection = await this.#db!.openCollection(name)
      this.#handles.set(number, collection)
      const contents = await readContents(collection)
      const timeline = this.history.collections.get(number)!
      const digest = digestOf(contents)
      if (!timeline.allowed('process', crashedAt).includes(digest)) throw new Error(`recovered ${digest} of ${name}`)
      // What recovery has shown is durable by then, whatever it was before.
      timeline.begin(this.now, digest)
      this.#contents.set(number, contents)
    }
  }

  async close(): Promise<void> {
    await this.#db!.close()
  }
}

export function sameNames(names: Names, found: readonly string[]): boolean {
  return names.size === found.length && found.every((name) => names.has(name))
}
