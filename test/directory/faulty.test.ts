import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type Choice, forEachChoice, imageKey, seededChoice } from '../../src/directory/crash-image.ts'
import type { Directory, StorageBackend, WritableFile } from '../../src/directory/directory.ts'
import { type FaultyOptions, faultyBackend, isStopped } from '../../src/directory/faulty.ts'
import { memoryBackend, type StoreImage } from '../../src/directory/memory.ts'
import { runs } from '../support/property.ts'

const least: Choice = () => 0
const most: Choice = (count) => count - 1

const bytesOf = (text: string) => new TextEncoder().encode(text)

/** Files by path with their bytes as text, and directories with a slash at the end. */
function textOf({ root, directories }: StoreImage): Record<string, string> {
  const text: Record<string, string> = {}
  const decoder = new TextDecoder('latin1')
  for (const [name, bytes] of root ?? []) text[name] = decoder.decode(bytes)
  for (const [number, files] of directories) {
    text[`${number}/`] = ''
    for (const [name, bytes] of files) text[`${number}/${name}`] = decoder.decode(bytes)
  }
  return Object.fromEntries(Object.entries(text).sort(([a], [b]) => (a < b ? -1 : 1)))
}

async function put(directory: Directory, name: string, ...texts: string[]): Promise<WritableFile> {
  const file = await directory.create(name)
  for (const text of texts) await file.append(bytesOf(text))
  return file
}

// What a store was told, one step at a time, and what must be true of every crash from then on.

type Step =
  | { do: 'create' | 'remove' | 'sync' | 'sync-name'; place: number; name: number }
  | { do: 'append'; place: number; name: number; length: number }
  | { do: 'create-directory'; place: number }
  | { do: 'remove-directory'; place: number }

const place = fc.integer({ min: 0, max: 1 })
const name = fc.integer({ min: 0, max: 1 })
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 3, arbitrary: fc.record({ do: fc.constant('create' as const), place, name }) },
  {
    weight: 10,
    arbitrary: fc.record({ do: fc.constant('append' as const), place, name, length: fc.integer({ min: 0, max: 9 }) }),
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constantFrom('sync' as const, 'sync-name' as const), place, name }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('remove' as const), place, name }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('create-directory' as const), place }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('remove-directory' as const), place }) },
)

/** All that a file was ever given, how much of that is durable, and whether its name is. */
type Given = { readonly path: string; text: string; syncedSize: number; nameSynced: boolean }

/** The promise, written down a second time: the files that there are, and those that may come back. */
class Told {
  /** In the order of their creation. */
  all: Given[] = []
  now = new Map<string, Given>()
  directories = new Set<number>()
  directoriesEver = new Set<number>()

  clone(): Told {
    const copy = new Told()
    const twins = new Map(this.all.map((given) => [given, { ...given }]))
    copy.all = [...twins.values()]
    copy.now = new Map([...this.now].map(([path, given]) => [path, twins.get(given)!]))
    copy.directories = new Set(this.directories)
    copy.directoriesEver = new Set(this.directoriesEver)
    return copy
  }

  createDirectory(number: number): void {
    this.directories.add(number)
    this.directoriesEver.add(number)
    this.all = this.all.filter(({ path }) => !path.startsWith(`${number}/`))
  }

  removeDirectory(number: number): void {
    this.directories.delete(number)
    for (const path of [...this.now.keys()]) if (path.startsWith(`${number}/`)) this.now.delete(path)
  }

  create(path: string): void {
    const given = { path, text: '', syncedSize: 0, nameSynced: false }
    this.all.push(given)
    this.now.set(path, given)
  }

  /** Also of the name: what had it before can't come back. */
  sync(given: Given): void {
    given.syncedSize = given.text.length
    given.nameSynced = true
    const index = this.all.indexOf(given)
    this.all = this.all.filter(({ path }, i) => i >= index || path !== given.path)
  }
}

/** Takes steps, those that make sense, and keeps {@link Told} of them. */
class Run {
  readonly told = new Told()
  readonly #backend: StorageBackend
  readonly #directories = new Map<number, Directory>()
  readonly #files = new Map<Given, WritableFile>()

  constructor(backend: StorageBackend) {
    this.#backend = backend
  }

  async open(): Promise<void> {
    this.#directories.set(0, await this.#backend.open({ create: true }))
  }

