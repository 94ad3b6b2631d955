/**
 * What every backend must do, as cases for any test runner: each makes a fresh store, uses it, and rejects with a plain error that
 * says what was found and what should have been.
 *
 * ```ts
 * for (const { name, run } of conformanceCases) test(name, () => run(async () => ({ backend: myBackend() })))
 * ```
 */

import { type IsovecErrorCode, isIsovecError } from '../errors.ts'
import { type Directory, isFileExists, type StorageBackend } from './directory.ts'

/** A store to try: empty, without a root, and used by nobody else. */
export type ConformanceSubject = {
  readonly backend: StorageBackend
  /** Another backend object on the same store, where there can be one: locks must hold between the two. */
  readonly again?: () => StorageBackend
  /** Called at the end of the case, failed or not. */
  readonly dispose?: () => Promise<void>
}

/** Makes a new store for a case. */
export type ConformanceFactory = () => Promise<ConformanceSubject>

/** One promise of the contract. */
export type ConformanceCase = {
  readonly name: string
  /** Rejects if the backend breaks the promise. */
  run(factory: ConformanceFactory): Promise<void>
}

/** All promises of `directory.ts` that can be seen without a crash. What is left after one is for `faulty.ts`. */
export const conformanceCases: readonly ConformanceCase[] = [
  ...storeCases(),
  ...writingCases(),
  ...readingCases(),
  ...removalCases(),
  ...lockCases(),
]

function conformanceCase(name: string, body: (subject: ConformanceSubject) => Promise<void>): ConformanceCase {
  return {
    name,
    async run(factory) {
      const subject = await factory()
      try {
        await body(subject)
      } finally {
        await subject.dispose?.()
      }
    },
  }
}

function rootCase(name: string, body: (root: Directory, backend: StorageBackend) => Promise<void>): ConformanceCase {
  return conformanceCase(name, async ({ backend }) => body(await backend.open({ create: true }), backend))
}

function storeCases(): ConformanceCase[] {
  return [
    conformanceCase('a new store has no root, and looking creates none', async ({ backend }) => {
      same(await backend.exists(), false, 'exists()')
      same(await backend.directories(), [], 'directories()')
      await fails(backend.open({ create: false }), 'NOT_FOUND')
      await fails(backend.directory(1, { create: true }), 'NOT_FOUND')
      await fails(backend.lock({ timeout: 0 }), 'NOT_FOUND')
      await backend.removeDirectory(1)
      same(await backend.exists(), false, 'exists() after all that')
    }),
    conformanceCase('the root is made once and found again', async ({ backend, again }) => {
      const root = await backend.open({ create: true })
      same(await backend.exists(), true, 'exists()')
      same(await root.list(), [], 'list()')
      await put(root, '1.a', bytesOf(3))
      same(await (await backend.open({ create: true })).list(), ['1.a'], 'list() of the root opened with create')
      same(await (await backend.open({ create: false })).list(), ['1.a'], 'list() of the root opened again')
      if (again === undefined) return
      same(await take(await again().open({ create: false }), '1.a'), bytesOf(3), 'bytes seen by another backend object')
    }),
    rootCase('numbered directories are apart from each other and from files', async (root, backend) => {
      await fails(backend.directory(7, { create: false }), 'NOT_FOUND')
      for (const number of [10, 9, 0, 123_456_789_012_345]) {
        await put(await backend.directory(number, { create: true }), '1.a', bytesOf(number % 100))
      }
      same(await backend.directories(), [0, 9, 10, 123_456_789_012_345], 'directories()')
      same(await root.list(), [], 'list() of the root')
      same(await take(await backend.directory(9, { create: false }), '1.a'), bytesOf(9), 'bytes in 9')
      same(await take(await backend.directory(10, { create: true }), '1.a'), bytesOf(10), 'bytes in 10')
    }),
    rootCase('numbers that name no directory are refused', async (_root, backend) => {
      for (const number of [-1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53]) {
        await fails(backend.directory(number, { create: true }), 'INVALID_ARGUMENT')
        await fails(backend.removeDirectory(number), 'INVALID_ARGUMENT')
      }
      same(await backend.directories(), [], 'directories()')
    }),
    rootCase('names that mean something else somewhere are refused', async (root) => {
      const names = [
        '',
        '.',
        '..',
        '../1.a',
        'a/b.c',
        'a\\b.c',
        '/1.a',
        '.a',
        'a',
        'a.',
        '5',
        'lock',
        'A.a',
        'a.b.c',
        'é.a',
      ]
      names.push('con.a', 'nul.a', 'com1.a', '1.a\0', '1.a\n', ' 1.a', `${'a'.repeat(65)}.a`, `1.${'a'.repeat(16)}`)
      for (const name of names) {
        for (const call of ['create', 'open', 'sync', 'remove'] as const) {
          await fails(root[call](name), 'INVALID_ARGUMENT', `${call}(${JSON.stringify(name)})`)
        }
      }
      same(await root.list(), [], 'list()')
    }),
    rootCase('many files are listed in order of their code units', async (root) => {
      const names = Array.from({ length: 300 }, (_, i) => `${i}.a`)
      await Promise.all(names.map(async (name, i) => put(root, name, bytesOf(i % 7))))
      same(await root.list(), [...names].sort(), 'list()')
      for (let i = 0; i < names.length; i += 37) same(await take(root, names[i]!), bytesOf(i % 7), names[i]!)
    }),
  ]
}

