/**
 * A directory as one sees it who only reads while another process may write: nothing can be changed through it, and files that the
 * writer has taken away are told apart from files that are lost.
 */
import type { Directory, RandomAccessFile, WritableFile } from '../directory/directory.ts'
import { IsovecError } from '../errors.ts'
import { numbersOf, parseFileName } from './file-names.ts'

/** What is refused to those who only read. */
export function readOnlyError(): IsovecError {
  return new IsovecError('READ_ONLY', 'the database was opened read-only', { outcome: 'none' })
}

/** Wraps a directory for reading. */
export class ReaderDirectory implements Directory {
  readonly #directory: Directory
  readonly #newest: number | undefined

  private constructor(directory: Directory, newest: number | undefined) {
    this.#directory = directory
    this.#newest = newest
  }

  /** @throws IsovecError `NOT_FOUND`, `IO` */
  static async of(directory: Directory): Promise<ReaderDirectory> {
    return new ReaderDirectory(directory, await newestGeneration(directory))
  }

  list(): Promise<string[]> {
    return this.#directory.list()
  }

  /** @throws IsovecError `STALE_READER` if the file is gone and another generation has been committed since; `NOT_FOUND`, `IO` */
  async open(name: string): Promise<RandomAccessFile> {
    try {
      return await this.#directory.open(name)
    } catch (error) {
      if (!(error instanceof IsovecError) || error.code !== 'NOT_FOUND') throw error
      // A manifest is opened because it was listed; one that is gone was an old one.
      if (parseFileName(name)?.kind !== 'manifest' && !(await this.#isStale())) throw error
      throw new IsovecError(
        'STALE_READER',
        `${name} was replaced by a later state of the database; refresh() moves to it`,
        {
          file: name,
          cause: error,
        },
      )
    }
  }

  create(): Promise<WritableFile> {
    return Promise.reject(readOnlyError())
  }

  sync(): Promise<void> {
    return Promise.reject(readOnlyError())
  }

  remove(): Promise<void> {
    return Promise.reject(readOnlyError())
  }

  /** Whether the writer has moved on since this was made, or has dropped the whole directory. */
  async #isStale(): Promise<boolean> {
    try {
      return (await newestGeneration(this.#directory)) !== this.#newest
    } catch (error) {
      if (error instanceof IsovecError && error.code === 'NOT_FOUND') return true
      throw error
    }
  }
}

async function newestGeneration(directory: Directory): Promise<number | undefined> {
  const numbers = numbersOf(await directory.list(), 'manifest')
  return numbers.length === 0 ? undefined : Math.max(...numbers)
}

/** Attempts at reading a state before a writer that commits all the time wins. */
const attemptMax = 20

/**
 * Reads something that a writer may replace meanwhile: what was overtaken is begun anew.
 * @param read is told whether this attempt is the last one
 * @throws IsovecError `STALE_READER` after many attempts, and whatever `read` throws
 */
export async function retryWhileStale<T>(read: (isLast: boolean) => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await read(attempt === attemptMax)
    } catch (error) {
      if (!(error instanceof IsovecError) || error.code !== 'STALE_READER' || attempt === attemptMax) throw error
    }
  }
}
