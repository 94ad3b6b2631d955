import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { bundleForChild } from '../support/bundle.ts'
import { seed } from '../support/seed.ts'

type Done = { readonly done: number; readonly of?: number; readonly refused?: number; readonly equal?: number }

/** In a process of its own, since measured coverage makes this several times slower. */
async function run(what: string, count: number): Promise<Done> {
  const bundle = await bundleForChild(new URL('./volume-child.ts', import.meta.url))
  const { stdout } = await promisify(execFile)(process.execPath, [bundle, what, String(count), String(seed)])
  return JSON.parse(stdout) as Done
}

test('twenty thousand commands do to a database what they do to a map', { timeout: 600_000 }, async () => {
  const { done } = await run('models', 20_000)
  console.log(`model: ${done} commands in a process of its own (ISOVEC_SEED=${seed})`)
  expect(done).toBeGreaterThanOrEqual(20_000)
})

test('twenty thousand bits of a database are refused when they are flipped, or cost nothing', {
  timeout: 600_000,
}, async () => {
  const { done, of, refused, equal } = await run('bits', 20_000)
  console.log(`bits: ${done} of ${of} flipped, ${refused} refused, ${equal} with nothing lost (ISOVEC_SEED=${seed})`)
  expect(done).toBeGreaterThanOrEqual(20_000)
  expect(refused).toBeGreaterThan(0)
  expect(equal).toBeGreaterThan(0)
})
