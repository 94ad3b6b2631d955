/**
 * A writer that fills the disk under the database at argv[2] and then deletes, until it is killed. One line of JSON before each write
 * (`issued`: what it will leave, an id and a number or null for each document) and one after (`acknowledged`, or `refused`).
 */
import { writeSync } from 'node:fs'
import { nodeBackend } from '../../src/directory/node.ts'
import { isIsovecError, openDatabase } from '../../src/index.ts'
import { collectionOptions, documentOf } from './full.ts'

export type Message =
  | { issued: [id: string, value: number | null][] }
  | { acknowledged: true }
  | { refused: string; outcome: string | undefined }
  | { full: true }

/** Synchronous, so that the line is out before anything else happens. */
function say(message: Message): void {
  writeSync(1, `${JSON.stringify(message)}\n`)
}

async function attempt(issued: [string, number | null][], write: () => Promise<unknown>): Promise<boolean> {
  say({ issued })
  try {
    await write()
  } catch (error) {
    if (!isIsovecError(error)) throw error
    say({ refused: error.code, outcome: error.outcome })
    return false
  }
  say({ acknowledged: true })
  return true
}

const database = await openDatabase(nodeBackend(process.argv[2]!))
const collection = await database.createCollection('c', collectionOptions)
const ids: string[] = []
for (let size = 128, batch = 0; size > 0; batch++) {
  const docs = Array.from({ length: size }, (_, i) => documentOf(`${batch}-${i}`, batch))
  const issued = docs.map(({ id }): [string, number] => [id, batch])
  if (await attempt(issued, () => collection.upsert(docs))) ids.push(...docs.map(({ id }) => id))
  else size >>= 1
}
say({ full: true })
for (let from = 0; from < ids.length; from += 3) {
  const some = ids.slice(from, from + 3)
  await attempt(
    some.map((id) => [id, null]),
    () => collection.delete(some),
  )
  // Between deletes an upsert, which has to be refused or to be kept.
  const again = documentOf(`again-${from}`, from)
  await attempt([[again.id, from]], () => collection.upsert(again))
}
