/** What pages and workers of the tests do when they are asked to. */

import type {
  Collection,
  CollectionOptions,
  Database,
  JsonObject,
  OpenOptions,
  WriteOperation,
  WriteOptions,
} from '../../src/api.ts'
import { type ConformanceSubject, conformanceCases } from '../../src/directory/conformance.ts'
import { seededChoice } from '../../src/directory/crash-image.ts'
import type { Directory, StorageBackend, WritableFile } from '../../src/directory/directory.ts'
import { indexedDbBackend, indexedDbHolds } from '../../src/directory/indexeddb.ts'
import { hasOpfs, opfsBackend, opfsHolds } from '../../src/directory/opfs.ts'
import type { WebBackend, WebLock } from '../../src/directory/web-lock.ts'
import { isIsovecError } from '../../src/errors.ts'
import { openDatabase } from '../../src/index.ts'
import type { Methods } from '../support/browser-calls.ts'
import { readDatabase } from '../support/recovered.ts'
import { handlesAtOnce, loseConnections } from './platform.ts'

export type BackendKind = 'opfs' | 'indexeddb'

/** All files of a store as base64, by their paths. */
export type Files = { readonly [path: string]: string }

export function backendOf(kind: BackendKind, name: string): WebBackend {
  return kind === 'opfs' ? opfsBackend(name) : indexedDbBackend(name)
}

async function subject(kind: BackendKind): Promise<ConformanceSubject> {
  const name = `case ${crypto.randomUUID()}`
  return { backend: backendOf(kind, name), again: () => backendOf(kind, name) }
}

/** `resolved`, or the code of the error. */
async function codeOf(call: Promise<unknown>): Promise<string> {
  try {
    await call
    return 'resolved'
  } catch (error) {
    if (isIsovecError(error)) return error.code
    throw error
  }
}

/** Keeps the thread busy, as a frozen tab is. */
function block(time: number): void {
  const end = performance.now() + time
  while (performance.now() < end);
}

const sleep = (time: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, time))

let lock: WebLock
let db: Database
const collections = new Map<string, Collection>()

async function openAs(backend: StorageBackend, options: OpenOptions): Promise<string[]> {
  db = await openDatabase(backend, options)
  collections.clear()
  for (const name of await db.listCollections()) collections.set(name, await db.openCollection(name))
  return [...collections.keys()]
}

/** A writer's store whose lock may be taken over. */
class Writer {
  readonly backend: WebBackend
  readonly root: Directory
  readonly file: WritableFile

  private constructor(backend: WebBackend, root: Directory, file: WritableFile) {
    this.backend = backend
    this.root = root
    this.file = file
  }

  static async begin(kind: BackendKind, name: string): Promise<Writer> {
    const backend = backendOf(kind, name)
    const root = await backend.open({ create: true })
    lock = await backend.lock({ timeout: 0 })
    const file = await root.create('1.a')
    await file.append(new Uint8Array(3))
    await file.sync()
    await (await root.create('2.a')).close()
    return new Writer(backend, root, file)
  }
}
let writer: Writer

async function pathsOf(backend: StorageBackend): Promise<[path: string, directory: Directory, name: string][]> {
  const root = await backend.open({ create: false })
  const paths = (await root.list()).map((name): [string, Directory, string] => [name, root, name])
  for (const number of await backend.directories()) {
    const directory = await backend.directory(number, { create: false })
    for (const name of await directory.list()) paths.push([`${number}/${name}`, directory, name])
  }
  return paths
}