  async take(step: Step): Promise<void> {
    if (step.do === 'create-directory' || step.do === 'remove-directory') {
      if (step.place !== 0) await this.#takeDirectory(step.do, step.place)
      return
    }
    const directory = this.#directories.get(step.place)
    if (directory === undefined) return
    const name = `${step.name}.a`
    const path = step.place === 0 ? name : `${step.place}/${name}`
    const given = this.told.now.get(path)
    if (step.do === 'create') {
      if (given !== undefined) return
      const file = await directory.create(name)
      this.told.create(path)
      this.#files.set(this.told.now.get(path)!, file)
      return
    }
    if (given === undefined) return
    if (step.do === 'remove') {
      await directory.remove(name)
      this.told.now.delete(path)
    } else if (step.do === 'append') {
      const text = String.fromCharCode(65 + (this.told.all.indexOf(given) % 26)).repeat(step.length)
      await this.#files.get(given)!.append(bytesOf(text))
      given.text += text
    } else {
      await (step.do === 'sync' ? this.#files.get(given)!.sync() : directory.sync(name))
      this.told.sync(given)
    }
  }

  async #takeDirectory(action: 'create-directory' | 'remove-directory', number: number): Promise<void> {
    const isThere = this.#directories.has(number)
    if (action === 'create-directory' && !isThere) {
      this.#directories.set(number, await this.#backend.directory(number, { create: true }))
      this.told.createDirectory(number)
    }
    if (action === 'remove-directory' && isThere) {
      await this.#backend.removeDirectory(number)
      this.#directories.delete(number)
      this.told.removeDirectory(number)
    }
  }
}

/** Whether power loss may leave this much of a file. */
function mayBeLeft(given: Given, found: string): boolean {
  if (found.length < given.syncedSize || found.length > given.text.length) return false
  return [...found].every((byte, i) => byte === given.text[i] || (i >= given.syncedSize && byte === '\0'))
}

function expectPossible(told: Told, image: StoreImage): void {
  const text = textOf(image)
  for (const [path, found] of Object.entries(text)) {
    if (path.endsWith('/')) expect(told.directoriesEver).toContain(Number(path.slice(0, -1)))
    else
      expect(
        told.all.filter((given) => given.path === path && mayBeLeft(given, found)),
        path,
      ).not.toEqual([])
  }
  for (const number of told.directories) expect(text).toHaveProperty([`${number}/`])
  for (const given of told.now.values()) if (given.nameSynced) expect(text).toHaveProperty([given.path])
}

