/**
 * Manifests: numbered files that say what a directory holds. The newest valid one wins; the two newest valid ones are kept.
 *
 * Layout (docs/format.md): a 64-byte header and a body of JSON, covered by one checksum.
 */
import { readUint64, utf8Decode, utf8Encode, viewOf, writeUint64 } from '../codec/bytes.ts'
import type { Directory } from '../directory/directory.ts'
import { IsovecError } from '../errors.ts'
import type { Kernel } from '../kernel/index.ts'
import { checkReaderVersion, hasMagic, writePreamble } from './file-header.ts'
import { fileName, numbersOf } from './file-names.ts'
import { syncFile } from './sync-file.ts'

const magic = utf8Encode('isovecMF')
const headerSize = 64
const spareOffset = 48
const checksumOffset = 56
/** Size that a manifest may have; checked before one is read. */
export const manifestSizeMax = 1024 * 1024

/** What a manifest describes: the database or one collection. */
export type ManifestKind = 'root' | 'collection'

/** A manifest file with its body decoded by the caller's rules. */
export type Manifest<T> = {
  readonly generation: number
  readonly uuid: Uint8Array
  readonly body: T
  /** The generation to fall back to from this one, where that isn't the newest valid one before: what lies between was given up. */
  readonly spare?: number
}

/**
 * Writes and syncs the manifest of a generation: the commit point of whatever it names.
 * @throws IsovecError of the directory; also if the generation exists already, which means that another writer is at work;
 * `UNSUPPORTED` before anything is written if the body is larger than {@link manifestSizeMax}
 */
export async function writeManifest(
  kernel: Kernel,
  directory: Directory,
  kind: ManifestKind,
  manifest: Manifest<object>,
): Promise<void> {
  const body = utf8Encode(JSON.stringify(manifest.body))
  const bytes = new Uint8Array(headerSize + body.length)
  if (bytes.length > manifestSizeMax) {
    const what = kind === 'root' ? 'collections' : 'segments: compact the collection'
    throw new IsovecError('UNSUPPORTED', `a manifest of ${bytes.length} bytes is too large; there are too many ${what}`)
  }
  const view = viewOf(bytes)
  writePreamble(bytes, magic)
  view.setUint32(16, body.length, true)
  view.setUint32(20, kind === 'root' ? 1 : 2, true)
  writeUint64(view, 24, manifest.generation)
  bytes.set(manifest.uuid, 32)
  writeUint64(view, spareOffset, manifest.spare ?? 0)
  bytes.set(body, headerSize)
  const { low, high } = manifestChecksum(kernel, bytes)
  view.setUint32(checksumOffset, low, true)
  view.setUint32(checksumOffset + 4, high, true)

  const file = await directory.create(fileName(manifest.generation, 'manifest'))
  try {
    await file.append(bytes)
    await syncFile(file)
  } finally {
    await file.close()
  }
}

/** What a directory's manifests are: the valid ones, newest first, what is wrong with the others, and the highest number of all. */
export type ManifestSurvey<T> = {
  readonly valid: readonly Manifest<T>[]
  readonly damaged: readonly IsovecError[]
  readonly highest: number
}

/**
 * Reads every manifest of a directory, newest first.
 * @param decode checks a body and gives it its type; it throws `CORRUPTION` where the body is not what the format says
 * @throws IsovecError `UNSUPPORTED_VERSION` if a manifest needs a newer reader: going on with an older one would hide data
 */
export async function readManifests<T>(
  kernel: Kernel,
  directory: Directory,
  kind: ManifestKind,
  decode: (body: unknown, file: string) => T,
): Promise<ManifestSurvey<T>> {
  const generations = numbersOf(await directory.list(), 'manifest').sort((a, b) => b - a)
  const valid: Manifest<T>[] = []
  const damaged: IsovecError[] = []
  for (const generation of generations) {
    try {
      valid.push(await readManifest(kernel, directory, kind, generation, decode))
    } catch (error) {
      if (!(error instanceof IsovecError) || error.code !== 'CORRUPTION') throw error
      damaged.push(error)
    }
  }
  return { valid, damaged, highest: generations[0] ?? 0 }
}

