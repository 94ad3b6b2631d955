/** The runtimes that tests use besides the Node they run in. Their versions stand in fetched/package.json. */

import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdir, readFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { nodeBackend } from '../../src/directory/node.ts'
import { Child } from '../support/child.ts'

/** A program that runs JavaScript, and what it wants to hear before the name of a script. */
export type Runtime = { readonly name: string; readonly command: string; readonly flags: readonly string[] }

export type RuntimeName = 'node' | 'deno' | 'bun'

/** Enough for a slow line; what comes is about 100 MB. */
const fetchTimeout = 900_000
/** For tests and hooks that may be the ones that fetch. */
export const fetchingTimeout = fetchTimeout + 60_000

/** Apart, so that this package's name still means this package to the tests. */
const folder = fileURLToPath(new URL('./fetched', import.meta.url))
const names = ['bun', 'deno', 'node'] as const

async function versionsIn(lockFile: string): Promise<(string | undefined)[]> {
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

/** Installs the runtimes unless they are there. npm writes its own lock file last of all, so that a part of them counts as nothing. */
async function fetchRuntimes(): Promise<void> {
  const wanted = await versionsIn('package-lock.json')
  const areThere = async () => String(await versionsIn('node_modules/.package-lock.json')) === String(wanted)
  if (await areThere()) return
  // Test files run side by side. The lock stands outside of the folder, which npm clears.
  const place = createHash('sha256').update(`${process.getuid?.()} ${folder}`).digest('hex').slice(0, 16)
  const lockFolder = join(tmpdir(), `isovec-runtimes-${place}`)
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

/** The Node that runs the tests. */
export const thisNode: Runtime = { name: 'node', command: process.execPath, flags: [] }

/** A newer Node, Deno and Bun, which are fetched on first use. */
export async function fetchedRuntimes(): Promise<{ node: Runtime; deno: Runtime; bun: Runtime }> {
  await fetchRuntimes()
  const at = (path: string): string => join(folder, 'node_modules', path)
  return {
    node: { name: 'newer node', command: at('node/bin/node'), flags: [] },
    deno: { name: 'deno', command: at('.bin/deno'), flags: ['run', '--allow-all'] },
    bun: { name: 'bun', command: at('.bin/bun'), flags: [] },
  }
}

/** The Node that runs the tests, Deno and Bun. */
export async function allRuntimes(): Promise<Record<RuntimeName, Runtime>> {
  const { deno, bun } = await fetchedRuntimes()
  return { node: thisNode, deno, bun }
}

/** Starts a bundled script in a runtime, as {@link Child} does in this Node. */
export function startIn<Message>(runtime: Runtime, script: string, ...task: string[]): Child<Message> {
  const own = process.execPath
  // A child runs what runs this process.
  process.execPath = runtime.command
  try {
    const [first, ...rest] = [...runtime.flags, script, ...task]
    return new Child<Message>(first!, ...rest)
  } finally {
    process.execPath = own
  }
}

/** Runs a script to its end, with the flags of its runtime unless others are given. Rejects with all that was written if it fails. */
export async function runIn(
  runtime: Runtime,
  script: readonly string[],
  options: { cwd?: string; env?: NodeJS.ProcessEnv; timeout?: number; flags?: readonly string[] } = {},
): Promise<{ stdout: string; stderr: string }> {
  const { flags = runtime.flags, ...rest } = options
  const limits = { maxBuffer: 1 << 26, timeout: 120_000, killSignal: 'SIGKILL' as const }
  try {
    return await promisify(execFile)(runtime.command, [...flags, ...script], { ...limits, ...rest })
  } catch (error) {
    const { message, stdout } = error as Error & { stdout?: string }
    throw new Error(`${message}\n${stdout ?? ''}`, { cause: error })
  }
}
