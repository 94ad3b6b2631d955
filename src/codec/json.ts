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
  const text = encodeValue(payload, field, 1, [])
  return text as string
}

function encodeValue(value: unknown, path: string, depth: number, ancestors: object[]): string | undefined {
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
      return value === null ? 'null' : encodeObject(value, path, depth, ancestors)
    default:
      throw invalid(path, `a ${typeof value} is not JSON`)
  }
}

function encodeObject(value: object, path: string, depth: number, ancestors: object[]): string {
  if (depth > payloadDepthMax) throw invalid(path, `payloads nest at most ${payloadDepthMax} levels deep`)
  if (ancestors.includes(value)) throw invalid(path, 'the payload contains itself')
  ancestors.push(value)
  const text = Array.isArray(value)
    ? encodeArray(value, path, depth, ancestors)
    : encodeRecord(value, path, depth, ancestors)
  ancestors.pop()
  return text
}

function encodeArray(value: readonly unknown[], path: string, depth: number, ancestors: object[]): string {
  let text = '['
  for (let i = 0; i < value.length; i++) {
    const element = encodeValue(value[i], `${path}[${i}]`, depth + 1, ancestors)
    if (element === undefined) throw invalid(`${path}[${i}]`, 'undefined in an array is not JSON')
    text += i === 0 ? element : `,${element}`
  }
  return `${text}]`
}

function encodeRecord(value: object, path: string, depth: number, ancestors: object[]): string {
  const prototype = Object.getPrototypeOf(value)
  // An object of another realm has a foreign Object.prototype, which is recognised by having none itself.
  if (prototype !== null && Object.getPrototypeOf(prototype) !== null) {
    throw invalid(path, `a ${value.constructor?.name ?? 'class'} instance is not JSON`)
  }
  if (Object.getOwnPropertySymbols(value).length > 0) throw invalid(path, 'symbol keys are not JSON')
  let text = '{'
  for (const key of Object.keys(value)) {
    const element = encodeValue((value as Record<string, unknown>)[key], `${path}.${key}`, depth + 1, ancestors)
    if (element === undefined) continue
    text += `${text === '{' ? '' : ','}${JSON.stringify(key)}:${element}`
  }
  return `${text}}`
}

function invalid(path: string, problem: string): IsovecError {
  return new IsovecError('INVALID_ARGUMENT', `${path}: ${problem}`, { field: path })
}
