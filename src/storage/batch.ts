/**
 * Batches: the operations of one atomic write, checked and encoded once, in the form in which the log keeps them.
 *
 * Layout: u32 operation count, u32 zero; then per operation u8 kind, u8 flags, u16 id size, u32 payload size, id, payload, vector.
 * A patch is kept as what it comes to: the whole new payload, so that replaying it needs nothing of the document before.
 */
import { ByteReader, ByteWriter, hasLoneSurrogate } from '../codec/bytes.ts'
import { encodePayload, type JsonObject, payloadSizeMax } from '../codec/json.ts'
import { IsovecError } from '../errors.ts'

/** Size of an id in UTF-8 bytes, at most. */
export const idSizeMax = 1024
/** Size of an atomic batch (vectors as stored, ids and payloads in UTF-8), at most. */
export const batchSizeMax = 64 * 1024 * 1024
/** Bytes of writes that may wait for their turn: nobody who never awaits is to fill the memory. */
export const waitingSizeMax = 256 * 1024 * 1024
/** Dimensions that a vector may have, at most. */
export const dimensionMax = 65_536

const kindUpsert = 1
const kindPatch = 2
const kindDelete = 3
const kinds = { upsert: kindUpsert, patch: kindPatch, delete: kindDelete } as const
const flagPayload = 1
const batchHeaderSize = 8
const operationHeaderSize = 8

/** A vector as callers give it. Values are rounded to 32-bit floats. */
export type VectorInput = Float32Array | Float64Array | readonly number[]

/** One operation of a decoded batch. The byte runs share the batch's memory. */
export type Operation =
  | {
      readonly kind: 'upsert'
      readonly id: string
      readonly payload: Uint8Array | undefined
      /** `dimension` little-endian 32-bit floats, at any alignment. */
      readonly vector: Uint8Array
    }
  | { readonly kind: 'patch'; readonly id: string; readonly payload: Uint8Array | undefined }
  | { readonly kind: 'delete'; readonly id: string }

/** An encoded batch. */
export type Batch = { readonly operations: readonly Operation[]; readonly bytes: Uint8Array }

/** A change of a document's payload that is still to be made of what the payload will be then. */
export type Change = {
  readonly kind: 'change'
  readonly id: string
  /** Top-level fields to set. */
  readonly set: JsonObject
  /** Top-level fields to remove. */
  readonly unset: readonly string[]
  /** Where it stands in the call's arguments, for messages. */
  readonly field: string
}

/** The operations of one write as they were asked for. */
export type Draft = {
  /** The batch, if it needs nothing to be known of the documents before it. */
  readonly batch: Batch | undefined
  readonly operations: readonly (Operation | Change)[]
  /** Bytes of vectors, ids and payloads, those of patches as they were given. */
  readonly size: number
}

/** The operations of one write as they are handed on, also between threads. */
export type PackedBatch = {
  /** An encoded batch, in which operations that are changes stand as patches without a payload. */
  readonly bytes: Uint8Array
  readonly changes: readonly { readonly index: number; readonly change: Change }[]
  readonly count: number
  /** As in {@link Draft}. */
  readonly size: number
}

/**
 * The operations of a packed batch, which share its memory.
 * @throws IsovecError `CORRUPTION` where the bytes are not a batch
 */
export function draftOf({ bytes, changes, size }: PackedBatch, dimension: number): Draft {
  const operations: (Operation | Change)[] = decodeBatch(bytes, dimension, 'batch', 0)
  if (changes.length === 0) return { operations, batch: { operations: operations as Operation[], bytes }, size }
  for (const { index, change } of changes) operations[index] = change
  return { operations, batch: undefined, size }
}

/** Collects the operations of one batch; every check happens here, before anything is stored. */
export class BatchBuilder {
  readonly #dimension: number
  readonly #refuseZero: boolean
  readonly #writer: ByteWriter
  #count = 0
  readonly #changes: { readonly index: number; readonly change: Change }[] = []
  /** Bytes of vectors, ids and payloads: what counts against {@link batchSizeMax}. */
  #contentSize = 0

  /** @param refuseZero whether zero vectors are refused, as under cosine, where they have no direction */
  constructor(dimension: number, refuseZero: boolean) {
    this.#dimension = dimension
    this.#refuseZero = refuseZero
    this.#writer = new ByteWriter(batchHeaderSize + operationHeaderSize + 64 + dimension * 4)
    this.#writer.uint32(0)
    this.#writer.uint32(0)
  }

  /** Bytes so far. */
  get size(): number {
    return this.#writer.size
  }

  get count(): number {
    return this.#count
  }

