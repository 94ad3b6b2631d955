/**
 * A writer that makes, renames and drops collections and writes to all of them until it is killed: `<path> <seed> <target> <names>
 * <number>`, the names as JSON of what each collection's number is, and the first number for new ones. It tells each step before it asks
 * for it and once it was acknowledged, and what kind of change is under way. The first phase after some work is the target.
 */
import { writeSync } from 'node:fs'
import type { Collection } from '../../src/api.ts'
import { seededChoice } from '../../src/directory/crash-image.ts'
import { nodeBackend } from '../../src/directory/node.ts'
import { isIsovecError, openDatabase } from '../../src/index.ts'
import { onFailure } from '../support/events.ts'
import { digestOf, type Names, textOf } from '../support/history.ts'
import { readContents } from '../support/recovered.ts'
import type { PhaseReport } from './killer.ts'
import { changedNames, chooseChange, type NamePhase, type NameReport, type NameStep, phaseOf } from './names.ts'

const [, , path, seed, target, given, first] = process.argv
const choose = seededChoice(Number(seed))
const dimension = 8
const idCount = 60

type Place = { readonly collection: Collection; contents: Map<string, string>; isLeaving: boolean }

let names: Names = new Map(Object.entries(JSON.parse(given!) as { [name: string]: number }))
const places = new Map<number, Place>()
let nextNumber = Number(first)
let issuedCount = 0

/** Synchronous, so that the line is out before anything else happens. */
function say(report: PhaseReport<NamePhase> | NameReport): void {
  writeSync(1, `${JSON.stringify(report)}\n`)
}

async function during<T>(phase: NamePhase, run: () => Promise<T>): Promise<T> {
  say({ phase })
  const began = performance.now()
  const result = await run()
  say({ done: phase, ms: performance.now() - began })
  return result
}

/** Tells a step and asks for it, in one turn. */
async function ask<T>(issued: NameStep, call: () => Promise<T>): Promise<T> {
  const number = issuedCount++
  say({ issued })
  const result = await call()
  say({ acknowledged: number })
  return result
}

const database = await during('recovery', async () => {
  // Whoever was killed while the lock was being taken may have left the helper that takes it, for a few milliseconds.
  const opened = await openDatabase(nodeBackend(path!), {
    lockTimeout: 10_000,
    onEvent: onFailure((error) => say({ failure: String(error) })),
  })
  const found: { [name: string]: string } = {}
  for (const name of await opened.listCollections()) {
    const collection = await opened.openCollection(name)
    const contents = await readContents(collection)
    found[name] = digestOf(contents)
    const number = names.get(name)
    if (number !== undefined) places.set(number, { collection, contents, isLeaving: false })
  }
  say({ found })
  return opened
})

/** One batch of upserts and deletes to one of the collections, if there are any. */
async function write(): Promise<void> {
  const all = [...places]
  if (all.length === 0) return
  const [number, place] = all[choose(all.length)]!
  const contents = new Map(place.contents)
  const upserts = Array.from({ length: 1 + choose(8) }, () => {
    const vector = Array.from({ length: dimension }, () => choose(1 << 20) / 1024 - 512 + 1 / 3)
    return { id: `d${choose(idCount)}`, vector, payload: { n: choose(1 << 30) } }
  })
  // What the batch brings stays, so that there is always something to be kept.
  for (const { id } of upserts) contents.delete(id)
  const gone = choose(3) === 0 ? [...contents.keys()].slice(0, 1 + choose(3)) : []
  for (const id of gone) contents.delete(id)
  for (const { id, vector, payload } of upserts) contents.set(id, textOf(vector, payload))
  place.contents = contents
  const operations = [...upserts.map((upsert) => ({ upsert })), ...gone.map((id) => ({ delete: id }))]
  const durability = choose(3) === 0 ? 'buffered' : 'strict'
  try {
    await ask({ write: number, digest: digestOf(contents) }, () => place.collection.write(operations, { durability }))
    if (choose(40) === 0) await place.collection.flush()
  } catch (error) {
    // Whatever goes takes what had not reached it along.
    if (!place.isLeaving || !isIsovecError(error) || error.code !== 'CLOSED') throw error
    places.delete(number)
  }
}

/**
 * A change of the names, of a kind if that can be. What goes can be written to until it is acknowledged that it is gone.
 * @returns of which kind it was
 */
async function change(kind?: NamePhase): Promise<NamePhase> {
  const step = chooseChange(names, kind, nextNumber, choose)
  const phase = phaseOf(step, names)
  const gone = 'create' in step ? undefined : names.get('drop' in step ? step.drop : step.to)
  const leaving = gone === undefined ? undefined : places.get(gone)
  if (leaving !== undefined) leaving.isLeaving = true
  names = changedNames(names, step)
  await during(phase, async () => {
    if ('drop' in step) await ask(step, () => database.dropCollection(step.drop))
    else if ('rename' in step) {
      const { rename, to, replace } = step
      await ask(step, () => database.renameCollection(rename, to, replace ? { replace } : {}))
    } else {
      nextNumber++
      const options = { dimension, durability: choose(2) === 0 ? 'buffered' : 'strict' } as const
      const collection = await ask(step, () => database.createCollection(step.create, options))
      // It may have to go already by a change that was asked for with it.
      const isWanted = [...names.values()].includes(step.number)
      if (isWanted) places.set(step.number, { collection, contents: new Map(), isLeaving: false })
    }
  })
  if (gone !== undefined) places.delete(gone)
  return phase
}

/** One change, or two that are asked for in the same turn. */
async function changes(kind?: NamePhase): Promise<NamePhase> {
  const ahead = choose(3) === 0 ? [change()] : []
  const [phase] = await Promise.all([change(kind), ...ahead])
  return phase
}

async function writeForever(): Promise<never> {
  for (;;) {
    await Promise.all(Array.from({ length: 1 + choose(3) }, write))
    // Without a collection nothing waits for the disk.
    if (places.size === 0) await new Promise((resolve) => setTimeout(resolve, 1))
  }
}

async function changeForever(wanted: NamePhase): Promise<never> {
  for (let left = 1 + choose(6); left > 0; left--) await changes()
  // A change of some kind may need more collections than there are, or fewer; others are made until it can be.
  if (wanted !== 'recovery' && wanted !== 'write') while ((await changes(wanted)) !== wanted);
  for (;;) {
    await during('write', () => new Promise((resolve) => setTimeout(resolve, 1 + choose(20))))
    for (let left = choose(3); left > 0; left--) await changes()
  }
}

await Promise.all([writeForever(), changeForever(target as NamePhase)])
