import * as nodeFs from 'node:fs'
import { closeSync, openSync, readSync, renameSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { createFsFromVolume, Volume } from 'memfs'
import { describe, expect, test } from 'vitest'
import { type LockSystem, tryFileLock } from '../../src/directory/file-lock.ts'
import type { DenoFiles } from '../../src/directory/lock-file.ts'
import { temporaryFolder } from '../support/folder.ts'

/** What Deno's files do, within this process: who has which inode locked. */
class StubFiles implements DenoFiles {
  readonly locked = new Map<number, object>()
  openCount = 0
  /** Called after each opening. */
  onOpen: (path: string) => void = () => {}

  async open(path: string) {
    const fd = openSync(path, nodeFs.constants.O_RDWR | nodeFs.constants.O_CREAT)
    this.openCount++
    this.onOpen(path)
    const { ino } = nodeFs.fstatSync(fd)
    let place = 0
    const file = {
      tryLockSync: () => {
        if (this.locked.has(ino)) return false
        this.locked.set(ino, file)
        return true
      },
      statSync: () => nodeFs.fstatSync(fd),
      // As a file has one place for all: what is read or written moves it.
      seekSync: (offset: number) => {
        place = offset
        return place
      },
      readSync: (target: Uint8Array) => {
        const count = readSync(fd, target, 0, target.byteLength, place)
        place += count
        return count === 0 ? null : count
      },
      writeSync: (bytes: Uint8Array) => {
        const count = writeSync(fd, bytes, 0, bytes.byteLength, place)
        place += count
        return count
      },
      close: () => {
        this.openCount--
        if (this.locked.get(ino) === file) this.locked.delete(ino)
        closeSync(fd)
      },
    }
    return file
  }

  async stat(path: string) {
    return nodeFs.statSync(path)
  }
}

const inDeno = (deno: DenoFiles, platform = 'linux'): LockSystem => ({
  fs: nodeFs as unknown as LockSystem['fs'],
  platform,
  command: 'no-such-command',
  deno,
  mayIgnoreFlags: true,
})

describe("a lock by Deno's own files", () => {
  test.each(['linux', 'darwin'])(
    'needs no command on %s, keeps out a second one and is given back',
    async (platform) => {
      const files = new StubFiles()
      const path = join(await temporaryFolder(), 'lock')
      const { lock } = await tryFileLock(path, inDeno(files, platform))
      expect(lock!.primitive).toBe('flock')
      expect(await tryFileLock(path, inDeno(files, platform))).toEqual({ pid: process.pid })
      expect(files.openCount).toBe(1)
      await lock!.release()
      expect([files.openCount, files.locked.size]).toEqual([0, 0])
      const again = await tryFileLock(path, inDeno(files, platform))
      await again.lock!.release()
    },
  )

  test('is not taken on a file that was moved away or is gone', async () => {
    const files = new StubFiles()
    const path = join(await temporaryFolder(), 'lock')
    let times = 0
    files.onOpen = () => {
      times++
      if (times === 1) renameSync(path, `${path}-old`)
      else if (times === 2) nodeFs.unlinkSync(path)
    }
    const { lock } = await tryFileLock(path, inDeno(files))
    expect(times).toBe(3)
    expect(files.openCount).toBe(1)
    expect(await tryFileLock(path, inDeno(files))).toEqual({ pid: process.pid })
    await lock!.release()
  })

  test('says what went wrong, and leaves nothing open', async () => {
    const files = new StubFiles()
    const path = join(await temporaryFolder(), 'lock')
    const refusal = Object.assign(new Error('Requires write access to "lock"'), { name: 'NotCapable' })
    const refusing: DenoFiles = { open: () => Promise.reject(refusal), stat: () => Promise.reject(refusal) }
    await expect(tryFileLock(path, inDeno(refusing))).rejects.toMatchObject({
      code: 'IO',
      file: 'lock',
      message: expect.stringContaining('Requires write access'),
    })
    const forgetful: DenoFiles = { open: (path) => files.open(path), stat: () => Promise.reject(refusal) }
    await expect(tryFileLock(path, inDeno(forgetful))).rejects.toMatchObject({ code: 'IO', cause: refusal })
    expect([files.openCount, files.locked.size]).toEqual([0, 0])
  })
})

test('is UNSUPPORTED in a Deno that is too old to try for a lock', async () => {
  const files = new StubFiles()
  const old: DenoFiles = {
    open: async (path) => ({ ...(await files.open(path)), tryLockSync: undefined }) as never,
    stat: (path) => files.stat(path),
  }
  const path = join(await temporaryFolder(), 'lock')
  await expect(tryFileLock(path, inDeno(old))).rejects.toMatchObject({
    code: 'UNSUPPORTED',
    message: expect.stringContaining('Deno 2.7'),
  })
  expect(files.openCount).toBe(0)
})

describe('a lock by flags that a runtime may pass over', () => {
  /** A file system of which a file that is open can be opened again, as if the flags were not there, or not. */
  function systemOf(platform: string, heedsFlags: boolean) {
    const memory = createFsFromVolume(Volume.fromJSON({ '/lock': '' }))
    const held = new Set<number>()
    const open = (
      path: string,
      flags: number | string,
      mode: number,
      callback: (error: unknown, fd?: number) => void,
    ): void => {
      if (heedsFlags && held.size > 0) {
        callback(Object.assign(new Error('busy'), { code: platform === 'win32' ? 'EBUSY' : 'EAGAIN' }))
        return
      }
      memory.open(path, typeof flags === 'number' ? 'r+' : flags, mode, (error, fd) => {
        if (fd !== undefined) held.add(fd)
        callback(error, fd)
      })
    }
    const close = (fd: number, callback: (error: unknown) => void): void => {
      held.delete(fd)
      memory.close(fd, callback)
    }
    const fs = { ...memory, open, close } as unknown as LockSystem['fs']
    return { held, system: { fs, platform, command: 'none', mayIgnoreFlags: true } satisfies LockSystem }
  }

  test.each(['win32', 'darwin'])('is UNSUPPORTED where %s keeps nobody out', async (platform) => {
    const { held, system } = systemOf(platform, false)
    await expect(tryFileLock('/lock', system)).rejects.toMatchObject({ code: 'UNSUPPORTED', file: 'lock' })
    expect(held.size).toBe(0)
  })

  test.each(['win32', 'darwin'])('is had where %s keeps others out', async (platform) => {
    const { held, system } = systemOf(platform, true)
    const { lock } = await tryFileLock('/lock', system)
    expect(lock!.primitive).toBe('open-exclusive')
    expect(await tryFileLock('/lock', system)).not.toHaveProperty('lock')
    await lock!.release()
    expect(held.size).toBe(0)
  })
})
