/**
 * isovec: an embedded vector database.
 */
import { elsewhere, platformBackend } from '#platform'
import type {
  Database,
  MergeReport,
  OpenOptions,
  RestoreOptions,
  SalvageReport,
  SnapshotReport,
  ToolOptions,
} from './api.ts'
import type { StorageBackend } from './directory/directory.ts'
import { checkOpen } from './open-options.ts'

type Place = string | URL | StorageBackend

/** Loaded when it is needed: a page whose databases lie in a worker never does. */
const loadEngine = (): Promise<typeof import('./engine.ts')> => import('./engine.ts')

/** Whether a place is a name rather than something of this thread. */
function isName(place: unknown): place is string {
  return typeof place === 'string' && place !== ':memory:'
}

/** Options as they are now; what is wrong with them is found where they are checked. */
function copied<T>(options: T): T {
  return typeof options === 'object' && options !== null ? { ...options } : options
}

export type * from './api.ts'
export type { Directory, Lock, RandomAccessFile, StorageBackend, WritableFile } from './directory/directory.ts'
export { IsovecError, type IsovecErrorCode, type IsovecErrorFields, isIsovecError } from './errors.ts'

/**
 * Makes a database of a snapshot, in an empty place. Every byte is verified; if anything fails, the place is left empty.
 *
 * @param snapshot a folder or backend, which is only read; or an archive as a stream: the folder in a tar file, gzipped or not. What is
 * no file of a database, and files that no manifest in it names, are left out
 * @throws IsovecError `NOT_FOUND`, `INVALID_ARGUMENT` if the destination isn't empty, `CORRUPTION`, `ABORTED`, `IO`; `QUOTA_EXCEEDED`, also
 * where an archive holds more than `maxBytes`
 */
export async function restore(
  snapshot: Place | ReadableStream<Uint8Array>,
  destination: Place,
  options?: RestoreOptions,
): Promise<SnapshotReport> {
  const given = copied(options)
  const isSource = isName(snapshot) || snapshot instanceof ReadableStream
  if (elsewhere !== undefined && isSource && isName(destination)) return elsewhere.restore(snapshot, destination, given)
  return (await loadEngine()).restore(snapshot, destination, given, platformBackend)
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
export async function salvage(source: Place, destination: Place, options?: ToolOptions): Promise<SalvageReport> {
  const given = copied(options)
  if (elsewhere !== undefined && isName(source) && isName(destination)) {
    return elsewhere.salvage(source, destination, given)
  }
  return (await loadEngine()).salvage(source, destination, given, platformBackend)
}

/**
 * Makes one database of two, in an empty place: collections of one name are joined, and where both hold an id, the second one's document
 * wins. Each collection is compacted. The two are only read. If anything fails, the place is left empty.
 *
 * @throws IsovecError `NOT_FOUND`; `WRONG_DIMENSION`, `INVALID_ARGUMENT` or `MODEL_MISMATCH` if collections of one name differ in dimension,
 * metric or model; `INVALID_ARGUMENT` if the destination isn't empty; `CORRUPTION`, `ABORTED`, `QUOTA_EXCEEDED`, `IO`
 */
export async function mergeDatabases(
  base: Place,
  other: Place,
  destination: Place,
  options?: ToolOptions,
): Promise<MergeReport> {
  const given = copied(options)
  if (elsewhere !== undefined && isName(base) && isName(other) && isName(destination)) {
    return elsewhere.mergeDatabases(base, other, destination, given)
  }
  return (await loadEngine()).mergeDatabases(base, other, destination, given, platformBackend)
}

/**
 * Opens a database, and makes one if there is none.
 *
 * @param location a folder as a path or `file:` URL, in a browser a name; a backend; or `':memory:'`. A database of a name lies in the
 * origin private file system, or in IndexedDB where there is none, and is held by a worker, whose leader all tabs of the origin share
 * @throws IsovecError `LOCKED` if another writer holds it, `NOT_FOUND` with `mustExist`, `CORRUPTION`, `UNSUPPORTED`, `ABORTED`, `IO`
 */
export async function openDatabase(location: Place, options?: OpenOptions): Promise<Database> {
  const checked = checkOpen(options)
  if (elsewhere !== undefined && isName(location)) return elsewhere.open(location, checked)
  return (await loadEngine()).openChecked(location, checked, platformBackend)
}