  /**
   * Adds an upsert, copying what it is given.
   * @param field where the document stands in the call's arguments, for messages
   */
  upsert(id: unknown, vector: unknown, payload: unknown, field: string): void {
    const text = payload === undefined ? undefined : encodePayload(payload, `${field}.payload`)
    const start = this.#begin(kindUpsert, text === undefined ? 0 : flagPayload)
    this.#id(id, start, `${field}.id`)
    if (text !== undefined) {
      const size = this.#writer.utf8(text)
      if (size > payloadSizeMax) {
        throw invalid(`${field}.payload`, `a payload of ${size} bytes is larger than ${payloadSizeMax}`)
      }
      this.#writer.patchUint32(start + 4, size)
    }
    this.#vector(vector, `${field}.vector`)
    this.#finish(start, field)
  }

  /** Adds a delete. */
  delete(id: unknown, field: string): void {
    const start = this.#begin(kindDelete, 0)
    this.#id(id, start, field)
    this.#finish(start, field)
  }

  /** Adds a change of top-level fields of a payload, which are copied. Fields that are `undefined` are left as they are. */
  patch(id: unknown, payload: unknown, unset: unknown, field: string): void {
    const start = this.#begin(kindPatch, 0)
    this.#id(id, start, `${field}.id`)
    const text = payload === undefined ? '{}' : encodePayload(payload, `${field}.payload`)
    const change: Change = {
      kind: 'change',
      id: id as string,
      set: JSON.parse(text) as JsonObject,
      unset: copyFields(unset, `${field}.unset`),
      field,
    }
    for (const name of change.unset) {
      if (Object.hasOwn(change.set, name)) throw invalid(`${field}.unset`, `${JSON.stringify(name)} is set as well`)
    }
    this.#changes.push({ index: this.#count, change })
    this.#contentSize += text.length
    this.#finish(start, field)
  }

  /** Adds an operation that was checked before. */
  add(operation: Operation, field: string): void {
    const payload = operation.kind === 'delete' ? undefined : operation.payload
    if (payload !== undefined && payload.length > payloadSizeMax) {
      throw invalid(`${field}.payload`, `a payload of ${payload.length} bytes is larger than ${payloadSizeMax}`)
    }
    const start = this.#begin(kinds[operation.kind], payload === undefined ? 0 : flagPayload)
    this.#id(operation.id, start, `${field}.id`)
    if (payload !== undefined) {
      this.#writer.bytes(payload)
      this.#writer.patchUint32(start + 4, payload.length)
    }
    if (operation.kind === 'upsert') this.#writer.bytes(operation.vector)
    this.#finish(start, field)
  }

  /** What was collected; the builder must not be used after it. */
  pack(): PackedBatch {
    this.#writer.patchUint32(0, this.#count)
    return { bytes: this.#writer.finish(), changes: this.#changes, count: this.#count, size: this.#contentSize }
  }

  /** The same as operations. */
  build(): Draft {
    return draftOf(this.pack(), this.#dimension)
  }

  #begin(kind: number, flags: number): number {
    const start = this.#writer.size
    this.#writer.uint8(kind)
    this.#writer.uint8(flags)
    this.#writer.uint16(0)
    this.#writer.uint32(0)
    return start
  }

  #id(id: unknown, start: number, field: string): void {
    checkId(id, field)
    const size = this.#writer.utf8(id)
    if (size > idSizeMax) throw invalid(field, `an id of ${size} bytes is longer than ${idSizeMax}`)
    this.#writer.patchUint16(start + 2, size)
  }

