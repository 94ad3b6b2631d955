import { spawnSync } from 'node:child_process'
import * as nodeFs from 'node:fs'
import { chmodSync, readdirSync, readlinkSync, renameSync, writeFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { Worker } from 'node:worker_threads'
import { createFsFromVolume, Volume } from 'memfs'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { type LockSystem, tryFileLock } from '../../src/directory/file-lock.ts'
import { claim } from '../../src/directory/lock.ts'
import { nodeBackend } from '../../src/directory/node.ts'
import { bundleForChild } from '../support/bundle.ts'
import { Child } from '../support/child.ts'

let bundle: string

beforeAll(async () => {
  bundle = await bundleForChild(new URL('./lock-child.ts', import.meta.url), { keep: true })
})

afterAll(() => rm(join(bundle, '..'), { recursive: true }))

async function newFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'isovec-lock-'))
  onTestFinished(() => rm(folder, { recursive: true, force: true }))
  return folder
}

type Report = { held?: string; code?: string; pid?: number; child?: number; turns?: number; met?: number }

/** Starts a child and waits for the line that it prints. It ends with the test. */
async function startChild(...task: string[]): Promise<{ child: Child<Report>; report: Report }> {
  const child = new Child<Report>(bundle, ...task)
  return { child, report: await child.report() }
}

