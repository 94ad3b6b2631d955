/**
 * From rows back to documents.
 */
import { utf8Decode } from '../codec/bytes.ts'
import { IsovecError } from '../errors.ts'
import type { SearchSource } from '../snapshot.ts'
import { type Projection, project } from './projection.ts'

/** What of a document is wanted beside its id. */
export type Wanted = { readonly payload: Projection | false; readonly vector: boolean }

/** The parts of a document that were wanted and are there. */
export type Parts<P> = { payload?: P; vector?: Float32Array }

/**
 * Reads what is wanted of a row as of a sequence. A promise only where bytes must be fetched. Vectors need the source's image.
 * @throws IsovecError `CORRUPTION`
 */
export function hydrate<P extends object>(
  source: SearchSource,
  row: number,
  sequence: number,
  { payload, vector }: Wanted,
): Parts<P> | Promise<Parts<P>> {
  const parts: Parts<P> = vector ? { vector: source.image.vectorAt(row) } : {}
  if (payload === false) return parts
  const bytes = source.payloadAt(row, sequence)
  if (bytes instanceof Promise) return bytes.then((found) => withPayload(parts, found, payload, source, row))
  return withPayload(parts, bytes, payload, source, row)
}

function withPayload<P extends object>(
  parts: Parts<P>,
  bytes: Uint8Array | undefined,
  projection: Projection,
  source: SearchSource,
  row: number,
): Parts<P> {
  if (bytes === undefined) return parts
  try {
    parts.payload = project(JSON.parse(utf8Decode(bytes)) as object, projection) as P
  } catch (cause) {
    throw new IsovecError('CORRUPTION', `the payload of ${JSON.stringify(source.idAt(row))} is not JSON`, {
      cause,
      id: source.idAt(row),
    })
  }
  return parts
}
