import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'
import { loadKernel } from '../../src/kernel/index.ts'
import { fetchedRuntimes, fetchingTimeout } from '../runtimes/runtimes.ts'
import { fingerprint } from './fingerprint.ts'
import { kernelOf } from './support.ts'

const run = promisify(execFile)
const at = (path: string): string => fileURLToPath(new URL(path, import.meta.url))

/** A Node with relaxed SIMD: this one, or the one that the tests fetch. */
async function relaxedNode(): Promise<string> {
  if (WebAssembly.validate(readFileSync(at('../../build/kernel.relaxed.wasm')))) return process.execPath
  return (await fetchedRuntimes()).node.command
}

describe('the two builds', () => {
  it('give the same bytes for everything', { timeout: fetchingTimeout }, async () => {
    const simd = fingerprint(await kernelOf('simd'))
    expect(fingerprint(await kernelOf('debug'))).toBe(simd)
    const { stdout } = await run(await relaxedNode(), [at('./fingerprint.ts'), 'relaxed'], { maxBuffer: 1 << 24 })
    const [variant, ...relaxed] = stdout.trimEnd().split('\n')
    expect(variant).toBe('relaxed-simd')
    expect(relaxed.join('\n')).toBe(simd)
  })

  it('are picked by what the platform can do', async () => {
    const canRelax = WebAssembly.validate(readFileSync(at('../../build/kernel.relaxed.wasm')))
    expect((await loadKernel()).variant).toBe(canRelax ? 'relaxed-simd' : 'simd128')
    expect((await kernelOf('simd')).variant).toBe('simd128')
  })
})
