/** The part of `node:fs` that the node backend uses, as promises with isovec's errors. */

import { IsovecError } from '../errors.ts'

type Callback<Result = void> = (error: NodeJS.ErrnoException | null, result: Result) => void

/** What is asked of a file's status. */
export type FileStatus = { size: number | bigint; dev: number | bigint; ino: number | bigint; isDirectory(): boolean }

/**
 * The callback functions of `node:fs` that the node backend calls. Typed by name only, since `node:fs` and its stand-ins, memfs for
 * one, declare the same functions in ways that TypeScript can't reconcile.
 */
export type NodeFileSystem = { readonly [Name in keyof FileSystem]: (...parameters: never[]) => unknown }

/** How the node backend calls them. */
export interface FileSystem {
  open(path: string, flags: string | number, mode: number, callback: Callback<number>): void
  close(fd: number, callback: Callback): void
  read(fd: number, target: Uint8Array, from: number, length: number, position: number, callback: Callback<number>): void
  write(
    fd: number,
    source: Uint8Array,
    from: number,
    length: number,
    position: number,
    callback: Callback<number>,
  ): void
  writev(fd: number, parts: Uint8Array[], position: number, callback: Callback<number>): void
  fsync(fd: number, callback: Callback): void
  fdatasync(fd: number, callback: Callback): void
  fstat(fd: number, options: { bigint: true }, callback: Callback<FileStatus>): void
  stat(path: string, options: { bigint: true }, callback: Callback<FileStatus>): void
  readdir(
    path: string,
    options: { withFileTypes: true },
    callback: Callback<{ name: unknown; isDirectory(): boolean }[]>,
  ): void
  mkdir(path: string, callback: Callback): void
  rmdir(path: string, callback: Callback): void
  unlink(path: string, callback: Callback): void
  realpath(path: string, callback: Callback<string>): void
}

/** A function of {@link FileSystem} as a promise. Rejects with the platform's error as it is. */
export function promised<Result>(call: (callback: Callback<Result>) => void): Promise<Result> {
  return new Promise((resolve, reject) => {
    call((error, result) => (error ? reject(error) : resolve(result)))
  })
}

/** The platform's word for what went wrong, such as `ENOENT`. */
export function errorCode(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException | undefined)?.code
}

/** isovec's error for a failure of the platform: `QUOTA_EXCEEDED` where there is no room, else `IO`. */
export function ioError(action: string, file: string, cause: unknown, offset?: number): IsovecError {
  if (cause instanceof IsovecError) return cause
  const code = errorCode(cause)
  const full = code === 'ENOSPC' || code === 'EDQUOT'
  const message = `cannot ${action} ${file}: ${cause instanceof Error ? cause.message : String(cause)}`
  return new IsovecError(full ? 'QUOTA_EXCEEDED' : 'IO', message, {
    file,
    cause,
    ...(offset === undefined ? {} : { offset }),
  })
}

const partsMax = 1024 // IOV_MAX of Linux and macOS
const transferBytesMax = 1 << 30 // macOS and Windows refuse 2 GiB and more in one call

/** Writes all of `parts`, none of them empty, from `position` on, however few bytes the platform takes at a time. */
export async function writeAll(fs: FileSystem, fd: number, parts: readonly Uint8Array[], position: number) {
  let part = 0
  let from = 0
  while (part < parts.length) {
    const batch = nextBatch(parts, part, from)
    const [first] = batch
    let written =
      batch.length === 1
        ? await promised<number>((callback) => fs.write(fd, first!, 0, first!.byteLength, position, callback))
        : await promised<number>((callback) => fs.writev(fd, batch, position, callback))
    if (!(written > 0)) throw new Error(`the platform wrote ${written} bytes and gave no reason`)
    position += written
    while (part < parts.length && written >= parts[part]!.byteLength - from) {
      written -= parts[part]!.byteLength - from
      part++
      from = 0
    }
    from += written
  }
}

function nextBatch(parts: readonly Uint8Array[], part: number, from: number): Uint8Array[] {
  const batch: Uint8Array[] = []
  let room = transferBytesMax
  for (let i = part; i < parts.length && batch.length < partsMax && room > 0; i++) {
    const start = i === part ? from : 0
    const bytes = parts[i]!.subarray(start, start + room)
    batch.push(bytes)
    room -= bytes.byteLength
  }
  return batch
}

/** Reads from `position` on until `target` is full or the file ends, and returns how many bytes that were. */
export async function readAll(fs: FileSystem, fd: number, target: Uint8Array, position: number): Promise<number> {
  let done = 0
  while (done < target.byteLength) {
    const length = Math.min(target.byteLength - done, transferBytesMax)
    const count = await promised<number>((callback) => fs.read(fd, target, done, length, position + done, callback))
    if (count === 0) break
    done += count
  }
  return done
}

/** Makes the names in a directory survive power loss. Windows has no such call and does it by itself: there refusals are ignored. */
export async function syncDirectory(fs: FileSystem, path: string, platform: string): Promise<void> {
  let fd: number | undefined
  try {
    fd = await promised<number>((callback) => fs.open(path, 'r', 0o666, callback))
    await promised<void>((callback) => fs.fsync(fd!, callback))
  } catch (error) {
    const refusals = ['EPERM', 'EISDIR', 'EACCES', 'EINVAL', 'EBADF']
    if (platform !== 'win32' || !refusals.includes(errorCode(error) ?? '')) throw error
  } finally {
    if (fd !== undefined) await promised<void>((callback) => fs.close(fd!, callback))
  }
}
