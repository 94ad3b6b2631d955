/**
 * What filters mean, written from their description and in no hurry: filters are read as they stand, and the values at a path are listed
 * before anything is asked of them.
 */
import type { Condition } from '../../src/condition.ts'

export type RawFilter = { readonly [key: string]: unknown }

const isRecord = (value: unknown): value is RawFilter => Object(value) === value && !Array.isArray(value)

/** Everything that stands at the end of a path; an array there counts as one. */
function endsOf(payload: unknown, path: string): unknown[] {
  const [first, ...others] = path.split('.') as [string, ...string[]]
  const step = (records: readonly unknown[], key: string): unknown[] =>
    records
      .filter(isRecord)
      .filter((record) => Object.hasOwn(record, key))
      .map((record) => record[key])
  return others.reduce((ends, key) => step(ends.flat(1), key), step([payload], first))
}

/** Less than, equal to or more than 0 as numbers are; NaN where types differ or have no order. */
function order(left: unknown, right: unknown): number {
  const type = typeof left
  if (type !== typeof right || !['number', 'string', 'boolean'].includes(type)) return Number.NaN
  return Number((left as number) > (right as number)) - Number((left as number) < (right as number))
}

const same = (left: unknown, right: unknown): boolean => left === right && Object(left) !== left

type Field = { readonly isThere: boolean; readonly values: readonly unknown[] }

function fieldOf(id: string, payload: unknown, path: string): Field {
  if (path === '$id') return { isThere: true, values: [id] }
  const ends = endsOf(payload, path)
  return { isThere: ends.length > 0, values: ends.flat(1) }
}

const operators: Record<string, (field: Field, operand: never) => boolean> = {
  $eq: ({ values }, operand: unknown) => values.some((value) => same(value, operand)),
  $in: ({ values }, operand: unknown[]) => operand.some((wanted) => values.some((value) => same(value, wanted))),
  $ne: (field, operand: unknown) => field.isThere && !operators.$eq!(field, operand as never),
  $nin: (field, operand: unknown[]) => field.isThere && !operators.$in!(field, operand as never),
  $gt: ({ values }, operand: unknown) => values.some((value) => order(value, operand) > 0),
  $gte: ({ values }, operand: unknown) => values.some((value) => order(value, operand) >= 0),
  $lt: ({ values }, operand: unknown) => values.some((value) => order(value, operand) < 0),
  $lte: ({ values }, operand: unknown) => values.some((value) => order(value, operand) <= 0),
  $startsWith: ({ values }, operand: string) =>
    values.some((value) => typeof value === 'string' && value.slice(0, operand.length) === operand),
  $exists: ({ isThere }, operand: boolean) => isThere === operand,
  $not: (field, operand: RawFilter) => !meetsAll(field, operand),
}

const meetsAll = (field: Field, operand: RawFilter): boolean =>
  Object.entries(operand).every(([operator, value]) => operators[operator]!(field, value as never))

/** Whether a document passes a filter that is well formed. */
export function matches(filter: RawFilter, id: string, payload: unknown): boolean {
  const some = (filters: unknown): boolean => (filters as RawFilter[]).some((each) => matches(each, id, payload))
  const every = (filters: unknown): boolean => (filters as RawFilter[]).every((each) => matches(each, id, payload))
  return Object.entries(filter).every(([key, value]) => {
    if (key === '$and') return every(value)
    if (key === '$or') return some(value)
    if (key === '$nor') return !some(value)
    if (key === '$not') return !every([value])
    return meetsAll(fieldOf(id, payload, key), isRecord(value) ? value : { $eq: value })
  })
}

/** Whether a condition holds for a document. */
export function holdsFor(id: string, payload: unknown, path: string, condition: Condition): boolean {
  const field = fieldOf(id, payload, path)
  switch (condition.kind) {
    case 'exists':
      return field.isThere
    case 'equal':
      return operators.$in!(field, condition.values as never)
    case 'prefix':
      return operators.$startsWith!(field, condition.value as never)
    case 'range':
      return operators[`$${condition.operator}`]!(field, condition.value as never)
  }
}
