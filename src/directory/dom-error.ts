/** isovec's errors for what goes wrong in a browser's storage. */

import { IsovecError } from '../errors.ts'

/** Whether `error` is the platform's error of one of these names. */
export function isDomError(error: unknown, ...names: readonly string[]): boolean {
  return names.includes((error as { name?: unknown } | undefined)?.name as string)
}

/** isovec's error for a failure of the platform: `QUOTA_EXCEEDED` where there is no room, else `IO`. */
export function domError(action: string, file: string, cause: unknown, offset?: number): IsovecError {
  if (cause instanceof IsovecError) return cause
  const message = `cannot ${action} ${file}: ${cause instanceof Error ? cause.message : String(cause)}`
  return new IsovecError(isDomError(cause, 'QuotaExceededError') ? 'QUOTA_EXCEEDED' : 'IO', message, {
    file,
    cause,
    ...(offset === undefined ? {} : { offset }),
  })
}
