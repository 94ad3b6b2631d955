/**
 * Small files that say something about rows of one segment: its tombstones, its patches. Each is written at once and read as a whole.
 *
 * Header of 64 bytes: magic, versions, uuid at 16, number of the segment (u64) at 32, number of entries (u32) at 40, checksum of
 * everything else at 56. What follows belongs to the kind.
 */
import { bytesEqual, readUint64, viewOf, writeUint64 } from '../codec/bytes.ts'
import type { Directory } from '../directory/directory.ts'
import { IsovecError } from '../errors.ts'
import type { Checksum, Kernel } from '../kernel/index.ts'
import { checkReaderVersion, hasMagic, writePreamble } from './file-header.ts'
import { syncFile } from './sync-file.ts'

/** Bytes before the first entry. */
export const companionHeaderSize = 64
const checksumOffset = 56

/** What a manifest keeps of such a file. */
export type CompanionFile = {
  readonly number: number
  readonly length: number
  readonly count: number
  readonly lastSequence: number
}

/** Where a file belongs. */
export type Companion = { readonly magic: Uint8Array; readonly uuid: Uint8Array; readonly segment: number }

/** Writes and syncs a file whose bytes are filled in but for the header. */
export async function writeCompanion(
  kernel: Kernel,
  directory: Directory,
  name: string,
  { magic, uuid, segment }: Companion,
  bytes: Uint8Array,
  count: number,
): Promise<void> {
  const view = viewOf(bytes)
  writePreamble(bytes, magic)
  bytes.set(uuid, 16)
  writeUint64(view, 32, segment)
  view.setUint32(40, count, true)
  const { low, high } = checksumOf(kernel, bytes)
  view.setUint32(checksumOffset, low, true)
  view.setUint32(checksumOffset + 4, high, true)
  const file = await directory.create(name)
  try {
    await file.append(bytes)
    await syncFile(file)
  } finally {
    await file.close()
  }
}

/**
 * Reads a file. Its size, checksum and header are those of the file that the manifest names; its entries are still to be checked.
 * @param entrySize bytes that each entry takes at least
 * @throws IsovecError `CORRUPTION`, `UNSUPPORTED_VERSION`
 */
export async function readCompanion(
  kernel: Kernel,
  directory: Directory,
  name: string,
  { magic, uuid, segment }: Companion,
  entry: CompanionFile,
  entrySize: number,
): Promise<Uint8Array> {
  const file = await directory.open(name)
  let bytes: Uint8Array
  try {
    if (file.size !== entry.length || file.size < companionHeaderSize + entry.count * entrySize) {
      throw companionError(name, 0, `the file has ${file.size} bytes instead of ${entry.length}`)
    }
    bytes = new Uint8Array(file.size)
    await file.read(0, bytes)
  } finally {
    await file.close()
  }
  const view = viewOf(bytes)
  const { low, high } = checksumOf(kernel, bytes)
  const holds =
    hasMagic(bytes, magic) &&
    view.getUint32(checksumOffset, true) === low &&
    view.getUint32(checksumOffset + 4, true) === high
  if (!holds) throw companionError(name, 0, 'the checksum does not hold')
  checkReaderVersion(bytes, name)
  const belongs = bytesEqual(bytes.subarray(16, 32), uuid) && readUint64(view, 32) === segment
  if (!belongs || view.getUint32(40, true) !== entry.count) throw companionError(name, 16, 'the file belongs elsewhere')
  return bytes
}

function checksumOf(kernel: Kernel, bytes: Uint8Array): Checksum {
  const hasher = kernel.hasher()
  hasher.update(bytes.subarray(0, checksumOffset))
  hasher.update(bytes.subarray(companionHeaderSize))
  return hasher.digest()
}

/** The error for damage at a place of a file. */
export function companionError(file: string, offset: number, problem: string): IsovecError {
  return new IsovecError('CORRUPTION', `${file}: ${problem} (at byte ${offset})`, { file, offset })
}
