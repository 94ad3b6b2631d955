import { expect, it, onTestFinished } from 'vitest'
import { faultyBackend } from '../../src/directory/faulty.ts'
import { memoryBackend } from '../../src/directory/memory.ts'
import { openDatabase } from '../../src/index.ts'
import { stepClock, TurnCount } from '../support/turns.ts'

const count = 4000

it('a log is read, replayed and restated in slices', async () => {
  const backend = faultyBackend()
  const database = await openDatabase(backend)
  const collection = await database.createCollection('c', { dimension: 4, durability: 'buffered', index: 'manual' })
  for (let i = 0; i < count; i++) void collection.upsert({ id: `${i}`, vector: [i, 1, 2, 3] })
  await collection.sync()
  const killed = backend.crashImage({ kind: 'process' })
  await database.close()

  stepClock()
  const again = await openDatabase(memoryBackend(killed))
  onTestFinished(() => again.close())
  const turns = new TurnCount()
  const reopened = await again.openCollection('c')
  // A look at the clock for each record, when it is read, decoded and applied; four or five make a slice.
  expect(turns.end()).toBeGreaterThan((3 * count) / 6)
  expect(await reopened.count()).toBe(count)
})
