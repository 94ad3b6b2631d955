/** The runtimes that tests use besides the Node they run in. Their versions stand in fetched/package.json. */

import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { Child } from '../support/child.ts'
import { fetchPackages } from '../support/fetched.ts'

export { fetchingTimeout } from '../support/fetched.ts'

/** A program that runs JavaScript, and what it wants to hear before the name of a script. */
export type Runtime = { readonly name: string; readonly command: string; readonly flags: readonly string[] }

export type RuntimeName = 'node' | 'deno' | 'bun'

/** Apart, so that this package's name still means this package to the tests. */
const folder = fileURLToPath(new URL('./fetched', import.meta.url))
const names = ['bun', 'deno', 'node'] as const

/** The Node that runs the tests. */
export const thisNode: Runtime = { name: 'node', command: process.execPath, flags: [] }

/** A newer Node, Deno and Bun, which are fetched on first use. */
export async function fetchedRuntimes(): Promise<{ node: Runtime; deno: Runtime; bun: Runtime }> {
  await fetchPackages(folder, names)
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
