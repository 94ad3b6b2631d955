/**
 * What a crash may leave of a store, from the record of the calls that changed it.
 *
 * After the end of a **process** everything that was handed over is there. After **power loss** only what was synced is promised;
 * of the rest each append may be missing, whole, cut or zeros, and each new or removed name may be as before or as after.
 * The model is harsher than real file systems: names and appends go their own way in any order, and a removal may be undone
 * for as long as its name isn't created and synced anew. Whatever recovers from all its images relies on nothing but the contract.
 */

import { concatenate } from '../codec/bytes.ts'
import type { StoreImage } from './memory.ts'

/**
 * A decision: a whole number from 0 to `count - 1`. Of the calls that may or may not have come through, 0 takes as few as can be and
 * `count - 1` as many as can be.
 */
export type Choice = (count: number) => number

/** Which file or directory a call is about: `directory` is `undefined` for the root. */
type Place = { readonly directory: number | undefined; readonly name: string }

/**
 * A call that changed the store, or tried to: `failed` ones changed nothing but what is said here. `file` tells apart files that had
 * the same name one after the other.
 */
export type Change = { readonly failed?: boolean } & (
  | { readonly kind: 'open' }
  | { readonly kind: 'directory' | 'remove-directory'; readonly directory: number }
  | ({ readonly kind: 'create'; readonly file: number } & Place)
  /** `bytes` are those that got in, also of a failed append. */
  | ({ readonly kind: 'append'; readonly file: number; readonly bytes: Uint8Array } & Place)
  /** A failed one gives up all that was pending: no later sync makes it durable. */
  | ({ readonly kind: 'sync'; readonly file: number } & Place)
  | ({ readonly kind: 'remove' } & Place)
  | ({ readonly kind: 'close'; readonly file: number } & Place)
)

type AppendState = 'durable' | 'pending' | 'lost'

type FileModel = { readonly appends: { bytes: Uint8Array; state: AppendState }[]; whole?: Uint8Array | undefined }

/** What a name stands for: what survives for sure, then what each call since then made of it. */
type NameModel = { durable: FileModel | undefined; pending: (FileModel | undefined)[]; lost: boolean }

type DirectoryModel = { readonly names: Map<string, NameModel>; removed: boolean }

/** A store as seen by a crash: built call by call, asked for images at any point. */
export class CrashModel {
  /** Number of changes applied. */
  count = 0
  #root: DirectoryModel | undefined
  readonly #directories = new Map<number, DirectoryModel>()
  readonly #files = new Map<number, FileModel>()

  /** @param image what was there at first, all of it durable */
  constructor(image: StoreImage | undefined) {
    if (image?.root === undefined) return
    this.#root = directoryOf(image.root)
    for (const [number, files] of image.directories) this.#directories.set(number, directoryOf(files))
  }

  /** The next call, completed. */
  apply(change: Change): void {
    this.count++
    switch (change.kind) {
      case 'open':
        if (!change.failed) this.#root ??= { names: new Map(), removed: false }
        return
      case 'directory':
        if (!change.failed) this.#createDirectory(change.directory)
        return
      case 'remove-directory':
        if (!change.failed) this.#removeDirectory(change.directory)
        return
      case 'append':
        this.#append(change.file, change.bytes)
        return
      case 'sync':
        this.#sync(change)
        return
      case 'close':
        return
      default:
        if (!change.failed) this.#rename(change)
    }
  }