describe('crash images', () => {
  test('hold what was synced and nothing that was not written, at every point, for all seeds', async () => {
    const distinct = new Map<string, string>()
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 30, maxLength: 60, size: 'max' }), fc.nat(), async (steps, seed) => {
        const backend = faultyBackend()
        const run = new Run(backend)
        await run.open()
        const states = [{ at: backend.changes.length, told: run.told.clone(), image: backend.image() }]
        for (const step of steps) {
          await run.take(step)
          states.push({ at: backend.changes.length, told: run.told.clone(), image: backend.image() })
        }
        for (const { at, told, image } of states) {
          expect(textOf(backend.crashImage({ kind: 'process', at }))).toEqual(textOf(image))
          expect(textOf(backend.crashImage({ kind: 'power', at, choose: most }))).toEqual(textOf(image))
          for (let i = 0; i < 4; i++) {
            const choose = i === 0 ? least : seededChoice(seed + i)
            const crash = backend.crashImage({ kind: 'power', at, choose })
            expectPossible(told, crash)
            const [key, text] = [imageKey(crash), JSON.stringify(textOf(crash))]
            expect(distinct.get(key) ?? text).toBe(text)
            distinct.set(key, text)
            if (i === 0) continue
            const same = backend.crashImage({ kind: 'power', at, choose: seededChoice(seed + i) })
            expect(imageKey(same)).toBe(imageKey(crash))
          }
        }
      }),
      runs(60),
    )
    expect(new Set(distinct.values()).size).toBe(distinct.size)
    expect(distinct.size).toBeGreaterThan(300)
  })

  test('of one un-synced append to one un-synced name are exactly these', async () => {
    const backend = faultyBackend()
    await put(await backend.open({ create: true }), '1.a', 'abc')
    const found = new Set<string | undefined>()
    const { complete } = await forEachChoice((choose) => {
      found.add(textOf(backend.crashImage({ kind: 'power', choose }))['1.a'])
    })
    expect(complete).toBe(true)
    expect(found).toEqual(new Set([undefined, '', '\0\0\0', 'a', 'a\0\0', 'ab', 'ab\0', 'abc']))
  })

  test('of two appends behind a synced one hold it, and reach the later one without the first', async () => {
    const backend = faultyBackend()
    const file = await put(await backend.open({ create: true }), '1.a', 'ab')
    await file.sync()
    await file.append(bytesOf('cd'))
    await file.append(bytesOf('ef'))
    const found = new Set<string | undefined>()
    await forEachChoice((choose) => {
      found.add(textOf(backend.crashImage({ kind: 'power', choose }))['1.a'])
    })
    for (const text of ['ab', 'abcd', 'abcdef', 'ab\0\0ef', 'abc\0e', 'abcde', 'ab\0\0', 'ab\0\0\0\0'])
      expect(found).toContain(text)
    for (const text of found) expect(text).toMatch(/^ab/)
    const choices = [1, 0, 3] // each append for itself, the first one missing, the second one whole
    const image = backend.crashImage({ kind: 'power', choose: () => choices.shift()! })
    expect(textOf(image)).toEqual({ '1.a': 'ab\0\0ef' })
  })

  test('undo removals that no later sync of the name has settled', async () => {
    const backend = faultyBackend()
    const root = await backend.open({ create: true })
    const directory = await backend.directory(4, { create: true })
    for (const place of [root, directory]) await (await put(place, '1.a', 'old')).sync()
    await root.remove('1.a')
    await backend.removeDirectory(4)
    expect(textOf(backend.crashImage({ kind: 'power', choose: least }))).toEqual({
      '1.a': 'old',
      '4/': '',
      '4/1.a': 'old',
    })
    expect(textOf(backend.crashImage({ kind: 'power', choose: most }))).toEqual({})
    const file = await put(root, '1.a', 'new')
    expect(textOf(backend.crashImage({ kind: 'power', choose: least }))['1.a']).toBe('old')
    await file.sync()
    expect(textOf(backend.crashImage({ kind: 'power', choose: least }))['1.a']).toBe('new')
    await backend.directory(4, { create: true })
    expect(textOf(backend.crashImage({ kind: 'power', choose: least }))).toEqual({ '1.a': 'new', '4/': '' })
  })

  test('of the end of a process: the call in flight may have come half way', async () => {
    const backend = faultyBackend()
    const root = await backend.open({ create: true })
    const directory = await backend.directory(1, { create: true })
    for (const name of ['1.a', '2.a']) await put(directory, name)
    await put(root, '1.a', 'ab', 'cd')
    await backend.removeDirectory(1)
    const found = new Set<string>()
    for (let at = 0; at <= backend.changes.length; at++) {
      await forEachChoice((choose) => {
        found.add(Object.entries(textOf(backend.crashImage({ kind: 'process', at, choose }))).join(' '))
      })
    }
    const full = '1/, 1/1.a, 1/2.a,'
    const expected = ['', '1/,', '1/, 1/1.a,', full]
    for (const text of ['', 'a', 'ab', 'abc', 'abcd']) expected.push(`1.a,${text} ${full}`)
    for (const rest of ['1/,', '1/, 1/1.a,', '1/, 1/2.a,', '']) expected.push(`1.a,abcd ${rest}`.trim())
    expect([...found].sort()).toEqual([...new Set(expected)].sort())
  })

  test('are asked for in any order, of changes that there were', async () => {
    const backend = faultyBackend({ image: { root: new Map([['1.a', bytesOf('x')]]), directories: new Map() } })
    await put(await backend.open({ create: true }), '2.a', 'y', 'z')
    const texts = [3, 0, 2, 1, 3].map((at) => textOf(backend.crashImage({ kind: 'process', at })))
    expect(texts.map((text) => text['2.a'])).toEqual(['yz', undefined, 'y', '', 'yz'])
    expect(texts.every((text) => text['1.a'] === 'x')).toBe(true)
    for (const at of [-1, 4, 0.5]) expect(() => backend.crashImage({ kind: 'process', at })).toThrow('3 changes')
    expect(() => backend.crashImage({ kind: 'power' })).toThrow(expect.objectContaining({ field: 'choose' }))
  })

  test('open as stores of their own', async () => {
    const backend = faultyBackend()
    await (await put(await backend.open({ create: true }), '1.a', 'ab')).sync()
    const copy = memoryBackend(backend.crashImage({ kind: 'power', choose: least }))
    await put(await copy.open({ create: false }), '2.a', 'c')
    expect(textOf(copy.image())).toEqual({ '1.a': 'ab', '2.a': 'c' })
    expect(textOf(backend.image())).toEqual({ '1.a': 'ab' })
  })
})

