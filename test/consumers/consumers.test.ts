/** The package as others build it into pages and programs: from the archive that npm would publish. */
import { execFile } from 'node:child_process'
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import { createRequire } from 'node:module'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import { gzipSync } from 'node:zlib'
import * as vite8 from 'vite'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { installTimeout, TestBrowser } from '../support/browser.ts'
import { fetchingTimeout, fetchPackages } from '../support/fetched.ts'
import { packInto } from '../support/pack.ts'

const run = promisify(execFile)
const fetched = fileURLToPath(new URL('./fetched', import.meta.url))
const names = [
  '@arethetypeswrong/cli',
  '@rollup/plugin-node-resolve',
  'esbuild',
  'publint',
  'rollup',
  'vite6',
  'webpack',
] as const

/** A project that depends on the package. */
let project: string
let archive: string
let browser: TestBrowser
let server: Server

beforeAll(async () => {
  await fetchPackages(fetched, names)
  project = await mkdtemp(join(tmpdir(), 'isovec-consumer-'))
  archive = await packInto(join(project, 'node_modules/isovec'), join(project, 'source'), { declarations: true })
  await writeFile(join(project, 'package.json'), JSON.stringify({ type: 'module', dependencies: { isovec: '*' } }))
  await cp(new URL('./page.js', import.meta.url), join(project, 'page.js'))
  await writeFile(join(project, 'index.html'), '<!doctype html><script type="module" src="/page.js"></script>')
  browser = await TestBrowser.launch('chromium', {})
  server = createServer(async (request, response) => {
    const { pathname } = new URL(request.url ?? '/', 'http://127.0.0.1')
    const file = await readFile(join(project, 'out', pathname)).catch(() => undefined)
    if (pathname.startsWith('/strict/')) response.setHeader('content-security-policy', policy)
    response.setHeader('content-type', pathname.endsWith('.html') ? 'text/html' : 'text/javascript')
    response.statusCode = file === undefined ? 404 : 200
    response.end(file)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
}, fetchingTimeout + installTimeout)

afterAll(async () => {
  await browser?.close()
  server?.close()
  if (project !== undefined) await rm(project, { recursive: true })
})

const found = 'a opfs leader'
/** Neither blobs nor anything from elsewhere; WebAssembly may be compiled. */
const policy = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'"

/** What the page of a build comes to. */
async function resultOf(kind: string, script = 'page.js'): Promise<unknown> {
  const html = `<!doctype html><script type="module" src="./${script}"></script>`
  const page = join(project, 'out', kind, 'index.html')
  if (script !== '') await writeFile(page, html)
  return browser.resultAt(`http://127.0.0.1:${(server.address() as AddressInfo).port}/${kind}/index.html`)
}

function bin(name: string): string {
  return join(fetched, 'node_modules/.bin', name)
}

function load<T>(name: string): Promise<T> {
  return import(pathToFileURL(createRequire(join(fetched, 'package.json')).resolve(name)).href) as Promise<T>
}

describe('a page that uses the package works when it is built by', () => {
  test('esbuild', async () => {
    await run(bin('esbuild'), ['page.js', '--bundle', '--format=esm', '--outfile=out/esbuild/page.js'], {
      cwd: project,
    })
    expect(await resultOf('esbuild')).toBe(found)
  })

  test('esbuild, under a policy that forbids blob workers', async () => {
    const strict = join(project, 'out/strict')
    await run(bin('esbuild'), ['page.js', '--bundle', '--format=esm', '--outfile=out/strict/page.js'], { cwd: project })
    await cp(join(project, 'node_modules/isovec/dist/worker-script.js'), join(strict, 'worker-script.js'))
    expect(await resultOf('strict')).toBe(found)
  })

  test('Rollup', async () => {
    const { rollup } = await load<{ rollup(options: object): Promise<{ write(options: object): Promise<unknown> }> }>(
      'rollup',
    )
    const { default: resolve } = await load<{ default(options: object): object }>('@rollup/plugin-node-resolve')
    const bundle = await rollup({ input: join(project, 'page.js'), plugins: [resolve({ browser: true })] })
    await bundle.write({ dir: join(project, 'out/rollup'), format: 'es' })
    expect(await resultOf('rollup')).toBe(found)
  })

  test('webpack', async () => {
    type Stats = { hasErrors(): boolean; toString(): string }
    type Webpack = (options: object, done: (error: Error | null, stats: Stats) => void) => void
    const { default: webpack } = await load<{ default: Webpack }>('webpack')
    const stats = await new Promise<Stats>((resolve, reject) => {
      const options = {
        mode: 'production',
        context: project,
        entry: './page.js',
        output: { path: join(project, 'out/webpack'), filename: 'page.js', publicPath: 'auto' },
      }
      webpack(options, (error, result) => (error === null ? resolve(result) : reject(error)))
    })
    expect(stats.hasErrors(), stats.toString()).toBe(false)
    expect(await resultOf('webpack')).toBe(found)
  })

  test('Vite 6 and 8, and served by their development servers', async () => {
    const vite6 = await load<typeof vite8>('vite6')
    for (const [name, vite] of [
      ['vite6', vite6],
      ['vite8', vite8],
    ] as const) {
      const common = { root: project, base: './', configFile: false, logLevel: 'error', clearScreen: false } as const
      await vite.build({ ...common, build: { outDir: join(project, 'out', name) } })
      expect(await resultOf(name, ''), `${name} build`).toBe(found)
      const development = await vite.createServer({
        ...common,
        cacheDir: join(project, `node_modules/.${name}`),
        server: { port: 0, host: '127.0.0.1' },
      })
      await development.listen()
      const { port } = development.httpServer!.address() as AddressInfo
      expect(await browser.resultAt(`http://127.0.0.1:${port}/`), `${name} server`).toBe(found)
      await development.close()
    }
  })

  test('which stays within its budget of bytes', async () => {
    const folder = join(project, 'out/vite8/assets')
    const sizes: { [chunk: string]: number } = {}
    for (const name of await readdir(folder)) {
      sizes[name.slice(0, name.indexOf('-'))] = gzipSync(await readFile(join(folder, name))).length
    }
    console.log(`gzip: page ${sizes.index}, worker ${sizes.source}, engine in the page ${sizes.engine} bytes`)
    // The page loads the first; the worker's script with its first database; the engine only for databases in its own thread.
    expect(sizes.index).toBeLessThan(32 * 1024)
    expect(sizes.source).toBeLessThan(120 * 1024)
    expect(sizes.engine).toBeLessThan(96 * 1024)
  })
})

describe('the package', () => {
  test('is found nothing wrong with by publint and by @arethetypeswrong/cli', async () => {
    const linted = await run(process.execPath, [join(fetched, 'node_modules/publint/src/cli.js'), archive, '--strict'])
    expect(linted.stdout).toContain('All good')
    await run(bin('attw'), [archive, '--profile', 'esm-only'])
  })

  test('has types under both ways of finding modules', async () => {
    const program = `
import { openDatabase, type Collection, type IsovecError } from 'isovec'
import { memoryBackend } from 'isovec/memory'
import { opfsBackend } from 'isovec/opfs'
import { indexedDbBackend } from 'isovec/indexeddb'
export async function use(): Promise<number> {
  const database = await openDatabase(memoryBackend())
  const docs: Collection<{ n: number }> = await database.createCollection('docs', { dimension: 2 })
  const { hits } = await docs.search({ vector: [1, 2], filter: { n: { $gt: 1 } } })
  // @ts-expect-error a filter knows the fields of a payload
  await docs.search({ vector: [1, 2], filter: { m: 1 } })
  return hits.reduce((sum, { payload }) => sum + (payload?.n ?? 0), 0)
}
export const backends = [opfsBackend('a'), indexedDbBackend('b')]
export type Code = IsovecError['code']
`
    await writeFile(join(project, 'program.ts'), program)
    const tsc = join(dirname(createRequire(import.meta.url).resolve('typescript/package.json')), 'bin/tsc')
    for (const [module, moduleResolution] of [
      ['node16', 'node16'],
      ['esnext', 'bundler'],
    ] as const) {
      const compilerOptions = {
        module,
        moduleResolution,
        target: 'es2022',
        lib: ['es2023', 'esnext.disposable', 'dom', 'dom.asynciterable'],
        strict: true,
        noEmit: true,
        types: [],
      }
      await writeFile(join(project, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: ['program.ts'] }))
      await expect(run(process.execPath, [tsc, '-p', project]), moduleResolution).resolves.toMatchObject({ stdout: '' })
    }
  })

  test('can be required', async () => {
    const program = `
const { openDatabase } = require('isovec')
openDatabase(':memory:').then(async (database) => {
  const docs = await database.createCollection('docs', { dimension: 1 })
  await docs.upsert({ id: 'a', vector: [1] })
  console.log(await docs.count())
  await database.close()
})`
    await writeFile(join(project, 'program.cjs'), program)
    const { stdout } = await run(process.execPath, ['--no-warnings', 'program.cjs'], { cwd: project })
    expect(stdout.trim()).toBe('1')
  })
})
