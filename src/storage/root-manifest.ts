/**
 * What the manifest of the database says: which collections there are and where they lie.
 */
import type { BodyFormat } from './generations.ts'
import { BodyReader } from './manifest.ts'

/** Where a collection lies. */
export type CollectionPlace = { readonly name: string; readonly directory: number }

/** The body of the root manifest. */
export type RootBody = {
  /** Next number for a directory. */
  readonly nextDirectory: number
  /** By name. */
  readonly collections: readonly CollectionPlace[]
}

const namePattern = /^[a-z0-9][a-z0-9_-]{0,63}$/

/** Whether a text can name a collection. Such names are safe wherever they are shown; they never reach the file system. */
export function isCollectionName(value: unknown): value is string {
  return typeof value === 'string' && namePattern.test(value)
}

/** How the root manifest is written and checked. */
export const rootFormat: BodyFormat<RootBody> = { kind: 'root', encode: (body) => body, decode: decodeRootBody }

function decodeRootBody(value: unknown, file: string): RootBody {
  const read = new BodyReader(file)
  const body = read.record(value, 'the body')
  const names = new Set<string>()
  const directories = new Set<number>()
  const nextDirectory = read.whole(body.nextDirectory, 'nextDirectory', 1)
  const collections = read.list(body.collections, 'collections').map((value, index) => {
    const place = `collections[${index}]`
    const entry = read.record(value, place)
    const name = read.text(entry.name, `${place}.name`)
    const directory = read.whole(entry.directory, `${place}.directory`, 1, nextDirectory - 1)
    if (!isCollectionName(name) || names.has(name) || directories.has(directory)) throw read.bad(place)
    names.add(name)
    directories.add(directory)
    return { name, directory }
  })
  return { nextDirectory, collections }
}