  /**
   * All that was handed over, as after the end of the process.
   *
   * @param inFlight a call that was not over, of which `choose` decides how far it got
   */
  processImage(inFlight?: Change, choose: Choice = () => 0): StoreImage {
    const partOf =
      inFlight?.kind === 'append' ? inFlight.bytes.subarray(0, choose(inFlight.bytes.length + 1)) : undefined
    const isOpenFile = (file: FileModel) => inFlight?.kind === 'append' && this.#files.get(inFlight.file) === file
    return this.#image((directory, number) => {
      const removing = inFlight?.kind === 'remove-directory' && inFlight.directory === number
      if (directory.removed) return undefined
      const files = new Map<string, Uint8Array>()
      for (const [name, model] of directory.names) {
        const file = model.pending.length > 0 ? model.pending.at(-1) : model.durable
        if (file === undefined || (removing && choose(2) === 0)) continue
        const bytes = wholeOf(file)
        files.set(name, partOf !== undefined && isOpenFile(file) ? concatenate([bytes, partOf]) : bytes)
      }
      return files
    })
  }

  /**
   * What power loss may leave.
   *
   * @param cuts at how many different lengths an append may be cut, evenly spread; by default at each byte
   */
  powerImage(choose: Choice, cuts = Number.POSITIVE_INFINITY): StoreImage {
    return this.#image((directory) => {
      if (directory.removed && choose(2) === 1) return undefined
      const files = new Map<string, Uint8Array>()
      for (const [name, { durable, pending }] of directory.names) {
        const applied = pending.length === 0 ? 0 : choose(pending.length + 1)
        const file = applied === 0 ? durable : pending[applied - 1]
        if (file !== undefined) files.set(name, survivorOf(file, choose, cuts))
      }
      return files
    })
  }

  #image(
    filesOf: (directory: DirectoryModel, number: number | undefined) => Map<string, Uint8Array> | undefined,
  ): StoreImage {
    const directories = new Map<number, Map<string, Uint8Array>>()
    if (this.#root === undefined) return { root: undefined, directories }
    const root = filesOf(this.#root, undefined)!
    for (const [number, directory] of this.#directories) {
      const files = filesOf(directory, number)
      if (files !== undefined) directories.set(number, files)
    }
    return { root, directories }
  }

  #createDirectory(number: number): void {
    const directory = this.#directories.get(number)
    if (directory === undefined || directory.removed) {
      this.#directories.set(number, { names: new Map(), removed: false })
    }
  }

  #removeDirectory(number: number): void {
    const directory = this.#directories.get(number)
    if (directory === undefined) return
    directory.removed = true
    for (const model of directory.names.values()) model.pending.push(undefined)
  }

  #append(id: number, bytes: Uint8Array): void {
    const file = this.#files.get(id)!
    if (bytes.length > 0) file.appends.push({ bytes, state: 'pending' })
    file.whole = undefined
  }

  #rename(change: Extract<Change, { kind: 'create' | 'remove' }>): void {
    const names = this.#namesOf(change.directory)
    if (names === undefined) return
    let model = names.get(change.name)
    if (model === undefined) {
      model = { durable: undefined, pending: [], lost: false }
      names.set(change.name, model)
    }
    if (change.kind === 'remove') {
      const now = model.pending.length > 0 ? model.pending.at(-1) : model.durable
      if (now !== undefined) model.pending.push(undefined)
      return
    }
    const file: FileModel = { appends: [] }
    this.#files.set(change.file, file)
    model.pending.push(file)
    model.lost = false
  }

  #sync(change: Extract<Change, { kind: 'sync' }>): void {
    const model = this.#namesOf(change.directory)?.get(change.name)
    const now = model && (model.pending.length > 0 ? model.pending.at(-1) : model.durable)
    // A file that was there from the start has no number of its own.
    const file = this.#files.get(change.file) ?? now
    if (file === undefined) return
    for (const append of file.appends) {
      if (append.state === 'pending') append.state = change.failed ? 'lost' : 'durable'
    }
    if (model === undefined || now !== file) return
    if (change.failed) model.lost = true
    if (model.lost) return
    model.durable = file
    model.pending = []
  }

  #namesOf(number: number | undefined): Map<string, NameModel> | undefined {
    return number === undefined ? this.#root?.names : this.#directories.get(number)?.names
  }
}

function directoryOf(files: ReadonlyMap<string, Uint8Array>): DirectoryModel {
  const names = new Map<string, NameModel>()
  for (const [name, bytes] of files) {
    const file: FileModel = { appends: [{ bytes, state: 'durable' }] }
    names.set(name, { durable: file, pending: [], lost: false })
  }
  return { names, removed: false }
}

function wholeOf(file: FileModel): Uint8Array {
  file.whole ??=
    file.appends.length === 1 ? file.appends[0]!.bytes : concatenate(file.appends.map(({ bytes }) => bytes))
  return file.whole
}

