/**
 * The script of the worker that holds a database in a browser, in one piece.
 */
import { fileURLToPath } from 'node:url'
import { build } from 'vite'

/** What modules import it as. */
export const workerSource = 'isovec-worker-source'

/**
 * Bundles the worker's script with all it needs.
 *
 * @returns {Promise<string>}
 */
async function bundleWorker() {
  const result = await build({
    configFile: false,
    logLevel: 'error',
    build: {
      write: false,
      target: 'es2022',
      minify: true,
      lib: {
        entry: fileURLToPath(new URL('../src/worker/script.ts', import.meta.url)),
        formats: ['iife'],
        name: 'isovec',
      },
    },
  })
  const [bundle] = Array.isArray(result) ? result : [result]
  if (bundle === undefined || !('output' in bundle) || bundle.output.length !== 1) {
    throw new Error("the worker's script is not of one piece")
  }
  return bundle.output[0].code
}

/**
 * Gives the worker's script to the modules that import it, and as a file of its own, for pages whose policy forbids blob workers.
 *
 * @returns {import('vite').Plugin}
 */
export function workerPlugin() {
  /** @type {Promise<string> | undefined} */
  let bundled
  return {
    name: workerSource,
    resolveId: (id) => (id === workerSource ? `\0${workerSource}` : undefined),
    async load(id) {
      if (id !== `\0${workerSource}`) return undefined
      bundled ??= bundleWorker()
      return `export default ${JSON.stringify(await bundled)}`
    },
    async generateBundle() {
      if (bundled === undefined) return
      this.emitFile({ type: 'asset', fileName: 'worker-script.js', source: await bundled })
    },
  }
}
