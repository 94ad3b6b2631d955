import type { Collection, CollectionOptions, Database, JsonObject } from '../../src/api.ts'
import type { Choice } from '../../src/directory/crash-image.ts'
import { type Fault, type FaultyBackend, faultyBackend } from '../../src/directory/faulty.ts'
import { memoryBackend, type StoreImage } from '../../src/directory/memory.ts'
import { IsovecError } from '../../src/errors.ts'
import { openDatabase } from '../../src/index.ts'
import { digestOf, patchedText, textOf } from './history.ts'
import { MortalProcess } from './mortal.ts'
import { readDatabase } from './recovered.ts'

export type FaultOperation =
  | { upsert: { id: string; vector: number[]; payload?: JsonObject } }
  | { patch: { id: string; payload: JsonObject; unset?: readonly string[] } }
  | { delete: string }

/** What a batch does; `deleteBelow` stands for the documents whose value is less when its turn comes. */
type Step = FaultOperation | { deleteBelow: number }

/** What is known of a batch: its operations, whether it must be there, may be there or must not. */
type Issued = {
  readonly operations: readonly Step[]
  fate: 'pending' | 'acknowledged' | 'none' | 'unknown'
  isDurable: boolean
}

const unknownMax = 6

/**
 * Work on one collection of a database whose backend fails somewhere. Failures are taken note of, never thrown; what they said is held
 * against what is found afterwards.
 */
export class FaultRun {
  readonly backend: FaultyBackend
  readonly failures: IsovecError[] = []
  db: Database | undefined
  collection: Collection | undefined
  readonly #batches: Issued[] = []
  #process: MortalProcess
  /** Number of changes when the present writer began. */
  #openedAt = 0
  /** Number of changes when the database was last opened. */
  #databaseOpenedAt = 0
  /** Names that the collection may have; empty for "not there". */
  names = new Set<string>([''])

  constructor(fault: Fault | undefined) {
    this.backend = faultyBackend(fault === undefined ? {} : { fault })
    this.#process = new MortalProcess(this.backend)
  }

  /** Carries out what may fail, and gives back what it failed with. */
  async attempt(run: () => Promise<unknown>): Promise<IsovecError | undefined> {
    try {
      await run()
      return undefined
    } catch (error) {
      if (!(error instanceof IsovecError)) throw error
      this.failures.push(error)
      return error
    }
  }

  /** Opens, with a second attempt if the first one failed. Whether it succeeded. */
  async open(): Promise<boolean> {
    this.collection = undefined
    for (let attempt = 0; attempt < 2; attempt++) {
      const failure = await this.attempt(async () => {
        this.db = await openDatabase(this.#process)
      })
      if (failure !== undefined) continue
      this.#openedAt = this.backend.changes.length
      this.#databaseOpenedAt = this.#openedAt
      const [name] = [...this.names].filter((candidate) => candidate !== '')
      if (name === undefined) return true
      for (const candidate of this.names) {
        await this.attempt(async () => {
          if (this.collection === undefined && candidate !== '')
            this.collection = await this.db!.openCollection(candidate)
        })
      }
      if (this.collection !== undefined) return true
      await this.attempt(() => this.db!.close())
    }
    return false
  }

  /** Ends the process between two calls and opens in the next one. Whether that succeeded. */
  async crash(): Promise<boolean> {
    this.#process.endAfter(0)
    await this.db!.close().catch(() => {})
    this.#process = new MortalProcess(this.backend)
    return this.open()
  }

  async create(name: string, options: CollectionOptions): Promise<boolean> {
    for (let attempt = 0; attempt < 2; attempt++) {
      this.names.add(name)
      const failure = await this.attempt(async () => {
        this.collection = await this.db!.createCollection(name, { ...options, ifExists: 'open' })
      })
      if (failure !== undefined) continue
      this.names = new Set([name])
      this.#openedAt = this.backend.changes.length
      return true
    }
    return false
  }

  async rename(to: string): Promise<void> {
    const before = this.names
    this.names = new Set([...before, to])
    const failure = await this.attempt(() => this.db!.renameCollection([...before][0]!, to))
    if (failure === undefined) this.names = new Set([to])
  }

  /** Drops the collection. */
  async drop(): Promise<void> {
    const before = this.names
    this.names = new Set([...before, ''])
    const failure = await this.attempt(() => this.db!.dropCollection([...before][0]!))
    if (failure !== undefined) return
    this.names = new Set([''])
    this.collection = undefined
  }

  async write(
    operations: readonly FaultOperation[],
    durability: 'strict' | 'buffered' = 'strict',
  ): Promise<IsovecError | undefined> {
    return this.#issue(operations, durability, () => this.collection!.write(operations, { durability }))
  }

  /** Deletes what a filter on payloads finds. */
  deleteBelow(value: number): Promise<IsovecError | undefined> {
    return this.#issue([{ deleteBelow: value }], 'strict', () =>
      this.collection!.deleteWhere({ value: { $lt: value } }),
    )
  }

