/** Real browsers for tests: found or installed, started on a folder of their own, with pages and workers made of TypeScript modules. */

import { execFileSync } from 'node:child_process'
import { accessSync, constants, existsSync } from 'node:fs'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import puppeteer, { type Browser, type CDPSession, type Page } from 'puppeteer-core'
import { build } from 'vite'
import { workerPlugin } from '../../scripts/build-worker.js'
import { type Outcome, settled, type TestWindow } from './browser-calls.ts'

/** The browsers that the tests know. */
export type BrowserKind = 'chromium' | 'firefox'

const sources = {
  chromium: {
    variable: 'ISOVEC_CHROMIUM',
    programs: ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'],
    package: 'chromium',
  },
  firefox: { variable: 'ISOVEC_FIREFOX', programs: ['firefox-esr', 'firefox'], package: 'firefox-esr' },
} as const

/** Time for installing a browser before the tests of a file begin, in ms. */
export const installTimeout = 600_000

/**
 * The path of a browser: what the environment names, what is on the path, or else, on Debian as root, what its package manager installs.
 *
 * @throws Error that says how to provide one
 */
export function findBrowser(kind: BrowserKind): string {
  const { variable, programs, package: name } = sources[kind]
  const named = process.env[variable]
  if (named !== undefined && named !== '') {
    if (isProgram(named)) return named
    throw new Error(`${variable} is ${named}, which is no program`)
  }
  const found = search(programs)
  if (found !== undefined) return found
  const advice = `no ${kind} for the tests in browsers: install one, or set ${variable} to its program`
  if (!existsSync('/etc/debian_version') || process.getuid?.() !== 0) throw new Error(advice)
  process.stderr.write(`no ${kind} found: installing the Debian package ${name} with apt-get\n`)
  // Test files run side by side, and apt-get refuses to run twice.
  const script = `command -v ${programs[0]} || { apt-get update && apt-get install -y --no-install-recommends ${name}; }`
  execFileSync('flock', [join(tmpdir(), 'isovec-apt-get.lock'), 'sh', '-c', script], {
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  const installed = search(programs)
  if (installed === undefined) throw new Error(advice)
  return installed
}

function search(programs: readonly string[]): string | undefined {
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/bin', '/usr/local/bin', '/opt/google/chrome']
  return programs.flatMap((program) => folders.map((folder) => join(folder, program))).find(isProgram)
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

/** Modules of a test by the names under which pages load them: `worker` is `/worker.js`. */
export type Entries = { readonly [name: string]: URL }

/** A browser with an own profile, and a server from which its pages come; all pages are of one origin. */
export class TestBrowser {
  readonly kind: BrowserKind
  readonly #browser: Browser
  readonly #server: Server
  readonly #folders: readonly string[]

  private constructor(kind: BrowserKind, browser: Browser, server: Server, folders: readonly string[]) {
    this.kind = kind
    this.#browser = browser
    this.#server = server
    this.#folders = folders
  }

  /** Bundles `entries` as the `default` condition of package.json would have them, and starts a browser. */
  static async launch(kind: BrowserKind, entries: Entries): Promise<TestBrowser> {
    const executablePath = findBrowser(kind)
    const folders = await Promise.all(['bundle', 'profile'].map((name) => mkdtemp(join(tmpdir(), `isovec-${name}-`))))
    const [bundle, userDataDir] = folders as [string, string]
    try {
      if (Object.keys(entries).length > 0) await bundleEntries(entries, bundle)
      const server = await serve(bundle)
      const browser = await puppeteer.launch({
        browser: kind === 'firefox' ? 'firefox' : 'chrome',
        executablePath,
        headless: true,
        userDataDir,
        // A round of crashes is one call, and the machine may be busy.
        protocolTimeout: 600_000,
        ...(kind === 'chromium' ? { args: chromiumArguments, pipe: true } : {}),
      })
      return new TestBrowser(kind, browser, server, folders)
    } catch (error) {
      await removeFolders(folders)
      throw error
    }
  }

  /** Where the pages come from, such as `http://127.0.0.1:41234`. */
  get origin(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  /** A new tab with an empty page that has loaded an entry as a module, which calls `answerTest`. */
  async page(entry: string): Promise<TestPage> {
    const page = await this.#browser.newPage()
    await page.goto(`${this.origin}/${entry}.html`)
    await page.waitForFunction('window.isovecTest !== undefined')
    return new TestPage(page)
  }

  /** A new tab at any address, and what its script leaves as `window.result`, a promise. */
  async resultAt(url: string): Promise<unknown> {
    const page = await this.#browser.newPage()
    const problems: string[] = []
    page.on('pageerror', (error) => problems.push(String(error)))
    try {
      await page.goto(url)
      await page.waitForFunction('window.result !== undefined', { timeout: 30_000 })
      return await page.evaluate('window.result')
    } catch (error) {
      throw new Error(`${url} came to nothing: ${problems.join('; ')}`, { cause: error })
    } finally {
      await page.close()
    }
  }

  async close(): Promise<void> {
    await this.#browser.close()
    this.#server.closeAllConnections()
    await new Promise((resolve) => this.#server.close(resolve))
    await removeFolders(this.#folders)
  }
}

/** A tab whose module answers calls. */
export class TestPage {
  readonly #page: Page
  #session: CDPSession | undefined

  constructor(page: Page) {
    this.#page = page
  }

  /** Calls a method of the page. Arguments and result are JSON. */
  async call(method: string, ...args: readonly unknown[]): Promise<unknown> {
    const run = (name: string, values: readonly unknown[]): Promise<Outcome> =>
      (window as unknown as { isovecTest: TestWindow }).isovecTest.outcome(name, values)
    return settled((await this.#page.evaluate(run, method, args)) as Outcome)
  }

  /** Starts a dedicated worker of an entry that calls `answerCalls`. */
  async worker(entry: string): Promise<PageWorker> {
    const id = (await this.call('startWorker', `/${entry}.js`)) as number
    return {
      call: async (method, ...args) => settled((await this.call('callWorker', id, method, args)) as Outcome),
      terminate: async () => {
        await this.call('terminateWorker', id)
      },
    }
  }

  /** Gives the page's origin so much room, or as much as it would have; in Chromium. */
  async limitRoom(bytes?: number): Promise<void> {
    // The limit holds for as long as the session that has set it.
    this.#session ??= await this.#page.createCDPSession()
    const { origin } = new URL(this.#page.url())
    const quota = bytes === undefined ? {} : { quotaSize: bytes }
    await this.#session.send('Storage.overrideQuotaForOrigin', { origin, ...quota })
  }

  /** Loads the page anew: whatever it was doing ends. */
  async reload(): Promise<void> {
    await this.#page.reload()
    await this.#page.waitForFunction('window.isovecTest !== undefined')
  }

  async close(): Promise<void> {
    await this.#page.close()
  }
}

/** A dedicated worker of a page. */
export type PageWorker = {
  call(method: string, ...args: readonly unknown[]): Promise<unknown>
  /** Ends it at once, whatever it is doing. */
  terminate(): Promise<void>
}

const chromiumArguments = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
]

/** A browser that has just ended may still have a file of its profile open. */
async function removeFolders(folders: readonly string[]): Promise<void> {
  for (const folder of folders) await rm(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 })
}

async function bundleEntries(entries: Entries, folder: string): Promise<void> {
  await build({
    configFile: false,
    logLevel: 'error',
    plugins: [workerPlugin()],
    resolve: { alias: { '#platform': fileURLToPath(new URL('../../src/platform-default.ts', import.meta.url)) } },
    build: {
      outDir: folder,
      emptyOutDir: false,
      target: 'es2022',
      minify: false,
      modulePreload: false,
      rolldownOptions: {
        input: Object.fromEntries(Object.entries(entries).map(([name, url]) => [name, fileURLToPath(url)])),
        output: { entryFileNames: '[name].js', chunkFileNames: 'chunks/[name].js', format: 'es' },
      },
    },
  })
}

async function serve(folder: string): Promise<Server> {
  const server = createServer((request, response) => {
    const path = new URL(request.url ?? '/', 'http://127.0.0.1').pathname
    const page = /^\/(\w+)\.html$/.exec(path)
    if (page !== null) {
      response.setHeader('content-type', 'text/html')
      response.end(`<!doctype html><title>isovec</title><script type="module" src="/${page[1]}.js"></script>`)
      return
    }
    readFile(join(folder, path)).then(
      (bytes) => {
        response.setHeader('content-type', 'text/javascript')
        response.end(bytes)
      },
      () => {
        response.statusCode = 404
        response.end()
      },
    )
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, '127.0.0.1', resolve)
  })
  return server
}
