import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build, type Plugin } from 'vite'
import { onTestFinished } from 'vitest'

/**
 * Bundles a TypeScript module with all it imports, so that a process or worker of plain Node can run it, and so that importing it gives
 * a second copy of the package. Removed at the end of the test or hook that calls it, unless `keep`.
 *
 * @param options.plugins transform the sources on their way into the bundle
 * @returns the path of the bundle, an `.mjs` file
 */
export async function bundleForChild(
  entry: string | URL,
  options: { keep?: boolean; plugins?: readonly Plugin[] } = {},
): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'isovec-child-'))
  if (!options.keep) onTestFinished(() => rm(folder, { recursive: true }))
  await build({
    configFile: false,
    logLevel: 'error',
    plugins: [...(options.plugins ?? [])],
    ssr: { noExternal: true },
    build: {
      ssr: typeof entry === 'string' ? entry : fileURLToPath(entry),
      outDir: folder,
      emptyOutDir: false,
      target: 'node20',
      minify: false,
      rollupOptions: { output: { entryFileNames: 'child.mjs', format: 'es' } },
    },
  })
  return join(folder, 'child.mjs')
}
