/**
 * Random documents and filters of few keys and values, so that they often meet.
 */
import * as fc from 'fast-check'
import type { JsonObject } from '../../src/codec/json.ts'
import type { RawFilter } from './filter-reference.ts'

const keys = ['a', 'b', 'c', '__proto__', 'constructor'] as const
const someKey = fc.oneof({ weight: 12, arbitrary: fc.constantFrom('a', 'b') }, fc.constantFrom(...keys))
const someString = fc.oneof(
  { weight: 5, arbitrary: fc.constantFrom('a', 'ab', 'b') },
  fc.constantFrom('', 'B', '\u{1f600}', '\uffff'),
)
const someScalar = fc.oneof(
  { weight: 2, arbitrary: fc.constantFrom(0, 1, 1.5) },
  { weight: 3, arbitrary: someString },
  fc.boolean(),
  fc.constant(null),
)

/** Text rather than objects: payloads come from JSON, which alone makes a `__proto__` that is a property. */
const { object: payloadText } = fc.letrec<{ object: string; value: string }>((tie) => ({
  value: fc.oneof(
    { depthSize: 'medium', maxDepth: 3 },
    { weight: 7, arbitrary: someScalar.map((value) => JSON.stringify(value)) },
    { weight: 2, arbitrary: tie('object') },
    { weight: 2, arbitrary: fc.array(tie('value'), { maxLength: 3 }).map((values) => `[${values}]`) },
  ),
  object: fc
    .uniqueArray(fc.tuple(someKey, tie('value')), { minLength: 2, maxLength: 4, selector: ([key]) => key })
    .map((members) => `{${members.map(([key, value]) => `${JSON.stringify(key)}:${value}`)}}`),
}))

export type SomeDocument = { readonly id: string; readonly payload: JsonObject | undefined }

export const someDocument: fc.Arbitrary<SomeDocument> = fc.record({
  id: fc.constantFrom('a', 'ab', 'b', 'c'),
  payload: fc.option(
    payloadText.map((text) => JSON.parse(text) as JsonObject),
    { nil: undefined, freq: 12 },
  ),
})

const somePath = fc
  .oneof(
    { weight: 6, arbitrary: fc.tuple(someKey) },
    { weight: 3, arbitrary: fc.tuple(someKey, someKey) },
    { weight: 1, arbitrary: fc.tuple(someKey, someKey, someKey) },
  )
  .map((keys) => keys.join('.'))

/** An object with own properties, whatever their names. */
function record(members: readonly (readonly [string, unknown])[]): RawFilter {
  return Object.fromEntries(members)
}

function comparisons(operand: fc.Arbitrary<unknown>): fc.Arbitrary<[string, unknown]> {
  return fc.oneof(
    { weight: 6, arbitrary: fc.tuple(fc.constantFrom('$eq', '$ne', '$gt', '$gte', '$lt', '$lte'), operand) },
    { weight: 2, arbitrary: fc.tuple(fc.constantFrom('$in', '$nin'), fc.array(operand, { maxLength: 4 })) },
    fc.tuple(fc.constant('$exists'), fc.boolean()),
    fc.tuple(fc.constant('$startsWith'), fc.constantFrom('', 'a', 'ab', 'b')),
  )
}

/** The object of operators on a field. */
function operatorsOn(operand: fc.Arbitrary<unknown>): fc.Arbitrary<RawFilter> {
  const members = (member: fc.Arbitrary<[string, unknown]>): fc.Arbitrary<RawFilter> =>
    fc.uniqueArray(member, { minLength: 1, maxLength: 2, selector: ([key]) => key }).map(record)
  const flat = members(comparisons(operand))
  return members(fc.oneof({ weight: 5, arbitrary: comparisons(operand) }, fc.tuple(fc.constant('$not'), flat)))
}

/** A path, and one operator on it with its operand. */
export const someComparison = fc.tuple(somePath, comparisons(someScalar))

const someField: fc.Arbitrary<[string, unknown]> = fc.oneof(
  { weight: 6, arbitrary: fc.tuple(somePath, fc.oneof(someScalar, operatorsOn(someScalar))) },
  { weight: 1, arbitrary: fc.tuple(fc.constant('$id'), fc.oneof(someString, operatorsOn(someString))) },
)

/** Filters that are well formed. */
export const { filter: someFilter } = fc.letrec<{ filter: RawFilter; member: [string, unknown] }>((tie) => ({
  member: fc.oneof(
    { depthSize: 'medium', maxDepth: 3 },
    { weight: 3, arbitrary: someField },
    fc.tuple(fc.constantFrom('$and', '$or', '$nor'), fc.array(tie('filter'), { minLength: 1, maxLength: 3 })),
    fc.tuple(fc.constant('$not'), tie('filter')),
  ),
  filter: fc.oneof(
    {
      weight: 12,
      arbitrary: fc.uniqueArray(tie('member'), { minLength: 1, maxLength: 2, selector: ([key]) => key }).map(record),
    },
    { weight: 1, arbitrary: fc.constant({}) },
  ),
}))

/** Counts how often something came out true and false. */
export class Tally {
  readonly #counts = [0, 0]

  add(value: boolean): boolean {
    this.#counts[Number(value)]!++
    return value
  }

  /** The share of the rarer outcome. */
  get balance(): number {
    const [misses, hits] = this.#counts as [number, number]
    return Math.min(misses, hits) / Math.max(1, misses + hits)
  }
}
