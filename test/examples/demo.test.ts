import { spawn } from 'node:child_process'
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'

const demo = fileURLToPath(new URL('../../docs/examples/demo.js', import.meta.url))

let folder = ''
/** The demo's temporary folder, to see that it leaves nothing there. */
let temporary = ''
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'isovec-text-'))
  temporary = await mkdtemp(join(tmpdir(), 'isovec-temporary-'))
})
afterEach(async () => {
  await rm(folder, { recursive: true, force: true })
  await rm(temporary, { recursive: true, force: true })
})

function run(args: string[], interruptAt?: RegExp): Promise<{ code: number | null; output: string; errors: string }> {
  const child = spawn(process.execPath, [demo, ...args], {
    env: { ...process.env, TMPDIR: temporary, TEMP: temporary, TMP: temporary, NO_COLOR: '1' },
  })
  let output = ''
  let errors = ''
  let interrupted = false
  child.stdout.setEncoding('utf8').on('data', (chunk) => {
    output += chunk
    if (!interruptAt?.test(output) || interrupted) return
    interrupted = true
    child.kill('SIGINT')
  })
  child.stderr.setEncoding('utf8').on('data', (chunk) => {
    errors += chunk
  })
  return new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code) => resolve({ code, output, errors }))
  })
}

const topics = ['glaciers', 'violins', 'compilers', 'orchids', 'harbours', 'tides', 'looms', 'comets', 'ferns', 'kilns']

async function putText(): Promise<void> {
  for (const [index, topic] of topics.entries()) {
    await mkdir(join(folder, topic))
    for (let chapter = 1; chapter <= 4; chapter++) {
      const sentence = (n: number) =>
        `Remark ${n * chapter + index} about ${topic}: ${topics[(index + n) % 10]} of kind ${n} differ in year ${1900 + n * 7}. `
      const text = Array.from({ length: 30 }, (_, n) => sentence(n) + (n % 4 === 3 ? '\n\n' : '')).join('')
      await writeFile(join(folder, topic, `chapter-${chapter}.md`), `# The ${topic}, part ${chapter}\n\n${text}`)
    }
  }
}

describe('demo', { timeout: 60_000 }, () => {
  it('indexes a folder, answers, measures recall, survives a kill and leaves nothing behind', async () => {
    await putText()
    const { code, output, errors } = await run([folder, 'remarks about violins'])
    expect(errors).toBe('')
    expect(code).toBe(0)
    expect(output).toMatch(/lexical stand-in/)
    expect(output).toMatch(/first hits after [\d.]+ m?s, among the \d+ passages stored by then/)
    expect(output).toMatch(/(\d+) passages from 40 files in /)

    const answers = output.slice(output.indexOf('An answer'), output.indexOf('The graph against'))
    expect(answers).toMatch(/"remarks about violins" {2}(?:exact, )?plan \S+, \d+ visited, [\d.]+ m?s/)
    const hits = [...answers.matchAll(/^ {4}(\d\.\d{3}) {2}.* {2}(\S+#\d+)$/gm)]
    expect(hits.length).toBe(3)
    for (const [, , id] of hits) expect(id).toMatch(/^violins\//)

    const [, recall] = /^ {2}graph +([\d.]+) +[\d.]+ m?s$/m.exec(output) ?? []
    expect(Number(recall)).toBeGreaterThanOrEqual(0.9)
    expect(output).toMatch(/^ {2}exact +1\.000 +[\d.]+ m?s$/m)

    const [, acknowledged] = /^ {2}acknowledged +([\d,]+)$/m.exec(output) ?? []
    const [, recovered] = /^ {2}recovered +([\d,]+)/m.exec(output) ?? []
    const number = (text: string | undefined) => Number(text?.replaceAll(',', ''))
    expect(number(acknowledged)).toBeGreaterThanOrEqual(16 * 40)
    expect(number(recovered)).toBeGreaterThanOrEqual(number(acknowledged))
    expect(output).toMatch(/^ {2}lost +0$/m)
    expect(output).toMatch(/passages, and exact answers equal to those before the crash/)
    expect(output).toMatch(/^ {2}folder +[\d.]+ [kMG]B in all$/m)
    for (const line of output.split('\n')) expect(line.includes(folder) ? 0 : line.length).toBeLessThanOrEqual(100)
    expect(output).not.toContain('\x1b')
    expect(await readdir(temporary)).toEqual([])
  })

  it('says plainly what is wrong with its arguments', async () => {
    const missing = await run([join(folder, 'nowhere')])
    expect(missing.code).toBe(1)
    expect(missing.errors).toMatch(/^\nisovec demo: ENOENT: no such file or directory, .*nowhere'\n$/)
    const empty = await run([folder, 'anything'])
    expect(empty.code).toBe(1)
    expect(empty.errors).toMatch(/^\nisovec demo: NOT_FOUND: no text found in .*\n$/)
    const limit = await run(['--limit', 'many'])
    expect(limit.code).toBe(1)
    expect(limit.errors).toMatch(/isovec demo: INVALID_ARGUMENT: expected\nnpm run demo/)
    const help = await run(['--help'])
    expect(help).toMatchObject({ code: 0, errors: '' })
    expect(help.output).toMatch(/^npm run demo/)
    expect(await readdir(temporary)).toEqual([])
  })

  it.each([
    ['storing', /Embedding and storing/],
    ['the other process writes', /A crash/],
  ])('ends cleanly on Ctrl-C while %s', async (_, moment) => {
    const { code, output, errors } = await run(['--limit', '2500'], moment)
    expect(output).toMatch(moment)
    expect(output).not.toMatch(/Where time and disk went/)
    expect(errors).toBe('\nisovec demo: interrupted\n')
    expect(code).toBe(130)
    expect(await readdir(temporary)).toEqual([])
  })
})
