/**
 * The two newest generations of a directory's manifest: what is committed, and what is fallen back to if that should be damaged.
 */
import type { Directory } from '../directory/directory.ts'
import { IsovecError } from '../errors.ts'
import type { Kernel } from '../kernel/index.ts'
import { fileName, parseFileName } from './file-names.ts'
import { type Manifest, type ManifestKind, readManifests, writeManifest } from './manifest.ts'
import { isFull } from './reserve.ts'

/** How the bodies of one kind of manifest are written and checked. */
export type BodyFormat<T> = {
  readonly kind: ManifestKind
  encode(body: T): object
  /** @throws IsovecError `CORRUPTION` where a body is not what the format says */
  decode(body: unknown, file: string): T
}

/** Manifests of one directory under one writer. Commits must not overlap. */
export class Generations<T extends object> {
  readonly uuid: Uint8Array
  readonly #kernel: Kernel
  readonly #directory: Directory
  readonly #format: BodyFormat<T>
  #kept: Manifest<T>[]
  /** Highest number that this writer has used or found, also for attempts that failed. */
  #highest: number
  /** Whether newer generations than the kept ones may still be there, given up. */
  #hasFallenBack = false

  private constructor(
    kernel: Kernel,
    directory: Directory,
    format: BodyFormat<T>,
    uuid: Uint8Array,
    kept: Manifest<T>[],
    highest: number,
  ) {
    this.#kernel = kernel
    this.#directory = directory
    this.#format = format
    this.uuid = uuid
    this.#kept = kept
    this.#highest = highest
  }

  /** Begins a directory: two generations, so that there is one to fall back to from the start. */
  static async create<T extends object>(
    kernel: Kernel,
    directory: Directory,
    format: BodyFormat<T>,
    uuid: Uint8Array,
    body: T,
  ): Promise<Generations<T>> {
    const generations = new Generations<T>(kernel, directory, format, uuid, [], 0)
    await generations.commit(body)
    await generations.commit(body)
    return generations
  }

  /**
   * Reads the manifests of a directory.
   * @returns undefined if nothing was ever committed: there is no manifest, or only a first one that was cut short while the directory
   * was begun. The second one follows at once, so that whatever came later has left another manifest.
   * @throws IsovecError `CORRUPTION` if there are some and none is valid: nothing is ever begun anew over what cannot be read
   */
  static async load<T extends object>(
    kernel: Kernel,
    directory: Directory,
    format: BodyFormat<T>,
  ): Promise<Generations<T> | undefined> {
    const { valid, damaged, highest } = await readManifests(kernel, directory, format.kind, format.decode)
    if (valid.length === 0) {
      if (highest <= 1) return undefined
      throw damaged[0]
    }
    const newest = valid[0]!
    const spare = newest.spare === undefined ? valid[1] : valid.find(({ generation }) => generation === newest.spare)
    const kept = spare === undefined ? [newest] : [newest, spare]
    return new Generations<T>(kernel, directory, format, newest.uuid, kept, highest)
  }

  /** The valid generations that are kept, newest first. */
  get kept(): readonly Manifest<T>[] {
    return this.#kept
  }

  get current(): Manifest<T> {
    return this.#kept[0]!
  }

  /** Gives up the newest generation, since something that it introduced is damaged. */
  fallBack(): void {
    this.#kept = this.#kept.slice(1)
    this.#hasFallenBack = true
  }

  /**
   * Commits a body as the next generation and drops the one that is then third.
   * @returns the dropped generation, which may go with its manifest and whatever no kept one names
   * @throws IsovecError `READ_ONLY` if another writer has committed meanwhile
   */
  async commit(body: T): Promise<Manifest<T> | undefined> {
    await this.#fence()
    const generation = ++this.#highest
    const manifest = {
      generation,
      uuid: this.uuid,
      body,
      ...(this.#hasFallenBack ? { spare: this.current.generation } : {}),
    }
    const encoded = this.#format.encode(body)
    this.#assertReadable(encoded, generation)
    try {
      await writeManifest(this.#kernel, this.#directory, this.#format.kind, { ...manifest, body: encoded })
    } catch (error) {
      if (isFull(error)) await this.#giveUp(generation, error)
      throw error
    }
    const dropped = this.#kept[1]
    this.#kept = [manifest, ...this.#kept.slice(0, 1)]
    this.#hasFallenBack = false
    return dropped
  }

  /** What no opening would take must not take the place of what is there. */
  #assertReadable(encoded: object, generation: number): void {
    try {
      this.#format.decode(JSON.parse(JSON.stringify(encoded)), fileName(generation, 'manifest'))
    } catch (cause) {
      throw new Error('isovec: internal assertion failed: a manifest to be committed can be read', { cause })
    }
  }

  /** Removes a manifest that found no room, so that nothing names the files that are given up with it. */
  async #giveUp(generation: number, cause: unknown): Promise<void> {
    const name = fileName(generation, 'manifest')
    try {
      await this.#directory.remove(name)
    } catch (error) {
      if (error instanceof IsovecError && error.code === 'NOT_FOUND') return
      throw new IsovecError('IO', `${name} found no room and can't be removed`, { cause, file: name })
    }
  }

  async #fence(): Promise<void> {
    for (const name of await this.#directory.list()) {
      const file = parseFileName(name)
      if (file?.kind === 'manifest' && file.number > this.#highest) {
        throw new IsovecError('READ_ONLY', `another writer has committed ${name}`, { file: name })
      }
    }
  }
}
