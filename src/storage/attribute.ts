/**
 * What a condition means on one payload: the definition that columns must agree with, and the way to answer what they cannot.
 */
import { utf8Decode } from '../codec/bytes.ts'
import { IsovecError } from '../errors.ts'
import type { Condition } from '../snapshot.ts'

/** Whether a key of a payload can be a segment of a dotted path. */
export function isAddressable(key: string): boolean {
  return key !== '' && !key.startsWith('$') && !key.includes('.')
}

/** Whether a JSON value is an object and no list. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/**
 * The payload that bytes hold.
 * @throws IsovecError `CORRUPTION` if they are not JSON in UTF-8
 */
export function parsePayload(bytes: Uint8Array, name: string, row: number): unknown {
  try {
    return JSON.parse(utf8Decode(bytes))
  } catch (cause) {
    throw new IsovecError('CORRUPTION', `${name}: the payload of row ${row} is not JSON`, { file: name, cause })
  }
}

/**
 * Whether a condition holds for one of the values at a dotted path. On the way, lists are entered one level deep and every object in
 * them is followed; at the end, the elements of a list are the values.
 */
export function holdsAt(payload: unknown, path: string, condition: Condition): boolean {
  const keys = path.split('.')
  return keys.every(isAddressable) && isRecord(payload) && holdsBelow(payload, keys, 0, condition)
}

function holdsBelow(record: Record<string, unknown>, keys: readonly string[], depth: number, test: Condition): boolean {
  const key = keys[depth]!
  if (!Object.hasOwn(record, key)) return false
  const found = record[key]
  if (depth + 1 < keys.length) {
    if (Array.isArray(found)) return found.some((each) => isRecord(each) && holdsBelow(each, keys, depth + 1, test))
    return isRecord(found) && holdsBelow(found, keys, depth + 1, test)
  }
  if (test.kind === 'exists') return true
  return Array.isArray(found) ? found.some((each) => holds(each, test)) : holds(found, test)
}

function holds(value: unknown, condition: Exclude<Condition, { kind: 'exists' }>): boolean {
  switch (condition.kind) {
    case 'equal':
      return (condition.values as readonly unknown[]).includes(value)
    case 'prefix':
      return typeof value === 'string' && value.startsWith(condition.value)
    case 'range': {
      if (typeof value !== typeof condition.value) return false
      const order = compare(value as typeof condition.value, condition.value)
      switch (condition.operator) {
        case 'gt':
          return order > 0
        case 'gte':
          return order >= 0
        case 'lt':
          return order < 0
        case 'lte':
          return order <= 0
      }
    }
  }
}

function compare<T extends string | number | boolean>(a: T, b: T): number {
  return a < b ? -1 : a > b ? 1 : 0
}
