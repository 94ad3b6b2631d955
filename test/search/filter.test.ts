import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Bitmap } from '../../src/codec/bitmap.ts'
import type { Condition } from '../../src/condition.ts'
import { type FilterNode, parseFilter, selectRows } from '../../src/search/filter.ts'
import { evaluate } from '../support/evaluate.ts'
import { holdsFor, matches, type RawFilter } from '../support/filter-reference.ts'
import { type SomeDocument, someComparison, someDocument, someFilter, Tally } from '../support/filters.ts'
import { runs } from '../support/property.ts'

function passes(filter: unknown, { id, payload }: SomeDocument): boolean {
  return evaluate(parseFilter(filter), id, payload)
}

describe('a filter on a document', () => {
  test('does what its description says', () => {
    const tally = new Tally()
    fc.assert(
      fc.property(someFilter, fc.array(someDocument, { minLength: 1, maxLength: 8 }), (filter, documents) => {
        const node = parseFilter(filter)
        for (const { id, payload } of documents) {
          expect(evaluate(node, id, payload)).toBe(tally.add(matches(filter, id, payload)))
        }
      }),
      runs(6000),
    )
    expect(tally.balance).toBeGreaterThan(0.2)
  })

  test('does so with every operator, which often hold and often do not', () => {
    const tallies = new Map<string, Tally>()
    fc.assert(
      fc.property(someComparison, someDocument, ([path, [operator, operand]], { id, payload }) => {
        const filter = { [path]: { [operator]: operand } }
        const tally = tallies.get(operator) ?? new Tally()
        tallies.set(operator, tally)
        expect(evaluate(parseFilter(filter), id, payload)).toBe(tally.add(matches(filter, id, payload)))
      }),
      runs(10_000),
    )
    expect(tallies.size).toBe(10)
    for (const [operator, { balance }] of tallies) expect(balance, operator).toBeGreaterThan(0.015)
  })

  const book = {
    year: 2020,
    none: null,
    tags: ['a', 'b'],
    empty: [],
    grid: [[1, 2]],
    author: { name: 'Ada' },
    reviews: [{ stars: 1, by: { name: 'x' } }, { stars: 5 }, 7, [{ stars: 9 }]],
    flag: false,
  }
  test.for<[RawFilter, boolean]>([
    [{}, true],
    [{ year: 2020, flag: false }, true],
    [{ year: '2020' }, false],
    [{ none: null }, true],
    [{ missing: null }, false],
    [{ missing: { $ne: 1 } }, false],
    [{ missing: { $nin: [1] } }, false],
    [{ missing: { $nin: [] } }, false],
    [{ year: { $nin: [] } }, true],
    [{ year: { $in: [] } }, false],
    [{ missing: { $not: { $eq: 1 } } }, true],
    [{ $nor: [{ missing: 1 }] }, true],
    [{ missing: { $exists: false } }, true],
    [{ none: { $exists: true } }, true],
    [{ empty: { $exists: true } }, true],
    [{ empty: { $ne: 1 } }, true],
    [{ empty: { $gte: 0 } }, false],
    [{ tags: 'b' }, true],
    [{ tags: { $ne: 'b' } }, false],
    [{ tags: { $gt: 'a', $lt: 'b' } }, true],
    [{ grid: 1 }, false],
    [{ grid: { $exists: true } }, true],
    [{ author: { $exists: true } }, true],
    [{ author: { $ne: 'Ada' } }, true],
    [{ 'author.name': { $startsWith: 'A' } }, true],
    [{ 'author.name': { $startsWith: '' } }, true],
    [{ year: { $startsWith: '2' } }, false],
    [{ 'reviews.stars': 5 }, true],
    [{ 'reviews.stars': { $lt: 2, $gt: 4 } }, true],
    [{ 'reviews.stars': 9 }, false],
    [{ 'reviews.by.name': 'x' }, true],
    [{ 'reviews.0.stars': 1 }, false],
    [{ 'tags.length': 2 }, false],
    [{ none: { $gte: null } }, false],
    [{ none: { $not: { $gt: null } } }, true],
    [{ flag: { $lt: true } }, true],
    [{ year: { $gt: '1' } }, false],
    [{ $id: 'a' }, true],
    [{ $id: { $ne: 'a' } }, false],
    [{ $id: { $gt: 'Z', $startsWith: 'a' } }, true],
    [{ constructor: { $exists: true } }, false],
    [{ 'author.constructor.name': 'Object' }, false],
    [{ 'author.toString': { $exists: true } }, false],
  ])('%j: %j', ([filter, expected]) => {
    expect(passes(filter, { id: 'a', payload: book })).toBe(expected)
  })

  test('compares strings by code units', () => {
    // By code points, and so in UTF-8, the order is the other way round.
    expect(passes({ a: { $lt: '\uffff' } }, { id: 'a', payload: { a: '\u{1f600}' } })).toBe(true)
  })

  test('knows -0 and 0 as one', () => {
    expect(passes({ a: -0 }, { id: 'a', payload: { a: 0 } })).toBe(true)
    expect(passes({ a: { $gt: -0 } }, { id: 'a', payload: { a: 0 } })).toBe(false)
    expect(parseFilter({ a: -0 })).toMatchObject({ condition: { values: [0] } })
    expect(parseFilter({ a: { $lt: -0 } })).toMatchObject({ condition: { value: 0 } })
    expect(parseFilter({ a: { $in: [0, -0] } })).toEqual({
      kind: 'leaf',
      path: 'a',
      condition: { kind: 'equal', values: [0] },
    })
  })

  test('addresses keys that objects inherit as the data they are', () => {
    const payload = JSON.parse('{"__proto__":{"polluted":1},"constructor":{"prototype":2},"toString":3}')
    const filter = JSON.parse(
      '{"__proto__":{"$exists":true},"__proto__.polluted":1,"constructor.prototype":2,"toString":3}',
    )
    expect(passes(filter, { id: 'a', payload })).toBe(true)
    expect(passes(filter, { id: 'a', payload: {} })).toBe(false)
    expect(() => parseFilter(JSON.parse('{"__proto__":{"polluted":1}}'))).toThrow(/__proto__\.polluted/)
    expect(({} as { polluted?: unknown }).polluted).toBeUndefined()
  })

  test('looks up long lists as it does short ones', () => {
    const values = Array.from({ length: 5000 }, (_, i) => i * 2)
    for (const value of [0, 1, 4999, 9998]) {
      const document = { id: 'a', payload: { a: ['x', value] } }
      expect(passes({ a: { $in: values } }, document)).toBe(value % 2 === 0)
      expect(passes({ a: { $nin: values } }, document)).toBe(value % 2 === 1)
    }
  })
})

