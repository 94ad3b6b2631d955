import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { openDatabase } from '../../src/index.ts'
import { bundleForChild } from '../support/bundle.ts'
import { temporaryFolder } from '../support/folder.ts'
import { allRuntimes, fetchingTimeout, type Runtime, type RuntimeName, runIn } from './runtimes.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
let runtimes: Record<RuntimeName, Runtime>

beforeAll(async () => {
  runtimes = await allRuntimes()
}, fetchingTimeout)

/** Test files of this project that Deno and Bun run as they are. */
const common = [
  'test/runtimes/inside.test.ts',
  'test/directory/conformance.test.ts',
  'test/directory/node.test.ts',
  'test/kernel/checksum.test.ts',
  'test/storage/model.test.ts',
  'test/storage/golden.test.ts',
  'test/storage/format.test.ts',
]

/** Without what this run of the tests has put there for itself. */
function environmentOf(runtime: RuntimeName): NodeJS.ProcessEnv {
  const own = /^VITE|^NODE_ENV$|^NODE_OPTIONS$|^TEST$|^MODE$|^PROD$|^DEV$|^SSR$|^BASE_URL$/
  const rest = Object.entries(process.env).filter(([name]) => !own.test(name))
  return { ...Object.fromEntries(rest), NO_COLOR: '1', ISOVEC_RUNTIME: runtime }
}

describe('test files of this project', () => {
  test('pass in Deno, which runs vitest', async () => {
    // Those of the lock, too, with Deno in the place of each of their processes.
    const files = [...common, 'test/directory/lock.test.ts', 'test/directory/faulty.test.ts']
    const { stdout } = await runIn(runtimes.deno, ['node_modules/vitest/vitest.mjs', 'run', ...files], {
      cwd: root,
      env: environmentOf('deno'),
      timeout: 240_000,
    })
    expect(stdout).toMatch(new RegExp(`Test Files +${files.length} passed \\(${files.length}\\)`))
    console.log(`deno: ${/Tests +(.*)/.exec(stdout)?.[1]}`)
  }, 250_000)

  test('pass in the test runner of Bun, which stands in for vitest', async () => {
    const files = common.map((file) => `./${file}`)
    const { stderr } = await runIn(runtimes.bun, ['test', '--timeout', '120000', ...files], {
      cwd: root,
      env: environmentOf('bun'),
      timeout: 240_000,
    })
    expect(stderr).toMatch(/^ *0 fail$/m)
    expect(stderr).toMatch(new RegExp(`across ${files.length} files`))
    console.log(`bun: ${/\d+ pass/.exec(stderr)?.[0]}`)
  }, 250_000)
})

describe.each<RuntimeName>(['deno', 'bun'])('a process of %s', (name) => {
  test('ends by itself while background work is due, and nothing acknowledged is lost', async () => {
    const script = await bundleForChild(new URL('../support/idle-child.ts', import.meta.url))
    const folder = join(await temporaryFolder(), 'data')
    const { stdout, stderr } = await runIn(runtimes[name], [script, folder])
    expect(stderr).toBe('')
    expect(JSON.parse(stdout)).toMatchObject({ count: 8001 })
    const database = await openDatabase(folder)
    onTestFinished(() => database.close())
    expect(await (await database.openCollection('c')).count()).toBe(8001)
  }, 130_000)

  test.each(['compact', 'close'])(
    'ends by itself after %s has made background work give way',
    async (what) => {
      const script = await bundleForChild(new URL('../support/closing-child.ts', import.meta.url))
      const { stdout } = await runIn(runtimes[name], [script, join(await temporaryFolder(), 'data'), what])
      expect(JSON.parse(stdout)).toEqual({ what })
    },
    130_000,
  )
})
