/**
 * Dead rows of one source, each with the sequence at which it died, and the file that keeps a segment's.
 *
 * File: 64-byte header (magic, versions, uuid, segment number, count, checksum), then per tombstone u32 row, u32 zero, u64 sequence,
 * in the order of rows.
 */
import { bytesEqual, readUint64, utf8Encode, viewOf, writeUint64 } from '../codec/bytes.ts'
import type { Directory } from '../directory/directory.ts'
import { IsovecError } from '../errors.ts'
import type { Kernel } from '../kernel/index.ts'
import { fileName } from './file-names.ts'
import { formatVersion } from './manifest.ts'
import { syncFile } from './sync-file.ts'

const magic = utf8Encode('isovecDL')
const minimalReaderVersion = 1
const headerSize = 64
const checksumOffset = 56
const entrySize = 16

/** Rows that died, with their sequences. */
export class Tombstones {
  readonly #sequences = new Map<number, number>()

  get count(): number {
    return this.#sequences.size
  }

  /** Whether the row had died by `sequence`. */
  isDead(row: number, sequence: number): boolean {
    if (this.#sequences.size === 0) return false
    const died = this.#sequences.get(row)
    return died !== undefined && died <= sequence
  }

  /** Marks a row as dead; the first death counts. Returns whether it was alive. */
  add(row: number, sequence: number): boolean {
    if (this.#sequences.has(row)) return false
    this.#sequences.set(row, sequence)
    return true
  }

  /** All tombstones as pairs of row and sequence, in the order in which they came. */
  entries(): IterableIterator<[row: number, sequence: number]> {
    return this.#sequences.entries()
  }

  /** Tombstones up to a sequence, by row. */
  upTo(sequence: number): [row: number, sequence: number][] {
    return [...this.#sequences].filter(([, died]) => died <= sequence).sort((a, b) => a[0] - b[0])
  }
}

/** What a manifest keeps of a tombstone file. */
export type TombstoneFile = {
  readonly number: number
  readonly length: number
  readonly count: number
  readonly lastSequence: number
}

/** Writes and syncs the tombstones of a segment. */
export async function writeTombstones(
  kernel: Kernel,
  directory: Directory,
  number: number,
  uuid: Uint8Array,
  segment: number,
  entries: readonly (readonly [row: number, sequence: number])[],
): Promise<TombstoneFile> {
  const bytes = new Uint8Array(headerSize + entries.length * entrySize)
  const view = viewOf(bytes)
  bytes.set(magic)
  view.setUint32(8, formatVersion, true)
  view.setUint32(12, minimalReaderVersion, true)
  bytes.set(uuid, 16)
  writeUint64(view, 32, segment)
  view.setUint32(40, entries.length, true)
  let lastSequence = 0
  entries.forEach(([row, sequence], index) => {
    const offset = headerSize + index * entrySize
    view.setUint32(offset, row, true)
    writeUint64(view, offset + 8, sequence)
    lastSequence = Math.max(lastSequence, sequence)
  })
  const { low, high } = checksumOf(kernel, bytes)
  view.setUint32(checksumOffset, low, true)
  view.setUint32(checksumOffset + 4, high, true)
  const file = await directory.create(fileName(number, 'del'))
  try {
    await file.append(bytes)
    await syncFile(file)
  } finally {
    await file.close()
  }
  return { number, length: bytes.length, count: entries.length, lastSequence }
}

/**
 * Reads the tombstones of a segment.
 * @throws IsovecError `CORRUPTION` where the file is not the one that the manifest names
 */
export async function readTombstones(
  kernel: Kernel,
  directory: Directory,
  entry: TombstoneFile,
  uuid: Uint8Array,
  segment: number,
  rowCount: number,
): Promise<Tombstones> {
  const name = fileName(entry.number, 'del')
  const bytes = await readWhole(directory, name, entry)
  const view = viewOf(bytes)
  const { low, high } = checksumOf(kernel, bytes)
  const holds =
    bytesEqual(bytes.subarray(0, magic.length), magic) &&
    view.getUint32(checksumOffset, true) === low &&
    view.getUint32(checksumOffset + 4, true) === high
  if (!holds) throw corrupt(name, 0, 'the checksum does not hold')
  if (view.getUint32(12, true) > formatVersion) {
    throw new IsovecError('UNSUPPORTED_VERSION', `${name} was written by a newer isovec`, { file: name })
  }
  const belongs = bytesEqual(bytes.subarray(16, 32), uuid) && readUint64(view, 32) === segment
  if (!belongs || view.getUint32(40, true) !== entry.count) throw corrupt(name, 16, 'the tombstones belong elsewhere')
  const tombstones = new Tombstones()
  for (let offset = headerSize; offset < bytes.length; offset += entrySize) {
    const row = view.getUint32(offset, true)
    const sequence = readUint64(view, offset + 8)
    if (row >= rowCount || sequence === undefined || !tombstones.add(row, sequence)) {
      throw corrupt(name, offset, 'a tombstone is impossible')
    }
  }
  return tombstones
}

async function readWhole(directory: Directory, name: string, entry: TombstoneFile): Promise<Uint8Array> {
  const file = await directory.open(name)
  try {
    if (file.size !== entry.length || file.size !== headerSize + entry.count * entrySize) {
      throw corrupt(name, 0, `the file has ${file.size} bytes instead of ${entry.length}`)
    }
    const bytes = new Uint8Array(file.size)
    await file.read(0, bytes)
    return bytes
  } finally {
    await file.close()
  }
}

function checksumOf(kernel: Kernel, bytes: Uint8Array): { low: number; high: number } {
  const hasher = kernel.hasher()
  hasher.update(bytes.subarray(0, checksumOffset))
  hasher.update(bytes.subarray(headerSize))
  return hasher.digest()
}

function corrupt(file: string, offset: number, problem: string): IsovecError {
  return new IsovecError('CORRUPTION', `${file}: ${problem} (at byte ${offset})`, { file, offset })
}
