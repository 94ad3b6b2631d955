/**
 * Hostile documents: refused with the place before anything is stored, or stored as JSON would have them.
 */
import type { Choice } from '../../src/directory/crash-image.ts'
import { memoryBackend } from '../../src/directory/memory.ts'
import { IsovecError, type IsovecErrorCode } from '../../src/errors.ts'
import type { Collection, Patch } from '../../src/index.ts'
import { openDatabase } from '../../src/index.ts'
import { Hostile, HostileError } from './hostile.ts'
import { ChoiceTarget, Finding, type Input, type Outcome, pick } from './input.ts'

const dimension = 2
const refusals: ReadonlySet<IsovecErrorCode> = new Set(['INVALID_ARGUMENT', 'WRONG_DIMENSION'])

/** Objects with sorted keys, so that equal ones have equal texts. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_, part: unknown) =>
    typeof part === 'object' && part !== null && !Array.isArray(part)
      ? Object.fromEntries(Object.entries(part).sort(([a], [b]) => (a < b ? -1 : 1)))
      : part,
  )
}

type Stored = { readonly vector: string; readonly payload: unknown }
type Model = Map<string, Stored>

const bitsOf = (vector: ArrayLike<number>): string => [...new Uint32Array(Float32Array.from(vector).buffer)].join()

type Call = {
  readonly run: (collection: Collection) => Promise<unknown>
  /** What it does to a model once it was accepted; undefined where that can't be told. */
  readonly apply: ((model: Model) => void) | undefined
}

/** Makes calls of which most are well formed but for a thing or two. */
class CallMaker {
  readonly #hostile: Hostile
  readonly #choose: Choice
  readonly #rarity: number
  /** What a getter of a document may call. */
  readonly #collection: Collection

  constructor(choose: Choice, collection: Collection) {
    this.#choose = choose
    this.#hostile = new Hostile(choose)
    this.#rarity = pick(choose, [3, 8, 30, 1000])
    this.#collection = collection
  }