  #vector(vector: unknown, field: string): void {
    checkVectorShape(vector, this.#dimension, field)
    const offset = this.#writer.claim(this.#dimension * 4)
    const view = this.#writer.view
    let isZero = true
    for (let i = 0; i < this.#dimension; i++) {
      const component = roundedComponent(vector[i], field, i)
      if (component !== 0) isZero = false
      view.setFloat32(offset + 4 * i, component, true)
    }
    if (isZero && this.#refuseZero) throw invalid(field, 'a zero vector has no direction under cosine')
  }

  #finish(start: number, field: string): void {
    this.#contentSize += this.#writer.size - start - operationHeaderSize
    if (this.#contentSize > batchSizeMax) throw invalid(field, `an atomic batch holds at most ${batchSizeMax} bytes`)
    this.#count++
  }
}

/**
 * The operations of an encoded batch. Nothing in it is trusted.
 * @throws IsovecError `CORRUPTION` where the bytes are not a batch
 */
export function decodeBatch(bytes: Uint8Array, dimension: number, file: string, offset: number): Operation[] {
  const reader = new ByteReader(bytes, file, offset)
  const count = reader.uint32()
  reader.uint32()
  if (count * operationHeaderSize > reader.remaining)
    throw reader.corrupt('a batch counts more operations than it holds')
  const operations: Operation[] = []
  for (let i = 0; i < count; i++) operations.push(decodeOperation(reader, dimension))
  if (reader.remaining !== 0) throw reader.corrupt('a batch is followed by bytes of no operation')
  return operations
}

function decodeOperation(reader: ByteReader, dimension: number): Operation {
  const kind = reader.uint8()
  const flags = reader.uint8()
  const idSize = reader.uint16()
  const payloadSize = reader.uint32()
  if (idSize === 0 || idSize > idSizeMax) throw reader.corrupt(`an id of ${idSize} bytes`)
  const id = reader.utf8(idSize)
  if (kind === kindDelete && flags === 0 && payloadSize === 0) return { kind: 'delete', id }
  const hasPayload = flags === flagPayload
  if ((kind !== kindUpsert && kind !== kindPatch) || (flags !== 0 && !hasPayload) || hasPayload !== payloadSize > 0) {
    throw reader.corrupt(`an operation of unknown kind ${kind}`)
  }
  const payload = hasPayload ? reader.bytes(payloadSize) : undefined
  if (kind === kindPatch) return { kind: 'patch', id, payload }
  return { kind: 'upsert', id, payload, vector: reader.bytes(dimension * 4) }
}

/** Checks an id given by a caller. @throws IsovecError `INVALID_ARGUMENT` */
export function checkId(id: unknown, field: string): asserts id is string {
  if (typeof id !== 'string') throw invalid(field, 'an id is a string')
  if (id.length === 0) throw invalid(field, 'an id is not empty')
  if (id.length > idSizeMax) throw invalid(field, `an id is longer than ${idSizeMax} bytes`)
  if (hasLoneSurrogate(id)) throw invalid(field, 'an id holds a lone surrogate')
}

/**
 * A caller's vector as 32-bit floats, copied.
 * @throws IsovecError `WRONG_DIMENSION`, `INVALID_ARGUMENT`
 */
export function copyVector(vector: unknown, dimension: number, field: string): Float32Array {
  checkVectorShape(vector, dimension, field)
  if (vector instanceof Float32Array) {
    const copy = new Float32Array(vector)
    const bits = new Int32Array(copy.buffer)
    // The exponent of NaN and infinities is all ones: adding one to it reaches the sign. The loop below names the one that has it.
    let carry = 0
    for (let i = 0; i < dimension; i++) carry |= (bits[i]! & 0x7f800000) + 0x00800000
    if (carry >= 0) return copy
  }
  const copy = new Float32Array(dimension)
  for (let i = 0; i < dimension; i++) copy[i] = roundedComponent(vector[i], field, i)
  return copy
}

function copyFields(unset: unknown, field: string): string[] {
  if (unset === undefined) return []
  if (!Array.isArray(unset)) throw invalid(field, 'is not an array of names of fields')
  for (const [index, name] of unset.entries()) {
    if (typeof name !== 'string') throw invalid(`${field}[${index}]`, 'the name of a field is a string')
  }
  return [...unset]
}

function checkVectorShape(vector: unknown, dimension: number, field: string): asserts vector is ArrayLike<unknown> {
  if (!(Array.isArray(vector) || isFloatArray(vector))) {
    throw invalid(field, 'a vector is a Float32Array, a Float64Array or an array of numbers')
  }
  if (vector.length !== dimension) {
    throw new IsovecError('WRONG_DIMENSION', `${field}: expected ${dimension} dimensions, got ${vector.length}`, {
      expected: dimension,
      actual: vector.length,
      field,
    })
  }
}

/** Whether a value is a Float32Array or Float64Array, of this realm or another. */
function isFloatArray(value: unknown): value is Float32Array | Float64Array {
  if (!ArrayBuffer.isView(value)) return false
  const kind: unknown = (value as { [Symbol.toStringTag]?: unknown })[Symbol.toStringTag]
  return kind === 'Float32Array' || kind === 'Float64Array'
}

function roundedComponent(value: unknown, field: string, index: number): number {
  const component = typeof value === 'number' ? Math.fround(value) : Number.NaN
  if (!Number.isFinite(component)) {
    throw invalid(`${field}[${index}]`, `${String(value)} is not a finite 32-bit float`)
  }
  return component
}

function invalid(field: string, problem: string): IsovecError {
  return new IsovecError('INVALID_ARGUMENT', `${field}: ${problem}`, { field })
}