/** The lock files that this process has open. */
function openLocks(): string[] {
  const files = readdirSync('/proc/self/fd').map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`)
    } catch {
      return '' // the descriptor that listed them
    }
  })
  return files.filter((file) => file.endsWith('/lock'))
}

const onLinux = process.platform === 'linux'

describe('the lock between processes', () => {
  test('is refused with the pid of its holder, and is free after kill -9, whatever the holder had started', async () => {
    const path = await newFolder()
    const { child, report } = await startChild(path, 'hold')
    onTestFinished(() => {
      if (report.child !== undefined) process.kill(report.child, 'SIGKILL')
    })
    expect(report).toMatchObject({ held: onLinux ? 'flock' : 'open-exclusive', pid: child.pid })
    const backend = nodeBackend(path)
    await expect(backend.lock({ timeout: 0 })).rejects.toMatchObject({ code: 'LOCKED', pid: child.pid })
    const waiting = backend.lock({ timeout: 30_000 })
    await child.kill()
    const lock = await waiting
    expect(lock.primitive).toBe(report.held)
    expect(process.kill(report.child!, 0)).toBe(true)
    await lock.release()
  })

  test('keeps out a child, with our pid, until it is released', async () => {
    const path = await newFolder()
    const lock = await nodeBackend(path).lock({ timeout: 0 })
    expect((await startChild(path, 'hold')).report).toEqual({ code: 'LOCKED', pid: process.pid })
    await lock.release()
    expect((await startChild(path, 'race', '1')).report).toEqual({ turns: 1, met: 0 })
  })

  test('keeps out a worker of the same process', async () => {
    const path = await newFolder()
    const lock = await nodeBackend(path).lock({ timeout: 0 })
    const ask = async () => {
      const worker = new Worker(bundle, { workerData: { path, way: 'hold' } })
      const report = await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject))
      await worker.terminate()
      return report
    }
    expect(await ask()).toEqual({ code: 'LOCKED', pid: process.pid })
    await lock.release()
    expect(await ask()).toMatchObject({ held: lock.primitive })
  })

  test('keeps out another copy of the package, also where only the registry can', async () => {
    const copy = (await import(/* @vite-ignore */ pathToFileURL(bundle).href)) as { nodeBackend: typeof nodeBackend }
    expect(copy.nodeBackend).not.toBe(nodeBackend)
    const fs = createFsFromVolume(Volume.fromJSON({ '/db/1.a': '' }))
    const elsewhere = createFsFromVolume(Volume.fromJSON({ '/db/1.a': '' }))
    const lock = await nodeBackend('/db', { fs }).lock({ timeout: 0 })
    expect(lock.primitive).toBe('in-process')
    await expect(copy.nodeBackend('/db', { fs }).lock({ timeout: 0 })).rejects.toMatchObject({ code: 'LOCKED' })
    await (await copy.nodeBackend('/db', { fs: elsewhere }).lock({ timeout: 0 })).release()
    await lock.release()
    await (await copy.nodeBackend('/db', { fs }).lock({ timeout: 0 })).release()
  })

  test('is one lock for all paths to a folder', async () => {
    const path = await newFolder()
    nodeFs.symlinkSync(path, `${path}-link`)
    onTestFinished(() => rm(`${path}-link`))
    const lock = await nodeBackend(path).lock({ timeout: 0 })
    await expect(nodeBackend(`${path}-link`).lock({ timeout: 0 })).rejects.toMatchObject({ pid: process.pid })
    await expect(nodeBackend(`${path}/../${path.split('/').at(-1)}`).lock({ timeout: 0 })).rejects.toMatchObject({
      code: 'LOCKED',
    })
    await lock.release()
  })

  test('has one holder at a time among processes that race for it', async () => {
    const path = await newFolder()
    const reports = await Promise.all(Array.from({ length: 4 }, () => startChild(path, 'race', '25')))
    expect(reports.map(({ report }) => report)).toEqual(Array(4).fill({ turns: 25, met: 0 }))
  }, 60_000)
})

describe.runIf(onLinux)('the lock on Linux', () => {
  const system: LockSystem = { fs: nodeFs as unknown as LockSystem['fs'], platform: 'linux', command: 'flock' }

  test('leaves no descriptor open and none to child processes', async () => {
    const backend = nodeBackend(await newFolder())
    expect(openLocks()).toEqual([])
    const lock = await backend.lock({ timeout: 0 })
    expect(openLocks()).toHaveLength(1)
    const script = `for (const fd of fs.readdirSync('/proc/self/fd')) try { console.log(fs.readlinkSync('/proc/self/fd/' + fd)) } catch {}`
    const child = spawnSync(process.execPath, ['-e', script], { encoding: 'utf8' })
    expect(child.stdout).not.toBe('')
    expect(child.stdout.split('\n').filter((file) => file.endsWith('/lock'))).toEqual([])
    const path = join(backend.location, 'lock')
    for (let i = 0; i < 5; i++) expect(await tryFileLock(path)).toEqual({ pid: process.pid })
    await expect(tryFileLock(path, { ...system, command: 'no-such-command' })).rejects.toThrow()
    expect(openLocks()).toHaveLength(1)
    await lock.release()
    expect(openLocks()).toEqual([])
  })

  test('is UNSUPPORTED where nothing can hold it, and says why', async () => {
    const folder = await newFolder()
    const path = join(folder, 'lock')
    const unsupported = { code: 'UNSUPPORTED', file: 'lock' }
    await expect(tryFileLock(path, { ...system, command: 'no-such-command' })).rejects.toMatchObject({
      ...unsupported,
      message: expect.stringContaining("'no-such-command'"),
    })
    const complaining = join(folder, 'complaining')
    writeFileSync(complaining, '#!/bin/sh\necho no locks available >&2\nexit 1\n')
    chmodSync(complaining, 0o755)
    await expect(tryFileLock(path, { ...system, command: complaining })).rejects.toMatchObject({
      ...unsupported,
      message: expect.stringContaining('no locks available'),
    })
    await expect(tryFileLock(path, { ...system, platform: 'aix' })).rejects.toMatchObject(unsupported)
  })

  test('is not taken on a file that was moved away', async () => {
    const path = join(await newFolder(), 'lock')
    let opened = 0
    const open = (name: string, flags: number, mode: number, callback: (error: Error | null, fd: number) => void) => {
      nodeFs.open(name, flags, mode, (error, fd) => {
        if (opened++ === 0) renameSync(path, `${path}-old`)
        callback(error, fd)
      })
    }
    const fs = { ...nodeFs, open } as unknown as LockSystem['fs']
    const { lock } = await tryFileLock(path, { ...system, fs })
    expect(opened).toBe(2)
    expect(await tryFileLock(path)).toEqual({ pid: process.pid })
    await lock!.release()
    const again = await tryFileLock(path)
    await again.lock!.release()
  })

  test('can be had after an attempt that failed', async () => {
    const backend = nodeBackend(await newFolder())
    nodeFs.mkdirSync(join(backend.location, 'lock'))
    await expect(backend.lock({ timeout: 0 })).rejects.toMatchObject({ code: 'IO', file: 'lock' })
    nodeFs.rmdirSync(join(backend.location, 'lock'))
    await (await backend.lock({ timeout: 0 })).release()
  })

  test('is refused by a folder that can not be written', async () => {
    const path = await newFolder()
    const open = (_path: string, _flags: number, _mode: number, callback: (error: Error) => void) =>
      callback(Object.assign(new Error('EROFS: read-only file system'), { code: 'EROFS' }))
    await expect(
      tryFileLock(join(path, 'lock'), { ...system, fs: { ...nodeFs, open } as unknown as LockSystem['fs'] }),
    ).rejects.toMatchObject({ code: 'IO', file: 'lock' })
  })
})

describe('the lock by flags of open', () => {
  /** A file system on which opening with `flags` fails with `code` as long as there is one. */
  function systemOf(platform: string, state: { code?: string; flags: number[] }): LockSystem {
    const memory = createFsFromVolume(Volume.fromJSON({ '/lock': '4711' }))
    const open = (
      path: string,
      flags: number | string,
      mode: number,
      callback: (error: unknown, fd?: number) => void,
    ) => {
      if (typeof flags === 'number') state.flags.push(flags)
      if (typeof flags !== 'number' || state.code === undefined) {
        memory.open(path, typeof flags === 'number' ? 'r+' : flags, mode, callback)
      } else callback(Object.assign(new Error(state.code), { code: state.code }))
    }
    return { fs: { ...memory, open } as unknown as LockSystem['fs'], platform, command: 'none' }
  }

  test.each([
    ['darwin', 0x24, 'EAGAIN', { pid: 4711 }],
    ['freebsd', 0x24, 'EAGAIN', { pid: 4711 }],
    ['win32', 0x10000000, 'EBUSY', {}],
  ])('on %s', async (platform, flag, code, refusal) => {
    const state: { code?: string; flags: number[] } = { code, flags: [] }
    const system = systemOf(platform, state)
    expect(await tryFileLock('/lock', system)).toEqual(refusal)
    const writable = nodeFs.constants.O_RDWR | nodeFs.constants.O_CREAT
    expect(state.flags).toEqual([writable | flag])
    state.code = 'ENOTSUP'
    await expect(tryFileLock('/lock', system)).rejects.toMatchObject({ code: 'UNSUPPORTED' })
    state.code = 'EACCES'
    await expect(tryFileLock('/lock', system)).rejects.toMatchObject({ code: 'IO', file: 'lock' })
    delete state.code
    const { lock } = await tryFileLock('/lock', system)
    expect(lock!.primitive).toBe('open-exclusive')
    await lock!.release()
  })
})

test('the registry gives a key back once', () => {
  const owner = {}
  const first = claim(owner, 'a')!
  expect(claim(owner, 'a')).toBeUndefined()
  expect(claim({}, 'a')).toBeDefined()
  first()
  const second = claim(owner, 'a')!
  first()
  expect(claim(owner, 'a')).toBeUndefined()
  second()
  expect(claim(owner, 'a')).toBeDefined()
})
