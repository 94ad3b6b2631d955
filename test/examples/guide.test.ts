import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test } from 'vitest'

const root = join(import.meta.dirname, '../..')
const run = promisify(execFile)
const guide = await readFile(join(root, 'docs/guide.md'), 'utf8')
const examples = [...guide.matchAll(/^## (.+)\n[\s\S]*?^```js\n([\s\S]*?)^```$/gm)].map((match) => ({
  title: match[1]!,
  code: match[2]!,
}))
let folder: string

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'isovec-guide-'))
  await mkdir(join(folder, 'node_modules'))
  await symlink(root, join(folder, 'node_modules/isovec'))
})

afterAll(() => rm(folder, { recursive: true, force: true }))

/** What an example says that it prints: `// => that`. */
function promisedLines(code: string): string[] {
  return [...code.matchAll(/console\.log\(.*\/\/ => (.+)$/gm)].map((match) => match[1]!)
}

test('the guide has examples', () => {
  expect(examples.length).toBeGreaterThanOrEqual(7)
  expect(guide.match(/^```js$/gm)).toHaveLength(examples.length)
})

test.for(examples)('the example of "$title" runs and prints what it says', async ({ title, code }) => {
  const file = join(folder, `${title.replace(/\W+/g, '-')}.mjs`)
  await writeFile(file, code)
  const { stdout } = await run(process.execPath, [file], { cwd: folder })
  // A line in a loop is promised once and printed as often as the loop runs.
  const printed = new Set(stdout.split('\n').filter((line) => line !== ''))
  expect([...printed]).toEqual(promisedLines(code))
})