function writingCases(): ConformanceCase[] {
  return [
    rootCase('a file is created once', async (root) => {
      const file = await root.create('1.a')
      same(file.size, 0, 'size of a new file')
      same(await root.list(), ['1.a'], 'list() at once')
      await file.append(bytesOf(5))
      await exists(root.create('1.a'))
      await file.close()
      await exists(root.create('1.a'))
      same(await take(root, '1.a'), bytesOf(5), 'bytes after two attempts to create it again')
      const winners = await Promise.allSettled([root.create('2.a'), root.create('2.a'), root.create('2.a')])
      const won = winners.filter((result) => result.status === 'fulfilled')
      same(won.length, 1, 'winners of three creations at once')
      await won[0]!.value.close()
    }),
    rootCase('appends come in the order of the calls', async (root) => {
      const file = await root.create('1.a')
      const parts = Array.from({ length: 200 }, (_, i) => bytesOf((i * 37) % 101, i))
      const calls = parts.map((part) => file.append(part))
      const sync = file.sync()
      await Promise.all(calls)
      same(file.size, join(parts).length, 'size')
      await sync
      await file.close()
      same(await take(root, '1.a'), join(parts), 'bytes')
    }),
    rootCase('an array of parts is appended as one, empty ones too', async (root) => {
      const file = await root.create('1.a')
      const parts = Array.from({ length: 3000 }, (_, i) => bytesOf(i % 5, i))
      await file.append(parts)
      await file.append([])
      await file.append(new Uint8Array(0))
      await file.append([new Uint8Array(0)])
      same(file.size, join(parts).length, 'size')
      await file.append(bytesOf(20, 1).subarray(3, 11))
      await file.close()
      same(await take(root, '1.a'), join([...parts, bytesOf(20, 1).subarray(3, 11)]), 'bytes')
    }),
    rootCase('large appends arrive whole', async (root) => {
      const file = await root.create('1.a')
      const large = bytesOf(5_000_011, 9)
      await file.append(bytesOf(3))
      await file.append([large, bytesOf(70_000, 4)])
      await file.append(large)
      await file.sync()
      await file.close()
      same(await take(root, '1.a'), join([bytesOf(3), large, bytesOf(70_000, 4), large]), 'bytes')
    }),
    rootCase('the caller may use its buffer again once an append has resolved', async (root) => {
      const file = await root.create('1.a')
      const buffer = bytesOf(50, 1)
      await file.append(buffer)
      buffer.set(bytesOf(50, 2))
      await file.append([buffer, buffer])
      buffer.fill(0)
      same(buffer.byteLength, 50, 'length of the buffer (not detached)')
      await file.close()
      same(await take(root, '1.a'), join([bytesOf(50, 1), bytesOf(50, 2), bytesOf(50, 2)]), 'bytes')
    }),
    rootCase('sync works on empty files, many times, and beside appends', async (root) => {
      const file = await root.create('1.a')
      await file.sync()
      const calls = []
      for (let i = 0; i < 20; i++) calls.push(file.append(bytesOf(i, i)), file.sync())
      await Promise.all(calls)
      await file.close()
      same((await take(root, '1.a')).length, 190, 'size')
    }),
    rootCase('an un-synced file can be synced by name', async (root) => {
      await put(root, '1.a', bytesOf(10))
      await root.sync('1.a')
      await root.sync('1.a')
      await fails(root.sync('2.a'), 'NOT_FOUND')
      same(await take(root, '1.a'), bytesOf(10), 'bytes')
    }),
    rootCase('closing waits for what was called before, ends the file, and may be repeated', async (root) => {
      const file = await root.create('1.a')
      const append = file.append(bytesOf(100_000))
      await Promise.all([file.close(), file.close(), append])
      await file.close()
      await fails(file.append(bytesOf(1)), 'CLOSED')
      await fails(file.sync(), 'CLOSED')
      same(file.size, 100_000, 'size')
      same(await take(root, '1.a'), bytesOf(100_000), 'bytes')
    }),
  ]
}

