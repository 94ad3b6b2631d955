/** The package as npm would publish it. */

import { execFile } from 'node:child_process'
import { cp, mkdir, readdir } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { build } from 'vite'

const root = fileURLToPath(new URL('../..', import.meta.url))

/**
 * Builds the present sources, packs them as npm publishes them, and unpacks that into a folder.
 *
 * @param source a folder that is made for the build
 * @param options `declarations`: whether types are needed, which take some seconds
 * @returns the path of the archive
 */
export async function packInto(
  folder: string,
  source: string,
  options: { declarations?: boolean } = {},
): Promise<string> {
  await mkdir(source)
  for (const name of ['package.json', 'README.md', 'LICENSE']) await cp(join(root, name), join(source, name))
  await build({
    root,
    configFile: join(root, 'vite.config.ts'),
    logLevel: 'warn',
    build: { outDir: join(source, 'dist'), emptyOutDir: true },
  })
  if (options.declarations === true) {
    const tsc = join(dirname(createRequire(import.meta.url).resolve('typescript/package.json')), 'bin/tsc')
    const args = [tsc, '-p', join(root, 'tsconfig.build.json'), '--outDir', join(source, 'dist')]
    await promisify(execFile)(process.execPath, args, { cwd: root })
  }
  // What `prepare` does was done here.
  await promisify(execFile)('npm', ['pack', '--ignore-scripts'], { cwd: source })
  const [packed] = (await readdir(source)).filter((name) => name.endsWith('.tgz'))
  await mkdir(folder, { recursive: true })
  await promisify(execFile)('tar', ['-xzf', join(source, packed!), '-C', folder, '--strip-components=1'])
  return join(source, packed!)
}
