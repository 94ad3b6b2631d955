/**
 * TypeScript modules in plain Node, for what runs outside of the test runner.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { build } from 'vite'

/**
 * Bundles a module with all it imports and loads the bundle, which is gone when this returns.
 *
 * @param {URL} entry
 * @returns {Promise<any>} what the module exports; the caller says its type
 */
export async function loadSources(entry) {
  const folder = await mkdtemp(join(tmpdir(), 'isovec-sources-'))
  const name = `${basename(fileURLToPath(entry), '.ts')}.mjs`
  try {
    await build({
      configFile: false,
      logLevel: 'error',
      resolve: { alias: { '#platform': fileURLToPath(new URL('../src/platform-node.ts', import.meta.url)) } },
      ssr: { noExternal: true },
      build: {
        ssr: fileURLToPath(entry),
        outDir: folder,
        target: 'node20',
        minify: false,
        // In one piece: nothing of it can be loaded later.
        rolldownOptions: { output: { entryFileNames: name, codeSplitting: false } },
      },
    })
    return await import(pathToFileURL(join(folder, name)).href)
  } finally {
    await rm(folder, { recursive: true })
  }
}