function readingCases(): ConformanceCase[] {
  return [
    rootCase('ranges are read exactly, up to both ends', async (root) => {
      const bytes = bytesOf(20_000, 3)
      await put(root, '1.a', bytes)
      const file = await root.open('1.a')
      same(file.size, 20_000, 'size')
      const ranges = [0, 1, 4095, 4096, 4097, 19_999, 20_000].flatMap((offset) =>
        [0, 1, 2, 4096, 20_000 - offset].map((length) => [offset, Math.min(length, 20_000 - offset)] as const),
      )
      await Promise.all(
        ranges.map(async ([offset, length]) => {
          const target = new Uint8Array(length + 10).fill(77)
          await file.read(offset, target.subarray(5, 5 + length))
          same(target.subarray(5, 5 + length), bytes.subarray(offset, offset + length), `read(${offset}, ${length})`)
          same(target.subarray(0, 5), new Uint8Array(5).fill(77), 'bytes before the target')
          same(target.subarray(5 + length), new Uint8Array(5).fill(77), 'bytes after the target')
        }),
      )
      await file.close()
    }),
    rootCase('reading beyond the end is an error that says where', async (root) => {
      await put(root, '1.a', bytesOf(10))
      await put(root, '2.a', bytesOf(0))
      const file = await root.open('1.a')
      for (const [offset, length] of [
        [0, 11],
        [10, 1],
        [11, 0],
        [5, 6],
        [-1, 1],
        [2 ** 53, 1],
        [0.5, 1],
      ] as const) {
        const error = await fails(file.read(offset, new Uint8Array(length)), 'IO', `read(${offset}, ${length})`)
        same([error.file, error.offset], ['1.a', offset], 'file and offset of the error')
      }
      await file.close()
      const empty = await root.open('2.a')
      same(empty.size, 0, 'size of an empty file')
      await empty.read(0, new Uint8Array(0))
      await fails(empty.read(0, new Uint8Array(1)), 'IO')
      await empty.close()
    }),
    rootCase('a file is read while it is written: all appends that had resolved', async (root) => {
      const file = await root.create('1.a')
      const before = await root.open('1.a')
      same(before.size, 0, 'size before the first append')
      let whole = new Uint8Array(0)
      for (let i = 0; i < 10; i++) {
        const part = bytesOf(1000 * i + 1, i)
        await file.append(part)
        whole = join([whole, part])
        same(await take(root, '1.a'), whole, `bytes after append ${i}`)
      }
      await fails(before.read(0, new Uint8Array(1)), 'IO', 'reading beyond the size at the time of opening')
      await before.close()
      await file.close()
    }),
    rootCase('a file that is not there is NOT_FOUND', async (root, backend) => {
      await fails(root.open('1.a'), 'NOT_FOUND')
      const error = await fails((await backend.directory(3, { create: true })).open('1.a'), 'NOT_FOUND')
      same(error.file, '3/1.a', 'file of the error')
    }),
    rootCase('closing waits for reads, ends the file, and may be repeated', async (root) => {
      await put(root, '1.a', bytesOf(1_000_000))
      const file = await root.open('1.a')
      const target = new Uint8Array(1_000_000)
      const read = file.read(0, target)
      await Promise.all([file.close(), file.close(), read])
      same(target, bytesOf(1_000_000), 'bytes')
      await file.close()
      await fails(file.read(0, new Uint8Array(1)), 'CLOSED')
    }),
  ]
}

