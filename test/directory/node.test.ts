import * as nodeFs from 'node:fs'
import { mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import * as fc from 'fast-check'
import { createFsFromVolume, Volume } from 'memfs'
import { describe, expect, onTestFinished, test } from 'vitest'
import type { Directory } from '../../src/directory/directory.ts'
import { type FileSystem, syncDirectory } from '../../src/directory/file-system.ts'
import { nodeBackend } from '../../src/directory/node.ts'
import { runs } from '../support/property.ts'

type Name = keyof FileSystem
type Hook = (parameters: unknown[]) => string | undefined

/** A file system in memory of which `hooks` can fail a call by the code they return, with a log of all calls and a count of open files. */
function tracedFs(hooks: { [name in Name]?: Hook } = {}) {
  const memory = createFsFromVolume(Volume.fromJSON({ '/x': '' })) as unknown as Record<
    Name,
    (...all: unknown[]) => void
  >
  const log: string[] = []
  const open = new Map<number, string>()
  const names: Name[] = [
    'open',
    'close',
    'read',
    'write',
    'writev',
    'fsync',
    'fdatasync',
    'fstat',
    'stat',
    'readdir',
    'mkdir',
  ]
  names.push('rmdir', 'unlink', 'realpath')
  const fs = Object.fromEntries(
    names.map((name) => [
      name,
      (...all: unknown[]) => {
        const parameters = all.slice(0, -1)
        const callback = all.at(-1) as (error: Error | null, result?: unknown) => void
        const [subject] = parameters
        const file = typeof subject === 'number' ? open.get(subject) : subject
        log.push(`${name} ${file}`)
        const code = hooks[name]?.(parameters)
        if (name === 'close') open.delete(subject as number)
        if (code !== undefined) {
          callback(Object.assign(new Error(`${code}: as told`), { code }))
          return
        }
        memory[name](...parameters, (error: Error | null, result: unknown) => {
          if (name === 'open' && !error) open.set(result as number, String(file))
          callback(error, result)
        })
      },
    ]),
  ) as unknown as FileSystem
  return { fs, log, open, hooks }
}

async function rootOn(traced: ReturnType<typeof tracedFs>): Promise<Directory> {
  const root = await nodeBackend('/db', traced).open({ create: true })
  traced.log.length = 0
  return root
}

const bytes = new TextEncoder().encode('the bytes')

describe('locations', () => {
  test('are absolute, of a path or a file URL', () => {
    expect(nodeBackend('a/../b').location).toBe(join(process.cwd(), 'b'))
    expect(nodeBackend(pathToFileURL('/tmp/ä b')).location).toBe('/tmp/ä b')
  })

  test.each(['', 'a\0b', new URL('https://example.org/db'), 5, undefined])('%o is none', (path) => {
    expect(() => nodeBackend(path as string)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }))
  })

  test('that are files are errors', async () => {
    const { fs } = tracedFs()
    for (const path of ['/x', '/x/db']) {
      const backend = nodeBackend(path, { fs })
      await expect(backend.exists()).rejects.toMatchObject({ code: 'IO' })
      await expect(backend.open({ create: true })).rejects.toMatchObject({ code: 'IO' })
    }
  })
})

