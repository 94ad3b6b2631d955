/** Packages that tests need beside the package's own: in folders of their own, fetched from the npm registry on first use. */

import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdir, readFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { nodeBackend } from '../../src/directory/node.ts'

/** Enough for a slow line; what comes is about 100 MB. */
const fetchTimeout = 900_000
/** For tests and hooks that may be the ones that fetch. */
export const fetchingTimeout = fetchTimeout + 60_000

async function versionsIn(folder: string, lockFile: string, names: readonly string[]): Promise<(string | undefined)[]> {
  try {
    const { packages } = JSON.parse(await readFile(join(folder, lockFile), 'utf8')) as {
      packages: Record<string, { version: string } | undefined>
    }
    return names.map((name) => packages[`node_modules/${name}`]?.version)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw error
  }
}

/**
 * Installs what the lock file of a folder names, unless it is there. npm writes its own lock file last of all, so that a part of it counts
 * as nothing.
 *
 * @param names of the packages that count
 */
export async function fetchPackages(folder: string, names: readonly string[]): Promise<void> {
  const wanted = await versionsIn(folder, 'package-lock.json', names)
  const areThere = async () =>
    String(await versionsIn(folder, 'node_modules/.package-lock.json', names)) === String(wanted)
  if (await areThere()) return
  // Test files run side by side. The lock stands outside of the folder, which npm clears.
  const place = createHash('sha256').update(`${process.getuid?.()} ${folder}`).digest('hex').slice(0, 16)
  const lockFolder = join(tmpdir(), `isovec-fetching-${place}`)
  await mkdir(lockFolder, { recursive: true })
  const lock = await nodeBackend(lockFolder).lock({ timeout: fetchTimeout })
  try {
    if (await areThere()) return
    const what = names.map((name, i) => `${name} ${wanted[i]}`).join(', ')
    process.stderr.write(
      `tests: fetching ${what} from the npm registry, once (about 100 MB, ${fetchTimeout / 1000} s at most)\n`,
    )
    const began = performance.now()
    await promisify(execFile)('npm', ['ci', '--no-audit', '--no-fund', '--prefix', folder], { timeout: fetchTimeout })
    process.stderr.write(`tests: fetched them in ${Math.round((performance.now() - began) / 1000)} s\n`)
  } finally {
    await lock.release()
  }
}
