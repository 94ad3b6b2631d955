/**
 * Filters beside sift, an independent implementation of MongoDB's. Where the languages differ, the filter is said in sift's words.
 */
import * as fc from 'fast-check'
import sift from 'sift'
import { expect, test } from 'vitest'
import { parseFilter } from '../../src/search/filter.ts'
import { evaluate } from '../support/evaluate.ts'
import type { RawFilter } from '../support/filter-reference.ts'
import { Tally } from '../support/filters.ts'
import { runs } from '../support/property.ts'

const someKey: fc.Arbitrary<string> = fc.constantFrom('a', 'b', 'c')
const someString = fc.constantFrom('', 'a', 'ab', 'b', 'B')
const someOrdered = fc.oneof(fc.constantFrom(0, 1, 2, -1), someString, fc.boolean())
const someScalar = fc.oneof({ weight: 4, arbitrary: someOrdered }, fc.constant(null))

/** No arrays in arrays, which MongoDB enters and compares. */
const { object: someObject } = fc.letrec<{ object: Record<string, unknown>; value: unknown }>((tie) => ({
  value: fc.oneof(
    { depthSize: 'medium', maxDepth: 3 },
    { weight: 3, arbitrary: someScalar },
    { weight: 2, arbitrary: tie('object') },
    { weight: 2, arbitrary: fc.array(fc.oneof(someScalar, tie('object')), { maxLength: 3 }) },
  ),
  object: fc.dictionary(someKey, tie('value'), { minKeys: 1, maxKeys: 3, noNullPrototype: true }),
}))

const somePath = fc.array(someKey, { minLength: 1, maxLength: 3, size: 'xsmall' }).map((keys) => keys.join('.'))
const onField = (name: string, operand: fc.Arbitrary<unknown>, path = somePath): fc.Arbitrary<RawFilter> =>
  fc.tuple(path, operand).map(([path, value]) => ({ [path]: { [name]: value } }))

/** Without null, which there means missing as well, in any element of an array on the way. */
const someLeaf = fc.oneof(
  fc.tuple(somePath, someOrdered).map(([path, value]) => ({ [path]: value })),
  onField('$eq', someOrdered),
  // sift's $exists ends at the first element of an array that the path leads nowhere in.
  onField('$ne', someOrdered, someKey),
  onField('$gt', someOrdered),
  onField('$gte', someOrdered),
  onField('$lt', someOrdered),
  onField('$lte', someOrdered),
  onField('$in', fc.array(someOrdered, { maxLength: 3 })),
  onField('$nin', fc.array(someOrdered, { maxLength: 3 }), someKey),
  onField('$exists', fc.boolean(), someKey),
  onField('$startsWith', someString),
)

const { filter: someFilter } = fc.letrec<{ filter: RawFilter }>((tie) => ({
  filter: fc.oneof(
    { depthSize: 'medium', maxDepth: 3 },
    { weight: 3, arbitrary: someLeaf },
    {
      arbitrary: fc
        .tuple(fc.constantFrom('$and', '$or', '$nor'), fc.array(tie('filter'), { minLength: 1, maxLength: 3 }))
        .map(([name, filters]) => ({ [name]: filters })),
      weight: 2,
    },
    fc.record({ $not: tie('filter') }),
  ),
}))

/** The same in sift's words. */
function inSift(filter: RawFilter): RawFilter {
  const [[key, value]] = Object.entries(filter) as [[string, unknown]]
  if (key === '$not') return { $nor: [inSift(value as RawFilter)] }
  if (key.startsWith('$')) return { [key]: (value as RawFilter[]).map(inSift) }
  const isThere = { [key]: { $exists: true } }
  if (typeof value !== 'object' || value === null) return filter
  const [[operator, operand]] = Object.entries(value) as [[string, unknown]]
  switch (operator) {
    case '$exists':
      return operand ? isThere : { $nor: [isThere] }
    // Of these two, what is missing fulfils none.
    case '$ne':
      return { $and: [isThere, { $nor: [{ [key]: operand }] }] }
    case '$nin':
      return { $and: [isThere, { $nor: [{ [key]: { $in: operand } }] }] }
    case '$startsWith':
      return { [key]: { $regex: `^${operand}` } }
    default:
      return filter
  }
}

test('a filter does what it does in MongoDB, said as it is there', () => {
  const tally = new Tally()
  fc.assert(
    fc.property(someFilter, fc.array(someObject, { minLength: 1, maxLength: 8 }), (filter, payloads) => {
      const node = parseFilter(filter)
      const passes = sift(inSift(filter))
      for (const payload of payloads) {
        expect(evaluate(node, 'id', payload as never)).toBe(tally.add(passes(payload)))
      }
    }),
    runs(6000),
  )
  expect(tally.balance).toBeGreaterThan(0.2)
})
