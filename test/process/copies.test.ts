import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { expect, onTestFinished, test } from 'vitest'
import type { Database } from '../../src/index.ts'
import { bundleForChild } from '../support/bundle.ts'
import { temporaryFolder } from '../support/folder.ts'
import { readContents } from '../support/recovered.ts'

type Copy = typeof import('./package-copy.ts')

/** The package as two dependencies may each have brought it along. */
async function twoCopies(): Promise<[Copy, Copy]> {
  const entry = new URL('./package-copy.ts', import.meta.url)
  const load = async () => (await import(/* @vite-ignore */ pathToFileURL(await bundleForChild(entry)).href)) as Copy
  const [first, second] = [await load(), await load()]
  expect(first.openDatabase).not.toBe(second.openDatabase)
  expect(first.IsovecError).not.toBe(second.IsovecError)
  return [first, second]
}

async function opened(copy: Copy, path: string): Promise<Database> {
  const database = await copy.openDatabase(copy.nodeBackend(path))
  onTestFinished(() => database.close())
  return database
}

async function failureOf(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => expect.unreachable('it did not fail'),
    (error: unknown) => error,
  )
}

test('two copies of the package in one process share locks, errors and databases', async () => {
  const path = join(await temporaryFolder(), 'data')
  const [first, second] = await twoCopies()
  const database = await opened(first, path)
  const written = await database.createCollection('c', { dimension: 3 })
  await written.upsert([
    { id: 'a', vector: [1, 2, 3], payload: { n: 1 } },
    { id: 'b', vector: [3, 2, 1 / 3] },
  ])
  await written.flush()
  await written.patch('a', { m: 2 })
  await written.upsert({ id: 'c', vector: [0, 0, 1] })
  const contents = await readContents(written)
  expect([...contents.keys()].sort()).toEqual(['a', 'b', 'c'])

  const refusal = await failureOf(second.openDatabase(second.nodeBackend(path)))
  expect(refusal).toMatchObject({ name: 'IsovecError', code: 'LOCKED', pid: process.pid })
  for (const copy of [first, second]) expect(copy.isIsovecError(refusal)).toBe(true)
  expect(refusal).toBeInstanceOf(second.IsovecError)
  expect(refusal).not.toBeInstanceOf(first.IsovecError)
  for (const copy of [first, second]) expect(copy.isIsovecError(new Error('another'))).toBe(false)
  // Whoever waits gets it in its turn.
  const waiting = second.openDatabase(second.nodeBackend(path), { lockTimeout: 30_000 })
  await database.close()
  const next = await waiting
  onTestFinished(() => next.close())
  const read = await next.openCollection('c')
  expect(await readContents(read)).toEqual(contents)
  await read.delete('b')
  expect(await failureOf(first.openDatabase(first.nodeBackend(path)))).toMatchObject({
    code: 'LOCKED',
    pid: process.pid,
  })
  await next.close()

  const again = await opened(first, path)
  contents.delete('b')
  expect(await readContents(await again.openCollection('c'))).toEqual(contents)
  const { hits } = await (await again.openCollection('c')).search({ vector: [1, 2, 3], k: 1 })
  expect(hits[0]).toMatchObject({ id: 'a', payload: { n: 1, m: 2 } })
})
