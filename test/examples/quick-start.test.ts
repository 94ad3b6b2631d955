import { execFile } from 'node:child_process'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterEach, beforeEach, expect, it } from 'vitest'

const quickStart = fileURLToPath(new URL('../../docs/examples/quick-start.js', import.meta.url))
const readme = fileURLToPath(new URL('../../README.md', import.meta.url))

let folder = ''
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'isovec-quick-start-'))
})
afterEach(async () => {
  await rm(folder, { recursive: true, force: true })
})

it('prints the nearest two, from an empty folder and again from the one it left', async () => {
  for (const _ of ['first', 'second']) {
    const { stdout, stderr } = await promisify(execFile)(process.execPath, [quickStart], { cwd: folder })
    expect(stderr).toBe('')
    expect(stdout).toBe('red 0.995 { warm: true }\norange 0.934 { warm: true }\n')
    expect(await readdir(folder)).toEqual(['my-data'])
  }
})

it('is the first snippet of the readme', async () => {
  const [, snippet] = /^```(?:js|ts|javascript|typescript)\n([\s\S]*?)^```$/m.exec(await readFile(readme, 'utf8')) ?? []
  expect(snippet).toBe(await readFile(quickStart, 'utf8'))
})
