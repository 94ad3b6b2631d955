/**
 * A database as its users see it: checks and copies arguments within the call, wherever the data is.
 */
import type {
  Collection,
  CollectionOptions,
  Database,
  DatabaseInfo,
  JsonObject,
  Progress,
  SnapshotReport,
  VerifyReport,
} from './api.ts'
import type { DatabaseCalls } from './calls.ts'
import { CollectionHandle } from './collection.ts'
import type { StorageBackend } from './directory/directory.ts'
import {
  checkCallback,
  checkChoice,
  checkCollectionName,
  checkFlag,
  checkModel,
  checkOptions,
  checkSignal,
  refuseUnsupported,
  resolveCollectionOptions,
} from './options.ts'

/** A handle on an open database. */
export class DatabaseHandle implements Database {
  readonly #calls: DatabaseCalls

  constructor(calls: DatabaseCalls) {
    this.#calls = calls
  }

  get location(): string {
    return this.#calls.location
  }

  async createCollection<P extends object = JsonObject>(
    name: string,
    options: CollectionOptions & { ifExists?: 'error' | 'open' },
  ): Promise<Collection<P>> {
    checkCollectionName(name)
    const resolved = resolveCollectionOptions(options)
    const ifExists = checkChoice(options.ifExists, ['error', 'open'], 'error', 'options.ifExists')
    return new CollectionHandle<P>(await this.#calls.createCollection(name, resolved, ifExists))
  }

  async openCollection<P extends object = JsonObject>(
    name: string,
    options?: { model?: string },
  ): Promise<Collection<P>> {
    checkCollectionName(name)
    refuseUnsupported(options, ['vectors'], 'options')
    checkOptions(options, ['model', 'vectors'])
    const model = checkModel(options?.model, 'options.model')
    return new CollectionHandle<P>(await this.#calls.openCollection(name, model))
  }

  async hasCollection(name: string): Promise<boolean> {
    checkCollectionName(name)
    return this.#calls.hasCollection(name)
  }

  async listCollections(): Promise<string[]> {
    return this.#calls.listCollections()
  }

  async renameCollection(from: string, to: string, options?: { replace?: boolean }): Promise<void> {
    checkCollectionName(from)
    checkCollectionName(to)
    checkOptions(options, ['replace'])
    await this.#calls.renameCollection(from, to, checkFlag(options?.replace, false, 'options.replace'))
  }

  async dropCollection(name: string): Promise<void> {
    checkCollectionName(name)
    await this.#calls.dropCollection(name)
  }

  async snapshot(
    destination: string | URL | StorageBackend,
    options?: { compact?: boolean; signal?: AbortSignal | undefined; onProgress?: (progress: Progress) => void },
  ): Promise<SnapshotReport> {
    checkOptions(options, ['compact', 'signal', 'onProgress'])
    return this.#calls.snapshot({
      destination,
      isCompact: checkFlag(options?.compact, false, 'options.compact'),
      signal: checkSignal(options?.signal),
      onProgress: checkCallback(options?.onProgress, 'options.onProgress'),
    })
  }

  async verify(options?: {
    full?: boolean
    signal?: AbortSignal | undefined
    onProgress?: (progress: Progress) => void
  }): Promise<VerifyReport> {
    checkOptions(options, ['full', 'signal', 'onProgress'])
    return this.#calls.verify({
      isFull: checkFlag(options?.full, false, 'options.full'),
      signal: checkSignal(options?.signal),
      onProgress: checkCallback(options?.onProgress, 'options.onProgress'),
    })
  }

  async refresh(): Promise<void> {
    await this.#calls.refresh()
  }

  async info(): Promise<DatabaseInfo> {
    return this.#calls.info()
  }

  async close(): Promise<void> {
    await this.#calls.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }
}
