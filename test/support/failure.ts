import { expect } from 'vitest'
import { IsovecError, type IsovecErrorCode, type IsovecErrorFields, isIsovecError } from '../../src/index.ts'

/** What a promise rejects with. Fails if it resolves or rejects with anything but an `IsovecError`. */
export async function failureOf(promise: PromiseLike<unknown>): Promise<IsovecError> {
  let value: unknown
  try {
    value = await promise
  } catch (error) {
    if (error instanceof IsovecError && isIsovecError(error)) return error
    throw new Error(`rejected with something else than an IsovecError: ${String(error)}`, { cause: error })
  }
  throw new Error(`expected a rejection, but it resolved with ${JSON.stringify(value)}`)
}

/** Checks code and fields of the error that a promise must reject with. */
export async function expectFailure(
  promise: PromiseLike<unknown>,
  code: IsovecErrorCode,
  fields: IsovecErrorFields & { cause?: unknown } = {},
): Promise<IsovecError> {
  const error = await failureOf(promise)
  expect(error, error.stack).toMatchObject({ code, ...fields })
  expect(error.name).toBe('IsovecError')
  expect(error.message).not.toBe('')
  return error
}
