import * as fc from 'fast-check'
import { afterAll, describe, expect, test } from 'vitest'
import { faultyBackend } from '../../src/directory/faulty.ts'
import type { Collection, Database } from '../../src/index.ts'
import { openDatabase } from '../../src/index.ts'
import { textOf } from '../support/history.ts'
import { runs } from '../support/property.ts'
import { readContents } from '../support/recovered.ts'

// Calls that are under way at the same time, with every call to the disk completed in an order that the scheduler chooses.

let orders = 0
afterAll(() => console.log(`interleavings: ${orders} orders of calls`))

type Call =
  | { readonly do: 'upsert' | 'delete' | 'patch'; readonly id: number }
  | { readonly do: 'deleteWhere'; readonly below: number }
  | { readonly do: 'flush' | 'compact' | 'buildIndex' | 'search' | 'iterate' | 'count' | 'sync' | 'snapshot' }

const call: fc.Arbitrary<Call> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ do: fc.constantFrom('upsert', 'delete', 'patch'), id: fc.nat(5) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('deleteWhere' as const), below: fc.nat(9) }) },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constantFrom('flush', 'compact', 'buildIndex', 'search', 'iterate', 'count', 'sync', 'snapshot'),
    }),
  },
) as fc.Arbitrary<Call>

type Payload = { n: number }
type Model = Map<string, { vector: number[]; payload: Payload }>

/** Makes calls one after the other without waiting, and checks each answer against what the model was at the call. */
class Session {
  readonly model: Model = new Map()
  readonly #docs: Collection<Payload>
  readonly #db: Database
  #value = 0

  constructor(db: Database, docs: Collection<Payload>) {
    this.#db = db
    this.#docs = docs
  }

  make(asked: Call): Promise<unknown> {
    const docs = this.#docs
    const before = new Map(this.model)
    switch (asked.do) {
      case 'upsert': {
        const n = ++this.#value
        const document = { vector: [n, asked.id], payload: { n: n % 10 } }
        this.model.set(`${asked.id}`, document)
        return docs.upsert({ id: `${asked.id}`, ...document })
      }
      case 'delete':
        this.model.delete(`${asked.id}`)
        return docs.delete(`${asked.id}`).then((count) => expect(count).toBe(Number(before.has(`${asked.id}`))))
      case 'patch': {
        const known = this.model.get(`${asked.id}`)
        const n = ++this.#value % 10
        if (known !== undefined) this.model.set(`${asked.id}`, { ...known, payload: { n } })
        return docs.patch(`${asked.id}`, { n }).then((found) => expect(found).toBe(known !== undefined))
      }
      case 'deleteWhere': {
        const gone = [...this.model].filter(([, { payload }]) => payload.n < asked.below)
        for (const [id] of gone) this.model.delete(id)
        return docs.deleteWhere({ n: { $lt: asked.below } }).then((count) => expect(count).toBe(gone.length))
      }
      case 'search':
        return docs.search({ vector: [0, 0], k: 10 }).then(({ hits }) => {
          expect(hits.map(({ id }) => id).sort()).toEqual([...before.keys()].sort())
          for (const { id, payload } of hits) expect(payload).toEqual(before.get(id)!.payload)
        })
      case 'count':
        return docs
          .count({ n: { $gte: 5 } })
          .then((count) => expect(count).toBe([...before.values()].filter(({ payload }) => payload.n >= 5).length))
      case 'iterate':
        return readContents(docs as Collection).then((found) => expect(found).toEqual(textsOf(before)))
      case 'snapshot':
        return this.#snapshot()
      default:
        return docs[asked.do]()
    }
  }

  async #snapshot(): Promise<void> {
    const place = faultyBackend()
    await this.#db.snapshot(place)
    const copy = await openDatabase(place)
    for (const [id, text] of await readContents(await copy.openCollection('docs'))) {
      expect(text).toMatch(/ \{"n":\d\}$/)
      expect(Number(id)).toBeLessThan(6)
    }
    await copy.close()
  }
}

function textsOf(model: Model): Map<string, string> {
  return new Map([...model].map(([id, { vector, payload }]) => [id, textOf(vector, payload)]))
}

async function play(scheduler: fc.Scheduler, calls: readonly Call[], isClosedEarly: boolean): Promise<void> {
  orders++
  const backend = faultyBackend({ beforeCall: ({ kind }) => scheduler.schedule(Promise.resolve(), kind) })
  const work = async (): Promise<void> => {
    const db = await openDatabase(backend)
    const docs = await db.createCollection<Payload>('docs', {
      dimension: 2,
      metric: 'euclidean',
      hnsw: { M: 4, efConstruction: 8 },
    })
    const session = new Session(db, docs)
    const made = calls.map((each) => session.make(each))
    if (isClosedEarly) {
      const closing = db.close()
      // What was asked for before the close is done or refused, and nothing is left hanging.
      for (const outcome of await Promise.allSettled(made)) {
        if (outcome.status === 'rejected') expect(outcome.reason).toMatchObject({ code: 'CLOSED' })
      }
      await closing
    } else {
      await Promise.all(made)
      expect(await readContents(docs as Collection)).toEqual(textsOf(session.model))
      await db.close()
    }
    const again = await openDatabase(backend)
    const found = await readContents(await again.openCollection('docs'))
    if (!isClosedEarly) expect(found).toEqual(textsOf(session.model))
    expect(await again.verify({ full: true })).toMatchObject({ ok: true })
    await again.close()
  }
  let isDone = false
  const done = work().finally(() => {
    isDone = true
  })
  // Whatever waits next, until nothing does: timers and turns of the event loop come in between.
  while (!isDone) {
    if (scheduler.count() > 0) await scheduler.waitOne()
    else await new Promise((resolve) => setImmediate(resolve))
  }
  await done
}

describe('whatever order the disk answers in', () => {
  test('calls take effect in the order in which they are made', { timeout: 300_000 }, async () => {
    await fc.assert(
      fc.asyncProperty(fc.scheduler(), fc.array(call, { minLength: 3, maxLength: 20 }), (scheduler, calls) =>
        play(scheduler, calls, false),
      ),
      runs(300),
    )
  })

  test('closing ends everything', { timeout: 300_000 }, async () => {
    await fc.assert(
      fc.asyncProperty(fc.scheduler(), fc.array(call, { minLength: 3, maxLength: 12 }), (scheduler, calls) =>
        play(scheduler, calls, true),
      ),
      runs(150),
    )
  })
})
