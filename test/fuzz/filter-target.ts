/**
 * Hostile filters: refused with the place, or answered as their description says, from a memtable as from a segment.
 */
import type { Choice } from '../../src/directory/crash-image.ts'
import { memoryBackend } from '../../src/directory/memory.ts'
import { IsovecError, type IsovecErrorCode } from '../../src/errors.ts'
import type { Collection, Filter } from '../../src/index.ts'
import { openDatabase } from '../../src/index.ts'
import { matches, type RawFilter } from '../support/filter-reference.ts'
import { Hostile } from './hostile.ts'
import { ChoiceTarget, Finding, type Input, type Outcome, pick } from './input.ts'

type Doc = { readonly id: string; readonly vector: readonly number[]; readonly payload?: object }

/** Payloads with the keys and values that filters ask for, with keys of prototypes among them. */
export const payloads: readonly (string | undefined)[] = [
  '{"a":1,"b":"a"}',
  '{"a":-3,"b":"ab","c":null}',
  '{"a":[1,2,"a"],"b":{"c":"t1"}}',
  '{"a":{"b":1.5},"b":[{"c":1},{"c":"t2"},3]}',
  '{"a":"abc","c":true}',
  '{"__proto__":{"a":1},"constructor":"a"}',
  '{"a":null,"toString":1,"length":3}',
  undefined,
  '{}',
  '{"":1,".":2,"a.b":1,"$a":1}',
  '{"a":[],"b":[[1]],"c":[{"a":{"b":"t1"}}]}',
  `{"a":"${'x'.repeat(150)}","b":"${'\u4e2d'.repeat(60)}"}`,
  `{"a":"${'x'.repeat(300)}"}`,
  '{"a":1e308,"b":5e-324}',
  '{"a":"\\ud800","b":"\\u0000"}',
  '{"0":"a","4294967295":1,"then":{"a":1}}',
]

/** Documents with those payloads. */
export const docs: readonly Doc[] = payloads.map((text, i) => ({
  id: ['a', 'ab', 'b', 't1', '__proto__', 'constructor'][i] ?? `id${i}`,
  vector: [i + 1, 1],
  ...(text === undefined ? {} : { payload: JSON.parse(text) as object }),
}))

const paths = ['a', 'b', 'c', 'a.b', 'b.c', 'c.a.b', '$id', '__proto__.a', 'then.a'] as const
const operators = ['$eq', '$ne', '$gt', '$gte', '$lt', '$lte', '$in', '$nin', '$exists', '$startsWith', '$not'] as const

/** Makes filters of which most are well formed but for a thing or two. */
export class FilterMaker {
  readonly hostile: Hostile
  readonly #choose: Choice
  /** Of so many choices one is hostile. */
  readonly #rarity: number

  constructor(choose: Choice) {
    this.#choose = choose
    this.hostile = new Hostile(choose)
    this.#rarity = pick(choose, [4, 15, 60, 1000])
  }

