import type { StoreImage } from '../../src/directory/memory.ts'

/** A file of a store; of the root if it lies in no directory. */
export type StoredFile = { directory: number | undefined; name: string; bytes: Uint8Array }

/** All files whose bytes mean something: those of the reserve don't. */
export function filesOf(image: StoreImage): StoredFile[] {
  const files: StoredFile[] = []
  const add = (directory: number | undefined, named: ReadonlyMap<string, Uint8Array>): void => {
    for (const [name, bytes] of named) if (!name.endsWith('.reserve')) files.push({ directory, name, bytes })
  }
  add(undefined, image.root!)
  for (const [number, named] of image.directories) add(number, named)
  return files
}

/** The image with other bytes for a file; undefined removes it. */
export function changed(
  image: StoreImage,
  directory: number | undefined,
  name: string,
  bytes: Uint8Array | undefined,
): StoreImage {
  const change = (files: ReadonlyMap<string, Uint8Array>): Map<string, Uint8Array> => {
    const copy = new Map(files)
    if (bytes === undefined) copy.delete(name)
    else copy.set(name, bytes)
    return copy
  }
  if (directory === undefined) return { root: change(image.root!), directories: image.directories }
  return {
    root: image.root,
    directories: new Map(image.directories).set(directory, change(image.directories.get(directory)!)),
  }
}

export function flipped(bytes: Uint8Array, bit: number): Uint8Array {
  const copy = bytes.slice()
  copy[bit >> 3]! ^= 1 << (bit & 7)
  return copy
}

/** The files of one kind in a collection's directory, newest last. */
export function ofKind(image: StoreImage, kind: string, directory = 1): StoredFile[] {
  return filesOf(image)
    .filter((file) => file.directory === directory && file.name.endsWith(`.${kind}`))
    .sort((a, b) => Number.parseInt(a.name, 10) - Number.parseInt(b.name, 10))
}

/** The sections of a segment or graph that are not empty. */
export function sectionsOf(bytes: Uint8Array): { id: number; offset: number; length: number }[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset)
  return Array.from({ length: view.getUint32(4072, true) }, (_, i) => ({
    id: view.getUint32(128 + 32 * i, true),
    offset: Number(view.getBigUint64(136 + 32 * i, true)),
    length: Number(view.getBigUint64(144 + 32 * i, true)),
  })).filter(({ length }) => length > 0)
}