function removalCases(): ConformanceCase[] {
  return [
    rootCase('a removed file is gone, and its name is free', async (root) => {
      await put(root, '1.a', bytesOf(5))
      await put(root, '2.a', bytesOf(6))
      await root.remove('1.a')
      await root.remove('1.a')
      same(await root.list(), ['2.a'], 'list()')
      await fails(root.open('1.a'), 'NOT_FOUND')
      await fails(root.sync('1.a'), 'NOT_FOUND')
      await put(root, '1.a', bytesOf(7))
      same(await take(root, '1.a'), bytesOf(7), 'bytes of the new file')
    }),
    rootCase('a reader goes on after the removal, or the removal is refused', async (root) => {
      await put(root, '1.a', bytesOf(5000))
      const file = await root.open('1.a')
      const refusal: unknown = await root.remove('1.a').then(
        () => undefined,
        (error: unknown) => error,
      )
      if (refusal !== undefined) same((refusal as { code: unknown }).code, 'IO', 'code of the refusal')
      const target = new Uint8Array(5000)
      await file.read(0, target)
      same(target, bytesOf(5000), 'bytes')
      await file.close()
      await root.remove('1.a')
      same(await root.list(), [], 'list()')
    }),
    rootCase('a removed directory is gone with its files, and its number is free', async (root, backend) => {
      await put(root, '1.a', bytesOf(1))
      for (const number of [1, 2]) {
        const directory = await backend.directory(number, { create: true })
        for (let i = 0; i < 5; i++) await put(directory, `${i}.a`, bytesOf(i))
      }
      const removed = await backend.directory(1, { create: false })
      await backend.removeDirectory(1)
      await backend.removeDirectory(1)
      same(await backend.directories(), [2], 'directories()')
      await fails(removed.list(), 'NOT_FOUND')
      await fails(removed.create('9.a'), 'NOT_FOUND')
      await fails(removed.open('1.a'), 'NOT_FOUND')
      await fails(removed.sync('1.a'), 'NOT_FOUND')
      await removed.remove('1.a')
      await fails(backend.directory(1, { create: false }), 'NOT_FOUND')
      same(await root.list(), ['1.a'], 'list() of the root')
      same((await (await backend.directory(2, { create: false })).list()).length, 5, 'files of the other directory')
      same(await (await backend.directory(1, { create: true })).list(), [], 'list() of a new directory of that number')
    }),
  ]
}