describe('the stop', () => {
  async function workload(backend: StorageBackend): Promise<void> {
    const root = await backend.open({ create: true })
    const file = await put(root, '1.a', 'ab', 'cd')
    await file.sync()
    await file.close()
    const directory = await backend.directory(1, { create: true })
    await (await put(directory, '1.a', 'ef')).close()
    await directory.sync('1.a')
    await root.remove('1.a')
    await backend.removeDirectory(1)
  }

  test('comes at every change, and nothing happens after it', async () => {
    const whole = faultyBackend()
    await workload(whole)
    const kinds = whole.changes.map(({ kind }) => kind)
    expect(kinds).toEqual(
      'open create append append sync close directory create append close sync remove remove-directory'.split(' '),
    )
    for (let stopAt = 0; stopAt < kinds.length; stopAt++) {
      const backend = faultyBackend({ stopAt })
      const error: unknown = await workload(backend).then(
        () => undefined,
        (reason: unknown) => reason,
      )
      expect(isStopped(error)).toBe(true)
      expect(backend.stopped).toBe(true)
      await backend.whenStopped
      for (const call of [backend.exists(), backend.directories(), backend.open({ create: true })]) {
        await expect(call).rejects.toSatisfy(isStopped)
      }
      expect(backend.changes.map(({ kind }) => kind)).toEqual(kinds.slice(0, stopAt + 1))
      const before = whole.crashImage({ kind: 'process', at: stopAt })
      expect(textOf(backend.image())).toEqual(textOf(before))
      expect(textOf(backend.crashImage({ kind: 'process' }))).toEqual(textOf(before))
      const [stopped, never] = [new Set<string>(), new Set<string>()]
      await forEachChoice((choose) => void stopped.add(imageKey(backend.crashImage({ kind: 'power', choose }))))
      for (const at of [stopAt, stopAt + 1]) {
        await forEachChoice((choose) => void never.add(imageKey(whole.crashImage({ kind: 'power', at, choose }))))
      }
      expect([...stopped].sort()).toEqual([...never].sort())
    }
  })

  test('can be a silence', async () => {
    const backend = faultyBackend({ stopAt: 2, onStop: 'hang' })
    let settled = false
    void workload(backend).finally(() => {
      settled = true
    })
    await backend.whenStopped
    await new Promise((resolve) => setTimeout(resolve, 10))
    expect(settled).toBe(false)
    expect(backend.changes).toHaveLength(3)
  })
})

