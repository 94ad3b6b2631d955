import type { DatabaseEvent } from '../../src/api.ts'
import type { IsovecError } from '../../src/errors.ts'

/** A listener that hands on the failures of background work, and nothing else. */
export function onFailure(note: (error: IsovecError) => void): (event: DatabaseEvent) => void {
  return (event) => {
    if (event.type === 'background-error') note(event.error)
  }
}
