/**
 * Patches: what a change of a payload comes to, given what was there before.
 */
import { utf8Decode, utf8Encode } from './codec/bytes.ts'
import type { JsonObject } from './codec/json.ts'
import { IsovecError } from './errors.ts'
import type { CollectionState } from './state.ts'
import { type Batch, BatchBuilder, type Change, type Draft, type Operation } from './storage/batch.ts'

/** By id: the payload after some writes, `null` where the document is gone. */
type Payloads = Map<string, Uint8Array | undefined | null>

/** Payloads as writes that wait to be logged together will leave them. */
export class PendingPayloads {
  readonly #state: CollectionState
  readonly #pending: Payloads = new Map()
  /** Batches whose payloads matter only once there is a patch behind them. */
  readonly #unread: Batch[] = []

  constructor(state: CollectionState) {
    this.#state = state
  }

  /**
   * The batch that a draft comes to after everything before it, and how many of its patches meet a document; those that meet none are
   * left out.
   * @throws IsovecError `INVALID_ARGUMENT` if a payload becomes too large; nothing of the draft counts then
   */
  async resolve({ batch, operations }: Draft): Promise<{ batch: Batch; patched: number }> {
    if (batch !== undefined) {
      this.#unread.push(batch)
      return { batch, patched: 0 }
    }
    for (const each of this.#unread.splice(0)) for (const operation of each.operations) note(this.#pending, operation)
    const { dimension, metric } = this.#state.options
    const builder = new BatchBuilder(dimension, metric === 'cosine')
    const own: Payloads = new Map()
    let patched = 0
    for (const asked of operations) {
      const operation = asked.kind === 'change' ? await this.#patchOf(asked, own) : asked
      if (operation === undefined) continue
      if (operation.kind === 'patch') patched++
      builder.add(operation, asked.kind === 'change' ? asked.field : 'operations')
      note(own, operation)
    }
    const resolved = builder.build().batch!
    for (const [id, payload] of own) this.#pending.set(id, payload)
    return { batch: resolved, patched }
  }

  async #patchOf({ id, set, unset }: Change, own: Payloads): Promise<Operation | undefined> {
    const before = own.has(id) ? own.get(id) : await this.#payloadOf(id)
    if (before === null) return undefined
    return { kind: 'patch', id, payload: merge(before, set, unset, id) }
  }

  /** The payload of a document after the writes before, or null if there is no such document. */
  async #payloadOf(id: string): Promise<Uint8Array | undefined | null> {
    if (this.#pending.has(id)) return this.#pending.get(id)
    const place = this.#state.locate(id)
    return place === undefined ? null : place.source.payloadAt(place.row, this.#state.lastSequence)
  }
}

function note(payloads: Payloads, operation: Operation): void {
  payloads.set(operation.id, operation.kind === 'delete' ? null : operation.payload)
}

/** A payload with some fields set and others removed. A document without a payload stays so if nothing is set. */
function merge(
  before: Uint8Array | undefined,
  set: JsonObject,
  unset: readonly string[],
  id: string,
): Uint8Array | undefined {
  const fields = new Map<string, unknown>(before === undefined ? [] : Object.entries(parse(before, id)))
  for (const [name, value] of Object.entries(set)) fields.set(name, value)
  for (const name of unset) fields.delete(name)
  if (before === undefined && fields.size === 0) return undefined
  // Object.fromEntries defines what it is given, so that `__proto__` is a field like any other.
  return utf8Encode(JSON.stringify(Object.fromEntries(fields)))
}

function parse(bytes: Uint8Array, id: string): JsonObject {
  try {
    return JSON.parse(utf8Decode(bytes)) as JsonObject
  } catch (cause) {
    throw new IsovecError('CORRUPTION', `the payload of ${JSON.stringify(id)} is not JSON`, { cause, id })
  }
}