describe('faults', () => {
  const failing = async (options: FaultyOptions) => {
    const backend = faultyBackend(options)
    return { backend, root: await backend.open({ create: true }) }
  }

  test('strike once, from the given call on', async () => {
    const { backend, root } = await failing({ fault: { at: 2, error: 'EIO' } })
    const file = await root.create('1.a')
    await expect(file.append(bytesOf('ab'))).rejects.toMatchObject({ code: 'IO', file: '1.a', cause: { code: 'EIO' } })
    await expect(file.append(bytesOf('ab'))).rejects.toMatchObject({ code: 'IO', cause: { code: 'IO' } })
    await (await put(root, '2.a', 'cd')).sync()
    expect(backend.faultCount).toBe(1)
    expect(backend.changes.filter(({ failed }) => failed)).toHaveLength(1)
    expect(textOf(backend.image())).toEqual({ '1.a': '', '2.a': 'cd' })
  })

  test('last, if they are told to, and a full disk still lets remove and sync', async () => {
    const { backend, root } = await failing({ fault: { at: 3, error: 'ENOSPC', lasting: true } })
    const file = await put(root, '1.a', 'ab')
    for (const call of [
      () => file.append(bytesOf('c')),
      () => root.create('2.a'),
      () => backend.directory(1, { create: true }),
    ]) {
      await expect(call()).rejects.toMatchObject({ code: 'QUOTA_EXCEEDED', cause: { code: 'ENOSPC' } })
    }
    await file.sync()
    await file.close()
    await root.remove('1.a')
    expect(backend.faultCount).toBe(3)
    expect(textOf(backend.image())).toEqual({})
  })

  test('may let a part of an append in', async () => {
    const { backend, root } = await failing({ fault: { at: 0, error: 'EIO', on: ['append'], part: 0.5 } })
    const file = await root.create('1.a')
    await expect(file.append(bytesOf('abcd'))).rejects.toMatchObject({ code: 'IO' })
    expect(file.size).toBe(0)
    expect(textOf(backend.image())).toEqual({ '1.a': 'ab' })
    await file.sync()
    expect(textOf(backend.crashImage({ kind: 'power', choose: least }))).toEqual({ '1.a': 'ab' })
  })

  test('in a sync lose what was pending, whatever is synced later', async () => {
    const { backend, root } = await failing({ fault: { at: 0, error: 'EIO', on: ['sync'] } })
    const file = await put(root, '1.a', 'ab')
    await expect(file.sync()).rejects.toMatchObject({ code: 'IO', cause: { code: 'EIO' } })
    await expect(file.append(bytesOf('c'))).rejects.toMatchObject({ code: 'IO' })
    await expect(root.sync('1.a')).rejects.toMatchObject({ code: 'IO' })
    expect(textOf(backend.crashImage({ kind: 'process' }))).toEqual({ '1.a': 'ab' })
    // A reopened directory doesn't know of the failure, nor does the kernel any more.
    await (await backend.open({ create: false })).sync('1.a')
    expect(textOf(backend.crashImage({ kind: 'power', choose: least }))).toEqual({})
    expect(textOf(backend.crashImage({ kind: 'power', choose: most }))).toEqual({ '1.a': 'ab' })
  })

  test('in a sync after a good one lose what came between', async () => {
    const { backend, root } = await failing({ fault: { at: 4, error: 'EIO', on: ['sync'] } })
    const file = await put(root, '1.a', 'ab')
    await file.sync()
    await file.append(bytesOf('cd'))
    await expect(file.sync()).rejects.toMatchObject({ code: 'IO' })
    await (await backend.open({ create: false })).sync('1.a')
    expect(textOf(backend.crashImage({ kind: 'power', choose: least }))).toEqual({ '1.a': 'ab' })
  })

  test('strike calls that change nothing', async () => {
    const image: StoreImage = { root: new Map([['1.a', bytesOf('ab')]]), directories: new Map() }
    const faulted: boolean[] = []
    for (let at = 0; at < 5; at++) {
      const backend = faultyBackend({ image, fault: { at, among: 'looks', error: 'EIO' } })
      const looks = async () => {
        const root = await backend.open({ create: false })
        await root.list()
        const file = await root.open('1.a')
        await file.read(0, new Uint8Array(2))
        await file.close()
      }
      faulted.push(
        await looks().then(
          () => false,
          (error: { code: string }) => error.code === 'IO',
        ),
      )
      expect(backend.changes).toEqual([])
    }
    expect(faulted).toEqual([true, true, true, true, false])
  })

  test('a capacity is shared by all files, and removing gives room', async () => {
    const { backend, root } = await failing({ capacity: 10 })
    await put(root, '1.a', 'abcd')
    const file = await put(await backend.directory(1, { create: true }), '1.a', 'efgh')
    await expect(file.append(bytesOf('ijkl'))).rejects.toMatchObject({ code: 'QUOTA_EXCEEDED', file: '1/1.a' })
    expect(textOf(backend.image())).toEqual({ '1.a': 'abcd', '1/': '', '1/1.a': 'efghij' })
    const next = await root.create('2.a')
    await root.remove('1.a')
    await next.append(bytesOf('klmn'))
    await expect(put(root, '3.a', 'o')).rejects.toMatchObject({ code: 'QUOTA_EXCEEDED' })
    await backend.removeDirectory(1)
    await put(root, '4.a', 'opqrst')
    expect(backend.faultCount).toBe(2)
  })
})

test('calls that are under way together are recorded as they take effect', async () => {
  await fc.assert(
    fc.asyncProperty(fc.scheduler(), async (scheduler) => {
      const backend = faultyBackend({ beforeCall: ({ kind }) => scheduler.schedule(Promise.resolve(), kind) })
      const work = async () => {
        const root = await backend.open({ create: true })
        const creations = await Promise.allSettled([1, 2, 3].map((i) => put(root, '1.a', 'x'.repeat(i))))
        expect(creations.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
        await Promise.all([
          root.remove('1.a'),
          put(root, '2.a', 'a', 'b', 'c'),
          backend.directory(1, { create: true }),
          backend.directory(1, { create: true }),
        ])
      }
      await scheduler.waitFor(work())
      expect(textOf(backend.crashImage({ kind: 'process' }))).toEqual(textOf(backend.image()))
      expect(textOf(backend.image())).toEqual({ '1/': '', '2.a': 'abc' })
      expect(
        backend.changes
          .map(({ kind }) => kind)
          .filter((kind) => kind !== 'append')
          .sort(),
      ).toEqual(['create', 'create', 'directory', 'open', 'remove'])
    }),
    runs(50),
  )
})
