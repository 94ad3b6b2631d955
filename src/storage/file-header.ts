/**
 * How every structure on disk begins: an 8-byte magic, the format version, and the oldest reader that understands it.
 */
import { bytesEqual, viewOf } from '../codec/bytes.ts'
import { IsovecError } from '../errors.ts'

/** Version that this code writes, and the oldest reader that understands it. */
export const formatVersion = 1
const minimalReaderVersion = 1

/** Writes the first 16 bytes of a structure. */
export function writePreamble(bytes: Uint8Array, magic: Uint8Array): void {
  const view = viewOf(bytes)
  bytes.set(magic)
  view.setUint32(8, formatVersion, true)
  view.setUint32(12, minimalReaderVersion, true)
}

/** Whether a structure begins with its magic. */
export function hasMagic(bytes: Uint8Array, magic: Uint8Array): boolean {
  return bytesEqual(bytes.subarray(0, magic.length), magic)
}

/**
 * Refuses what needs a newer reader; to be asked once the checksum holds.
 * @throws IsovecError `UNSUPPORTED_VERSION`
 */
export function checkReaderVersion(bytes: Uint8Array, file: string): void {
  const needed = viewOf(bytes).getUint32(12, true)
  if (needed <= formatVersion) return
  throw new IsovecError('UNSUPPORTED_VERSION', `${file} was written by a newer isovec`, {
    file,
    expected: formatVersion,
    actual: needed,
  })
}
