import { holdsAt, meets } from '../../src/condition.ts'
import type { JsonObject } from '../../src/index.ts'
import { type FilterNode, idPath } from '../../src/search/filter.ts'

/** Whether a document passes a parsed filter, by the definition of conditions. */
export function evaluate(node: FilterNode, id: string, payload: JsonObject | undefined): boolean {
  switch (node.kind) {
    case 'all':
      return true
    case 'none':
      return false
    case 'and':
      return node.nodes.every((part) => evaluate(part, id, payload))
    case 'or':
      return node.nodes.some((part) => evaluate(part, id, payload))
    case 'not':
      return !evaluate(node.node, id, payload)
    case 'leaf':
      return node.path === idPath ? meets(id, node.condition) : holdsAt(payload, node.path, node.condition)
  }
}
