/**
 * Filters: parsed from what callers write into a small tree, which is then evaluated over all rows of a source.
 *
 * The words are MongoDB's, the rules differ on purpose where MongoDB's are known to surprise. A condition speaks of the values at a path:
 * of the elements, where an array stands at its end. What is missing fulfils no condition, negated ones included, but
 * `$exists: false`. Only `$not` and `$nor` negate whatever they hold.
 */
import { Bitmap } from '../codec/bitmap.ts'
import type { Condition, Scalar } from '../condition.ts'
import { assert, IsovecError } from '../errors.ts'

/** A filter that was checked and shares nothing with the caller. Constants stand only at the root, `not` holds no `not`. */
export type FilterNode =
  | { readonly kind: 'all' }
  | { readonly kind: 'none' }
  | { readonly kind: 'and' | 'or'; readonly nodes: readonly FilterNode[] }
  | { readonly kind: 'not'; readonly node: FilterNode }
  /** Some value at `path` meets `condition`; the path `$id` is the document's id. */
  | { readonly kind: 'leaf'; readonly path: string; readonly condition: Condition }

/** Objects that may stand one in another; the filter itself is the first. */
export const filterDepthMax = 32
/** Conditions, logical operators and empty filters that a filter may be made of. */
export const filterNodesMax = 1000
/** Values that all `$in` and `$nin` of a filter may list together. */
export const filterValuesMax = 10_000
/** The path that stands for a document's id. */
export const idPath = '$id'

const all: FilterNode = { kind: 'all' }
const none: FilterNode = { kind: 'none' }
const exists: Condition = { kind: 'exists' }

/**
 * Checks, copies and simplifies a filter. Every property is read once.
 *
 * @param name where the filter stands in the call's arguments, for errors
 * @throws IsovecError `INVALID_ARGUMENT` with the path of what is wrong as `field`, such as `filter.$or[1].year.$gt`
 */
export function parseFilter(value: unknown, name = 'filter'): FilterNode {
  return new Parser().filter(value, name)
}

/** One parse: what was counted so far, and the objects on the way to where it is. */
class Parser {
  #nodes = 0
  #values = 0
  readonly #ancestors: object[] = []