/** The bytes of a file that power loss leaves: those synced, and of the others what `choose` decides. */
function survivorOf(file: FileModel, choose: Choice, cuts: number): Uint8Array {
  const loose = file.appends.filter(({ state }) => state !== 'durable').length
  if (loose === 0) return wholeOf(file)
  // Appends that each go their own way almost never leave a long log with one torn record at its end, so half of the time the first
  // ones survive, one is torn and the others are missing.
  const apart = loose === 1 || choose(2) === 1
  const tornIndex = apart ? -1 : choose(loose + 1)
  const bytes = new Uint8Array(file.appends.reduce((sum, append) => sum + append.bytes.length, 0))
  let offset = 0
  let size = 0
  let index = 0
  for (const append of file.appends) {
    const { length } = append.bytes
    let fate: (typeof fates)[number] = 'whole'
    if (append.state !== 'durable') {
      if (apart || index === tornIndex) fate = fates[choose(4)]!
      else if (index > tornIndex) fate = 'missing'
      index++
    }
    const kept = keptOf(fate, length, choose, cuts)
    bytes.set(append.bytes.subarray(0, kept.bytes), offset)
    if (kept.size > 0) size = offset + kept.size
    offset += length
  }
  return bytes.subarray(0, size)
}

/** What happens to an append that wasn't synced, in the order of how much is left of it. */
const fates = ['missing', 'zeros', 'cut', 'whole'] as const

/** How many bytes of an append are right, and how far it reaches: beyond what is right it's zeros. */
function keptOf(
  fate: (typeof fates)[number],
  length: number,
  choose: Choice,
  cuts: number,
): { bytes: number; size: number } {
  if (fate === 'missing') return { bytes: 0, size: 0 }
  if (fate === 'zeros') return { bytes: 0, size: length }
  if (fate === 'whole' || length < 2) return { bytes: length, size: length }
  const places = Math.min(cuts, length - 1)
  const bytes = Math.max(1, Math.floor(((choose(places) + 1) * length) / (places + 1)))
  return { bytes, size: choose(2) === 0 ? bytes : length }
}

/** Decisions that look random and are the same for the same seed (mulberry32). */
export function seededChoice(seed: number): Choice {
  let state = seed | 0
  return (count) => {
    state = (state + 0x6d2b79f5) | 0
    let bits = Math.imul(state ^ (state >>> 15), state | 1)
    bits ^= bits + Math.imul(bits ^ (bits >>> 7), bits | 61)
    return Math.floor((((bits ^ (bits >>> 14)) >>> 0) / 2 ** 32) * count)
  }
}

/**
 * Runs `body` once for every sequence of decisions that it can meet, from the one that takes 0 each time on.
 *
 * @param countMax stop after so many runs
 * @returns the number of runs, and whether those were all there are
 */
export async function forEachChoice(
  body: (choose: Choice) => Promise<void> | void,
  countMax = Number.POSITIVE_INFINITY,
): Promise<{ count: number; complete: boolean }> {
  let taken: { choice: number; count: number }[] = []
  for (let count = 1; ; count++) {
    let depth = 0
    await body((options) => {
      if (depth === taken.length) taken.push({ choice: 0, count: options })
      return taken[depth++]!.choice
    })
    taken = taken.slice(0, depth)
    while (taken.length > 0 && taken.at(-1)!.choice + 1 >= taken.at(-1)!.count) taken.pop()
    if (taken.length === 0) return { count, complete: true }
    if (count >= countMax) return { count, complete: false }
    taken.at(-1)!.choice++
  }
}

const hashes = new WeakMap<Uint8Array, string>()

/** A short text that is equal for equal images and, but for chances of 2^-60 or so, for those only: to count distinct images. */
export function imageKey(image: StoreImage): string {
  if (image.root === undefined) return ''
  const keyOf = (files: ReadonlyMap<string, Uint8Array>) =>
    [...files]
      .map(([name, bytes]) => `${name}=${hashOf(bytes)}`)
      .sort()
      .join()
  const directories = [...image.directories]
    .sort(([a], [b]) => a - b)
    .map(([number, files]) => `${number}/${keyOf(files)}`)
  return [`/${keyOf(image.root)}`, ...directories].join(';')
}

function hashOf(bytes: Uint8Array): string {
  let hash = hashes.get(bytes)
  if (hash !== undefined) return hash
  let [low, high] = [0xdeadbeef, 0x41c6ce57]
  for (let i = 0; i < bytes.length; i++) {
    low = Math.imul(low ^ bytes[i]!, 2654435761)
    high = Math.imul(high ^ bytes[i]!, 1597334677)
    high ^= low >>> 16
  }
  hash = `${bytes.length}:${(low >>> 0).toString(36)}${(high >>> 0).toString(36)}`
  hashes.set(bytes, hash)
  return hash
}
