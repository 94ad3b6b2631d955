import { runInNewContext } from 'node:vm'
import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { IsovecError } from '../../src/errors.ts'
import { filterDepthMax, filterNodesMax, filterValuesMax, parseFilter } from '../../src/search/filter.ts'
import { someFilter, Tally } from '../support/filters.ts'
import { runs } from '../support/property.ts'

/** The path that a filter is refused at; undefined if it isn't refused. */
function refusalOf(filter: unknown): string | undefined {
  try {
    parseFilter(filter)
    return undefined
  } catch (error) {
    expect(error).toBeInstanceOf(IsovecError)
    const { code, field, message } = error as IsovecError
    expect(code).toBe('INVALID_ARGUMENT')
    expect(field).toMatch(/^filter/)
    expect(message.startsWith(`${field}: `)).toBe(true)
    return field
  }
}

class Point {
  x = 1
}
class Values extends Array {}
const revoked = (target: object): object => {
  const { proxy, revoke } = Proxy.revocable(target, {})
  revoke()
  return proxy
}
const throwing = (target: object): object =>
  new Proxy(target, {
    get() {
      throw new Error('get')
    },
  })
const symbolKey = { [Symbol('s')]: 1 }
const cyclic: Record<string, unknown> = { a: 1 }
cyclic.$or = [{ b: 2 }, { $not: cyclic }]
const cyclicList: unknown[] = []
cyclicList.push(cyclicList)

