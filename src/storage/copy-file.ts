/**
 * Writing a file at once, and copying one from one directory to another.
 */
import type { Directory, RandomAccessFile, WritableFile } from '../directory/directory.ts'
import { throwIfAborted } from '../errors.ts'
import { transferSize } from './section-file.ts'
import { syncFile } from './sync-file.ts'

/**
 * Makes a file, synced and closed.
 * @param fill appends what belongs in it
 * @throws IsovecError `QUOTA_EXCEEDED`, `IO`
 */
export async function writeFile(
  directory: Directory,
  name: string,
  fill: (file: WritableFile) => Promise<unknown>,
): Promise<void> {
  const file = await directory.create(name)
  try {
    await fill(file)
    await syncFile(file)
  } finally {
    await file.close()
  }
}

/**
 * Copies a file, synced, and closes it.
 * @param onBytes is told how many bytes more were copied
 * @throws IsovecError `ABORTED`, `QUOTA_EXCEEDED`, `IO`
 */
export async function copyFile(
  source: RandomAccessFile,
  directory: Directory,
  name: string,
  signal: AbortSignal | undefined,
  onBytes: (count: number) => void,
): Promise<void> {
  try {
    await copyBytes(source, directory, name, signal, onBytes)
  } finally {
    await source.close()
  }
}

/** The same of a file that stays open. */
export async function copyBytes(
  source: RandomAccessFile,
  directory: Directory,
  name: string,
  signal: AbortSignal | undefined,
  onBytes: (count: number) => void,
): Promise<void> {
  await writeFile(directory, name, async (file) => {
    const buffer = new Uint8Array(Math.min(source.size, transferSize))
    for (let offset = 0; offset < source.size; offset += buffer.length) {
      throwIfAborted(signal)
      const piece = buffer.subarray(0, Math.min(buffer.length, source.size - offset))
      await source.read(offset, piece)
      await file.append(piece)
      onBytes(piece.length)
    }
  })
}