function lockCases(): ConformanceCase[] {
  return [
    conformanceCase('one holder at a time', async ({ backend, again }) => {
      await backend.open({ create: true })
      const other = again?.() ?? backend
      const lock = await backend.lock({ timeout: 0 })
      check(lock.primitive !== '', 'the lock says what holds it')
      await fails(backend.lock({ timeout: 0 }), 'LOCKED')
      await fails(other.lock({ timeout: 0 }), 'LOCKED')
      await lock.release()
      const second = await other.lock({ timeout: 0 })
      await lock.release()
      await fails(backend.lock({ timeout: 0 }), 'LOCKED', 'after the first lock was released twice')
      await second.release()
      await (await backend.lock({ timeout: 0 })).release()
      same(await (await backend.open({ create: false })).list(), [], 'list() (the lock is no file)')
    }),
    conformanceCase('of many who ask at once one gets the lock', async ({ backend }) => {
      await backend.open({ create: true })
      const results = await Promise.allSettled(Array.from({ length: 8 }, () => backend.lock({ timeout: 0 })))
      const won = results.filter((result) => result.status === 'fulfilled')
      same(won.length, 1, 'holders')
      await won[0]!.value.release()
    }),
    conformanceCase('waiting ends with the lock, with time, or with the signal', async ({ backend }) => {
      await backend.open({ create: true })
      const lock = await backend.lock({ timeout: 1000 })
      await fails(backend.lock({ timeout: 30 }), 'LOCKED')
      const controller = new AbortController()
      const aborted = fails(backend.lock({ timeout: Number.POSITIVE_INFINITY, signal: controller.signal }), 'ABORTED')
      const waiting = backend.lock({ timeout: 60_000 })
      controller.abort(new Error('no longer wanted'))
      same(((await aborted).cause as Error).message, 'no longer wanted', 'cause')
      await fails(
        backend.lock({ timeout: 60_000, signal: controller.signal }),
        'ABORTED',
        'with a signal that has fired',
      )
      await lock.release()
      await (await waiting).release()
      for (const timeout of [-1, Number.NaN]) await fails(backend.lock({ timeout }), 'INVALID_ARGUMENT')
    }),
  ]
}

/** `length` bytes that differ from those of another length or `salt`, and at every position. */
function bytesOf(length: number, salt = 0): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length)
  let state = Math.imul(length + 1, 0x9e3779b1) ^ Math.imul(salt + 1, 0x85ebca6b)
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0
    bytes[i] = state >>> 24
  }
  return bytes
}

function join(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0))
  let offset = 0
  for (const part of parts) {
    whole.set(part, offset)
    offset += part.length
  }
  return whole
}

async function put(directory: Directory, name: string, bytes: Uint8Array): Promise<void> {
  const file = await directory.create(name)
  await file.append(bytes)
  await file.close()
}

async function take(directory: Directory, name: string): Promise<Uint8Array> {
  const file = await directory.open(name)
  const bytes = new Uint8Array(file.size)
  await file.read(0, bytes)
  await file.close()
  return bytes
}

function check(condition: boolean, what: string): void {
  if (!condition) throw new Error(`expected: ${what}`)
}

function same(actual: unknown, expected: unknown, what: string): void {
  if (actual instanceof Uint8Array && expected instanceof Uint8Array) {
    const at = expected.findIndex((byte, i) => actual[i] !== byte)
    check(
      at < 0 && actual.length === expected.length,
      `${what}: ${expected.length} bytes, found ${actual.length}, differing at ${at}`,
    )
    return
  }
  const [found, wanted] = [JSON.stringify(actual), JSON.stringify(expected)]
  check(found === wanted, `${what}: ${wanted}, found ${found}`)
}

async function fails(call: Promise<unknown>, code: IsovecErrorCode, what = 'the call') {
  const error: unknown = await call.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  if (!isIsovecError(error) || error.code !== code) {
    throw new Error(`expected: ${what} fails with ${code}, found ${error === undefined ? 'success' : String(error)}`, {
      cause: error,
    })
  }
  return error
}

async function exists(call: Promise<unknown>): Promise<void> {
  check(isFileExists(await fails(call, 'IO')), 'isFileExists() of the error')
}
