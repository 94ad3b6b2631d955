import fc from 'fast-check'
import type { Bitmap } from '../../src/codec/bitmap.ts'
import type { Condition, Scalar } from '../../src/condition.ts'

// Documents and conditions that meet often, and what a condition means, told in another way than the columns tell it.

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json }
export type Payload = { [key: string]: Json }

export const encodePayload = (payload: Json | undefined): Uint8Array | undefined =>
  payload === undefined ? undefined : new TextEncoder().encode(JSON.stringify(payload))

/** Strings about the sizes at which they are kept otherwise, alike up to their last unit. */
const long = (unit: string, count: number, end: string): string => unit.repeat(count) + end
const strings: string[] = [
  '',
  'a',
  'ab',
  'abc',
  'b',
  'A',
  'é',
  '\u07ff',
  '\u0800',
  '\ud7ff',
  '\ue000',
  '\uffff',
  '\u{10000}',
  '\u{1f600}',
  '\u{10ffff}',
  '\ud800',
  '\udfff',
  '\ud83d',
  '\u0000',
  'a\u0000',
  '__proto__',
  ...['', 'a', 'b', 'c\ud800'].flatMap((end) =>
    [62, 63, 64, 65, 126, 127, 128, 129, 200].map((count) => long('x', count, end)),
  ),
  ...['', '\u{1f600}', '\uffff'].flatMap((end) =>
    [10, 20, 21, 22, 42, 43, 50].map((count) => long('\u4e2d', count, end)),
  ),
]
const numbers = [
  0,
  -0,
  1,
  -1,
  1.5,
  2,
  10,
  -10,
  1e308,
  -1e308,
  5e-324,
  -5e-324,
  2 ** 53,
  2 ** 53 + 2,
  -(2 ** 60),
  0.1,
  255,
  256,
  65536,
]
const keys = ['a', 'b', 'c', 'é', '\u{1f600}', '\ud800', '__proto__', 'constructor', 'toString', 'length']
const hidden = ['', 'a.b', '$a', '.']

const scalar: fc.Arbitrary<Scalar> = fc.oneof(
  { weight: 3, arbitrary: fc.constantFrom(...strings) },
  { weight: 3, arbitrary: fc.constantFrom(...numbers) },
  { weight: 1, arbitrary: fc.constantFrom(true, false, null) },
  { weight: 1, arbitrary: fc.string({ unit: 'binary', maxLength: 4 }) },
  { weight: 1, arbitrary: fc.double({ noNaN: true, noDefaultInfinity: true }) },
)

const key = fc.oneof(
  { weight: 20, arbitrary: fc.constantFrom('a', 'b') },
  { weight: 5, arbitrary: fc.constantFrom(...keys) },
  { weight: 1, arbitrary: fc.constantFrom(...hidden) },
)

const path: fc.Arbitrary<string> = fc.oneof(
  { weight: 3, arbitrary: key },
  { weight: 2, arbitrary: fc.array(key, { minLength: 2, maxLength: 3 }).map((parts) => parts.join('.')) },
)

/** Built of entries, so that `__proto__` is a property like any other. */
const record = (value: fc.Arbitrary<Json>): fc.Arbitrary<Payload> =>
  fc
    .array(fc.tuple(key, value), { minLength: 1, maxLength: 4 })
    .map((entries) => Object.fromEntries(entries) as Payload)

function payloadOf(scalars: readonly Scalar[]): fc.Arbitrary<Payload> {
  const { value } = fc.letrec<{ value: Json }>((tie) => ({
    value: fc.oneof(
      { maxDepth: 3, depthSize: 'medium' },
      { weight: 5, arbitrary: fc.constantFrom(...scalars) },
      { weight: 2, arbitrary: fc.array(tie('value'), { maxLength: 4 }) },
      { weight: 3, arbitrary: record(tie('value')) },
    ),
  }))
  return record(value)
}

function conditionOf(scalars: readonly Scalar[]): fc.Arbitrary<Condition> {
  const any = fc.oneof({ weight: 5, arbitrary: fc.constantFrom(...scalars) }, { weight: 1, arbitrary: scalar })
  const operator = fc.constantFrom('gt' as const, 'gte' as const, 'lt' as const, 'lte' as const)
  const text = fc.tuple(any, fc.nat({ max: 140 })).map(([value, size]) => String(value).slice(0, size))
  return fc.oneof(
    fc.constant<Condition>({ kind: 'exists' }),
    fc.uniqueArray(any, { minLength: 1, maxLength: 4 }).map((values): Condition => ({ kind: 'equal', values })),
    fc.tuple(operator, any).map(([operator, value]): Condition => ({ kind: 'range', operator, value: value ?? '' })),
    text.map((value): Condition => ({ kind: 'prefix', value })),
  )
}

/** Payloads, one of them missing now and then, and questions about values that they are made of. */
export const filtering: fc.Arbitrary<{
  payloads: (Payload | undefined)[]
  questions: [path: string, condition: Condition][]
}> = fc.uniqueArray(scalar, { minLength: 2, maxLength: 8 }).chain((scalars) =>
  fc.record({
    payloads: fc.array(fc.option(payloadOf(scalars), { freq: 12, nil: undefined }), { maxLength: 30, size: 'max' }),
    questions: fc.array(fc.tuple(path, conditionOf(scalars)), { minLength: 1, maxLength: 10, size: 'max' }),
  }),
)

/** All things at a path, and whether there is any. */
function found(payload: Json | undefined, path: string): Json[] {
  let places: Json[] = payload === undefined ? [] : [payload]
  for (const key of path.split('.')) {
    if (key === '' || key.startsWith('$')) return []
    places = places.flatMap((place) => (Array.isArray(place) ? place : [place]))
    places = places.flatMap((place) =>
      typeof place === 'object' && place !== null && !Array.isArray(place) && Object.hasOwn(place, key)
        ? [place[key]!]
        : [],
    )
  }
  return places
}

/** Whether a condition holds for a payload, by the words of the guide. */
export function holdsNaively(payload: Json | undefined, path: string, condition: Condition): boolean {
  const places = found(payload, path)
  if (condition.kind === 'exists') return places.length > 0
  return places.flat(1).some((value) => {
    if (condition.kind === 'equal') return condition.values.some((each) => each === value)
    if (condition.kind === 'prefix')
      return typeof value === 'string' && value.slice(0, condition.value.length) === condition.value
    const operand = condition.value
    const isBoth = (type: string) => typeof value === type && typeof operand === type
    if (!isBoth('number') && !isBoth('string') && !isBoth('boolean')) return false
    const { operator } = condition
    if (value === operand) return operator === 'gte' || operator === 'lte'
    return (value as number) > (operand as number) === (operator === 'gt' || operator === 'gte')
  })
}

/** The rows that pass, as columns must tell them. */
export function rowsNaively(payloads: readonly (Json | undefined)[], path: string, condition: Condition): number[] {
  return payloads.flatMap((each, row) => (holdsNaively(each, path, condition) ? [row] : []))
}

export const rowsOf = async (bitmap: Bitmap | Promise<Bitmap>): Promise<number[]> => [...(await bitmap).rows()]