describe('refused, with the place', () => {
  test.for<[string, unknown, string]>([
    // Undefined is never ignored.
    ['no filter', undefined, 'filter'],
    ['undefined bare value', { tenant: undefined }, 'filter.tenant'],
    ['undefined beside a good one', { a: 1, tenant: undefined }, 'filter.tenant'],
    ['undefined under $eq', { a: { $eq: undefined } }, 'filter.a.$eq'],
    ['undefined under $exists', { a: { $exists: undefined } }, 'filter.a.$exists'],
    ['undefined under $in', { a: { $in: undefined } }, 'filter.a.$in'],
    ['undefined in $in', { a: { $in: [1, undefined] } }, 'filter.a.$in[1]'],
    ['hole in $nin', { a: { $nin: new Array(2) } }, 'filter.a.$nin[0]'],
    ['undefined under an unknown operator', { a: { $foo: undefined } }, 'filter.a.$foo'],
    ['undefined under field $not', { a: { $not: undefined } }, 'filter.a.$not'],
    ['undefined under $not', { $not: undefined }, 'filter.$not'],
    ['undefined under $and', { $and: undefined }, 'filter.$and'],
    ['undefined in $and', { $and: [{}, undefined] }, 'filter.$and[1]'],
    ['undefined $id', { $id: undefined }, 'filter.$id'],
    ['undefined deep inside', { $or: [{ a: 1 }, { b: { $not: { $lt: undefined } } }] }, 'filter.$or[1].b.$not.$lt'],
    // What is no filter.
    ['null', null, 'filter'],
    ['a list', [], 'filter'],
    ['a string', 'a', 'filter'],
    ['a function', () => true, 'filter'],
    ['a date', new Date(), 'filter'],
    ['an instance', new Point(), 'filter'],
    ['a map', new Map(), 'filter'],
    ['an inheriting object', Object.create({ a: 1 }), 'filter'],
    ['an instance inside', { $and: [{}, new Point()] }, 'filter.$and[1]'],
    ['a string in $or', { $or: ['a'] }, 'filter.$or[0]'],
    ['a list in $nor', { $nor: [[{}]] }, 'filter.$nor[0]'],
    ['a list under $not', { $not: [{}] }, 'filter.$not'],
    // Operators.
    ['an unknown word', { $where: '1' }, 'filter.$where'],
    ['a field operator without field', { $gt: 1 }, 'filter.$gt'],
    ['an unknown operator', { a: { $regex: 'x' } }, 'filter.a.$regex'],
    [
      'a misspelt one deep inside',
      { $or: [{ a: 1 }, { 'author.name': { $get: 1 } }] },
      'filter.$or[1].author.name.$get',
    ],
    ['logic on a field', { a: { $and: [{ $gt: 1 }] } }, 'filter.a.$and'],
    ['a nested object', { author: { name: 'Ada' } }, 'filter.author.name'],
    ['operators mixed with keys', { a: { $gt: 1, b: 2 } }, 'filter.a.b'],
    ['keys mixed with operators', { a: { b: 2, $gt: 1 } }, 'filter.a.b'],
    ['no operator', { a: {} }, 'filter.a'],
    ['no operator under $not', { a: { $not: {} } }, 'filter.a.$not'],
    ['a value under field $not', { a: { $not: 3 } }, 'filter.a.$not'],
    ['null under field $not', { a: { $not: null } }, 'filter.a.$not'],
    ['an empty $and', { $and: [] }, 'filter.$and'],
    ['an empty $or', { $or: [] }, 'filter.$or'],
    ['an empty $nor', { $nor: [] }, 'filter.$nor'],
    ['an object under $or', { $or: { 0: {}, length: 1 } }, 'filter.$or'],
    // Operands.
    ['a list as a value', { a: [1] }, 'filter.a'],
    ['a list under $eq', { a: { $eq: [1] } }, 'filter.a.$eq'],
    ['a list in $in', { a: { $in: [1, [2]] } }, 'filter.a.$in[1]'],
    ['no list under $in', { a: { $in: 1 } }, 'filter.a.$in'],
    ['a typed array under $in', { a: { $in: new Float32Array(2) } }, 'filter.a.$in'],
    ['a list of a class under $in', { a: { $in: new Values() } }, 'filter.a.$in'],
    ['an object under $eq', { a: { $eq: { b: 1 } } }, 'filter.a.$eq'],
    ['an object in $in', { a: { $in: [{}] } }, 'filter.a.$in[0]'],
    ['NaN', { a: Number.NaN }, 'filter.a'],
    ['an infinity', { a: { $lt: Number.POSITIVE_INFINITY } }, 'filter.a.$lt'],
    ['a bigint', { a: 1n }, 'filter.a'],
    ['a symbol', { a: { $eq: Symbol('x') } }, 'filter.a.$eq'],
    ['a function', { a: { $ne: () => 1 } }, 'filter.a.$ne'],
    ['a regular expression', { a: /x/ }, 'filter.a'],
    ['one in $in', { a: { $in: [/x/] } }, 'filter.a.$in[0]'],
    ['a date as a value', { a: new Date() }, 'filter.a'],
    ['a date as an operand', { a: { $gt: new Date() } }, 'filter.a.$gt'],
    ['a boxed string', { a: new String('x') }, 'filter.a'],
    ['a number under $exists', { a: { $exists: 1 } }, 'filter.a.$exists'],
    ['a number under $startsWith', { a: { $startsWith: 1 } }, 'filter.a.$startsWith'],
    ['null under $startsWith', { a: { $startsWith: null } }, 'filter.a.$startsWith'],
    // Ids.
    ['a number as id', { $id: 1 }, 'filter.$id'],
    ['null as id', { $id: null }, 'filter.$id'],
    ['a number above ids', { $id: { $gt: 1 } }, 'filter.$id.$gt'],
    ['null above ids', { $id: { $lte: null } }, 'filter.$id.$lte'],
    ['a number in a list of ids', { $id: { $in: ['a', 1] } }, 'filter.$id.$in[1]'],
    ['a number under $not', { $id: { $not: { $ne: 1 } } }, 'filter.$id.$not.$ne'],
    ['a path below the id', { '$id.a': 'x' }, 'filter.$id.a'],
    // Paths.
    ['an empty path', { '': 1 }, 'filter.'],
    ['a dot', { '.': 1 }, 'filter..'],
    ['an empty first key', { '.a': 1 }, 'filter..a'],
    ['an empty last key', { 'a.': 1 }, 'filter.a.'],
    ['an empty key inside', { 'a..b': 1 }, 'filter.a..b'],
    ['a key with $', { 'a.$b': 1 }, 'filter.a.$b'],
    ['the id below a path', { 'a.$id': 'x' }, 'filter.a.$id'],
    // What JSON has no words for.
    ['a symbol key', symbolKey, 'filter'],
    ['a symbol key on a field', { a: { $gt: 1, ...symbolKey } }, 'filter.a'],
    ['a hidden property', Object.defineProperty({}, 'tenant', { value: 1 }), 'filter'],
    ['Math', Math, 'filter'],
    // Loops and code of the caller.
    ['a cycle', cyclic, 'filter.$or[1].$not'],
    ['a list in itself', { $and: cyclicList }, 'filter.$and[0]'],
    ['a list in itself as operand', { a: { $in: cyclicList } }, 'filter.a.$in[0]'],
    ['a revoked proxy', revoked({}), 'filter'],
    ['a revoked list', { a: { $in: revoked([]) } }, 'filter.a.$in'],
    ['a revoked operand', { a: revoked({}) }, 'filter.a'],
    ['a throwing proxy', throwing({ a: 1 }), 'filter.a'],
    ['a throwing list', { $or: throwing([{}]) }, 'filter.$or'],
    [
      'a throwing getter',
      {
        get a() {
          throw new IsovecError('IO', 'not ours')
        },
      },
      'filter.a',
    ],
  ])('%s', ([name, filter, field]) => {
    expect(refusalOf(filter)).toBe(field)
    if (name.startsWith('undefined'))
      expect(() => parseFilter(filter)).toThrow(`${field}: is undefined, which is never`)
  })

  test('under the name that the caller gives', () => {
    expect(() => parseFilter({ a: { $foo: 1 } }, 'request.filter')).toThrow(
      expect.objectContaining({ code: 'INVALID_ARGUMENT', field: 'request.filter.a.$foo' }),
    )
  })

  test('with what the caller threw as cause', () => {
    expect(() => parseFilter(throwing({ a: 1 }))).toThrow(
      expect.objectContaining({ cause: expect.objectContaining({ message: 'get' }) }),
    )
  })
})

