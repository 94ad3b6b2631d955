/**
 * Names on disk: a number from one counter per directory, and the kind of file.
 */

/** The kinds of file that a directory of the database holds. */
export type FileKind = 'manifest' | 'wal' | 'seg' | 'graph' | 'del' | 'patch' | 'reserve'

const pattern = /^([1-9][0-9]{0,15})\.(manifest|wal|seg|graph|del|patch|reserve)$/

/** The name of a file, e.g. `17.seg`. */
export function fileName(number: number, kind: FileKind): string {
  return `${number}.${kind}`
}

/** Numbers of the files of a kind among names, in their order. */
export function numbersOf(names: readonly string[], kind: FileKind): number[] {
  const numbers: number[] = []
  for (const name of names) {
    const file = parseFileName(name)
    if (file?.kind === kind) numbers.push(file.number)
  }
  return numbers
}

/** Number and kind of a file, or undefined for a name that is not one of isovec's. */
export function parseFileName(name: string): { number: number; kind: FileKind } | undefined {
  const match = pattern.exec(name)
  if (match === null) return undefined
  const number = Number(match[1])
  return Number.isSafeInteger(number) ? { number, kind: match[2] as FileKind } : undefined
}
