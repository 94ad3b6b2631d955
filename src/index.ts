/**
 * isovec: an embedded vector database.
 */
import { platformBackend } from '#platform'
import type { Database, MergeReport, OpenOptions, SalvageReport, SnapshotReport, ToolOptions } from './api.ts'
import type { StorageBackend } from './directory/directory.ts'
import { open } from './open.ts'
import { salvage as salvageFrom } from './salvage.ts'
import { mergeDatabases as merge, restore as restoreFrom } from './tools.ts'

export type * from './api.ts'
export type { Directory, Lock, RandomAccessFile, StorageBackend, WritableFile } from './directory/directory.ts'
export { IsovecError, type IsovecErrorCode, type IsovecErrorFields, isIsovecError } from './errors.ts'

/**
 * Makes a database of a snapshot, in an empty place. Every byte is verified; if anything fails, the place is left empty.
 *
 * @param snapshot a folder or backend, which is only read; or an archive as a stream: the folder in a tar file, gzipped or not
 * @throws IsovecError `NOT_FOUND`, `INVALID_ARGUMENT` if the destination isn't empty, `CORRUPTION`, `ABORTED`, `QUOTA_EXCEEDED`, `IO`
 */
export function restore(
  snapshot: string | URL | StorageBackend | ReadableStream<Uint8Array>,
  destination: string | URL | StorageBackend,
  options?: ToolOptions,
): Promise<SnapshotReport> {
  return restoreFrom(snapshot, destination, options, platformBackend)
}

/**
 * Copies out everything that still verifies of a damaged database into a new one, in an empty place, and reports what it could not. The
 * source is only read; nobody should write it meanwhile. Of each id the newest version counts that any file holds. Where files that say
 * what was deleted or patched are damaged, deleted documents or older payloads may be back: the report names those files.
 *
 * Takes memory for every id. Graphs are built anew.
 *
 * @throws IsovecError `NOT_FOUND`, `INVALID_ARGUMENT` if the destination isn't empty, `UNSUPPORTED_VERSION`, `ABORTED`, `QUOTA_EXCEEDED`, `IO`
 */
export function salvage(
  source: string | URL | StorageBackend,
  destination: string | URL | StorageBackend,
  options?: ToolOptions,
): Promise<SalvageReport> {
  return salvageFrom(source, destination, options, platformBackend)
}

/**
 * Makes one database of two, in an empty place: collections of one name are joined, and where both hold an id, the second one's document
 * wins. Each collection is compacted. The two are only read. If anything fails, the place is left empty.
 *
 * @throws IsovecError `NOT_FOUND`; `WRONG_DIMENSION`, `INVALID_ARGUMENT` or `MODEL_MISMATCH` if collections of one name differ in dimension,
 * metric or model; `INVALID_ARGUMENT` if the destination isn't empty; `CORRUPTION`, `ABORTED`, `QUOTA_EXCEEDED`, `IO`
 */
export function mergeDatabases(
  base: string | URL | StorageBackend,
  other: string | URL | StorageBackend,
  destination: string | URL | StorageBackend,
  options?: ToolOptions,
): Promise<MergeReport> {
  return merge(base, other, destination, options, platformBackend)
}

/**
 * Opens a database, and makes one if there is none.
 *
 * @param location a folder as a path or `file:` URL, a backend, or `':memory:'`
 * @throws IsovecError `LOCKED` if another writer holds it, `NOT_FOUND` with `mustExist`, `CORRUPTION`, `UNSUPPORTED`, `IO`
 */
export function openDatabase(location: string | URL | StorageBackend, options?: OpenOptions): Promise<Database> {
  return open(location, options, platformBackend)
}
