/**
 * Builds the example pages with the package as users get it, and serves them on this machine only.
 *
 *     npm run demo:web -- [--port 4173]
 *     npm run demo:web -- --build <folder>
 */
import { existsSync } from 'node:fs'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { extname, join, normalize, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { build } from 'vite'

const root = fileURLToPath(new URL('../docs/examples', import.meta.url))
const types = /** @type {Record<string, string>} */ ({
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.wasm': 'application/wasm',
})

const { values } = parseArgs({ options: { port: { type: 'string', default: '4173' }, build: { type: 'string' } } })
if (!existsSync(new URL('../dist/index.js', import.meta.url))) {
  throw new Error('there is no dist/: run "npm run build" first')
}
if (values.build === undefined) await serveUntilStopped(Number(values.port))
else await buildSite(resolve(values.build))

/** @param {string} folder */
async function buildSite(folder) {
  await build({
    configFile: false,
    root,
    // The site may be put anywhere, below any path.
    base: './',
    publicDir: false,
    logLevel: 'warn',
    worker: { format: 'es' },
    build: {
      outDir: folder,
      emptyOutDir: false,
      target: 'es2022',
      modulePreload: { polyfill: false },
      rolldownOptions: {
        input: {
          glyphs: join(root, 'glyphs/index.html'),
          notes: join(root, 'notes/index.html'),
          sw: join(root, 'glyphs/sw.ts'),
        },
        output: {
          // A service worker has the pages beside it in its care, under the same name in each version.
          entryFileNames: ({ name }) => (name === 'sw' ? 'glyphs/sw.js' : 'assets/[name]-[hash].js'),
        },
      },
    },
  })
}

/** @param {number} port */
async function serveUntilStopped(port) {
  const folder = await mkdtemp(join(tmpdir(), 'isovec-demo-web-'))
  const server = createServer((request, response) => {
    const pathname = request.url?.split('?')[0] ?? '/'
    if (pathname === '/' || pathname === '/glyphs' || pathname === '/notes') {
      response.writeHead(302, { location: pathname === '/' ? '/glyphs/' : `${pathname}/` }).end()
      return
    }
    const file = join(folder, normalize(`/${pathname}`), pathname.endsWith('/') ? 'index.html' : '')
    readFile(file).then(
      (bytes) => {
        const type = types[extname(file.replace(/[\\/]$/, ''))] ?? 'application/octet-stream'
        response.writeHead(200, { 'content-type': type, 'cache-control': 'no-cache' }).end(bytes)
      },
      () => response.writeHead(404).end(),
    )
  })
  const stop = () => {
    server.close()
    server.closeAllConnections()
  }
  process.once('SIGINT', stop).once('SIGTERM', stop)
  try {
    await buildSite(folder)
    await new Promise((done, fail) => {
      server.once('error', fail)
      server.once('close', done)
      server.listen(port, '127.0.0.1', () => {
        const address = server.address()
        const used = typeof address === 'object' && address !== null ? address.port : port
        console.log(`glyphs  http://127.0.0.1:${used}/glyphs/\nnotes   http://127.0.0.1:${used}/notes/\nCtrl-C ends it`)
      })
    })
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}