  get #isOdd(): boolean {
    return this.#choose(this.#rarity) === 1
  }

  filter(depth = 0): unknown {
    if (this.#isOdd) return this.hostile.odd()
    const made = this.hostile.keep(this.#choose(10) === 0 ? (Object.create(null) as object) : {})
    for (let i = this.#choose(depth > 4 ? 1 : 3) + Number(this.#choose(8) > 0); i > 0; i--) this.#member(made, depth)
    return this.#isOdd ? this.hostile.proxy(made) : made
  }

  #member(of: object, depth: number): void {
    const kind = depth > 5 ? 0 : this.#choose(10)
    if (kind < 6) {
      const path = this.#isOdd ? this.hostile.key() : pick(this.#choose, paths)
      this.hostile.set(of, path, this.#choose(3) === 0 ? this.#scalar() : this.#operators(depth + 1))
    } else if (kind < 9) {
      const list = this.#isOdd
        ? this.hostile.odd()
        : Array.from({ length: this.#choose(4) + Number(!this.#isOdd) }, () => this.filter(depth + 1))
      this.hostile.set(of, pick(this.#choose, ['$and', '$or', '$nor']), list)
    } else {
      this.hostile.set(of, '$not', this.filter(depth + 1))
    }
  }

  #scalar(): unknown {
    return this.#isOdd ? this.hostile.odd() : this.#choose(8) === 0 ? this.hostile.text() : this.hostile.plain()
  }

  #operators(depth: number): unknown {
    if (this.#isOdd) return this.hostile.odd()
    const made = this.hostile.keep({})
    for (let i = this.#choose(2) + Number(!this.#isOdd); i > 0; i--) {
      const operator = this.#isOdd ? this.hostile.key() : pick(this.#choose, operators)
      this.hostile.set(made, operator, this.#operand(operator, depth))
    }
    return this.#isOdd ? this.hostile.proxy(made) : made
  }

  #operand(operator: string, depth: number): unknown {
    if (this.#isOdd) return this.hostile.odd()
    switch (operator) {
      case '$in':
      case '$nin':
        return Array.from({ length: this.#choose(5) }, () => this.#scalar())
      case '$exists':
        return this.#choose(2) === 0
      case '$startsWith':
        return this.#choose(2) === 0 ? this.hostile.text() : pick(this.#choose, ['a', 'ab', 't', ''])
      case '$not':
        return depth > 5 ? { $eq: 1 } : this.#operators(depth + 1)
      default:
        return this.#scalar()
    }
  }
}

/** What a filter was met with: the ids that pass, or the code of its refusal. */
type Answer = { readonly ids: string; readonly code?: IsovecErrorCode }

export class FilterTarget extends ChoiceTarget {
  readonly name = 'filter'
  readonly #collections: readonly Collection[]

  private constructor(collections: readonly Collection[]) {
    super()
    this.#collections = collections
  }

  static async create(): Promise<FilterTarget> {
    const db = await openDatabase(memoryBackend())
    const options = { dimension: 2, index: 'manual', compaction: 'manual' } as const
    const fresh = await db.createCollection('fresh', options)
    const flushed = await db.createCollection('flushed', options)
    for (const collection of [fresh, flushed]) await collection.upsert(docs.map((doc) => doc as never))
    await flushed.flush()
    return new FilterTarget([fresh, flushed])
  }

  make(choose: Choice): Input {
    return { base: null, steps: [this.choices(choose, (each) => new FilterMaker(each).filter())] }
  }

  async run({ steps }: Input): Promise<Outcome> {
    const maker = new FilterMaker(this.again(steps[0]))
    const filter = maker.filter()
    const answers: Answer[] = []
    for (const collection of this.#collections) {
      for (const ask of [listed, counted, searched]) answers.push(await answerOf(() => ask(collection, filter)))
    }
    if (maker.hostile.isStable) {
      const [first] = answers as [Answer]
      const expected = (): string =>
        filter === undefined
          ? docs.map(({ id }) => id).join()
          : docs
              .filter(({ id, payload }) => matches(filter as RawFilter, id, payload))
              .map(({ id }) => id)
              .join()
      const ids = first.code === undefined ? expected() : ''
      for (const [index, { code, ids: found }] of answers.entries()) {
        if (code !== first.code) throw new Finding(`ask ${index} gives ${code ?? 'an answer'}, the first ${first.code}`)
        const wanted = index % 3 === 1 && code === undefined ? String(ids === '' ? 0 : ids.split(',').length) : ids
        if (sorted(found) !== sorted(wanted)) throw new Finding(`ask ${index} finds ${found} instead of ${wanted}`)
      }
    }
    const codes = answers.flatMap(({ code }) => (code === undefined ? [] : [code]))
    return { refusals: [...new Set(codes)] }
  }
}

const sorted = (ids: string): string => ids.split(',').sort().join()

async function answerOf(ask: () => Promise<string>): Promise<Answer> {
  try {
    return { ids: await ask() }
  } catch (error) {
    const isRefusal = error instanceof IsovecError && error.code === 'INVALID_ARGUMENT'
    if (!isRefusal) throw new Finding(`a filter is met with ${String(error).slice(0, 200)}`, error)
    if (!/filter/.test(error.field ?? '')) throw new Finding(`a refusal names the field ${error.field}`, error)
    return { ids: '', code: error.code }
  }
}

async function listed(collection: Collection, filter: unknown): Promise<string> {
  const ids: string[] = []
  const include = { payload: false, vector: false }
  for await (const { id } of collection.iterate({ filter: filter as Filter, include })) ids.push(id)
  return ids.join()
}

async function counted(collection: Collection, filter: unknown): Promise<string> {
  return String(await collection.count(filter as Filter))
}

async function searched(collection: Collection, filter: unknown): Promise<string> {
  const { hits } = await collection.search({
    vector: [1, 1],
    k: 100,
    filter: filter as Filter,
    include: { payload: false },
  })
  return hits.map(({ id }) => id).join()
}
