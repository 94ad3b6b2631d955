/** What a database may be called where it lies under a name instead of a path, and names that nobody else has. */

import { IsovecError } from '../errors.ts'

const lengthMax = 128
const characters = /^[\p{L}\p{N}_ -][\p{L}\p{M}\p{N}_. -]*$/u

/**
 * Refuses what is no name of a database in a browser. Allowed are 1 to 128 letters and digits of any script, `_`, `.`, `-` and spaces,
 * normalised (NFC), not beginning with a dot and not ending with a dot or a space. So no name is a path.
 *
 * @throws `INVALID_ARGUMENT` with field `location`
 */
export function checkDatabaseName(name: string): void {
  const problem = problemOf(name)
  if (problem === undefined) return
  throw new IsovecError('INVALID_ARGUMENT', `not a name for a database: ${JSON.stringify(name)} ${problem}`, {
    field: 'location',
  })
}

function problemOf(name: unknown): string | undefined {
  if (typeof name !== 'string') return 'is no text'
  if (name === '') return 'is empty'
  if ([...name].length > lengthMax) return `is longer than ${lengthMax} characters`
  if (/[/\\]/.test(name)) return 'looks like a path: databases in a browser have names, without folders'
  if (name.startsWith('.')) return 'begins with a dot'
  if (/[. ]$/.test(name)) return 'ends with a dot or a space'
  if (!characters.test(name)) return 'holds other characters than letters, digits, "_", ".", "-" and spaces'
  if (name.normalize('NFC') !== name) return 'is not in normal form C'
  return undefined
}

/** A name that nobody else has. Unlike `crypto.randomUUID` it is there on pages without https too. */
export function randomName(): string {
  return [...crypto.getRandomValues(new Uint32Array(4))].map((word) => word.toString(36)).join('-')
}
