/** The backend of a name where there is no file system: none yet, and memory would lose data without a word. */
import type { StorageBackend } from './directory/directory.ts'
import { IsovecError } from './errors.ts'

/** @throws IsovecError `UNSUPPORTED` */
export function platformBackend(location: string | URL): StorageBackend {
  throw new IsovecError('UNSUPPORTED', `there is no durable storage for ${String(location)} on this platform`)
}
