/**
 * Messages between a database's users and the worker that holds it, and between the workers of several tabs.
 *
 * Everything is a plain value that can be cloned. Arguments were checked before they are sent (`calls.ts`); signals and callbacks stay
 * behind and are stood for by messages of their own.
 */
import type { DatabaseEvent, DatabaseRole, ResolvedCollectionOptions } from '../api.ts'
import { IsovecError, type IsovecErrorCode, type IsovecErrorFields, isIsovecError } from '../errors.ts'

/** Raised whenever messages change: two copies of the package that differ in it don't talk to each other. */
export const protocolVersion = 1

/** What a call is made on: the database, a collection by the number of its directory, or a loop under way. */
export type Target =
  | { readonly kind: 'database' }
  | { readonly kind: 'collection'; readonly number: number }
  | { readonly kind: 'loop'; readonly number: number }

/** A call. */
export type CallMessage = {
  readonly type: 'call'
  readonly id: number
  readonly target: Target
  readonly name: string
  readonly args: readonly unknown[]
}

/** From those who call. */
export type Request =
  | CallMessage
  | { readonly type: 'abort'; readonly id: number }
  /** The page is about to be frozen: another tab is to lead. */
  | { readonly type: 'step-down' }

/** What is known of a collection without asking. */
export type CollectionFacts = {
  readonly number: number
  readonly name: string
  readonly options: ResolvedCollectionOptions
  readonly isReadOnly: boolean
}

/** To those who call. */
export type Response =
  | { readonly type: 'result'; readonly id: number; readonly value: unknown }
  | { readonly type: 'error'; readonly id: number; readonly error: ErrorMessage }
  | { readonly type: 'progress'; readonly id: number; readonly value: unknown }
  | { readonly type: 'event'; readonly event: EventMessage }
  /** Collections as they are now; those that aren't named were dropped. */
  | {
      readonly type: 'facts'
      readonly names: ReadonlyMap<number, string>
      readonly options: ReadonlyMap<number, ResolvedCollectionOptions>
    }

/** A {@link DatabaseEvent} as it is sent. */
export type EventMessage =
  | { readonly type: 'background-error'; readonly collection: string; readonly error: ErrorMessage }
  | { readonly type: 'write'; readonly collection: string }
  | { readonly type: 'collections' }
  | { readonly type: 'role'; readonly role: DatabaseRole }

/** An error as it is sent. */
export type ErrorMessage = {
  readonly name: string
  readonly message: string
  readonly stack: string | undefined
  /** Of an IsovecError. */
  readonly code: IsovecErrorCode | undefined
  readonly fields: IsovecErrorFields
  readonly cause: ErrorMessage | { readonly value: unknown } | undefined
}

/** Causes of causes that are sent. */
const causesMax = 8

/** An error, or whatever was thrown, as it can be sent. */
export function encodeError(error: unknown, depth = 0): ErrorMessage {
  if (!(error instanceof Error) && !isIsovecError(error)) return encodeError(new Error(textOf(error)), depth)
  const { name, message, stack, cause } = error
  const { code, ...fields } = isIsovecError(error) ? fieldsOf(error) : { code: undefined }
  return { name, message, stack, code, fields, cause: depth < causesMax ? encodeCause(cause, depth) : undefined }
}

function encodeCause(cause: unknown, depth: number): ErrorMessage['cause'] {
  if (cause === undefined) return undefined
  if (cause instanceof Error || isIsovecError(cause)) return encodeError(cause, depth + 1)
  return { value: isPlain(cause) ? cause : textOf(cause) }
}

function isPlain(value: unknown): boolean {
  return value === null || ['string', 'number', 'boolean', 'bigint'].includes(typeof value)
}

function textOf(value: unknown): string {
  try {
    return String(value)
  } catch {
    return 'something that has no text was thrown'
  }
}

const fieldNames = ['expected', 'actual', 'id', 'collection', 'file', 'offset', 'field', 'outcome', 'pid'] as const

function fieldsOf(error: IsovecError): IsovecErrorFields & { code: IsovecErrorCode } {
  const present = fieldNames.filter((name) => error[name] !== undefined).map((name) => [name, error[name]])
  return { ...(Object.fromEntries(present) as IsovecErrorFields), code: error.code }
}

/** The error that was sent. */
export function decodeError({ name, message, stack, code, fields, cause }: ErrorMessage): Error {
  const decoded = cause === undefined ? undefined : 'value' in cause ? cause.value : decodeError(cause)
  const error =
    code === undefined
      ? new Error(message, decoded === undefined ? undefined : { cause: decoded })
      : new IsovecError(code, message, { ...fields, ...(decoded === undefined ? {} : { cause: decoded }) })
  if (code === undefined && name !== 'Error') {
    Object.defineProperty(error, 'name', { value: name, configurable: true, writable: true })
  }
  if (stack !== undefined) Object.defineProperty(error, 'stack', { value: stack, configurable: true, writable: true })
  return error
}

/** An event as it can be sent. */
export function encodeEvent(event: DatabaseEvent): EventMessage {
  return event.type === 'background-error' ? { ...event, error: encodeError(event.error) } : event
}

/** The event that was sent. */
export function decodeEvent(event: EventMessage): DatabaseEvent {
  return event.type === 'background-error' ? { ...event, error: decodeError(event.error) as IsovecError } : event
}

/**
 * Calls that may be made again when nobody knows whether they were carried out: they change nothing, or doing them twice is doing them
 * once. Others are given up with `DISCONNECTED`.
 */
const repeatable = new Set([
  'getMany',
  'has',
  'count',
  'search',
  'searchMany',
  'measureRecall',
  'hasIndex',
  'stats',
  'settled',
  'flush',
  'sync',
  'compact',
  'buildIndex',
  'openCollection',
  'hasCollection',
  'listCollections',
  'verify',
  'info',
  'refresh',
  'loop',
])

/** See {@link repeatable}. */
export function isRepeatable({ name, args }: CallMessage): boolean {
  // What is opened if it's there may be made by the first of two calls.
  return repeatable.has(name) || (name === 'createCollection' && args[2] === 'open')
}

/** Calls that store or change something, whose failure has an outcome. */
const changing = new Set([
  'write',
  'deleteWhere',
  'createCollection',
  'renameCollection',
  'dropCollection',
  'configure',
  'dropIndex',
])

/** See {@link changing}. */
export function isChanging(name: string): boolean {
  return changing.has(name)
}

/** The error for a call of which nobody knows what it came to, or of which it is known that it was never begun. */
export function disconnected(call: CallMessage | undefined, outcome: 'none' | 'unknown', cause?: unknown): IsovecError {
  const isChange = call !== undefined && isChanging(call.name)
  return new IsovecError('DISCONNECTED', 'the worker that held the database is gone', {
    ...(isChange ? { outcome } : {}),
    ...(cause === undefined ? {} : { cause }),
  })
}

/** Calls that change nothing: whoever gives one up need not wait for what it comes to. */
const reading = new Set(['getMany', 'has', 'count', 'search', 'searchMany', 'measureRecall', 'next', 'verify'])

/** See {@link reading}. */
export function isReading(name: string): boolean {
  return reading.has(name)
}
