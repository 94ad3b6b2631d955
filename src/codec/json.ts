/**
 * Payloads: the JSON that documents carry, checked before anything is stored.
 */
import { IsovecError } from '../errors.ts'

/** A JSON value. */
export type JsonValue = string | number | boolean | null | JsonValue[] | { [key: string]: JsonValue }
/** A JSON object: what a payload is. */
export type JsonObject = { [key: string]: JsonValue }

/** Levels of nesting that a payload may have; the payload object itself is the first. */
export const payloadDepthMax = 64
/** Size that a payload may have as UTF-8 JSON. */
export const payloadSizeMax = 1024 * 1024

/**
 * The JSON text of a payload. Properties that are `undefined` are dropped and `-0` becomes `0`; everything else that JSON cannot
 * carry is refused rather than changed.
 *
 * @param field where the payload stands in the call's arguments, for messages
 * @throws IsovecError `INVALID_ARGUMENT` with the path of the offending value
 */
export function encodePayload(payload: unknown, field: string): string {
  if (typeof payload !== 'object' || payload === null || Array.isArray(payload)) {
    throw invalid(field, 'a payload is a plain object')
  }
  return encodeObject(payload, field, 1, { field, ancestors: [] })
}

/** Where an encoding began, and the objects on the way from there. */
type Walk = { readonly field: string; readonly ancestors: object[] }

function encodeValue(value: unknown, path: string, depth: number, walk: Walk): string | undefined {
  switch (typeof value) {
    case 'string':
      return JSON.stringify(value)
    case 'number':
      if (!Number.isFinite(value)) throw invalid(path, `${value} is not JSON`)
      return JSON.stringify(value)
    case 'boolean':
      return value ? 'true' : 'false'
    case 'undefined':
      return undefined
    case 'object':
      return value === null ? 'null' : encodeObject(value, path, depth, walk)
    default:
      throw invalid(path, `a ${typeof value} is not JSON`)
  }
}

function encodeObject(value: object, path: string, depth: number, walk: Walk): string {
  if (walk.ancestors.includes(value)) throw invalid(path, 'the payload contains itself')
  if (depth > payloadDepthMax) throw invalid(path, `payloads nest at most ${payloadDepthMax} levels deep`)
  walk.ancestors.push(value)
  const text = Array.isArray(value) ? encodeArray(value, path, depth, walk) : encodeRecord(value, path, depth, walk)
  walk.ancestors.pop()
  return text
}

function encodeArray(value: readonly unknown[], path: string, depth: number, walk: Walk): string {
  // Array.prototype, of whatever realm, is an array itself; the prototype of a class is not.
  if (!Array.isArray(Object.getPrototypeOf(value))) throw notJson(value, path)
  let text = '['
  for (let i = 0; i < value.length; i++) {
    const element = encodeValue(value[i], `${path}[${i}]`, depth + 1, walk)
    if (element === undefined) throw invalid(`${path}[${i}]`, 'undefined in an array is not JSON')
    text += i === 0 ? element : `,${element}`
    checkLength(text, walk)
  }
  return `${text}]`
}

function encodeRecord(value: object, path: string, depth: number, walk: Walk): string {
  if (!isPlain(value)) throw notJson(value, path)
  if (Object.getOwnPropertySymbols(value).length > 0) throw invalid(path, 'symbol keys are not JSON')
  let text = '{'
  for (const key of Object.keys(value)) {
    const element = encodeValue((value as Record<string, unknown>)[key], `${path}.${key}`, depth + 1, walk)
    if (element === undefined) continue
    text += `${text === '{' ? '' : ','}${JSON.stringify(key)}:${element}`
    checkLength(text, walk)
  }
  return `${text}}`
}

/** Whether an object is nobody's instance, in this realm or another: its prototype is none, or one that looks like Object.prototype. */
function isPlain(value: object): boolean {
  const prototype = Object.getPrototypeOf(value)
  return prototype === null || (Object.getPrototypeOf(prototype) === null && Object.hasOwn(prototype, 'isPrototypeOf'))
}

/** Ends early: objects that stand in many places can make a text that no memory holds. A code unit takes at least one byte. */
function checkLength(text: string, { field }: Walk): void {
  if (text.length > payloadSizeMax) throw invalid(field, `a payload is larger than ${payloadSizeMax} bytes`)
}

function notJson(value: object, path: string): IsovecError {
  const name: unknown = Object.getPrototypeOf(value)?.constructor?.name
  return invalid(path, `an instance of ${typeof name === 'string' && name !== '' ? name : 'a class'} is not JSON`)
}

function invalid(path: string, problem: string): IsovecError {
  return new IsovecError('INVALID_ARGUMENT', `${path}: ${problem}`, { field: path })
}