describe('what is synced', () => {
  test('a new file: its bytes, then once its name', async () => {
    const traced = tracedFs()
    const root = await rootOn(traced)
    const file = await root.create('1.a')
    await file.append(bytes)
    expect(traced.log).toEqual(['open /db/1.a', 'write /db/1.a'])
    await file.sync()
    await file.append(bytes)
    await file.sync()
    await file.close()
    expect(traced.log.slice(2)).toEqual([
      'fdatasync /db/1.a',
      'open /db',
      'fsync /db',
      'close /db',
      'write /db/1.a',
      'fdatasync /db/1.a',
      'close /db/1.a',
    ])
    traced.log.length = 0
    await root.sync('1.a')
    expect(traced.log.filter((call) => call.includes('sync'))).toEqual(['fdatasync /db/1.a', 'fsync /db'])
    expect(traced.open.size).toBe(0)
  })

  test('the appends that were called before, however long they take, and not those after', async () => {
    const traced = tracedFs()
    const root = await rootOn(traced)
    const { write, fdatasync } = traced.fs
    const order: string[] = []
    const slow =
      (name: string, delay: number, call: (...all: never[]) => void) =>
      (...all: unknown[]) => {
        const callback = all.pop() as (...results: unknown[]) => void
        const done = (...results: unknown[]) => {
          order.push(name)
          callback(...results)
        }
        setTimeout(() => call(...([...all, done] as never[])), delay)
      }
    Object.assign(traced.fs, { write: slow('write', 10, write), fdatasync: slow('fdatasync', 1, fdatasync) })
    const file = await root.create('1.a')
    await Promise.all([file.append(bytes), file.sync(), file.append(bytes), file.append(bytes)])
    expect(order).toEqual(['write', 'fdatasync', 'write', 'write'])
    await file.close()
  })

  test('the root and the folders above it, from the top, and numbered directories', async () => {
    const traced = tracedFs()
    const backend = nodeBackend('/a/b/db', traced)
    await backend.open({ create: true })
    await backend.directory(3, { create: true })
    await backend.directory(3, { create: false })
    expect(traced.log.filter((call) => /^(mkdir|fsync)/.test(call))).toEqual([
      'mkdir /a',
      'fsync /',
      'mkdir /a/b',
      'fsync /a',
      'mkdir /a/b/db',
      'fsync /a/b',
      'mkdir /a/b/db/3',
      'fsync /a/b/db',
    ])
  })

  test('the name of a root that was found empty, since its maker may have ended before that', async () => {
    const traced = tracedFs()
    await rootOn(traced)
    const backend = nodeBackend('/db', traced)
    await backend.open({ create: false })
    expect(traced.log).not.toContain('fsync /')
    const root = await backend.open({ create: true })
    expect(traced.log).toContain('fsync /')
    await (await root.create('1.a')).close()
    traced.log.length = 0
    await backend.open({ create: true })
    expect(traced.log).not.toContain('fsync /')
  })

  test('a directory, with refusals ignored on Windows only', async () => {
    for (const code of ['EPERM', 'EISDIR']) {
      const { fs, open } = tracedFs({ fsync: () => code })
      await syncDirectory(fs, '/', 'win32')
      await expect(syncDirectory(fs, '/', 'linux')).rejects.toMatchObject({ code })
      expect(open.size).toBe(0)
    }
    await expect(syncDirectory(tracedFs({ fsync: () => 'EIO' }).fs, '/', 'win32')).rejects.toMatchObject({
      code: 'EIO',
    })
    await expect(syncDirectory(tracedFs({ open: () => 'EPERM' }).fs, '/', 'win32')).resolves.toBeUndefined()
  })
})

