/**
 * Small files that say something about rows of one segment: its tombstones, its patches. Each is written at once and read as a whole.
 *
 * Header of 64 bytes: magic, versions, uuid at 16, number of the segment (u64) at 32, number of entries (u32) at 40, checksum of
 * everything else at 56. Then per entry u32 row, u32 size of what belongs to it behind all entries, u64 sequence, never 0; by row, each
 * row once.
 */
import { bytesEqual, readUint64, viewOf, writeUint64 } from '../codec/bytes.ts'
import type { Directory } from '../directory/directory.ts'
import { IsovecError } from '../errors.ts'
import type { Checksum, Kernel } from '../kernel/index.ts'
import { checkReaderVersion, hasMagic, writePreamble } from './file-header.ts'
import { syncFile } from './sync-file.ts'

/** Bytes before the first entry, and of each. */
export const companionHeaderSize = 64
export const companionEntrySize = 16
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
 * Reads a file.
 * @param take is given each entry, with the bytes that belong to it
 * @throws IsovecError `CORRUPTION` where the file is not the one that the manifest names, `UNSUPPORTED_VERSION`
 */
export async function readCompanion(
  kernel: Kernel,
  directory: Directory,
  name: string,
  companion: Companion,
  entry: CompanionFile,
  rowCount: number,
  take: (row: number, sequence: number, data: Uint8Array) => void,
): Promise<void> {
  const bytes = await readBytes(kernel, directory, name, companion, entry)
  const view = viewOf(bytes)
  const dataStart = companionHeaderSize + entry.count * companionEntrySize
  let data = dataStart
  let before = -1
  let lastSequence = 0
  for (let offset = companionHeaderSize; offset < dataStart; offset += companionEntrySize) {
    const row = view.getUint32(offset, true)
    const size = view.getUint32(offset + 4, true)
    const sequence = readUint64(view, offset + 8) ?? 0
    if (row <= before || row >= rowCount || size > bytes.length - data || sequence === 0) {
      throw companionError(name, offset, 'an entry is impossible')
    }
    take(row, sequence, bytes.subarray(data, data + size))
    data += size
    before = row
    lastSequence = Math.max(lastSequence, sequence)
  }
  // What comes later is in the log, and goes on from here.
  if (lastSequence !== entry.lastSequence) {
    throw companionError(name, 0, `the entries reach to sequence ${lastSequence} instead of ${entry.lastSequence}`)
  }
  if (data !== bytes.length) throw companionError(name, data, 'the entries are followed by bytes of none')
}

/** The bytes of a file whose size, checksum and header are those of the one that the manifest names. */
async function readBytes(
  kernel: Kernel,
  directory: Directory,
  name: string,
  { magic, uuid, segment }: Companion,
  entry: CompanionFile,
): Promise<Uint8Array> {
  const file = await directory.open(name)
  let bytes: Uint8Array
  try {
    if (file.size !== entry.length || file.size < companionHeaderSize + entry.count * companionEntrySize) {
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