describe('taken', () => {
  test('whatever realm it is of', () => {
    expect(refusalOf(runInNewContext('({ a: { $in: [1, 2] }, $or: [{ b: null }] })'))).toBeUndefined()
  })

  test('without a prototype', () => {
    expect(refusalOf(Object.assign(Object.create(null), { a: 1 }))).toBeUndefined()
  })

  test('when one object stands in many places', () => {
    const shared = { $gt: 1 }
    expect(refusalOf({ a: shared, b: shared, $or: [{ c: shared }] })).toBeUndefined()
  })

  test.for([{}, { $and: [{}] }, { a: { $in: [] } }, { a: { $gte: null } }, { $not: {} }, { $id: { $exists: false } }])(
    '%j',
    (filter) => {
      expect(refusalOf(filter)).toBeUndefined()
    },
  )
})

describe('limits', () => {
  const nested = (levels: number): unknown => {
    let filter: unknown = { a: 1 }
    for (let i = 1; i < levels; i++) filter = i % 2 === 0 ? { $not: filter } : { $and: [filter] }
    return filter
  }
  test('of levels', () => {
    expect(filterDepthMax).toBe(32)
    expect(refusalOf(nested(32))).toBeUndefined()
    expect(refusalOf(nested(33))).toMatch(/^filter(\.\$not|\.\$and\[0\]){32}$/)
    expect(refusalOf({ $not: nested(31) })).toBeUndefined()
    let operators: unknown = { $gt: 1 }
    for (let i = 2; i < 32; i++) operators = { $not: operators }
    expect(refusalOf({ a: operators })).toBeUndefined()
    expect(refusalOf({ a: { $not: operators } })).toBe(`filter.a${'.$not'.repeat(31)}`)
    expect(refusalOf(nested(100_000))).toBeDefined()
  })

  test('of nodes', () => {
    expect(filterNodesMax).toBe(1000)
    const some = (count: number): unknown[] => Array.from({ length: count }, (_, i) => ({ a: i }))
    expect(refusalOf({ $or: some(999) })).toBeUndefined()
    expect(refusalOf({ $or: some(1000) })).toBe('filter.$or[999].a')
    expect(refusalOf({ $or: some(1001) })).toBe('filter.$or')
    expect(refusalOf({ $and: some(499), $or: some(499) })).toBeUndefined()
    expect(refusalOf({ $and: some(499), $or: some(500) })).toBe('filter.$or[499].a')
    const fields = (count: number): object => Object.fromEntries(some(count).map((_, i) => [`f${i}`, i]))
    expect(refusalOf(fields(1000))).toBeUndefined()
    expect(refusalOf(fields(1001))).toBe('filter')
    expect(refusalOf({ $or: Array.from({ length: 1000 }, () => ({})) })).toBe('filter.$or[999]')
    expect(refusalOf({ $or: new Array(2 ** 32 - 1) })).toBe('filter.$or')
    // 2^30 conditions out of 31 objects.
    let doubled: unknown = { a: 1 }
    for (let i = 0; i < 30; i++) doubled = { $and: [doubled, doubled] }
    expect(refusalOf(doubled)).toBeDefined()
  })

  test('of values in all lists together', () => {
    expect(filterValuesMax).toBe(10_000)
    const some = (count: number): number[] => Array.from({ length: count }, (_, i) => i % 7)
    expect(refusalOf({ a: { $in: some(10_000) } })).toBeUndefined()
    expect(refusalOf({ a: { $in: some(10_001) } })).toBe('filter.a.$in')
    expect(refusalOf({ a: { $in: some(6000), $nin: some(4000) } })).toBeUndefined()
    expect(refusalOf({ a: { $in: some(6000) }, $or: [{ b: { $nin: some(4001) } }] })).toBe('filter.$or[0].b.$nin')
    expect(refusalOf({ $or: [4000, 4000, 2000].map((count) => ({ a: { $in: some(count) } })) })).toBeUndefined()
    expect(refusalOf({ $or: [4000, 4000, 2001].map((count) => ({ a: { $in: some(count) } })) })).toBe(
      'filter.$or[2].a.$in',
    )
    expect(refusalOf({ a: { $in: new Array(2 ** 32 - 1) } })).toBe('filter.a.$in')
  })
})

