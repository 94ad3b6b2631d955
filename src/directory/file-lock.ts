/**
 * A lock between processes on one file, held by the kernel: it falls with the process that holds it, also after kill -9, and is
 * never judged by the age of a file. One family per system, so that every isovec on a machine sees every other:
 *
 * - Linux: flock(2). Node has no call for it, so the command `flock` (util-linux or busybox) locks a descriptor which it inherits;
 *   the lock belongs to the open file and stays when the command has ended.
 * - macOS and the BSDs: the flag `O_EXLOCK` of open(2), the same family.
 * - Windows: opened with share mode 0.
 */

import { spawn } from 'node:child_process'
import * as nodeFs from 'node:fs'
import { IsovecError } from '../errors.ts'
import { errorCode, type FileSystem, ioError, promised } from './file-system.ts'
import type { LockAttempt } from './lock.ts'

/** Flags of open(2) that `node:fs` has no names for. */
const openExclusive: Record<string, number | undefined> = {
  darwin: 0x20 | 0x4, // O_EXLOCK | O_NONBLOCK
  freebsd: 0x20 | 0x4,
  openbsd: 0x20 | 0x4,
  netbsd: 0x20 | 0x4,
  win32: 0x10000000, // UV_FS_O_EXLOCK
}

/** What the lock stands on; tests put other things here. */
export type LockSystem = { readonly fs: FileSystem; readonly platform: string; readonly command: string }

const thisSystem: LockSystem = { fs: nodeFs, platform: process.platform, command: 'flock' }

const flags = nodeFs.constants.O_RDWR | nodeFs.constants.O_CREAT

/**
 * Tries once to lock the file `path`, which is made if it isn't there and never removed. Its holder's pid is written into it, for
 * people and messages only.
 *
 * @throws `UNSUPPORTED` where there is nothing to lock with, `IO`
 */
export async function tryFileLock(path: string, system: LockSystem = thisSystem): Promise<LockAttempt> {
  if (system.platform === 'linux' || system.platform === 'android') return tryFlock(path, system)
  const exclusive = openExclusive[system.platform]
  if (exclusive === undefined) throw unsupported(`isovec knows no lock between processes on ${system.platform}`)
  return tryOpenExclusive(path, flags | exclusive, system)
}

async function tryFlock(path: string, system: LockSystem): Promise<LockAttempt> {
  const { fs } = system
  for (;;) {
    const fd = await openLockFile(path, flags, system)
    let kept = false
    try {
      if (!(await flock(fd, system.command))) return { pid: await readPid(fs, fd) }
      // Somebody may have put another file in place of the one that was opened, and another writer may hold that.
      if (!(await isFileAt(fs, fd, path))) continue
      await writePid(fs, fd)
      kept = true
      return { lock: { primitive: 'flock', release: () => close(fs, fd) } }
    } catch (error) {
      throw ioError('lock', 'lock', error)
    } finally {
      if (!kept) await close(fs, fd)
    }
  }
}

async function tryOpenExclusive(path: string, exclusiveFlags: number, system: LockSystem): Promise<LockAttempt> {
  const { fs } = system
  let fd: number
  try {
    fd = await promised<number>((callback) => fs.open(path, exclusiveFlags, 0o666, callback))
  } catch (error) {
    const code = errorCode(error) ?? ''
    if (['EOPNOTSUPP', 'ENOTSUP'].includes(code)) throw unsupported(`the file system of ${path} has no locks`, error)
    if (!['EAGAIN', 'EWOULDBLOCK', 'EBUSY'].includes(code)) throw ioError('open', 'lock', error)
    return system.platform === 'win32' ? {} : { pid: await readPidAt(system, path) }
  }
  await writePid(fs, fd)
  return { lock: { primitive: 'open-exclusive', release: () => close(fs, fd) } }
}

async function openLockFile(path: string, flags: number, { fs }: LockSystem): Promise<number> {
  try {
    return await promised<number>((callback) => fs.open(path, flags, 0o666, callback))
  } catch (error) {
    throw ioError('open', 'lock', error)
  }
}

/** Locks an open file for this process; false if another one has it. Takes 3 to 7 ms. */
function flock(fd: number, command: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, ['-x', '-n', '3'], { cwd: '/', stdio: ['ignore', 'ignore', 'pipe', fd] })
    let complaint = ''
    child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      complaint += text
    })
    child.on('error', (error) => {
      if (errorCode(error) !== 'ENOENT') reject(error)
      else
        reject(
          unsupported(`the command '${command}' (util-linux or busybox) is needed to keep out a second writer`, error),
        )
    })
    child.on('close', (status, signal) => {
      if (status === 0) resolve(true)
      // Both util-linux and busybox end with 1 and say nothing if the file is locked, and say something if it can't be.
      else if (status === 1 && complaint === '') resolve(false)
      else reject(unsupported(`'${command}' ended with ${signal ?? status}: ${complaint.trim()}`))
    })
  })
}

function unsupported(reason: string, cause?: unknown): IsovecError {
  return new IsovecError('UNSUPPORTED', `cannot lock the database for writing: ${reason}`, { file: 'lock', cause })
}

async function isFileAt(fs: FileSystem, fd: number, path: string): Promise<boolean> {
  const opened = await promised<{ dev: unknown; ino: unknown }>((callback) => fs.fstat(fd, { bigint: true }, callback))
  try {
    const there = await promised<{ dev: unknown; ino: unknown }>((callback) =>
      fs.stat(path, { bigint: true }, callback),
    )
    return there.dev === opened.dev && there.ino === opened.ino
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return false
    throw error
  }
}

const pidBytes = 16

/** Leaves this process's number in the lock file. The lock holds without it, also on a disk that is full. */
async function writePid(fs: FileSystem, fd: number): Promise<void> {
  const bytes = new TextEncoder().encode(`${String(process.pid).padEnd(pidBytes - 1)}\n`)
  await promised<number>((callback) => fs.write(fd, bytes, 0, pidBytes, 0, callback)).catch(() => 0)
}

async function readPid(fs: FileSystem, fd: number): Promise<number | undefined> {
  const bytes = new Uint8Array(pidBytes)
  const count = await promised<number>((callback) => fs.read(fd, bytes, 0, pidBytes, 0, callback)).catch(() => 0)
  const pid = Number.parseInt(new TextDecoder().decode(bytes.subarray(0, count)), 10)
  return Number.isSafeInteger(pid) ? pid : undefined
}

async function readPidAt({ fs }: LockSystem, path: string): Promise<number | undefined> {
  const fd = await promised<number>((callback) => fs.open(path, 'r', 0o666, callback)).catch(() => undefined)
  if (fd === undefined) return undefined
  const pid = await readPid(fs, fd)
  await close(fs, fd)
  return pid
}

function close(fs: FileSystem, fd: number): Promise<void> {
  return promised<void>((callback) => fs.close(fd, callback))
}
