/**
 * Room on the disk that is set aside, so that what gives room back can still be done when the disk is full.
 *
 * The reserve is a few files in the root of a database (`N.reserve`) whose bytes mean nothing. What frees room, or is needed for that
 * (deletes, manifests, logs that seal others, flushes, compactions that somebody asked for), may give them up when it meets a full
 * disk; what takes room must see the reserve whole before it begins. Reasons for its size are in docs/adr.
 */
import type { Directory } from '../directory/directory.ts'
import { IsovecError } from '../errors.ts'
import { fileName, parseFileName } from './file-names.ts'
import { syncFile } from './sync-file.ts'

/** What the smallest steps take: a log, two manifests and tombstones for some thousand rows. */
const reserveSizeMin = 64 * 1024
const reserveSizeMax = 4 * 1024 * 1024
/** The reserve is at least this part of the largest collection, between its bounds: logged deletes and tombstones grow with it. */
const share = 1 / 8
const pieceSize = 64 * 1024

/** Bytes to set aside for a collection of this size: a power of two, so that the reserve grows in few steps. */
export function reserveSizeFor(dataSize: number): number {
  const wanted = Math.min(reserveSizeMax, Math.max(reserveSizeMin, dataSize * share))
  return 2 ** Math.ceil(Math.log2(wanted))
}

/** Whether a step failed for want of room and left nothing behind, so that it may be done again. */
export function isFull(error: unknown): boolean {
  return error instanceof IsovecError && error.code === 'QUOTA_EXCEEDED' && error.outcome !== 'unknown'
}

/** The reserve of one database. */
export class Reserve {
  readonly #directory: Directory
  /** Sizes by name; undefined until somebody has to know. */
  #files: Map<string, number> | undefined
  #size = 0
  #number = 0
  /** How often it was given up: who has failed before meets more room after. */
  #releaseCount = 0
  #spenderCount = 0
  #isShort = false
  #turn: Promise<unknown> = Promise.resolve()

  /** @param directory the root of the database */
  constructor(directory: Directory) {
    this.#directory = directory
  }

  /** Whether somebody has met a full disk since the last {@link relieve}. */
  get isShort(): boolean {
    return this.#isShort
  }

  /** Notes that somebody has met a full disk. */
  noteShortage(): void {
    this.#isShort = true
  }

  /** Notes that what can be given back was given back. */
  relieve(): void {
    this.#isShort = false
  }

  /**
   * Makes sure that enough is set aside before a collection of `dataSize` bytes grows; undefined if it is.
   * @throws IsovecError `QUOTA_EXCEEDED` if there is no room for that, or a step that needs it is under way
   */
  ensure(dataSize: number): Promise<void> | undefined {
    const wanted = reserveSizeFor(dataSize)
    if (this.#size >= wanted) return undefined
    return this.#inTurn(() => this.#grow(wanted))
  }

  /**
   * Does what must be possible on a full disk. Where there is no room for it, the reserve is given up and it is done once more.
   * @param step leaves nothing behind that matters where it fails with `QUOTA_EXCEEDED`
   */
  async spend<T>(step: () => Promise<T>): Promise<T> {
    const before = this.#releaseCount
    try {
      return await step()
    } catch (error) {
      if (!isFull(error)) throw error
      this.#isShort = true
      this.#spenderCount++
      try {
        // Also where not all of it could be removed there may be room enough; if nothing was, the first failure tells.
        await this.#inTurn(() => this.#release()).catch(() => {})
        if (this.#releaseCount === before) throw error
        return await step()
      } finally {
        this.#spenderCount--
      }
    }
  }

  #inTurn<T>(run: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(run)
    this.#turn = turn.catch(() => {})
    return turn
  }

  async #load(): Promise<Map<string, number>> {
    if (this.#files !== undefined) return this.#files
    const files = new Map<string, number>()
    let size = 0
    for (const name of await this.#directory.list()) {
      const parsed = parseFileName(name)
      if (parsed?.kind !== 'reserve') continue
      const file = await this.#directory.open(name)
      files.set(name, file.size)
      await file.close()
      this.#number = Math.max(this.#number, parsed.number)
      size += files.get(name)!
    }
    this.#size = size
    this.#files = files
    return files
  }

  async #grow(wanted: number): Promise<void> {
    if (this.#spenderCount > 0) throw new IsovecError('QUOTA_EXCEEDED', 'the disk is full')
    const files = await this.#load()
    if (this.#size >= wanted) return
    const size = wanted - this.#size
    const name = fileName(++this.#number, 'reserve')
    files.set(name, 0)
    try {
      await this.#write(name, size)
    } catch (error) {
      if (isFull(error)) this.#isShort = true
      // Behind a failure that tells more; what stays is removed with the rest.
      await this.#remove(files, name).catch(() => {})
      throw error
    }
    files.set(name, size)
    this.#size += size
  }

  async #write(name: string, size: number): Promise<void> {
    const file = await this.#directory.create(name)
    try {
      const words = new Uint32Array(pieceSize / 4)
      let state = this.#number
      for (let offset = 0; offset < size; offset += pieceSize) {
        state = fillWithNoise(words, state)
        await file.append(new Uint8Array(words.buffer, 0, Math.min(pieceSize, size - offset)))
      }
      await syncFile(file)
    } finally {
      await file.close()
    }
  }

  async #release(): Promise<void> {
    const files = await this.#load()
    for (const name of [...files.keys()]) {
      await this.#remove(files, name)
      this.#releaseCount++
    }
  }

  async #remove(files: Map<string, number>, name: string): Promise<void> {
    await this.#directory.remove(name)
    this.#size -= files.get(name)!
    files.delete(name)
  }
}

/** Bytes that no file system can compress away (xorshift32; Marsaglia, "Xorshift RNGs", 2003). Returns the state to go on with. */
function fillWithNoise(words: Uint32Array, seed: number): number {
  let state = seed | 1
  for (let i = 0; i < words.length; i++) {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    words[i] = state
  }
  return state
}

/** Whether something failed for want of room on the disk or in the manifest. */
export function lacksRoom(error: unknown): boolean {
  return isFull(error) || (error instanceof IsovecError && error.code === 'UNSUPPORTED')
}
