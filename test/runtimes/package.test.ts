import { cp, mkdir, mkdtemp, realpath, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { packInto } from '../support/pack.ts'
import { allRuntimes, fetchingTimeout, type Runtime, type RuntimeName, runIn } from './runtimes.ts'

let runtimes: Record<RuntimeName, Runtime>
/** A project that depends on the package. */
let project: string

beforeAll(async () => {
  runtimes = await allRuntimes()
  // Deno compares what it may read with where that really is.
  project = await realpath(await mkdtemp(join(tmpdir(), 'isovec-package-')))
  await packInto(join(project, 'node_modules/isovec'), join(project, 'source'))
  await writeFile(join(project, 'package.json'), JSON.stringify({ type: 'module', dependencies: { isovec: '*' } }))
  await cp(new URL('./package-program.js', import.meta.url), join(project, 'program.js'))
}, fetchingTimeout)

afterAll(() => rm(project, { recursive: true }))

type Use = {
  aborted: unknown
  answers: { exact: unknown[]; approximate: unknown[]; filtered: { payload: { group: number } }[]; plans: string[] }[]
  docs: number
  lock: string
  backend: string
  isSame: boolean
  ok: boolean
  count: number
  left: number
}
type Output = { onDisk: Use; inMemory: Use; cases: number }

async function outputOf(name: RuntimeName, flags?: readonly string[]): Promise<Output> {
  const folder = join(project, `${name}-data`)
  await rm(folder, { recursive: true, force: true })
  await mkdir(folder)
  const { stdout } = await runIn(runtimes[name], ['program.js', folder], { cwd: project, ...(flags && { flags }) })
  return JSON.parse(stdout) as Output
}

describe('the package from npm', () => {
  let inNode: Output

  test('works in Node, on disk and in memory, and both backends keep their promises', async () => {
    inNode = await outputOf('node')
    expect(inNode.cases).toBeGreaterThan(20)
    for (const use of [inNode.onDisk, inNode.inMemory]) {
      expect(use).toMatchObject({ docs: 1499, count: 1499, left: 1497, ok: true, isSame: true })
      expect(use.aborted).toEqual(['ABORTED', 'enough'])
      for (const { exact, approximate, filtered, plans } of use.answers) {
        expect([exact.length, approximate.length, filtered.length]).toEqual([5, 5, 5])
        expect(plans).toEqual(['scan', 'graph'])
        expect(filtered.every(({ payload }) => payload.group === 3)).toBe(true)
      }
    }
    expect(inNode.inMemory.answers).toEqual(inNode.onDisk.answers)
    expect(inNode.onDisk).toMatchObject({ backend: 'node', lock: expect.stringMatching(/^flock$|^open-exclusive$/) })
  }, 120_000)

  test('does the same in Deno, which need only let it read and write the folder', async () => {
    const folder = join(project, 'deno-data')
    const flags = ['run', '--no-prompt', `--allow-read=${folder}`, `--allow-write=${folder}`]
    expect(await outputOf('deno', flags)).toEqual(inNode)
  }, 120_000)

  test('says what Deno does not allow', async () => {
    const failing = outputOf('deno', ['run', '--no-prompt', `--allow-read=${join(project, 'deno-data')}`])
    await expect(failing).rejects.toThrow('--allow-write')
  })

  test('does the same in Bun', async () => {
    expect(await outputOf('bun')).toEqual(inNode)
  }, 120_000)
})
