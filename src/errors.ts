/**
 * The one error class of isovec and the assertion that guards its own mistakes.
 */

/** What went wrong, in one word that programs can branch on. */
export type IsovecErrorCode =
  | 'INVALID_ARGUMENT'
  | 'WRONG_DIMENSION'
  | 'NOT_FOUND'
  | 'COLLECTION_EXISTS'
  | 'COLLECTION_NOT_FOUND'
  | 'MODEL_MISMATCH'
  | 'LOCKED'
  | 'READ_ONLY'
  | 'STALE_READER'
  | 'CLOSED'
  | 'CORRUPTION'
  | 'UNSUPPORTED_VERSION'
  | 'UNSUPPORTED'
  | 'IO'
  | 'QUOTA_EXCEEDED'
  | 'OUT_OF_MEMORY'
  | 'ABORTED'
  | 'TIMEOUT'
  | 'DISCONNECTED'

/** The fields that an error carries beside its code; each is present only where the code needs it. */
export type IsovecErrorFields = {
  /** What was expected, e.g. the collection's dimension (`WRONG_DIMENSION`) or model (`MODEL_MISMATCH`). */
  readonly expected?: string | number
  /** What was found instead. */
  readonly actual?: string | number
  /** The id of the document concerned. */
  readonly id?: string
  /** The name of the collection concerned. */
  readonly collection?: string
  /** The file concerned, relative to the database. */
  readonly file?: string
  /** Byte position in `file`. */
  readonly offset?: number
  /** The argument concerned, as a path such as `docs[3].vector[7]`. */
  readonly field?: string
  /** Of a failed write: `none`, nothing of it will ever show; `unknown`, it may or may not have happened. */
  readonly outcome?: 'none' | 'unknown'
  /** Process that holds the lock (`LOCKED`), where known. */
  readonly pid?: number
}

const brand = Symbol.for('isovec.error')

/**
 * Every error that isovec throws or rejects with. A union discriminated by {@link IsovecError.code}; `name` is always `IsovecError`.
 * Use {@link isIsovecError} rather than `instanceof` where several copies of the package may be loaded.
 */
export class IsovecError extends Error {
  readonly code: IsovecErrorCode
  declare readonly expected?: string | number
  declare readonly actual?: string | number
  declare readonly id?: string
  declare readonly collection?: string
  declare readonly file?: string
  declare readonly offset?: number
  declare readonly field?: string
  declare readonly outcome?: 'none' | 'unknown'
  declare readonly pid?: number

  constructor(code: IsovecErrorCode, message: string, fields: IsovecErrorFields & { cause?: unknown } = {}) {
    const { cause, ...rest } = fields
    super(message, cause === undefined ? undefined : { cause })
    this.code = code
    Object.assign(this, rest)
    Object.defineProperty(this, 'name', { value: 'IsovecError', configurable: true, writable: true })
    Object.defineProperty(this, brand, { value: true })
  }
}

/** Whether `value` is an {@link IsovecError}, also one of another copy of the package or one that crossed a worker boundary. */
export function isIsovecError(value: unknown): value is IsovecError {
  if (value instanceof IsovecError) return true
  if (typeof value !== 'object' || value === null) return false
  const candidate = value as { name?: unknown; code?: unknown; [brand]?: unknown }
  return candidate[brand] === true || (candidate.name === 'IsovecError' && typeof candidate.code === 'string')
}

/** Stops at a mistake of isovec itself: stays on in production, since going on would put data at risk. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new Error(`isovec: internal assertion failed: ${message}`)
}

/** A failure of the platform, or of isovec itself, as an error of the contract. */
export function asIsovecError(error: unknown): IsovecError {
  if (error instanceof IsovecError) return error
  return new IsovecError('IO', 'an I/O operation failed', { cause: error })
}

/** The same failure with what is known of the write. */
export function withOutcome(error: unknown, outcome: 'none' | 'unknown'): IsovecError {
  const { code, message, cause, name: _, stack: __, ...fields } = asIsovecError(error)
  return new IsovecError(code, message, { ...fields, cause, outcome })
}

/** The error for a signal that has fired. `outcome` belongs to writes. */
export function abortError(signal: AbortSignal, outcome?: 'none' | 'unknown'): IsovecError {
  return new IsovecError('ABORTED', 'the operation was aborted', {
    cause: signal.reason,
    ...(outcome === undefined ? {} : { outcome }),
  })
}

/** Throws `ABORTED` if the signal has fired. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw abortError(signal)
}

/** Resolves with `promise`, or rejects with `ABORTED` as soon as the signal fires. What the promise stands for goes on. */
export function abortable<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(abortError(signal))
    signal.addEventListener('abort', onAbort, { once: true })
    if (signal.aborted) onAbort()
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort))
  })
}