  async #issue(
    operations: readonly Step[],
    durability: 'strict' | 'buffered',
    run: () => Promise<unknown>,
  ): Promise<IsovecError | undefined> {
    const batch: Issued = { operations, fate: 'pending', isDurable: false }
    this.#batches.push(batch)
    const failure = await this.attempt(run)
    if (failure === undefined) {
      batch.fate = 'acknowledged'
      if (durability === 'strict') this.#allDurable(this.#batches.indexOf(batch))
    } else {
      if (failure.outcome === undefined) throw new Error(`a write failed without an outcome: ${failure.message}`)
      batch.fate = failure.outcome
    }
    return failure
  }

  /** A flush, a sync, a compaction, a close: what was acknowledged before is durable if it succeeds. */
  async settle(run: () => Promise<unknown>): Promise<IsovecError | undefined> {
    const last = this.#batches.length - 1
    const failure = await this.attempt(run)
    if (failure === undefined) this.#allDurable(last)
    return failure
  }

  #allDurable(last: number): void {
    for (const batch of this.#batches.slice(0, last + 1)) if (batch.fate === 'acknowledged') batch.isDurable = true
  }

  /** Digests of all states that agree with what was said. */
  #allowed(isPower: boolean): Set<string> {
    const known = this.#batches.filter(({ fate }) => fate !== 'none')
    const isOpen = ({ fate, isDurable }: Issued): boolean => fate === 'unknown' || (isPower && !isDurable)
    const open = known.filter(isOpen)
    if (open.length > unknownMax) throw new Error(`the fate of ${open.length} writes is unknown`)
    const digests = new Set<string>()
    for (let bits = 0; bits < 1 << open.length; bits++) {
      const contents = new Map<string, string>()
      for (const batch of known) {
        if (isOpen(batch) && (bits & (1 << open.indexOf(batch))) === 0) continue
        for (const operation of batch.operations) apply(operation, contents)
      }
      digests.add(digestOf(contents))
    }
    return digests
  }

  /** Reads all of the live database, which must be possible whatever happened to writes. */
  async checkLive(choose: Choice): Promise<void> {
    if (this.db === undefined || this.collection === undefined) return
    const { collection } = this
    const contents = new Map<string, string>()
    const read = async (): Promise<void> => {
      contents.clear()
      for await (const { id, vector, payload } of collection.iterate()) contents.set(id, textOf(vector!, payload))
    }
    // The fault may be in this very reading, and then it says so; the next one must succeed.
    if ((await this.attempt(read)) !== undefined) await read()
    if (!this.#allowed(false).has(digestOf(contents)))
      throw new Error('reading shows other contents than were acknowledged')
    for (const id of [...contents.keys()].slice(0, 1 + choose(2))) {
      if (!(await this.collection.has(id))) throw new Error(`${id} is listed and not there`)
    }
  }

  /** Opens what the end of the process, and what power loss, leaves. */
  async checkReopened(choice: Choice): Promise<void> {
    await this.#checkImage(this.backend.crashImage({ kind: 'process' }), false, choice)
    const choose = choice(2) === 0 ? () => 0 : choice
    await this.#checkImage(this.backend.crashImage({ kind: 'power', choose }), true, choice)
  }

  async #checkImage(image: StoreImage, isPower: boolean, choose: Choice): Promise<void> {
    const kind = isPower ? 'power loss' : 'the end of the process'
    for (let opening = 0, store = memoryBackend(image); opening < 2; opening++) {
      const db = await openDatabase(store)
      try {
        const found = await readDatabase(db, choose, 2)
        const names = [...found.keys()]
        if (names.length > 1 || !this.names.has(names[0] ?? '')) {
          throw new Error(`after ${kind} there are ${names} instead of ${[...this.names]}`)
        }
        if (names[0] !== undefined && !this.#allowed(isPower).has(digestOf(found.get(names[0])!))) {
          throw new Error(
            `after ${kind} and ${opening} recoveries ${found.get(names[0])!.size} documents are not what was said`,
          )
        }
      } finally {
        await db.close()
      }
    }
  }

  /** Whether a sync of any file has failed since the database was last opened. */
  get hasAnySyncFailed(): boolean {
    return this.backend.changes
      .slice(this.#databaseOpenedAt)
      .some((change) => change.failed === true && change.kind === 'sync')
  }

  /** Whether an append to a log of the collection has failed since it was created or last opened. */
  get hasLogFailed(): boolean {
    return this.backend.changes
      .slice(this.#openedAt)
      .some((change) => change.failed === true && change.kind === 'append' && change.name.endsWith('.wal'))
  }

  /** Whether a sync of the collection's files has failed since it was created or last opened. */
  get hasSyncFailed(): boolean {
    return this.backend.changes
      .slice(this.#openedAt)
      .some((change) => change.failed === true && change.kind === 'sync' && change.directory !== undefined)
  }
}

function apply(step: Step, contents: Map<string, string>): void {
  if ('delete' in step) contents.delete(step.delete)
  else if ('upsert' in step) contents.set(step.upsert.id, textOf(step.upsert.vector, step.upsert.payload))
  else if ('patch' in step) {
    const { id, payload, unset = [] } = step.patch
    const text = patchedText(contents.get(id), payload, unset)
    if (text !== undefined) contents.set(id, text)
  } else {
    for (const [id, text] of contents) {
      const { value } = JSON.parse(text.slice(text.indexOf(' ') + 1) || '{}') as { value?: number }
      if (value !== undefined && value < step.deleteBelow) contents.delete(id)
    }
  }
}

/** Faults of every sort at a call. */
export function faultsAt(at: number): (Fault & { label: string })[] {
  return [
    { label: 'EIO once', at, error: 'EIO' },
    { label: 'EIO for good', at, error: 'EIO', lasting: true },
    { label: 'half an append, EIO', at, error: 'EIO', on: ['append'], part: 0.5 },
    { label: 'failed sync', at, error: 'EIO', on: ['sync'] },
    { label: 'full once', at, error: 'ENOSPC' },
    { label: 'full once, half an append', at, error: 'ENOSPC', on: ['append'], part: 0.5 },
    { label: 'full for good', at, error: 'ENOSPC', lasting: true },
    { label: 'full at a sync', at, error: 'ENOSPC', on: ['sync'] },
    { label: 'EIO on a look', at, error: 'EIO', among: 'looks' },
  ]
}
