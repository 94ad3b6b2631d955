/**
 * Payloads as attributes are taken from them.
 */
import { utf8Decode } from '../codec/bytes.ts'
import { IsovecError } from '../errors.ts'

/**
 * The payload that bytes hold.
 * @throws IsovecError `CORRUPTION` if they are not JSON in UTF-8
 */
export function parsePayload(bytes: Uint8Array, name: string, row: number): unknown {
  try {
    return JSON.parse(utf8Decode(bytes))
  } catch (cause) {
    throw new IsovecError('CORRUPTION', `${name}: the payload of row ${row} is not JSON`, { file: name, cause })
  }
}
