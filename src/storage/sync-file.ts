/**
 * Syncing, with one meaning of failure on every platform.
 */
import type { WritableFile } from '../directory/directory.ts'
import { IsovecError } from '../errors.ts'

/**
 * Makes a file's bytes and name survive power loss.
 * @throws IsovecError never `QUOTA_EXCEEDED`: a disk that is found full only now has lost bytes that it had taken, which is no matter of
 * asking again later
 */
export async function syncFile(file: WritableFile): Promise<void> {
  try {
    await file.sync()
  } catch (error) {
    if (!(error instanceof IsovecError) || error.code !== 'QUOTA_EXCEEDED') throw error
    throw new IsovecError('IO', error.message, {
      cause: error,
      ...(error.file === undefined ? {} : { file: error.file }),
    })
  }
}