  filter(value: unknown, at: string): FilterNode {
    checkDefined(value, at)
    return this.#inside(value, at, 'a filter is a plain object', (members) => {
      if (members.length === 0) this.#countNode(at)
      return combine(
        'and',
        members.map((member) => this.#member(member)),
      )
    })
  }

  #member({ key, value, at }: Member): FilterNode {
    checkDefined(value, at)
    switch (key) {
      case '$and':
        return combine('and', this.#filters(value, at))
      case '$or':
        return combine('or', this.#filters(value, at))
      case '$nor':
        return negate(combine('or', this.#filters(value, at)))
      case '$not':
        this.#countNode(at)
        return negate(this.filter(value, at))
      default:
        checkPath(key, at)
        return this.#field(key, value, at)
    }
  }

  #filters(value: unknown, at: string): FilterNode[] {
    this.#countNode(at)
    const elements = elementsOf(value, at, filterNodesMax, tooManyNodes)
    if (elements.length === 0) throw invalid(at, 'an empty list of filters says nothing')
    return elements.map((element, i) => this.filter(element, `${at}[${i}]`))
  }

  #field(path: string, value: unknown, at: string): FilterNode {
    if (typeof value === 'object' && value !== null) return this.#operators(path, value, at)
    this.#countNode(at)
    return leaf(path, { kind: 'equal', values: [checkScalar(path, value, at)] })
  }

  #operators(path: string, value: unknown, at: string): FilterNode {
    if (isList(value, at)) throw invalid(at, misplacedList)
    return this.#inside(value, at, 'what stands here is an object of operators', (members) => {
      if (members.length === 0) throw invalid(at, 'an object without operators says nothing')
      return combine(
        'and',
        members.map((member) => this.#operator(path, member)),
      )
    })
  }

  #operator(path: string, { key, value, at }: Member): FilterNode {
    this.#countNode(at)
    checkDefined(value, at)
    switch (key) {
      case '$eq':
        return leaf(path, { kind: 'equal', values: [checkScalar(path, value, at)] })
      case '$ne':
        return other(path, [checkScalar(path, value, at)])
      case '$in':
        return leaf(path, { kind: 'equal', values: this.#scalars(path, value, at) })
      case '$nin':
        return other(path, this.#scalars(path, value, at))
      case '$gt':
      case '$gte':
      case '$lt':
      case '$lte': {
        const bound = checkScalar(path, value, at)
        // Nothing is above or below null.
        if (bound === null) return none
        return leaf(path, { kind: 'range', operator: key.slice(1) as 'gt' | 'gte' | 'lt' | 'lte', value: bound })
      }
      case '$startsWith':
        if (typeof value !== 'string') throw invalid(at, 'is not a string')
        return leaf(path, { kind: 'prefix', value })
      case '$exists':
        if (typeof value !== 'boolean') throw invalid(at, 'is not a boolean')
        return value ? leaf(path, exists) : negate(leaf(path, exists))
      case '$not':
        return negate(this.#operators(path, value, at))
      default:
        throw invalid(
          at,
          key.startsWith('$') ? 'is not an operator on a field' : 'is not an operator: paths into objects have dots',
        )
    }
  }

  /** Distinct values of a list. */
  #scalars(path: string, value: unknown, at: string): Scalar[] {
    const tooMany = `the lists of $in and $nin hold more than ${filterValuesMax} values`
    const elements = elementsOf(value, at, filterValuesMax - this.#values, tooMany)
    this.#values += elements.length
    return [...new Set(elements.map((element, i) => checkScalar(path, element, `${at}[${i}]`)))]
  }

  /** Reads an object and goes into it. */
  #inside(value: unknown, at: string, expected: string, visit: (members: Member[]) => FilterNode): FilterNode {
    if (typeof value !== 'object' || value === null || isList(value, at)) throw invalid(at, expected)
    if (this.#ancestors.includes(value)) throw invalid(at, 'the filter contains itself')
    if (this.#ancestors.length === filterDepthMax) throw invalid(at, `is more than ${filterDepthMax} levels deep`)
    const members = membersOf(value, at)
    this.#ancestors.push(value)
    const node = visit(members)
    this.#ancestors.pop()
    return node
  }

  #countNode(at: string): void {
    if (++this.#nodes > filterNodesMax) throw invalid(at, tooManyNodes)
  }
}

const tooManyNodes = `a filter is made of more than ${filterNodesMax} conditions and operators`
const misplacedList = 'a list stands only under $in, $nin, $and, $or and $nor'

/** A property of an object in a filter, and where it stands. */
type Member = { readonly key: string; readonly value: unknown; readonly at: string }

/** Conjunction or disjunction, with constants folded and what is of the same kind taken in. */
function combine(kind: 'and' | 'or', nodes: readonly FilterNode[]): FilterNode {
  const [unit, zero] = kind === 'and' ? [all, none] : [none, all]
  const flat: FilterNode[] = []
  for (const node of nodes) {
    if (node.kind === zero.kind) return zero
    if (node.kind === kind) flat.push(...node.nodes)
    else if (node.kind !== unit.kind) flat.push(node)
  }
  if (flat.length === 0) return unit
  return flat.length === 1 ? flat[0]! : { kind, nodes: flat }
}

function negate(node: FilterNode): FilterNode {
  if (node.kind === 'all') return none
  if (node.kind === 'none') return all
  return node.kind === 'not' ? node.node : { kind: 'not', node }
}

function leaf(path: string, condition: Condition): FilterNode {
  if (condition.kind === 'equal' && condition.values.length === 0) return none
  if (condition.kind === 'exists' && path === idPath) return all
  return { kind: 'leaf', path, condition }
}

/** What `$ne` and `$nin` mean: something is there, and none of the values. */
function other(path: string, values: readonly Scalar[]): FilterNode {
  return combine('and', [leaf(path, exists), negate(leaf(path, { kind: 'equal', values }))])
}

function checkDefined(value: unknown, at: string): void {
  if (value === undefined) throw invalid(at, 'is undefined, which is never taken for a condition left out')
}

/** An operand; under `$id` it is a string. `-0` becomes `0`. */
function checkScalar(path: string, value: unknown, at: string): Scalar {
  checkDefined(value, at)
  if (typeof value === 'object' && value !== null) {
    throw invalid(at, isList(value, at) ? misplacedList : 'an object is no operand')
  }
  if (path === idPath && typeof value !== 'string') throw invalid(at, 'ids are strings')
  switch (typeof value) {
    case 'number':
      if (!Number.isFinite(value)) throw invalid(at, `${value} is not a finite number`)
      return value + 0
    case 'string':
    case 'boolean':
    case 'object':
      return value as Scalar
    default:
      throw invalid(at, `a ${typeof value} is no operand`)
  }
}

function checkPath(path: string, at: string): void {
  if (path === idPath) return
  if (path.startsWith('$')) throw invalid(at, 'is not an operator on filters')
  if (`.${path}`.includes('.$')) throw invalid(at, 'keys that begin with $ cannot be addressed')
  if (path === '' || path.startsWith('.') || path.endsWith('.') || path.includes('..')) {
    throw invalid(at, 'a path holds an empty key')
  }
}

/** The properties of a plain object. The caller's code (getters, proxies) runs here and in {@link elementsOf} only. */
function membersOf(value: object, at: string): Member[] {
  if (!read(at, () => isPlain(value))) throw invalid(at, 'is not a plain object')
  const keys = read(at, () => Object.keys(value))
  if (read(at, () => Reflect.ownKeys(value)).length !== keys.length) {
    throw invalid(at, 'symbols and properties that are not enumerable are not JSON')
  }
  if (keys.length > filterNodesMax) throw invalid(at, tooManyNodes)
  return keys.map((key) => {
    const path = `${at}.${key}`
    return { key, value: read(path, () => (value as Record<string, unknown>)[key]), at: path }
  })
}

/** The elements of a list; more than `countMax` are refused before they are read. */
function elementsOf(value: unknown, at: string, countMax: number, tooMany: string): unknown[] {
  // The prototype of a list, of whatever realm, is an array itself; the prototype of a class is not.
  if (!isList(value, at) || !read(at, () => Array.isArray(Object.getPrototypeOf(value)))) {
    throw invalid(at, 'is not a list')
  }
  const count = read(at, () => value.length)
  if (count > countMax) throw invalid(at, tooMany)
  return Array.from({ length: count }, (_, i) => read(`${at}[${i}]`, () => value[i]))
}

function isList(value: unknown, at: string): value is readonly unknown[] {
  return read(at, () => Array.isArray(value))
}

/** Whether an object is nobody's instance, in this realm or another: its prototype is none, or one that looks like Object.prototype. */
function isPlain(value: object): boolean {
  const prototype = Object.getPrototypeOf(value)
  return prototype === null || (Object.getPrototypeOf(prototype) === null && Object.hasOwn(prototype, 'isPrototypeOf'))
}

/** What the caller's code throws becomes an error about the place. */
function read<T>(at: string, access: () => T): T {
  try {
    return access()
  } catch (cause) {
    throw new IsovecError('INVALID_ARGUMENT', `${at}: cannot be read`, { field: at, cause })
  }
}

function invalid(field: string, problem: string): IsovecError {
  return new IsovecError('INVALID_ARGUMENT', `${field}: ${problem}`, { field })
}

/** Rows for which a condition holds: a set of its own, which is changed in place. */
type Match = (path: string, condition: Condition) => Bitmap | Promise<Bitmap>

/**
 * The rows of a source that pass: without an await where `match` needs none. Conditions that cannot matter any more are not matched.
 * O(nodes · rowCount / 32) beside `match`.
 *
 * @param rowCount rows that `match` answers for
 */
export function selectRows(node: FilterNode, rowCount: number, match: Match): Bitmap | Promise<Bitmap> {
  const selection = select(node, rowCount, match)
  let step = selection.next()
  while (!step.done) {
    if (step.value instanceof Promise) return finish(selection, step.value)
    step = selection.next(step.value)
  }
  return step.value
}

/** Asks for what matches need and is given their sets: one algorithm for those at hand and those to be waited for. */
type Selecting = Generator<Bitmap | Promise<Bitmap>, Bitmap, Bitmap>

async function finish(selection: Selecting, first: Promise<Bitmap>): Promise<Bitmap> {
  let step = selection.next(await first)
  while (!step.done) step = selection.next(await step.value)
  return step.value
}

function* select(node: FilterNode, rowCount: number, match: Match): Selecting {
  switch (node.kind) {
    case 'all':
      return Bitmap.full(rowCount)
    case 'none':
      return Bitmap.of(rowCount)
    case 'not':
      return (yield* select(node.node, rowCount, match)).not()
    case 'and':
      return yield* selectEvery(node.nodes, rowCount, match)
    case 'or':
      return yield* selectSome(node.nodes, rowCount, match)
    case 'leaf': {
      const rows = yield match(node.path, node.condition)
      assert(rows.length === rowCount, 'a condition is matched over all rows of its source')
      return rows
    }
  }
}

function* selectEvery(nodes: readonly FilterNode[], rowCount: number, match: Match): Selecting {
  let rows: Bitmap | undefined
  for (const node of nodes) {
    if (node.kind === 'not') continue
    const some = yield* select(node, rowCount, match)
    rows = rows === undefined ? some : rows.and(some)
    if (rows.count() === 0) return rows
  }
  // What is negated only takes away, so that it comes last and needs no set of what is left.
  rows ??= Bitmap.full(rowCount)
  for (const node of nodes) {
    if (node.kind !== 'not') continue
    rows.andNot(yield* select(node.node, rowCount, match))
    if (rows.count() === 0) return rows
  }
  return rows
}

function* selectSome(nodes: readonly FilterNode[], rowCount: number, match: Match): Selecting {
  const rows = Bitmap.of(rowCount)
  for (const node of nodes) {
    rows.or(yield* select(node, rowCount, match))
    if (rows.count() === rowCount) return rows
  }
  return rows
}
