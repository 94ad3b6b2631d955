/**
 * The sources' own modules, for measurements below the public API.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { build } from 'vite'

/**
 * Bundles `engine.ts` with all it imports and loads the bundle.
 *
 * @returns {Promise<typeof import('./engine.ts')>}
 */
export async function loadEngine() {
  const folder = await mkdtemp(join(tmpdir(), 'isovec-engine-'))
  try {
    await build({
      configFile: false,
      logLevel: 'error',
      ssr: { noExternal: true },
      build: {
        ssr: fileURLToPath(new URL('engine.ts', import.meta.url)),
        outDir: folder,
        target: 'node20',
        minify: false,
        rolldownOptions: { output: { entryFileNames: 'engine.mjs' } },
      },
    })
    return await import(pathToFileURL(join(folder, 'engine.mjs')).href)
  } finally {
    await rm(folder, { recursive: true })
  }
}