describe('a parsed filter', () => {
  const agree = (filters: (filter: RawFilter, other: RawFilter) => [RawFilter, RawFilter]): void => {
    fc.assert(
      fc.property(someFilter, someFilter, someDocument, (filter, other, document) => {
        const [left, right] = filters(filter, other)
        expect(passes(left, document)).toBe(passes(right, document))
      }),
      runs(1000),
    )
  }
  test('is itself when negated twice', () => agree((filter) => [{ $not: { $not: filter } }, filter]))
  test('is its opposite when negated', () => {
    fc.assert(
      fc.property(someFilter, someDocument, (filter, document) => {
        expect(passes({ $not: filter }, document)).toBe(!passes(filter, document))
        expect(passes({ $or: [filter, { $not: filter }] }, document)).toBe(true)
        expect(passes({ $and: [filter, { $not: filter }] }, document)).toBe(false)
      }),
      runs(1000),
    )
  })
  test('follows De Morgan', () => {
    agree((filter, other) => [{ $nor: [filter, other] }, { $and: [{ $not: filter }, { $not: other }] }])
    agree((filter, other) => [{ $not: { $and: [filter, other] } }, { $or: [{ $not: filter }, { $not: other }] }])
  })
  test('is the conjunction of its members', () => {
    agree((filter) => [filter, { $and: [{}, ...Object.entries(filter).map((member) => Object.fromEntries([member]))] }])
  })

  test('is small: constants are folded, what is nested is flat', () => {
    fc.assert(
      fc.property(someFilter, (filter) => {
        const node = parseFilter(filter)
        if (node.kind !== 'all' && node.kind !== 'none') expectNormal(node)
      }),
      runs(1000),
    )
    expect(parseFilter({ $and: [{ a: 1 }, {}, { $and: [{ b: 1 }, { $not: { $nor: [{ c: 1 }] } }] }] })).toMatchObject({
      kind: 'and',
      nodes: [{ path: 'a' }, { path: 'b' }, { path: 'c' }],
    })
    expect(parseFilter({ a: 1, b: { $in: [] } })).toEqual({ kind: 'none' })
    expect(parseFilter({ $or: [{ a: 1 }, {}] })).toEqual({ kind: 'all' })
    expect(parseFilter({ $id: { $exists: true } })).toEqual({ kind: 'all' })
    expect(parseFilter({ $id: { $nin: ['a', 'b', 'a'] } })).toEqual({
      kind: 'not',
      node: { kind: 'leaf', path: '$id', condition: { kind: 'equal', values: ['a', 'b'] } },
    })
  })

  test('shares nothing with the caller', () => {
    const values = [1, 2]
    const inner: Record<string, unknown> = { a: { $in: values } }
    const filter = { $or: [inner] }
    const node = parseFilter(filter)
    const before = structuredClone(node)
    values.push(3)
    inner.a = 5
    filter.$or.length = 0
    expect(node).toEqual(before)
  })

  test('reads every property once', () => {
    let reads = 0
    const filter = {
      get a() {
        return ++reads === 1 ? 1 : undefined
      },
    }
    expect(parseFilter(filter)).toMatchObject({ path: 'a', condition: { values: [1] } })
    expect(reads).toBe(1)
  })
})

