import { describe, expect, it, onTestFinished } from 'vitest'
import { faultyBackend } from '../../src/directory/faulty.ts'
import { memoryBackend } from '../../src/directory/memory.ts'
import { type Collection, type CollectionOptions, IsovecError, openDatabase } from '../../src/index.ts'
import { expectFailure } from '../support/failure.ts'
import { gate, type HookedCall, hookedBackend } from '../support/hooked-backend.ts'

type Payload = { n?: number; text?: string }

const options: CollectionOptions = { dimension: 2, metric: 'euclidean', compaction: 'manual', index: 'manual' }

function doc(id: string, payload: Payload = { n: 1 }) {
  return { id, vector: [1, 2], payload }
}

type Held = {
  readonly docs: Collection<Payload>
  /** Makes the next call of a kind to a log wait until `open()`, or fail. */
  hold(kind: HookedCall['kind'], failure?: IsovecError): { readonly reached: Promise<void>; open(): void }
}

/** A collection whose log can be made to wait. It was opened anew, so that the first write begins a log. */
async function held(): Promise<Held> {
  let stop: ((call: HookedCall) => Promise<void>) | undefined
  const backend = hookedBackend(memoryBackend(), async (call, run) => {
    await stop?.(call)
    return run()
  })
  const first = await openDatabase(backend)
  await (await first.createCollection<Payload>('c', options)).upsert([doc('a'), doc('b')])
  await first.close()
  const database = await openDatabase(backend)
  onTestFinished(() => database.close().catch(() => {}))
  return {
    docs: await database.openCollection<Payload>('c'),
    hold(kind, failure) {
      const [reached, opened] = [gate(), gate()]
      onTestFinished(() => opened.open())
      stop = async (call) => {
        if (call.kind !== kind || !call.name.endsWith('.wal')) return
        stop = undefined
        reached.open()
        await opened.opened
        if (failure !== undefined) throw failure
      }
      return { reached: reached.opened, open: opened.open }
    },
  }
}

describe('writes that come to nothing', () => {
  it('are acknowledged after those that were asked for before, and before those that were asked for later', async () => {
    const { docs, hold } = await held()
    await docs.upsert(doc('c'))
    const sync = hold('sync')
    const told: string[] = []
    const tell =
      (what: string) =>
      (result: unknown): void => {
        told.push(`${what} ${String(result)}`)
      }
    const writes = [
      docs.upsert(doc('d')).then(tell('upsert')),
      docs.patch('nobody', { n: 2 }).then(tell('patch')),
      docs.patch('a', { text: 'x'.repeat(2 ** 20 - 14) }).then(tell('large'), ({ code }) => tell('large')(code)),
      docs.delete(['c', 'd']).then(tell('delete')),
      docs.patch('c', { n: 2 }).then(tell('patch')),
      docs.write([]).then(tell('write')),
      docs.upsert(doc('e')).then(tell('upsert')),
      docs.deleteWhere({ n: 7 }).then(tell('deleteWhere')),
      docs.upsert(doc('f')).then(tell('upsert')),
    ]
    await sync.reached
    await new Promise((resolve) => setTimeout(resolve, 10))
    expect(told).toEqual([])
    sync.open()
    await Promise.all(writes)
    const expected = ['upsert undefined', 'patch false', 'large INVALID_ARGUMENT', 'delete 2', 'patch false']
    expect(told).toEqual([...expected, 'write undefined', 'upsert undefined', 'deleteWhere 0', 'upsert undefined'])
  })

  it('fail with those that they hang on', async () => {
    for (const [failing, outcome] of [
      ['append', 'unknown'],
      ['sync', 'unknown'],
    ] as const) {
      const { docs, hold } = await held()
      await docs.upsert(doc('c'))
      const step = hold(failing, new IsovecError('IO', 'it fails, as it was told to'))
      const deleting = docs.delete('a')
      const patching = docs.patch('a', { n: 2 })
      step.open()
      await expectFailure(deleting, 'IO', { outcome })
      await expectFailure(patching, 'IO', { outcome })
      expect(await docs.has('a')).toBe(true)
    }
  })

  it.each([
    ['a patch', (docs: Collection<Payload>) => docs.patch('a', { n: 2 }, { durability: 'strict' }), false],
    ['a deleteWhere', (docs: Collection<Payload>) => docs.deleteWhere({ n: 1 }, { durability: 'strict' }), 0],
  ] as const)(
    'under strict: %s tells only of what survives, and syncs nothing where that is so',
    async (_, ask, answer) => {
      const backend = faultyBackend()
      const database = await openDatabase(backend)
      onTestFinished(() => database.close())
      const docs = await database.createCollection<Payload>('c', options)
      await docs.upsert(doc('a'))
      await docs.delete('a', { durability: 'buffered' })
      const syncs = () => backend.changes.filter(({ kind }) => kind === 'sync').length
      const before = syncs()
      expect(await ask(docs)).toBe(answer)
      const image = backend.crashImage({ kind: 'power', choose: () => 0 })
      expect(syncs()).toBe(before + 1)
      expect(await ask(docs)).toBe(answer)
      expect(await docs.patch('nobody', {}, { durability: 'buffered' })).toBe(false)
      expect(syncs()).toBe(before + 1)
      const again = await openDatabase(memoryBackend(image))
      expect(await (await again.openCollection('c')).has('a')).toBe(false)
      await again.close()
    },
  )
})

describe('a write that is aborted while those with it are made ready', () => {
  it('is told to be under way, and what hangs on it comes to what it says', async () => {
    const { docs, hold } = await held()
    const creating = hold('create')
    const abort = new AbortController()
    const upsert = docs.upsert(doc('new', { n: 5 }), { signal: abort.signal })
    const patch = docs.patch('new', { text: 'more' })
    await creating.reached
    abort.abort('no')
    await expectFailure(upsert, 'ABORTED', { outcome: 'unknown', cause: 'no' })
    creating.open()
    expect(await patch).toBe(true)
    expect((await docs.get('new'))?.payload).toEqual({ n: 5, text: 'more' })
  })

  it('is told not to have happened where nothing can hang on it', async () => {
    const { docs } = await held()
    const abort = new AbortController()
    await docs.upsert(Array.from({ length: 3000 }, (_, n) => doc(`x${n}`, { n: 9 })))
    const deleting = docs.deleteWhere({ n: 9 }, { signal: abort.signal })
    await Promise.resolve()
    abort.abort('no')
    await expectFailure(deleting, 'ABORTED', { outcome: 'none', cause: 'no' })
    expect(await docs.count({ n: 9 })).toBe(3000)
  })
})
