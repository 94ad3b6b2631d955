/**
 * Conditions: what a filter asks of the values at one path of a payload. Columns must agree with what is defined here.
 */

/** A value that a filter compares with. */
export type Scalar = string | number | boolean | null

/**
 * A test of the values at one path of a payload. Values compare within their type only: numbers as numbers (-0 equals 0), strings by
 * UTF-16 code units, `false` before `true`, `null` with `null`. It holds for a row if it holds for one of the row's values.
 */
export type Condition =
  /** Something is there: `null`, an object or an empty list too. */
  | { readonly kind: 'exists' }
  /** One of `values`, which are distinct. */
  | { readonly kind: 'equal'; readonly values: readonly Scalar[] }
  | {
      readonly kind: 'range'
      readonly operator: 'gt' | 'gte' | 'lt' | 'lte'
      readonly value: string | number | boolean
    }
  /** A string that begins with `value`. */
  | { readonly kind: 'prefix'; readonly value: string }

/** Whether a key of a payload can be a segment of a dotted path. */
export function isAddressable(key: string): boolean {
  return key !== '' && !key.startsWith('$') && !key.includes('.')
}

/** Whether a JSON value is an object and no list. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
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
  if (test.kind === 'exists' || !Array.isArray(found)) return meets(found, test)
  return found.some((each) => meets(each, test))
}

/** Whether a condition holds for one value. */
export function meets(value: unknown, condition: Condition): boolean {
  switch (condition.kind) {
    case 'exists':
      return true
    case 'equal':
      return includes(condition.values, value)
    case 'prefix':
      return typeof value === 'string' && value.startsWith(condition.value)
    case 'range':
      return typeof value === typeof condition.value && compares(value as string, condition.operator, condition.value)
  }
}

/** Both sides are of one type: numbers, strings or booleans. */
function compares(
  value: string | number | boolean,
  operator: 'gt' | 'gte' | 'lt' | 'lte',
  bound: typeof value,
): boolean {
  switch (operator) {
    case 'gt':
      return value > bound
    case 'gte':
      return value >= bound
    case 'lt':
      return value < bound
    case 'lte':
      return value <= bound
  }
}

/** Values from which on a list is looked up in a set. */
const setSizeMin = 16
const sets = new WeakMap<readonly Scalar[], Set<unknown>>()

function includes(values: readonly Scalar[], value: unknown): boolean {
  if (values.length < setSizeMin) return (values as readonly unknown[]).includes(value)
  let set = sets.get(values)
  if (set === undefined) {
    set = new Set(values)
    sets.set(values, set)
  }
  return set.has(value)
}