function expectNormal(node: FilterNode): void {
  switch (node.kind) {
    case 'all':
    case 'none':
      throw new Error('a constant inside')
    case 'not':
      expect(node.node.kind).not.toBe('not')
      expectNormal(node.node)
      return
    case 'leaf':
      return
    default:
      expect(node.nodes.length).toBeGreaterThan(1)
      for (const part of node.nodes) {
        expect(part.kind).not.toBe(node.kind)
        expectNormal(part)
      }
  }
}

describe('the rows of a source', () => {
  type Match = (path: string, condition: Condition) => Bitmap | Promise<Bitmap>

  function matchOver(
    documents: readonly SomeDocument[],
    calls: string[] = [],
  ): (path: string, condition: Condition) => Bitmap {
    return (path, condition) => {
      calls.push(path)
      const rows = Bitmap.of(documents.length)
      documents.forEach(({ id, payload }, row) => {
        if (holdsFor(id, payload, path, condition)) rows.add(row)
      })
      return rows
    }
  }

  test('are those that pass one by one, with and without waiting', async () => {
    const tally = new Tally()
    await fc.assert(
      fc.asyncProperty(
        someFilter,
        fc.array(someDocument, { maxLength: 70, size: 'max' }),
        fc.array(fc.boolean(), { minLength: 1, maxLength: 5 }),
        async (filter, documents, waits) => {
          const node = parseFilter(filter)
          const expected = documents.flatMap(({ id, payload }, row) => (evaluate(node, id, payload) ? [row] : []))
          tally.add(expected.length > 0 && expected.length < documents.length)
          const match = matchOver(documents)
          const now = selectRows(node, documents.length, match)
          expect(now).toBeInstanceOf(Bitmap)
          expect([...(now as Bitmap).rows()]).toEqual(expected)
          const later: Match = (path, condition) => Promise.resolve().then(() => match(path, condition))
          expect([...(await selectRows(node, documents.length, later)).rows()]).toEqual(expected)
          let call = 0
          const mixed: Match = (...condition) => (waits[call++ % waits.length] ? later : match)(...condition)
          expect([...(await selectRows(node, documents.length, mixed)).rows()]).toEqual(expected)
        },
      ),
      runs(500),
    )
    expect(tally.balance).toBeGreaterThan(0.2)
  })

  test('need no condition that cannot matter any more', () => {
    const documents = [{ id: 'a', payload: { a: 1 } }]
    const callsOf = (filter: RawFilter): string[] => {
      const calls: string[] = []
      selectRows(parseFilter(filter), documents.length, matchOver(documents, calls))
      return calls
    }
    expect(callsOf({ x: 1, y: 1, z: 1 })).toEqual(['x'])
    expect(callsOf({ $not: { y: 1 }, x: 1 })).toEqual(['x'])
    expect(callsOf({ $nor: [{ a: 1 }, { b: 1 }], $not: { c: 1 } })).toEqual(['a'])
    expect(callsOf({ $or: [{ x: 1 }, { a: 1 }, { y: 1 }] })).toEqual(['x', 'a'])
    expect(callsOf({})).toEqual([])
    expect(callsOf({ a: { $in: [] } })).toEqual([])
  })

  test('are not found where a match fails', async () => {
    const failure = new Error('no such bytes')
    const node = parseFilter({ a: 1, b: 1 })
    await expect(selectRows(node, 1, () => Promise.reject(failure))).rejects.toBe(failure)
    await expect(
      selectRows(node, 1, (path) => (path === 'a' ? Promise.resolve(Bitmap.full(1)) : Promise.reject(failure))),
    ).rejects.toBe(failure)
    expect(() =>
      selectRows(node, 1, () => {
        throw failure
      }),
    ).toThrow(failure)
    expect(() => selectRows(node, 2, () => Bitmap.of(1))).toThrow(/internal assertion/)
  })
})
