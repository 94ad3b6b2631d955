import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import {
  fileSizeMax,
  findNodeModules,
  openCorpus,
  passagesPerFileMax,
  passageText,
} from '../../docs/examples/corpus.js'

let folder = ''
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'isovec-corpus-'))
})
afterEach(async () => {
  await rm(folder, { recursive: true, force: true })
})

async function put(files: Record<string, string | Uint8Array>): Promise<void> {
  for (const [path, content] of Object.entries(files)) {
    await mkdir(dirname(join(folder, path)), { recursive: true })
    await writeFile(join(folder, path), content)
  }
}

async function read(options: { anyText?: boolean; limit?: number } = {}) {
  const corpus = await openCorpus(folder, options)
  const documents = []
  for await (const document of corpus.passages(options.limit)) documents.push(document)
  return { corpus, documents, report: corpus.report }
}

const paragraph = (about: string) => `${`This says something about ${about} and its use. `.repeat(12)}\n\n`

describe('corpus', () => {
  it('describes each passage and gives it the same id each time', async () => {
    await put({
      'alpha/README.md': `# Alpha\n\n${paragraph('alpha')}## Use\n\n${paragraph('use')}`,
      '@scope/beta/lib/index.d.ts': `/** ${paragraph('beta').trim()} */\nexport declare function beta(): void\n`,
      'notes.txt': paragraph('notes'),
      'alpha/code.js': paragraph('code'),
    })
    const { documents } = await read()
    const described = documents.map(({ id, payload: { text, ...rest } }) => ({
      id,
      lines: text.split('\n').length,
      ...rest,
    }))
    const alpha = { path: 'alpha/README.md', package: 'alpha', kind: 'markdown' }
    expect(described).toEqual([
      { ...alpha, id: 'alpha/README.md#0', title: 'Alpha', position: 0, lines: 2 },
      { ...alpha, id: 'alpha/README.md#1', title: 'Use', position: 1, lines: 2 },
      {
        id: '@scope/beta/lib/index.d.ts#0',
        path: '@scope/beta/lib/index.d.ts',
        package: '@scope/beta',
        title: 'beta',
        kind: 'types',
        position: 0,
        lines: 2,
      },
      {
        id: 'notes.txt#0',
        path: 'notes.txt',
        package: '',
        title: 'This says something about notes and its use.',
        kind: 'text',
        position: 0,
        lines: 1,
      },
    ])
    expect((await read()).documents).toEqual(documents)
    expect(passageText(documents[0]!.payload)).toMatch(/^alpha Alpha\n# Alpha/)
  })

  it('drops identical passages and keeps the ids of the others', async () => {
    await put({
      'a/README.md': `${paragraph('one')}${paragraph('two')}`,
      'b/README.md': `${paragraph('one').replace(/ /g, '  ')}${paragraph('three')}`,
    })
    const { documents, report } = await read()
    expect(documents.map(({ id }) => id)).toEqual(['a/README.md#0', 'a/README.md#1', 'b/README.md#1'])
    expect(report).toMatchObject({ passages: 3, duplicates: 1, files: 2 })
  })

  it('takes one file of each package in turn, licences last, and stops at the limit', async () => {
    await put({
      'a/LICENSE.md': paragraph('licence'),
      'a/README.md': paragraph('a readme'),
      'a/a.d.ts': `/** ${paragraph('a types')} */ export type A = 1`,
      'b/docs/guide.md': paragraph('b guide'),
    })
    const { documents } = await read()
    expect(documents.map(({ payload }) => payload.path)).toEqual([
      'a/README.md',
      'b/docs/guide.md',
      'a/a.d.ts',
      'a/LICENSE.md',
    ])
    expect((await read({ limit: 2 })).documents).toEqual(documents.slice(0, 2))
  })

  it('gives no file more than its share', async () => {
    const many = Array.from({ length: passagesPerFileMax + 20 }, (_, i) => paragraph(`thing ${i}`)).join('')
    await put({ 'many.txt': many })
    expect((await read()).documents.length).toBe(passagesPerFileMax)
  })

  it('walks a tree with loops of symbolic links once', async () => {
    await put({ 'a/b/c/deep.md': paragraph('deep'), 'a/top.md': paragraph('top') })
    await symlink(folder, join(folder, 'a', 'b', 'loop'))
    await symlink('..', join(folder, 'a', 'up'))
    await symlink(join(folder, 'a', 'top.md'), join(folder, 'link.md'))
    await symlink(join(folder, 'nowhere'), join(folder, 'broken.md'))
    const { documents, report } = await read()
    expect(documents.map(({ id }) => id).sort()).toEqual(['a/b/c/deep.md#0', 'a/top.md#0'])
    expect(report.unreadable).toEqual([])
    await symlink(join(folder, 'a'), join(folder, 'root'))
    const corpus = await openCorpus(join(folder, 'root'))
    expect(corpus.files.map(({ path }) => path).sort()).toEqual(['b/c/deep.md', 'top.md'])
  })

  it('leaves out what is binary, minified or huge and says so', async () => {
    await put({
      'zeros.md': new Uint8Array(500),
      'noise.txt': Uint8Array.from({ length: 5000 }, (_, i) => ((i * 7919) % 255) + 1),
      'min.d.ts': `export interface A{${'a:string;b(c:number):void;'.repeat(200)}}`,
      'huge.txt': 'words and words '.repeat(fileSizeMax / 16 + 1),
      'empty.md': '',
      'chinese.txt': '这是一个关于向量数据库的说明。'.repeat(300),
      'bom.md': `\ufeff# Mark\n\n${paragraph('order')}`,
    })
    const { documents, report } = await read()
    expect(new Set(documents.map(({ payload }) => payload.path))).toEqual(new Set(['chinese.txt', 'bom.md']))
    expect(documents.find(({ payload }) => payload.path === 'bom.md')?.payload.text.startsWith('# Mark')).toBe(true)
    expect(report.unsuitable).toBe(4)
  })

  it('goes on after a file that cannot be read, and names it', async () => {
    await put({ 'gone.md': paragraph('gone'), 'here.md': paragraph('here') })
    const corpus = await openCorpus(folder)
    await rm(join(folder, 'gone.md'))
    const ids = []
    for await (const { id } of corpus.passages()) ids.push(id)
    expect(ids).toEqual(['here.md#0'])
    expect(corpus.report.unreadable).toEqual([{ path: 'gone.md', code: 'ENOENT' }])
    await expect(openCorpus(join(folder, 'no-such-folder'))).rejects.toMatchObject({ code: 'ENOENT' })
  })

  it('reads any text of a folder that a user names, but no dot files, locks or dependencies', async () => {
    await put({
      'src/main.js': paragraph('main'),
      '.git/config.md': paragraph('git'),
      '.env': paragraph('secrets'),
      'node_modules/x/README.md': paragraph('x'),
      'package-lock.json': paragraph('lock'),
      'bundle.min.js': paragraph('bundle'),
    })
    expect((await read({ anyText: true })).documents.map(({ id }) => id)).toEqual(['src/main.js#0'])
    expect((await read()).documents.map(({ id }) => id).sort()).toEqual([
      '.git/config.md#0',
      'node_modules/x/README.md#0',
    ])
  })

  it('keeps ids short enough and apart for very long paths', async () => {
    const long = Array.from({ length: 8 }, (_, i) => String(i).repeat(200)).join('/')
    await put({ [`${long}/a.md`]: paragraph('a'), [`${long}/b.md`]: paragraph('b') })
    const { documents } = await read()
    expect(new Set(documents.map(({ id }) => id)).size).toBe(2)
    for (const { id, payload } of documents) {
      expect(Buffer.byteLength(id)).toBeLessThanOrEqual(1024)
      expect(payload.path.startsWith(long)).toBe(true)
    }
  })

  it('finds real text beside this package, and samples all of it', async () => {
    const corpus = await openCorpus(await findNodeModules())
    const sample = await corpus.sample(300)
    expect(sample.length).toBe(300)
    expect(await corpus.sample(300)).toEqual(sample)
    expect(corpus.report.passages).toBe(0)
    const ids = new Set<string>()
    for await (const { id, payload } of corpus.passages(3000)) {
      ids.add(id)
      expect(payload.text.length).toBeLessThanOrEqual(900)
    }
    expect(ids.size).toBe(3000)
  })
})
