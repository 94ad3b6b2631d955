/**
 * Programs of users: the types as they are published, compiled by the installed compiler with its library checks on.
 */
import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'

const root = join(import.meta.dirname, '../..')
const compiler = join(root, 'node_modules/typescript/bin/tsc')
let folder: string

/** What the compiler says, line by line; nothing if it is content. */
async function compile(args: readonly string[]): Promise<string[]> {
  return await new Promise((resolve, reject) => {
    execFile(process.execPath, [compiler, ...args], { cwd: folder }, (error, stdout, stderr) => {
      if (error !== null && typeof error.code !== 'number') return reject(error)
      const lines = `${stdout}${stderr}`.split('\n').filter((line) => line !== '')
      if (error !== null && lines.length === 0) return reject(error)
      resolve(lines)
    })
  })
}

const common = [
  '--strict',
  '--target',
  'ES2022',
  '--module',
  'ESNext',
  '--moduleResolution',
  'bundler',
  '--pretty',
  'false',
]

/** Compiles files as a user would. */
function compileUse(files: readonly string[], isExact: boolean): Promise<string[]> {
  const flags = ['--noEmit', '--types', '', '--skipLibCheck', 'false', '--exactOptionalPropertyTypes', String(isExact)]
  return compile([...common, ...flags, ...files])
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'isovec-types-'))
  const sources = join(root, 'src')
  const emit = [
    '--declaration',
    '--emitDeclarationOnly',
    '--rootDir',
    sources,
    '--outDir',
    'published',
    '--types',
    'node',
  ]
  const readable = ['--allowImportingTsExtensions', '--rewriteRelativeImportExtensions', '--skipLibCheck']
  const types = ['--typeRoots', join(root, 'node_modules/@types')]
  expect(await compile([...common, ...emit, ...readable, ...types, join(sources, 'search/filter-types.ts')])).toEqual(
    [],
  )
  for (const name of ['filter.ts', 'filter-exact.ts']) {
    const text = await readFile(join(import.meta.dirname, name), 'utf8')
    await writeFile(join(folder, name), text.replace(/'\.\.\/\.\.\/src\/(.+)\.ts'/g, "'./published/$1.js'"))
  }
})

afterAll(() => rm(folder, { recursive: true, force: true }))

test('filters are typed for who tells optional from undefined', async () => {
  expect(await compileUse(['filter.ts', 'filter-exact.ts'], true)).toEqual([])
})

test('filters are typed for who does not, and mistakes are found', async () => {
  const imports = "import type { Filter } from './published/search/filter-types.js'\n"
  await writeFile(
    join(folder, 'wrong.ts'),
    `${imports}export const wrong: Filter<{ year: number }> = { year: { $in: ['x'] } }\n`,
  )
  const lines = await compileUse(['filter.ts', 'filter-exact.ts', 'wrong.ts'], false)
  const mistakes = lines.filter((line) => line.includes('wrong.ts'))
  expect(mistakes).toEqual([
    expect.stringMatching(/^wrong\.ts\(2,\d+\): error TS2322: Type 'string' is not assignable to type 'number'/),
  ])
  // An operand of type undefined is then seen at run time only.
  const unused = lines.filter((line) => /^filter-exact\.ts\(\d+,\d+\): error TS2578: /.test(line))
  expect(unused).toHaveLength(4)
  expect(lines).toHaveLength(mistakes.length + unused.length)
})