  get #isOdd(): boolean {
    return this.#choose(this.#rarity) === 1
  }

  call(): Call {
    const made = this.#call()
    return this.#hostile.isStable ? made : { ...made, apply: undefined }
  }

  #call(): Call {
    const choose = this.#choose
    switch (choose(7)) {
      case 0:
      case 1: {
        const doc = this.#document()
        return { run: (to) => to.upsert(doc as never), apply: (model) => storeAll(model, doc) }
      }
      case 2: {
        const list = this.#list(() => this.#document())
        return {
          run: (to) => to.upsert(list as never),
          apply: (model) => storeAll(model, list),
        }
      }
      case 3: {
        const id = this.#id()
        const payload = this.#choose(4) === 0 ? {} : this.#payload()
        const unset = this.#unset()
        const options = unset === undefined ? undefined : { unset }
        return {
          run: (to) => to.patch(id as string, payload as object, options as never),
          apply: (model) => change(model, { id, payload, unset } as Patch),
        }
      }
      case 4: {
        const list = this.#list(() => this.#operation())
        return {
          run: (to) => to.write(list as never),
          apply: (model) => {
            for (const operation of list as { upsert?: unknown; patch?: Patch; delete?: string }[]) {
              if (operation.upsert !== undefined) store(model, operation.upsert)
              else if (operation.patch !== undefined) change(model, operation.patch)
              else model.delete(operation.delete!)
            }
          },
        }
      }
      case 5: {
        const list = this.#list(() => this.#document())
        const source = this.#source(list)
        return {
          run: (to) => to.ingest(source as never),
          apply: (model) => storeAll(model, list),
        }
      }
      default: {
        const ids = this.#choose(2) === 0 ? this.#id() : this.#list(() => this.#id())
        return {
          run: (to) => to.delete(ids as string),
          apply: (model) => {
            for (const id of [ids].flat()) model.delete(id as string)
          },
        }
      }
    }
  }

  #list(make: () => unknown): unknown {
    if (this.#isOdd) return this.#hostile.odd()
    const list = Array.from({ length: this.#choose(4) }, make)
    return this.#isOdd ? this.#hostile.proxy(list) : list
  }

  #operation(): unknown {
    if (this.#isOdd) return this.#hostile.odd()
    const made =
      this.#choose(3) === 0
        ? { upsert: this.#document() }
        : this.#choose(2) === 0
          ? { patch: { id: this.#id(), payload: this.#payload(), unset: this.#unset() } }
          : { delete: this.#id() }
    if (this.#isOdd) this.#hostile.set(made, this.#hostile.key(), 1)
    return made
  }

  #unset(): unknown {
    if (this.#choose(2) === 0) return undefined
    return this.#list(() => (this.#isOdd ? this.#hostile.odd() : pick(this.#choose, ['a', 'b', '__proto__', 'none'])))
  }

  #source(list: unknown): unknown {
    switch (this.#choose(6)) {
      case 0:
        return (async function* () {
          try {
            yield* list as unknown[]
          } catch (cause) {
            throw new HostileError('hostile', { cause })
          }
        })()
      case 1:
        return this.#hostile.isStable && Array.isArray(list) ? new Set(list as unknown[]) : list
      case 2:
        this.#hostile.isStable = false
        return { [Symbol.iterator]: this.#hostile.odd() }
      case 3: {
        this.#hostile.isStable = false
        const result = this.#hostile.odd()
        let calls = 0
        return { [Symbol.asyncIterator]: () => ({ next: async () => (calls++ > 3 ? { done: true } : result) }) }
      }
      default:
        return list
    }
  }

  #document(): unknown {
    if (this.#isOdd) return this.#hostile.odd()
    const made = this.#hostile.keep<{ [key: string]: unknown }>({ id: this.#id(), vector: this.#vector() })
    if (this.#choose(4) > 0) made.payload = this.#payload()
    if (this.#isOdd) this.#hostile.set(made, this.#hostile.key(), this.#hostile.odd())
    if (this.#isOdd) this.#reenter(made)
    return this.#isOdd ? this.#hostile.proxy(made) : made
  }

  /** A property that changes what was read already, or calls the collection while it is being read. */
  #reenter(made: { [key: string]: unknown }): void {
    this.#hostile.isStable = false
    const { vector, payload } = made
    const act = pick(this.#choose, [
      () => {
        if (typeof vector === 'object' && vector !== null) Reflect.set(vector, 'length', 0)
      },
      () => {
        Reflect.set(made, 'id', '')
      },
      () => {
        this.#collection.upsert({ id: 'reentrant', vector: [1, 1] }).catch(() => undefined)
      },
      () => {
        this.#collection.delete('a').catch(() => undefined)
      },
      () => {
        if (typeof payload === 'object' && payload !== null) Reflect.set(payload, 'late', 1n)
      },
    ])
    const key = pick(this.#choose, ['id', 'vector', 'payload'])
    const value = made[key]
    const get = (): unknown => {
      act()
      return value
    }
    Object.defineProperty(made, key, { get, enumerable: true, configurable: true })
  }

  #id(): unknown {
    if (this.#isOdd) return this.#choose(2) === 0 ? this.#hostile.text() : this.#hostile.odd()
    return this.#choose(8) === 0
      ? this.#hostile.key()
      : pick(this.#choose, ['a', 'b', 'c', 'd', '__proto__', '\u{1f600}'])
  }

  #vector(): unknown {
    const choose = this.#choose
    const components = [choose(9) - 4.5, choose(9) / 3]
    if (!this.#isOdd) {
      return pick(choose, [
        () => components,
        () => Float32Array.from(components),
        () => Float64Array.from(components),
      ])()
    }
    const made: readonly (() => unknown)[] = [
      () => [this.#hostile.number(), 1],
      () => [this.#hostile.odd(), 1],
      () => [1],
      () => [1, 2, 3],
      () => [],
      () => [0, 0],
      () => [-0, -0],
      () => [1e-46, 1e-46],
      () => [3.4028235677973366e38, 1],
      () => new Array(2),
      () => Float32Array.of(this.#hostile.number(), 1),
      () => Float64Array.of(1e39, this.#hostile.number()),
      () => Int32Array.of(1, 2),
      () => new Uint8Array(2).fill(1),
      () => BigInt64Array.of(1n, 2n),
      () => new DataView(new ArrayBuffer(8)),
      () => {
        const detached = Float32Array.of(1, 2)
        structuredClone(detached.buffer, { transfer: [detached.buffer] })
        return detached
      },
      () => new Float32Array(new SharedArrayBuffer(8)).fill(1),
      () => Object.defineProperty(new Uint8Array(2).fill(1), Symbol.toStringTag, { value: 'Float32Array' }),
      () => ({ length: 2, 0: 1, 1: 2 }),
      () => this.#hostile.proxy([1, 2]),
      () => this.#hostile.proxy(Float32Array.of(1, 2)),
      () => this.#hostile.odd(),
    ]
    return pick(choose, made)()
  }

  #payload(depth = 0): unknown {
    if (this.#isOdd) return this.#hostile.odd()
    const made = this.#hostile.keep({})
    for (let i = this.#choose(4); i > 0; i--) {
      const key = this.#isOdd ? this.#hostile.key() : pick(this.#choose, ['a', 'b', 'c', '__proto__', '0', '\u00e9'])
      this.#hostile.set(made, key, this.#value(depth + 1))
    }
    return this.#isOdd ? this.#hostile.proxy(made) : made
  }

  #value(depth: number): unknown {
    if (this.#isOdd) return this.#hostile.odd()
    const kind = depth > 4 ? 0 : this.#choose(8)
    if (kind === 6) return this.#payload(depth)
    if (kind === 7) return this.#hostile.keep(Array.from({ length: this.#choose(4) }, () => this.#value(depth + 1)))
    return kind === 5 ? this.#hostile.text() : this.#hostile.plain()
  }
}

/** What was accepted, read as JSON does. */
const asJson = (value: unknown): unknown =>
  value === undefined ? undefined : (JSON.parse(JSON.stringify(value)) as unknown)

/** One document, or a list of them. */
function storeAll(model: Model, docs: unknown): void {
  if (!Array.isArray(docs)) store(model, docs)
  else for (const doc of docs) store(model, doc)
}

function store(model: Model, doc: unknown): void {
  const { id, vector, payload } = doc as { id: string; vector: ArrayLike<number>; payload?: unknown }
  model.set(id, { vector: bitsOf(vector), payload: asJson(payload) })
}

function change(model: Model, { id, payload, unset }: Patch): void {
  const stored = model.get(id)
  if (stored === undefined) return
  const fields = new Map(Object.entries((stored.payload ?? {}) as object))
  for (const [key, value] of Object.entries((asJson(payload) ?? {}) as object)) fields.set(key, value)
  for (const key of unset ?? []) fields.delete(key as string)
  if (stored.payload === undefined && fields.size === 0) return
  model.set(id, { vector: stored.vector, payload: Object.fromEntries(fields) })
}

async function readAll(collection: Collection): Promise<Model> {
  const model: Model = new Map()
  for await (const { id, vector, payload } of collection.iterate()) {
    for (const component of vector!) if (!Number.isFinite(component)) throw new Finding(`${id} has ${component} in it`)
    if (typeof id !== 'string' || id === '') throw new Finding('an id that is none is stored')
    if (model.has(id)) throw new Finding(`${id} is stored twice`)
    model.set(id, { vector: bitsOf(vector!), payload })
  }
  return model
}

function compare(found: Model, expected: Model, when: string): void {
  const text = (model: Model): string => canonical([...model].sort(([a], [b]) => (a < b ? -1 : 1)))
  const [left, right] = [text(found), text(expected)]
  if (left !== right) throw new Finding(`${when} there is ${left.slice(0, 300)} instead of ${right.slice(0, 300)}`)
}

export class DocumentTarget extends ChoiceTarget {
  readonly name = 'document'

  make(choose: Choice): Input {
    const steps: number[][] = []
    for (let i = 1 + choose(5); i > 0; i--) {
      steps.push(this.choices(choose, (each) => new CallMaker(each, {} as Collection).call()))
    }
    return { base: pick(choose, ['cosine', 'dot']), steps }
  }

  async run({ base, steps }: Input): Promise<Outcome> {
    const backend = memoryBackend()
    const db = await openDatabase(backend)
    const codes = new Set<IsovecErrorCode>()
    let model: Model = new Map()
    try {
      const options = { dimension, metric: base as 'cosine' | 'dot', index: 'manual', compaction: 'manual' } as const
      const collection = await db.createCollection('docs', options)
      await collection.upsert({ id: 'a', vector: [1, 2], payload: { a: 1, b: { c: [1] } } })
      model = await readAll(collection)
      for (const step of steps) {
        const call = new CallMaker(this.again(step), collection).call()
        const isAccepted = await accepted(call, collection, codes)
        const found = await readAll(collection)
        if (call.apply === undefined) model = found
        else {
          if (isAccepted) call.apply(model)
          compare(found, model, isAccepted ? 'after a call' : 'after a refused call')
        }
      }
      await collection.flush()
      compare(await readAll(collection), model, 'after a flush')
    } catch (error) {
      if (error instanceof Finding) throw error
      throw new Finding(`reading or flushing gives ${String(error).slice(0, 300)}`, error)
    } finally {
      await db.close()
    }
    const again = await openDatabase(backend)
    try {
      compare(await readAll(await again.openCollection('docs')), model, 'after reopening')
    } finally {
      await again.close()
    }
    return { refusals: [...codes] }
  }
}

/** Whether an error is what the caller's own object throws where it is read: a getter, a trap, a proxy without a target. */
function isCallers(error: unknown): boolean {
  return (
    error instanceof HostileError || (error instanceof TypeError && /proxy that has been revoked/.test(error.message))
  )
}

/** Whether a call was accepted; what refuses it must say where. */
async function accepted(call: Call, collection: Collection, codes: Set<IsovecErrorCode>): Promise<boolean> {
  try {
    await call.run(collection)
    return true
  } catch (error) {
    if (isCallers(error)) return false
    if (!(error instanceof IsovecError) || !refusals.has(error.code)) {
      throw new Finding(`a document is met with ${String(error).slice(0, 200)}`, error)
    }
    if (typeof error.field !== 'string' || error.field === '') throw new Finding('a refusal names no field', error)
    codes.add(error.code)
    return false
  }
}