async function readManifest<T>(
  kernel: Kernel,
  directory: Directory,
  kind: ManifestKind,
  generation: number,
  decode: (body: unknown, file: string) => T,
): Promise<Manifest<T>> {
  const name = fileName(generation, 'manifest')
  const file = await directory.open(name)
  try {
    if (file.size < headerSize || file.size > manifestSizeMax) throw corrupt(name, `a manifest of ${file.size} bytes`)
    const bytes = new Uint8Array(file.size)
    await file.read(0, bytes)
    const view = viewOf(bytes)
    if (!hasMagic(bytes, magic)) throw corrupt(name, 'not a manifest')
    const { low, high } = manifestChecksum(kernel, bytes)
    if (view.getUint32(checksumOffset, true) !== low || view.getUint32(checksumOffset + 4, true) !== high) {
      throw corrupt(name, 'the checksum does not hold')
    }
    checkReaderVersion(bytes, name)
    if (view.getUint32(16, true) !== bytes.length - headerSize) throw corrupt(name, 'the length does not hold')
    if (view.getUint32(20, true) !== (kind === 'root' ? 1 : 2)) throw corrupt(name, `not a ${kind} manifest`)
    if (readUint64(view, 24) !== generation) throw corrupt(name, 'the manifest of another generation')
    const spare = readUint64(view, spareOffset)
    if (spare === undefined || spare >= generation) throw corrupt(name, 'the generation to fall back to is a later one')
    return {
      generation,
      uuid: bytes.slice(32, 48),
      body: decode(parseBody(bytes.subarray(headerSize), name), name),
      ...(spare === 0 ? {} : { spare }),
    }
  } finally {
    await file.close()
  }
}

function parseBody(bytes: Uint8Array, name: string): unknown {
  try {
    return JSON.parse(utf8Decode(bytes))
  } catch (cause) {
    throw corrupt(name, 'the body is not JSON', cause)
  }
}

function manifestChecksum(kernel: Kernel, bytes: Uint8Array): { low: number; high: number } {
  const hasher = kernel.hasher()
  hasher.update(bytes.subarray(0, checksumOffset))
  hasher.update(bytes.subarray(headerSize))
  return hasher.digest()
}

function corrupt(file: string, problem: string, cause?: unknown): IsovecError {
  return new IsovecError('CORRUPTION', `${file}: ${problem}`, { file, cause })
}

/**
 * Checks for the decoded bodies of manifests: each returns its argument with a type, or throws `CORRUPTION` naming the place.
 */
export class BodyReader {
  readonly #file: string

  constructor(file: string) {
    this.#file = file
  }

  record(value: unknown, place: string): Record<string, unknown> {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) throw this.bad(place)
    return value as Record<string, unknown>
  }

  list(value: unknown, place: string): readonly unknown[] {
    if (!Array.isArray(value)) throw this.bad(place)
    return value
  }

  whole(value: unknown, place: string, min = 0, max = Number.MAX_SAFE_INTEGER): number {
    if (!Number.isSafeInteger(value) || (value as number) < min || (value as number) > max) throw this.bad(place)
    return value as number
  }

  text(value: unknown, place: string): string {
    if (typeof value !== 'string') throw this.bad(place)
    return value
  }

  flag(value: unknown, place: string): boolean {
    if (typeof value !== 'boolean') throw this.bad(place)
    return value
  }

  oneOf<T extends string>(value: unknown, choices: readonly T[], place: string): T {
    const found = choices.find((choice) => choice === value)
    if (found === undefined) throw this.bad(place)
    return found
  }

  bad(place: string): IsovecError {
    return corrupt(this.#file, `${place} is not what the format says`)
  }
}