export const methods: Methods = {
  conformance: (kind: BackendKind, name: string) =>
    conformanceCases.find((promise) => promise.name === name)!.run(() => subject(kind)),

  hasOpfs,
  holds: async (name: string) => [await opfsHolds(name), await indexedDbHolds(name)],
  exists: (kind: BackendKind, name: string) => backendOf(kind, name).exists(),
  createRoot: async (kind: BackendKind, name: string) => {
    await backendOf(kind, name).open({ create: true })
  },
  deleteIndexedDb: (name: string) =>
    new Promise<void>((resolve, reject) => {
      const request = indexedDB.deleteDatabase(name)
      request.onsuccess = () => resolve()
      request.onerror = () => reject(request.error)
    }),

  async lock(kind: BackendKind, name: string, timeout: number) {
    const backend = backendOf(kind, name)
    await backend.open({ create: true })
    lock = await backend.lock({ timeout })
    return lock.primitive
  },
  release: () => lock.release(),
  async steal(kind: BackendKind, name: string) {
    const backend = backendOf(kind, name)
    lock = await backend.lock({ timeout: 0, steal: true })
    const file = await (await backend.open({ create: false })).open('1.a')
    await file.close()
    return file.size
  },
  async beginWriting(kind: BackendKind, name: string) {
    writer = await Writer.begin(kind, name)
  },
  /** Goes on after a time in which nothing is known of the lock. */
  async writeAfter(time: number) {
    await sleep(time)
    return codeOf(writer.file.append(new Uint8Array(4)))
  },
  /** Asks for an append, does nothing else for a while, and tells how it and all other calls that change something end. */
  async writeBlocked(time: number) {
    const append = writer.file.append(new Uint8Array(5))
    block(time)
    const { backend, root, file } = writer
    const calls: Promise<unknown>[] = [
      append,
      file.append(new Uint8Array(1)),
      file.sync(),
      root.create('3.a'),
      root.remove('2.a'),
    ]
    calls.push(backend.directory(1, { create: true }), file.close())
    const codes = []
    for (const call of calls) codes.push(await codeOf(call))
    return { codes, state: lock.state }
  },

  open: (kind: BackendKind, name: string, options: OpenOptions) => openAs(backendOf(kind, name), options),
  openStealing(kind: BackendKind, name: string) {
    const backend = backendOf(kind, name)
    const take = backend.lock.bind(backend)
    return openAs(
      Object.assign(backend, { lock: (options: { timeout: number }) => take({ ...options, steal: true }) }),
      {},
    )
  },
  close: () => db.close(),
  async read(seed: number) {
    const found = await readDatabase(db, seededChoice(seed), 3)
    return [...found].map(([name, contents]) => [name, [...contents]])
  },
  async create(name: string, options: CollectionOptions) {
    collections.set(name, await db.createCollection(name, options))
  },
  async rename(from: string, to: string) {
    await db.renameCollection(from, to, { replace: true })
    collections.set(to, collections.get(from)!)
    collections.delete(from)
  },
  async drop(name: string) {
    collections.delete(name)
    await db.dropCollection(name)
  },
  write: (name: string, operations: WriteOperation<JsonObject>[], options: WriteOptions) =>
    collections.get(name)!.write(operations, options),
  flush: (name: string) => collections.get(name)!.flush(),
  sync: (name: string) => collections.get(name)!.sync(),
  compact: async (name: string) => {
    await collections.get(name)!.compact()
  },
  /** Asks for a write, does nothing else for a while, and tells how it and the next one end. */
  async upsertBlocked(name: string, time: number) {
    const collection = collections.get(name)!
    const vector = Array.from({ length: collection.options.dimension }, () => 1)
    const write = collection.upsert({ id: 'blocked', vector })
    block(time)
    return [await codeOf(write), await codeOf(collection.upsert({ id: 'late', vector }))]
  },

  async putFiles(kind: BackendKind, name: string, files: Files) {
    const backend = backendOf(kind, name)
    const root = await backend.open({ create: true })
    for (const [path, text] of Object.entries(files)) {
      const [, number, file = ''] = /^(?:(\d+)\/)?(.*)$/.exec(path)!
      const directory = number === undefined ? root : await backend.directory(Number(number), { create: true })
      const target = await directory.create(file)
      await target.append(Uint8Array.from(atob(text), (character) => character.charCodeAt(0)))
      await target.sync()
      await target.close()
    }
  },
  async takeFiles(kind: BackendKind, name: string): Promise<Files> {
    const files: { [path: string]: string } = {}
    for (const [path, directory, file] of await pathsOf(backendOf(kind, name))) {
      const source = await directory.open(file)
      const bytes = new Uint8Array(source.size)
      await source.read(0, bytes)
      await source.close()
      let text = ''
      for (const byte of bytes) text += String.fromCharCode(byte)
      files[path] = btoa(text)
    }
    return files
  },

  /** Writes and reads more files at a time than there are handles for; returns how many handles were open at once. */
  async useManyFiles(kind: BackendKind, name: string, count: number) {
    const backend = backendOf(kind, name)
    const root = await backend.open({ create: true })
    await backend.lock({ timeout: 0 })
    const most = handlesAtOnce()
    const writers: WritableFile[] = []
    for (let i = 0; i < count; i++) writers.push(await root.create(`${i}.a`))
    for (let round = 0; round < 3; round++) {
      await Promise.all(writers.map((file, i) => file.append(new Uint8Array(100).fill(i + round))))
    }
    const readers = await Promise.all(writers.map((_, i) => root.open(`${i}.a`)))
    for (const file of writers) await file.sync()
    for (const file of writers.slice(count / 2)) await file.close()
    const target = new Uint8Array(200)
    for (const [i, file] of readers.entries()) {
      await file.read(50, target)
      for (const [at, byte] of target.entries()) {
        const expected = (i + Math.floor((at + 50) / 100)) & 255
        if (byte !== expected) throw new Error(`byte ${at + 50} of file ${i} is ${byte}, not ${expected}`)
      }
    }
    await Promise.all([...readers, ...writers].map((file) => file.close()))
    return most()
  },

  /** Appends while the connection is lost, before and after what was asked for has happened. */
  async appendThroughLosses(name: string) {
    const backend = indexedDbBackend(name)
    const root = await backend.open({ create: true })
    const file = await root.create('1.a')
    let length = 0
    let losses = 0
    for (const moment of ['begin', 'commit', 'begin', 'commit'] as const) {
      for (const call of [() => file.append(new Uint8Array(1000).fill(++length)), () => file.sync()]) {
        const count = loseConnections(moment)
        await call()
        losses += count()
      }
    }
    const count = loseConnections('commit')
    const other = await root.create('2.a')
    losses += count()
    await Promise.all([file.close(), other.close()])
    const reader = await root.open('1.a')
    const bytes = new Uint8Array(reader.size)
    await reader.read(0, bytes)
    await reader.close()
    return { losses, thousands: [...bytes].filter((_, i) => i % 1000 === 999), size: reader.size }
  },
}
