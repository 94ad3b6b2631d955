/**
 * isovec: an embedded vector database.
 */
import { platformBackend } from '#platform'
import type { Database, OpenOptions } from './api.ts'
import type { StorageBackend } from './directory/directory.ts'
import { open } from './open.ts'

export type * from './api.ts'
export type { Directory, Lock, RandomAccessFile, StorageBackend, WritableFile } from './directory/directory.ts'
export { IsovecError, type IsovecErrorCode, type IsovecErrorFields, isIsovecError } from './errors.ts'

/**
 * Opens a database, and makes one if there is none.
 *
 * @param location a folder as a path or `file:` URL, a backend, or `':memory:'`
 * @throws IsovecError `LOCKED` if another writer holds it, `NOT_FOUND` with `mustExist`, `CORRUPTION`, `UNSUPPORTED`, `IO`
 */
export function openDatabase(location: string | URL | StorageBackend, options?: OpenOptions): Promise<Database> {
  return open(location, options, platformBackend)
}
