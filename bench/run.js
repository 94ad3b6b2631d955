/**
 * Runs one benchmark or all of them, each in a process of its own: `npm run bench -- search --quick`, `npm run bench -- all --write`.
 */
import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'

const questions = ['search', 'build', 'scan', 'filter', 'plans', 'columns', 'memtable', 'write', 'open', 'recovery']

const [wanted = '', ...rest] = process.argv.slice(2)
const chosen = wanted === 'all' ? questions : questions.filter((question) => question === wanted)
if (chosen.length === 0) {
  console.error(`Usage: npm run bench -- <${questions.join('|')}|all> [options]; --help tells the options`)
  process.exit(2)
}
for (const question of chosen) {
  console.log(`# ${question}\n`)
  const script = fileURLToPath(new URL(`${question}.js`, import.meta.url))
  const { status } = spawnSync(process.execPath, [script, ...rest], { stdio: 'inherit' })
  if (status !== 0) process.exit(status ?? 1)
}