describe('whatever is given', () => {
  // Behind functions, since fast-check looks into what it generates, which some of it doesn't bear.
  const hostile: fc.Arbitrary<() => unknown> = fc.oneof(
    fc
      .anything({
        withBigInt: true,
        withDate: true,
        withMap: true,
        withSet: true,
        withBoxedValues: true,
        withNullPrototype: true,
        withTypedArray: true,
        withSparseArray: true,
        key: fc.constantFrom(
          'a',
          'a.b',
          '$and',
          '$or',
          '$not',
          '$in',
          '$eq',
          '$gt',
          '$exists',
          '$id',
          '$x',
          '',
          '__proto__',
        ),
      })
      .map((value) => () => value),
    fc.constantFrom<() => unknown>(
      () => undefined,
      () => Symbol('s'),
      () => () => 1,
      () => revoked({}),
      () => revoked([]),
      () => throwing([1]),
      () => throwing({ a: 1 }),
      () => /x/,
      () => symbolKey,
    ),
  )
  /** A filter in which one place holds something else. */
  const spoilt = fc.tuple(someFilter, hostile, fc.nat()).map(
    ([filter, make, at]) =>
      (): unknown =>
        replaceAt(filter, make(), at),
  )
  const sound = someFilter.map((filter) => (): unknown => filter)
  const json = fc.json().map((text) => (): unknown => JSON.parse(text))

  test('is refused with a place, or is JSON through and through', () => {
    const tally = new Tally()
    fc.assert(
      fc.property(fc.oneof(json, hostile, sound, { weight: 3, arbitrary: spoilt }), (make) => {
        const value = make()
        const isTaken = refusalOf(value) === undefined
        tally.add(isTaken)
        if (!isTaken) return
        expect(isJson(value)).toBe(true)
        expect(parseFilter(JSON.parse(JSON.stringify(value)))).toEqual(parseFilter(value))
      }),
      runs(6000),
    )
    expect(tally.balance).toBeGreaterThan(0.05)
  })

  test('is refused wherever undefined stands', () => {
    fc.assert(
      fc.property(someFilter, fc.nat(), (filter, at) => {
        expect(refusalOf(replaceAt(filter, undefined, at))).toBeDefined()
      }),
      runs(2000),
    )
  })
})

/** A copy with `value` in the place of one of its parts, or of itself. */
function replaceAt(whole: unknown, value: unknown, at: number): unknown {
  const places: number = countOf(whole)
  let left = at % places
  const copy = (part: unknown): unknown => {
    if (left-- === 0) return value
    if (Array.isArray(part)) return part.map(copy)
    if (typeof part !== 'object' || part === null) return part
    return Object.fromEntries(Object.entries(part).map(([key, inner]) => [key, copy(inner)]))
  }
  return copy(whole)
}

function countOf(whole: unknown): number {
  if (typeof whole !== 'object' || whole === null) return 1
  return Object.values(whole).reduce((count: number, part) => count + countOf(part), 1)
}

function isJson(value: unknown): boolean {
  if (Array.isArray(value)) return Array.from(value).every(isJson)
  if (typeof value === 'object' && value !== null) {
    return [Object.prototype, null].includes(Object.getPrototypeOf(value)) && Object.values(value).every(isJson)
  }
  return value === null || ['string', 'boolean'].includes(typeof value) || Number.isFinite(value)
}
