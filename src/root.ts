/**
 * The root of a database: which collections there are, as the newest manifest that holds says.
 */
import type { Directory, StorageBackend } from './directory/directory.ts'
import { IsovecError } from './errors.ts'
import type { Kernel } from './kernel/index.ts'
import { fileName, parseFileName } from './storage/file-names.ts'
import { Generations } from './storage/generations.ts'
import { ReaderDirectory, retryWhileStale } from './storage/reader-directory.ts'
import { type RootBody, rootFormat } from './storage/root-manifest.ts'

/**
 * Reads the root, and begins one where there is none.
 * @param mustExist whether not to begin one
 * @throws IsovecError `NOT_FOUND`, `CORRUPTION`: nothing is ever begun anew over what can't be read
 */
export async function openRoot(
  kernel: Kernel,
  directory: Directory,
  backend: StorageBackend,
  mustExist: boolean,
): Promise<Generations<RootBody>> {
  const found = await findRoot(kernel, directory, backend)
  if (found !== undefined) return found
  if (mustExist) throw noDatabase(backend)
  for (const name of await directory.list()) if (parseFileName(name)?.kind === 'manifest') await directory.remove(name)
  const uuid = crypto.getRandomValues(new Uint8Array(16))
  return Generations.create(kernel, directory, rootFormat, uuid, { nextDirectory: 1, collections: [] })
}

/**
 * Reads the root beside a writer that may go on meanwhile.
 * @throws IsovecError `NOT_FOUND`, `CORRUPTION`, `STALE_READER`
 */
export function readRoot(
  kernel: Kernel,
  directory: Directory,
  backend: StorageBackend,
): Promise<Generations<RootBody>> {
  return retryWhileStale(async () => {
    const found = await findRoot(kernel, await ReaderDirectory.of(directory), backend)
    if (found === undefined) throw noDatabase(backend)
    return found
  })
}

async function findRoot(
  kernel: Kernel,
  directory: Directory,
  backend: StorageBackend,
): Promise<Generations<RootBody> | undefined> {
  const found = await Generations.load(kernel, directory, rootFormat)
  // Collections without a manifest that names them are a database that was damaged, not an empty folder.
  if (found === undefined && (await backend.directories()).length > 0) {
    throw new IsovecError('CORRUPTION', `${backend.location} holds collections but no manifest`)
  }
  return found
}

function noDatabase({ location }: StorageBackend): IsovecError {
  return new IsovecError('NOT_FOUND', `there is no database at ${location}`)
}

/**
 * Removes manifests and directories that no kept generation names: leftovers of work that was cut short. They are a waste of space and
 * no danger, so what can't be removed stays until the next opening.
 */
export async function sweepRoot(
  root: Generations<RootBody>,
  directory: Directory,
  backend: StorageBackend,
): Promise<void> {
  const kept = new Set(root.kept.map(({ generation }) => fileName(generation, 'manifest')))
  const named = new Set(root.kept.flatMap(({ body }) => body.collections.map((place) => place.directory)))
  for (const name of await directory.list()) {
    if (parseFileName(name)?.kind === 'manifest' && !kept.has(name)) await directory.remove(name).catch(() => {})
  }
  for (const number of await backend.directories()) {
    if (!named.has(number)) await backend.removeDirectory(number).catch(() => {})
  }
}
