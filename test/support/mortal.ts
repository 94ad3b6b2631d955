import type { Directory, RandomAccessFile, StorageBackend, WritableFile } from '../../src/directory/directory.ts'
import { IsovecError } from '../../src/errors.ts'

/**
 * A backend as one process sees it, which can end at any call: from then on no call of this process has an effect, and the next one may
 * open the same store. Its calls fail rather than hang, so that its memory can be given back. The lock goes with the process.
 */
export class MortalProcess implements StorageBackend {
  readonly kind = 'mortal'
  readonly location = ':mortal:'
  /** Resolves when the process has ended, and what it had asked of the disk by then is over. */
  readonly ended: Promise<void>
  readonly #store: StorageBackend
  #callsLeft = Number.POSITIVE_INFINITY
  #callsUnderWay = 0
  #end: () => void = () => {}

  constructor(store: StorageBackend) {
    this.#store = store
    this.ended = new Promise((resolve) => {
      this.#end = resolve
    })
  }

  /** Ends the process after so many further calls. */
  endAfter(calls: number): void {
    this.#callsLeft = calls
    this.#endIfOver()
  }

  /** Whether nothing of it reaches the disk any more, nor anybody outside. */
  get hasEnded(): boolean {
    return this.#callsLeft <= 0
  }

  async forward<T>(call: () => Promise<T>): Promise<T> {
    if (this.hasEnded) throw new IsovecError('IO', 'the process has ended')
    this.#callsLeft--
    this.#callsUnderWay++
    try {
      const settled = await call()
      if (this.hasEnded) throw new IsovecError('IO', 'the process has ended')
      return settled
    } finally {
      this.#callsUnderWay--
      this.#endIfOver()
    }
  }

  /** What a process has handed to its kernel happens, whenever the process ends; what comes next must not meet it half done. */
  #endIfOver(): void {
    if (this.hasEnded && this.#callsUnderWay === 0) this.#end()
  }

  exists(): Promise<boolean> {
    return this.forward(() => this.#store.exists())
  }

  open(options: { create: boolean }): Promise<Directory> {
    return this.forward(async () => new MortalDirectory(this, await this.#store.open(options)))
  }

  directories(): Promise<number[]> {
    return this.forward(() => this.#store.directories())
  }

  directory(number: number, options: { create: boolean }): Promise<Directory> {
    return this.forward(async () => new MortalDirectory(this, await this.#store.directory(number, options)))
  }

  removeDirectory(number: number): Promise<void> {
    return this.forward(() => this.#store.removeDirectory(number))
  }

  async lock(): Promise<{ primitive: string; release(): Promise<void> }> {
    return { primitive: 'mortal', release: async () => {} }
  }
}

class MortalDirectory implements Directory {
  readonly #process: MortalProcess
  readonly #directory: Directory

  constructor(process: MortalProcess, directory: Directory) {
    this.#process = process
    this.#directory = directory
  }

  list(): Promise<string[]> {
    return this.#process.forward(() => this.#directory.list())
  }

  create(name: string): Promise<WritableFile> {
    return this.#process.forward(async () => new MortalFile(this.#process, await this.#directory.create(name)))
  }

  open(name: string): Promise<RandomAccessFile> {
    return this.#process.forward(() => this.#directory.open(name))
  }

  sync(name: string): Promise<void> {
    return this.#process.forward(() => this.#directory.sync(name))
  }

  remove(name: string): Promise<void> {
    return this.#process.forward(() => this.#directory.remove(name))
  }
}

class MortalFile implements WritableFile {
  readonly #process: MortalProcess
  readonly #file: WritableFile

  constructor(process: MortalProcess, file: WritableFile) {
    this.#process = process
    this.#file = file
  }

  get size(): number {
    return this.#file.size
  }

  append(bytes: Uint8Array | readonly Uint8Array[]): Promise<void> {
    return this.#process.forward(() => this.#file.append(bytes))
  }

  sync(): Promise<void> {
    return this.#process.forward(() => this.#file.sync())
  }

  close(): Promise<void> {
    return this.#process.forward(() => this.#file.close())
  }
}
