import { expect, test } from 'vitest'
import { loadKernel } from '../../src/kernel/index.ts'

/** Named by whoever has another runtime run test files. */
const wanted = process.env.ISOVEC_RUNTIME ?? 'node'

test('tests run in the runtime that is wanted', async () => {
  const name = process.versions.deno !== undefined ? 'deno' : process.versions.bun !== undefined ? 'bun' : 'node'
  expect(name).toBe(wanted)
  // What Node 20 has not, Deno and Bun have.
  if (wanted !== 'node') expect((await loadKernel()).variant).toBe('relaxed-simd')
})
