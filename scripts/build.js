/**
 * Builds the package into dist/: kernel, bundles, type declarations. Does nothing while dist/ is newer than everything it is made of.
 */
import { execFileSync } from 'node:child_process'
import { readdir, rm, stat, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'vite'
import { buildKernel } from './build-kernel.js'

const root = fileURLToPath(new URL('..', import.meta.url))
const stamp = join(root, 'dist/.built')
const inputs = ['src', 'assembly', 'scripts']
const inputFiles = [
  'package.json',
  'package-lock.json',
  'asconfig.json',
  'vite.config.ts',
  'tsconfig.json',
  'tsconfig.build.json',
]

/**
 * @param {string} path
 * @returns {Promise<number>} 0 if there is no such file
 */
async function modifiedAt(path) {
  const found = await stat(path).catch((/** @type {NodeJS.ErrnoException} */ error) => {
    if (error.code === 'ENOENT') return undefined
    throw error
  })
  return found?.mtimeMs ?? 0
}

async function newestInput() {
  const paths = inputFiles.map((file) => join(root, file))
  for (const folder of inputs) {
    for (const name of await readdir(join(root, folder), { recursive: true })) paths.push(join(root, folder, name))
  }
  return Math.max(...(await Promise.all(paths.map(modifiedAt))))
}

await buildKernel()
if ((await modifiedAt(stamp)) > (await newestInput())) {
  console.log('dist/ is up to date')
} else {
  console.log('building dist/')
  await rm(join(root, 'dist'), { recursive: true, force: true })
  await build({ root, logLevel: 'warn' })
  const tsc = join(dirname(createRequire(import.meta.url).resolve('typescript/package.json')), 'bin/tsc')
  execFileSync(process.execPath, [tsc, '-p', 'tsconfig.build.json'], { cwd: root, stdio: 'inherit' })
  await writeFile(stamp, '')
}
