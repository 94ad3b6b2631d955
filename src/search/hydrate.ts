/**
 * From rows back to documents.
 */
import { utf8Decode } from '../codec/bytes.ts'
import { IsovecError } from '../errors.ts'
import type { SearchSource } from '../snapshot.ts'

/** What of a document is wanted beside its id. */
export type Wanted = { readonly payload: boolean; readonly vector: boolean }

/** The parts of a document that were wanted and are there. */
export type Parts<P> = { payload?: P; vector?: Float32Array }

/**
 * Reads what is wanted of a row. A promise only where bytes must be fetched. Vectors need the source's image.
 * @throws IsovecError `CORRUPTION`
 */
export function hydrate<P extends object>(
  source: SearchSource,
  row: number,
  wanted: Wanted,
): Parts<P> | Promise<Parts<P>> {
  const parts: Parts<P> = wanted.vector ? { vector: source.image.vectorAt(row) } : {}
  if (!wanted.payload) return parts
  const bytes = source.payloadAt(row)
  if (bytes instanceof Promise) return bytes.then((found) => withPayload(parts, found, source, row))
  return withPayload(parts, bytes, source, row)
}

function withPayload<P extends object>(
  parts: Parts<P>,
  bytes: Uint8Array | undefined,
  source: SearchSource,
  row: number,
): Parts<P> {
  if (bytes === undefined) return parts
  try {
    parts.payload = JSON.parse(utf8Decode(bytes)) as P
  } catch (cause) {
    throw new IsovecError('CORRUPTION', `the payload of ${JSON.stringify(source.idAt(row))} is not JSON`, {
      cause,
      id: source.idAt(row),
    })
  }
  return parts
}
