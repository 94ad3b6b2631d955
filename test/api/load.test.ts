import { expect, test } from 'vitest'
import type { IsovecError } from '../../src/index.ts'
import { newCollection } from '../support/store.ts'

test('writes that nobody awaits are refused before they fill the memory, and the others are stored', async () => {
  const { collection } = await newCollection({ dimension: 65_536, metric: 'dot', index: 'manual' })
  const vector = new Float32Array(65_536).fill(1)
  const outcomes: Promise<string>[] = []
  for (let n = 0; n < 1400; n++) {
    const stored = collection.upsert({ id: `d${n}`, vector }, { durability: 'buffered' })
    outcomes.push(
      stored.then(
        () => 'stored',
        ({ code, outcome }: IsovecError) => `${code} ${outcome}`,
      ),
    )
  }
  const settled = await Promise.all(outcomes)
  const stored = settled.filter((each) => each === 'stored').length
  expect(new Set(settled)).toEqual(new Set(['stored', 'OUT_OF_MEMORY none']))
  // All of them were asked for in one turn, in which nothing was written.
  expect(stored * vector.byteLength).toBeLessThanOrEqual(256 * 1024 * 1024)
  expect(stored).toBeGreaterThan(1000)
  expect(await collection.count()).toBe(stored)
  await collection.upsert({ id: 'later', vector })
}, 120_000)

test('patches that nobody awaits are counted by what they hold', async () => {
  const { collection } = await newCollection({ dimension: 1, metric: 'dot', index: 'manual' })
  await collection.upsert({ id: 'a', vector: [1] })
  const text = 'x'.repeat(900_000)
  const outcomes = Array.from({ length: 400 }, () =>
    collection.patch('a', { text }).then(
      () => 'stored',
      ({ code }: IsovecError) => code,
    ),
  )
  const settled = await Promise.all(outcomes)
  const stored = settled.filter((each) => each === 'stored').length
  expect(new Set(settled)).toEqual(new Set(['stored', 'OUT_OF_MEMORY']))
  expect(stored * text.length).toBeLessThanOrEqual(256 * 1024 * 1024)
}, 120_000)
