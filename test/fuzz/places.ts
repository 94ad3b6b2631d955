/**
 * The directories of the bases, with what their newest manifests say: where the samples of readers come from.
 */
import type { Condition } from '../../src/condition.ts'
import type { Directory } from '../../src/directory/directory.ts'
import { memoryBackend } from '../../src/directory/memory.ts'
import { type ImagePool, type Kernel, loadKernel } from '../../src/kernel/index.ts'
import { type CollectionBody, collectionFormat } from '../../src/storage/collection-manifest.ts'
import { Generations } from '../../src/storage/generations.ts'
import { BlockCache } from '../../src/storage/payload-blocks.ts'
import type { StorageContext } from '../../src/storage/segment.ts'
import { type BaseName, baseOf, contextOf } from './bases.ts'

/** Files by name. */
export type Files = ReadonlyMap<string, Uint8Array>

/** The directory of a collection of a base. */
export type Place = {
  /** Names it in what is kept of an input. */
  readonly name: string
  readonly files: Files
  readonly body: CollectionBody
  /** The collection's, over its files as they are. */
  readonly context: StorageContext
}

let pool: ImagePool | undefined

/** A directory of given files. */
export function directoryOf(files: Files): Promise<Directory> {
  return memoryBackend({ root: new Map(), directories: new Map([[1, files]]) }).directory(1, { create: false })
}

/** A directory of one file. */
export function directoryWith(name: string, bytes: Uint8Array): Promise<Directory> {
  return directoryOf(new Map([[name, bytes]]))
}

/** A context for the same collection whose directory holds something else. Nothing that was read before is remembered. */
export function contextWith(context: StorageContext, directory: Directory): StorageContext {
  return { ...context, directory, cache: new BlockCache(1 << 20) }
}

/** The collections of some bases. */
export async function placesOf(names: readonly BaseName[]): Promise<Place[]> {
  const kernel = await loadKernel()
  pool ??= kernel.createPool()
  const places: Place[] = []
  for (const base of names) {
    for (const [number, files] of (await baseOf(base)).image.directories) {
      places.push(await placeOf(kernel, pool, `${base}/${number}`, files))
    }
  }
  return places
}

async function placeOf(kernel: Kernel, pool: ImagePool, name: string, files: Files): Promise<Place> {
  const directory = await directoryOf(files)
  const generations = await Generations.load(kernel, directory, collectionFormat)
  if (generations === undefined) throw new Error(`${name} holds no collection`)
  const { uuid, body } = generations.current
  return { name, files, body, context: contextOf(kernel, pool, directory, uuid, body.options) }
}

/** What the payloads of the bases are asked. */
export const questions: readonly (readonly [path: string, condition: Condition])[] = [
  ['i', { kind: 'range', operator: 'lt', value: 10 }],
  ['i', { kind: 'equal', values: [5, 'x', true, null] }],
  ['tag', { kind: 'equal', values: ['a', 'patched'] }],
  ['nested.text', { kind: 'prefix', value: 'long long' }],
  ['nested.text', { kind: 'range', operator: 'gte', value: 'long '.repeat(31) }],
  ['list.deep', { kind: 'exists' }],
  ['nested', { kind: 'exists' }],
  ['none', { kind: 'equal', values: [null] }],
  ['\u00e9', { kind: 'range', operator: 'gt', value: '\u{1f5ff}' }],
  ['nowhere.to', { kind: 'exists' }],
]

/** Bytes as a text that is equal for equal bytes. */
export function textOfBytes(bytes: Uint8Array | undefined): string {
  if (bytes === undefined) return '-'
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1')
}
