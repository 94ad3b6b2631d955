/**
 * Projections: the parts of a payload that some dotted paths lead to.
 */

/** What of a value is wanted: all of it, or what lies below some keys. */
export type Projection = true | ReadonlyMap<string, Projection>

/** The projection to dotted paths. A path includes whatever is below it. */
export function projectionOf(paths: readonly string[]): Projection {
  const root = new Map<string, Projection>()
  for (const path of paths) add(root, path.split('.'), 0)
  return root
}

function add(node: Map<string, Projection>, keys: readonly string[], depth: number): void {
  const key = keys[depth]!
  const below = node.get(key)
  if (below === true) return
  if (depth + 1 === keys.length) {
    node.set(key, true)
    return
  }
  const child = (below as Map<string, Projection> | undefined) ?? new Map<string, Projection>()
  node.set(key, child)
  add(child, keys, depth + 1)
}

/** The part of a JSON object. Lists on the way keep those of their elements that are objects, each with its part. */
export function project(record: object, projection: Projection): object {
  if (projection === true) return record
  const parts: [string, unknown][] = []
  for (const [key, below] of projection) {
    if (!Object.hasOwn(record, key)) continue
    const part = partOf((record as Record<string, unknown>)[key], below)
    if (part !== undefined) parts.push([key, part])
  }
  // Defines what it is given, so that `__proto__` is a key like any other.
  return Object.fromEntries(parts)
}

function partOf(value: unknown, projection: Projection): unknown {
  if (projection === true) return value
  if (Array.isArray(value)) return value.filter(isRecord).map((element) => project(element, projection))
  return isRecord(value) ? project(value, projection) : undefined
}

function isRecord(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
