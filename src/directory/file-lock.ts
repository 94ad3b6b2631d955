/**
 * A lock between processes on one file, held by the kernel: it falls with the process that holds it, also after kill -9, and is
 * never judged by the age of a file. One family per system, so that every isovec on a machine sees every other, whatever runs it:
 *
 * - Linux: flock(2). Deno has a call for it, Node and Bun have the command `flock` (util-linux or busybox), see `lock-file.ts`.
 * - macOS and the BSDs: the flag `O_EXLOCK` of open(2), the same family; again flock(2) in Deno.
 * - Windows: opened with share mode 0. Only Node can.
 */

import * as nodeFs from 'node:fs'
import { errorCode, type FileSystem, ioError } from './file-system.ts'
import type { LockAttempt } from './lock.ts'
import { type DenoFiles, denoFiles, type LockFile, openWithDeno, openWithNode, unsupported } from './lock-file.ts'

/** Flags of open(2) that `node:fs` has no names for. */
const openExclusive: Record<string, number | undefined> = {
  darwin: 0x20 | 0x4, // O_EXLOCK | O_NONBLOCK
  freebsd: 0x20 | 0x4,
  openbsd: 0x20 | 0x4,
  netbsd: 0x20 | 0x4,
  win32: 0x10000000, // UV_FS_O_EXLOCK
}

/** What the lock stands on; tests put other things here. */
export type LockSystem = {
  readonly fs: FileSystem
  readonly platform: string
  /** The command `flock`. */
  readonly command: string
  /** Deno's own files, where it is Deno that runs this. */
  readonly deno?: DenoFiles | undefined
  /** Whether `fs.open` may pass over a flag that it doesn't know, and say nothing, as Bun and Deno do on Windows. */
  readonly mayIgnoreFlags?: boolean
}

const { bun, deno } = process.versions

const thisSystem: LockSystem = {
  fs: nodeFs,
  platform: process.platform,
  command: 'flock',
  deno: denoFiles(),
  mayIgnoreFlags: bun !== undefined || deno !== undefined,
}

const flags = nodeFs.constants.O_RDWR | nodeFs.constants.O_CREAT

/**
 * Tries once to lock the file `path`, which is made if it isn't there and never removed. Its holder's pid is written into it, for
 * people and messages only.
 *
 * @throws `UNSUPPORTED` where there is nothing to lock with, `IO`
 */
export async function tryFileLock(path: string, system: LockSystem = thisSystem): Promise<LockAttempt> {
  const { platform, deno } = system
  const hasCommand = platform === 'linux' || platform === 'android'
  if (hasCommand || (deno !== undefined && platform !== 'win32')) return tryFlock(path, system)
  const exclusive = openExclusive[platform]
  if (exclusive === undefined) throw unsupported(`isovec knows no lock between processes on ${platform}`)
  return tryOpenExclusive(path, flags | exclusive, system)
}

async function tryFlock(path: string, system: LockSystem): Promise<LockAttempt> {
  for (;;) {
    const file = await openLockFile(path, system)
    let kept = false
    try {
      if (!(await file.tryLock())) return { pid: await readPid(file) }
      // Somebody may have put another file in place of the one that was opened, and another writer may hold that.
      if (!(await file.isAt(path))) continue
      await writePid(file)
      kept = true
      return { lock: { primitive: 'flock', release: () => file.close() } }
    } catch (error) {
      throw ioError('lock', 'lock', error)
    } finally {
      if (!kept) await file.close()
    }
  }
}

async function openLockFile(path: string, { fs, command, deno }: LockSystem): Promise<LockFile> {
  try {
    return deno === undefined ? await openWithNode(path, flags, fs, command) : await openWithDeno(path, deno)
  } catch (error) {
    throw ioError('open', 'lock', error)
  }
}

async function tryOpenExclusive(path: string, exclusiveFlags: number, system: LockSystem): Promise<LockAttempt> {
  const file = await openExclusively(path, exclusiveFlags, system)
  if (file === undefined) return system.platform === 'win32' ? {} : { pid: await readPidAt(path, system) }
  try {
    if (system.mayIgnoreFlags === true) await proveExclusive(path, exclusiveFlags, system)
    await writePid(file)
    return { lock: { primitive: 'open-exclusive', release: () => file.close() } }
  } catch (error) {
    await file.close()
    throw error
  }
}

/** Opens a file again that is open. What keeps out another process keeps out a second opening by this one. */
async function proveExclusive(path: string, exclusiveFlags: number, system: LockSystem): Promise<void> {
  const second = await openExclusively(path, exclusiveFlags, system)
  if (second === undefined) return
  await second.close()
  throw unsupported(`this runtime can not open a file for one process alone on ${system.platform}`)
}

/** The file, or `undefined` if somebody else has it. */
async function openExclusively(
  path: string,
  exclusiveFlags: number,
  system: LockSystem,
): Promise<LockFile | undefined> {
  try {
    return await openWithNode(path, exclusiveFlags, system.fs, system.command)
  } catch (error) {
    const code = errorCode(error) ?? ''
    if (['EOPNOTSUPP', 'ENOTSUP'].includes(code)) throw unsupported(`the file system of ${path} has no locks`, error)
    if (!['EAGAIN', 'EWOULDBLOCK', 'EBUSY'].includes(code)) throw ioError('open', 'lock', error)
    return undefined
  }
}

const pidBytes = 16

/** Leaves this process's number in the lock file. The lock holds without it, also on a disk that is full. */
async function writePid(file: LockFile): Promise<void> {
  const bytes = new TextEncoder().encode(`${String(process.pid).padEnd(pidBytes - 1)}\n`)
  await file.write(bytes).catch(() => {})
}

async function readPid(file: LockFile): Promise<number | undefined> {
  const bytes = new Uint8Array(pidBytes)
  const count = await file.read(bytes).catch(() => 0)
  const pid = Number.parseInt(new TextDecoder().decode(bytes.subarray(0, count)), 10)
  return Number.isSafeInteger(pid) ? pid : undefined
}

async function readPidAt(path: string, { fs, command }: LockSystem): Promise<number | undefined> {
  const file = await openWithNode(path, 'r', fs, command).catch(() => undefined)
  if (file === undefined) return undefined
  const pid = await readPid(file)
  await file.close()
  return pid
}
