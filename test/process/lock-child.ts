/**
 * A writer that opens the database at argv[2] as it is told, one command per line of its standard input, and reports each outcome as a
 * line of JSON. It ends when its input does.
 *
 * `open <time>` asks for the database at that moment; it is kept until `close`. `turns <time> <count>` waits for it, adds a document and
 * closes it, so many times, and looks for anyone else inside. `write` adds documents, one after the other, from then on.
 */
import { closeSync, openSync, unlinkSync, writeSync } from 'node:fs'
import { createInterface } from 'node:readline'
import type { Collection, Database } from '../../src/api.ts'
import { nodeBackend } from '../../src/directory/node.ts'
import { isIsovecError, openDatabase } from '../../src/index.ts'

const path = process.argv[2]!
let database: Database | undefined
let count = 0

/** Synchronous, so that a report is out before anything else happens. */
function say(message: object): void {
  writeSync(1, `${JSON.stringify(message)}\n`)
}

/** Waits without giving up the processor at the end, so that processes that were told the same moment begin together. */
async function until(time: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, time - Date.now() - 10))
  while (Date.now() < time);
}

async function open(lockTimeout: number): Promise<Collection> {
  database = await openDatabase(nodeBackend(path), { lockTimeout })
  return database.createCollection('c', { dimension: 4, ifExists: 'open' })
}

async function add(collection: Collection): Promise<void> {
  const id = `${process.pid}-${count}`
  await collection.upsert({ id, vector: [1, 2, 3, 4] })
  count++
}

async function takeTurns(turns: number): Promise<void> {
  const marker = `${path}-inside`
  let met = 0
  for (let i = 0; i < turns; i++) {
    const collection = await open(60_000)
    try {
      closeSync(openSync(marker, 'wx'))
      await add(collection)
      unlinkSync(marker)
    } catch (error) {
      if ((error as { code?: string }).code !== 'EEXIST') throw error
      met++
    }
    await database!.close()
  }
  say({ turns, met })
}

say({ ready: true })
for await (const line of createInterface({ input: process.stdin })) {
  const [command, time, turns] = line.split(' ')
  if (command === 'open') {
    await until(Number(time))
    try {
      database = await openDatabase(nodeBackend(path))
      say({ open: true })
    } catch (error) {
      if (!isIsovecError(error)) throw error
      say({ code: error.code, pid: error.pid })
    }
  } else if (command === 'close') {
    await database!.close()
    say({ closed: true })
  } else if (command === 'turns') {
    await until(Number(time))
    await takeTurns(Number(turns))
  } else if (command === 'write') {
    const collection = await open(0)
    for (;;) {
      await add(collection)
      say({ written: count })
    }
  }
}
