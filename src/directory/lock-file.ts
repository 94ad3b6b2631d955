/**
 * The open file behind a lock between processes, and flock(2) on it. It hides by whose calls the file is opened: those of `node:fs` in
 * Node and Bun, Deno's own in Deno.
 */

import { spawn } from 'node:child_process'
import { IsovecError } from '../errors.ts'
import { errorCode, type FileSystem, promised } from './file-system.ts'

/** A lock's file, open for reading and writing. */
export interface LockFile {
  /**
   * Locks it for this process until it is closed; false if somebody else has the lock.
   * @throws `UNSUPPORTED` where there is nothing to lock with
   */
  tryLock(): Promise<boolean>
  /** Whether it is still the file that `path` names. */
  isAt(path: string): Promise<boolean>
  /** Reads from the start of the file and returns how many bytes there were. */
  read(target: Uint8Array): Promise<number>
  /** Writes to the start of the file. */
  write(bytes: Uint8Array): Promise<void>
  close(): Promise<void>
}

/** The error for a lock that can't be had at all. */
export function unsupported(reason: string, cause?: unknown): IsovecError {
  return new IsovecError('UNSUPPORTED', `cannot lock the database for writing: ${reason}`, { file: 'lock', cause })
}

/**
 * @param flags those of open(2)
 * @param command the command `flock`, from the path or by its own
 * @throws the platform's error as it is
 */
export async function openWithNode(
  path: string,
  flags: number | string,
  fs: FileSystem,
  command: string,
): Promise<LockFile> {
  const fd = await promised<number>((callback) => fs.open(path, flags, 0o666, callback))
  return {
    tryLock: () => flock(fd, command),
    isAt: (path) => isFileAt(fs, fd, path),
    read: (target) => promised<number>((callback) => fs.read(fd, target, 0, target.byteLength, 0, callback)),
    async write(bytes) {
      await promised<number>((callback) => fs.write(fd, bytes, 0, bytes.byteLength, 0, callback))
    },
    close: () => promised<void>((callback) => fs.close(fd, callback)),
  }
}

/**
 * Locks an open file for this process by the command `flock`, since Node has no call for it: the command inherits the descriptor, and
 * the lock belongs to the open file, which stays open here when the command has ended. Bun could call flock(2) through `bun:ffi`, but
 * can't tell why a call has failed. Takes 3 to 7 ms.
 */
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

type DenoStatus = { readonly dev: number; readonly ino: number | null }

interface DenoFile {
  tryLockSync?(exclusive: boolean): boolean
  statSync(): DenoStatus
  seekSync(offset: number, from: 0): number
  readSync(target: Uint8Array): number | null
  writeSync(bytes: Uint8Array): number
  close(): void
}

/** What is used of Deno's own files. */
export interface DenoFiles {
  open(path: string, options: { read: true; write: true; create: true }): Promise<DenoFile>
  stat(path: string): Promise<DenoStatus>
}

/**
 * Deno's own files, where it is Deno that runs this. They are locked by flock(2) wherever there is one, and that takes no permission
 * but those to read and write, where a command would have to be run.
 */
export function denoFiles(): DenoFiles | undefined {
  // There are stand-ins for `Deno` that run in Node.
  return process.versions.deno === undefined ? undefined : (globalThis as { Deno?: DenoFiles }).Deno
}

/**
 * Opens a file that Deno can lock, and makes it if it isn't there.
 * @throws `UNSUPPORTED` for a Deno that can't tell whether a lock is to be had without waiting for it; Deno's own errors as they are
 */
export async function openWithDeno(path: string, deno: DenoFiles): Promise<LockFile> {
  const file = await deno.open(path, { read: true, write: true, create: true })
  if (file.tryLockSync === undefined) {
    file.close()
    throw unsupported('Deno 2.7 or later is needed to keep out a second writer')
  }
  // Synchronous calls on a few bytes: a file with a call under way is not closed at once.
  return {
    tryLock: async () => file.tryLockSync!(true),
    async isAt(path) {
      const opened = file.statSync()
      try {
        const there = await deno.stat(path)
        return there.dev === opened.dev && there.ino === opened.ino
      } catch (error) {
        if (errorCode(error) === 'ENOENT') return false
        throw error
      }
    },
    async read(target) {
      file.seekSync(0, 0)
      return file.readSync(target) ?? 0
    },
    async write(bytes) {
      file.seekSync(0, 0)
      file.writeSync(bytes)
    },
    close: async () => file.close(),
  }
}