describe('failures', () => {
  test('a full disk: QUOTA_EXCEEDED, then nothing but syncing what got in', async () => {
    let room = 20
    const write: Hook = ([, , , length]) => {
      room -= length as number
      return room < 0 ? 'ENOSPC' : undefined
    }
    const traced = tracedFs({ write })
    const root = await rootOn(traced)
    const file = await root.create('1.a')
    await file.append(bytes)
    const failing = file.append(new Uint8Array(50))
    const behind = file.append(bytes)
    await expect(failing).rejects.toMatchObject({ code: 'QUOTA_EXCEEDED', file: '1.a', cause: { code: 'ENOSPC' } })
    room = 1000
    const refused = { code: 'IO', file: '1.a', cause: { code: 'QUOTA_EXCEEDED' } }
    await expect(behind).rejects.toMatchObject(refused)
    await expect(file.append(bytes)).rejects.toMatchObject(refused)
    expect(file.size).toBe(bytes.length)
    await file.sync()
    await file.close()
    expect(traced.open.size).toBe(0)
    traced.hooks.open = () => 'EDQUOT'
    await expect(root.create('2.a')).rejects.toMatchObject({ code: 'QUOTA_EXCEEDED', cause: { code: 'EDQUOT' } })
  })

  test('a failed fsync: nothing more of that file, by whatever way', async () => {
    const traced = tracedFs({ fdatasync: () => 'EIO' })
    const root = await rootOn(traced)
    const file = await root.create('1.a')
    await file.append(bytes)
    await expect(file.sync()).rejects.toMatchObject({ code: 'IO', file: '1.a', cause: { code: 'EIO' } })
    delete traced.hooks.fdatasync
    const refused = { code: 'IO', file: '1.a' }
    await expect(file.sync()).rejects.toMatchObject(refused)
    await expect(file.append(bytes)).rejects.toMatchObject(refused)
    await expect(root.sync('1.a')).rejects.toMatchObject(refused)
    await file.close()
    await expect(root.sync('1.a')).rejects.toMatchObject(refused)
    expect(traced.log.filter((call) => call.startsWith('fdatasync'))).toHaveLength(1)
    await root.remove('1.a')
    const next = await root.create('1.a')
    await next.sync()
    await next.close()
    expect(traced.open.size).toBe(0)
  })

  test('a failed fsync of the directory: no new name in it counts as durable any more', async () => {
    const traced = tracedFs()
    const root = await rootOn(traced)
    traced.hooks.fsync = () => 'EIO'
    const file = await root.create('1.a')
    await expect(file.sync()).rejects.toMatchObject({ code: 'IO', file: '1.a', cause: { code: 'EIO' } })
    delete traced.hooks.fsync
    const other = await root.create('2.a')
    await expect(other.sync()).rejects.toMatchObject({ code: 'IO', file: '2.a', cause: { code: 'EIO' } })
    await Promise.all([file.close(), other.close()])
    expect(traced.open.size).toBe(0)
  })

  test.each<[Name, string, string, (root: Directory) => Promise<unknown>]>([
    ['open', 'EACCES', 'IO', (root) => root.create('2.a')],
    ['open', 'EROFS', 'IO', (root) => root.create('2.a')],
    ['open', 'EMFILE', 'IO', (root) => root.open('1.a')],
    ['open', 'EIO', 'IO', (root) => root.sync('1.a')],
    ['fstat', 'EIO', 'IO', (root) => root.open('1.a')],
    ['readdir', 'EIO', 'IO', (root) => root.list()],
    ['unlink', 'EBUSY', 'IO', (root) => root.remove('1.a')],
    ['fdatasync', 'EIO', 'IO', (root) => root.sync('1.a')],
    ['fsync', 'EIO', 'IO', (root) => root.sync('1.a')],
    ['read', 'EIO', 'IO', async (root) => (await root.open('1.a')).read(2, new Uint8Array(3))],
    ['close', 'EIO', 'IO', async (root) => (await root.open('1.a')).close()],
    ['close', 'EIO', 'IO', async (root) => (await root.create('2.a')).close()],
    ['writev', 'EFBIG', 'IO', async (root) => (await root.create('2.a')).append([bytes, bytes])],
  ])('%s fails with %s: %s with the cause', async (name, code, expected, act) => {
    const traced = tracedFs()
    const root = await rootOn(traced)
    const file = await root.create('1.a')
    await file.append(bytes)
    await file.close()
    traced.hooks[name] = () => code
    await expect(act(root)).rejects.toMatchObject({ name: 'IsovecError', code: expected, cause: { code } })
  })

  test.each<[Name, string, string]>([
    ['stat', 'EACCES', 'IO'],
    ['mkdir', 'ENOSPC', 'QUOTA_EXCEEDED'],
    ['mkdir', 'EROFS', 'IO'],
    ['fsync', 'EIO', 'IO'],
  ])('%s fails with %s while a root or directory is made: %s', async (name, code, expected) => {
    const traced = tracedFs({ [name]: () => code })
    await expect(nodeBackend('/new/db', traced).open({ create: true })).rejects.toMatchObject({ code: expected })
    delete traced.hooks[name]
    const backend = nodeBackend('/db', traced)
    await backend.open({ create: true })
    traced.hooks[name] = () => code
    await expect(backend.directory(1, { create: true })).rejects.toMatchObject({ code: expected })
    expect(traced.open.size).toBe(0)
  })

  test('a platform that writes nothing and gives no reason ends in an error, not in a loop', async () => {
    const { fs } = tracedFs()
    fs.write = (_fd, _source, _from, _length, _position, callback) => callback(null, 0)
    const file = await (await nodeBackend('/db', { fs }).open({ create: true })).create('1.a')
    await expect(file.append(bytes)).rejects.toMatchObject({ code: 'IO', file: '1.a' })
  })

  test('a file that was cut behind our back', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'isovec-node-'))
    onTestFinished(() => rm(folder, { recursive: true }))
    const root = await nodeBackend(folder).open({ create: false })
    await writeFile(join(folder, '1.a'), bytes)
    const file = await root.open('1.a')
    await truncate(join(folder, '1.a'), 4)
    await expect(file.read(2, new Uint8Array(5))).rejects.toMatchObject({ code: 'IO', file: '1.a', offset: 2 })
    await file.close()
  })
})

test('short writes and short reads lose nothing', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'isovec-node-'))
  onTestFinished(() => rm(folder, { recursive: true }))
  let number = 0
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.array(fc.uint8Array({ maxLength: 60 }), { maxLength: 6 }), { maxLength: 6 }),
      fc.infiniteStream(fc.integer({ min: 1, max: 70 })),
      async (appends, shares) => {
        const share = () => shares.next().value as number
        const fs = {
          ...nodeFs,
          write(fd: number, source: Uint8Array, from: number, length: number, position: number, callback: never) {
            nodeFs.write(fd, source, from, Math.min(length, share()), position, callback)
          },
          writev(fd: number, parts: Uint8Array[], position: number, callback: never) {
            let room = share()
            const taken = parts.map((part) => {
              const some = part.subarray(0, room)
              room -= some.length
              return some
            })
            nodeFs.writev(fd, taken, position, callback)
          },
          read(fd: number, target: Uint8Array, from: number, length: number, position: number, callback: never) {
            nodeFs.read(fd, target, from, Math.min(length, share()), position, callback)
          },
        }
        const root = await nodeBackend(folder, { fs }).open({ create: false })
        const name = `${number++}.a`
        const file = await root.create(name)
        for (const parts of appends) await file.append(parts)
        await file.close()
        const expected = Buffer.concat(appends.flat())
        expect(await readFile(join(folder, name))).toEqual(expected)
        const reader = await root.open(name)
        const target = new Uint8Array(reader.size)
        await reader.read(0, target)
        await reader.close()
        expect(Buffer.from(target)).toEqual(expected)
      },
    ),
    runs(50),
  )
})
