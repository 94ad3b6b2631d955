/**
 * Real text that any machine with Node has: the readme, documentation and type-declaration files below `node_modules`,
 * or any folder of text.
 *
 * @typedef {import('./passage.js').Kind} Kind
 * @typedef {{ path: string, package: string, kind: Kind }} SourceFile  `path`: below the folder, with `/`
 * @typedef {object} Payload  what is stored with each passage
 * @property {string} text
 * @property {string} path
 * @property {string} package
 * @property {string} title
 * @property {Kind} kind
 * @property {number} position  which passage of its file it is, from 0
 * @typedef {{ id: string, payload: Payload }} PassageDocument
 *
 * @typedef {object} CorpusReport  what was read and what was left out; grows while passages are read
 * @property {number} files          that gave passages
 * @property {number} passages
 * @property {number} duplicates     passages that were there already, word for word
 * @property {number} unsuitable     files that are binary, minified or larger than {@link fileSizeMax}
 * @property {{ path: string, code: string }[]} unreadable  files and folders that could not be read
 */
import { createHash } from 'node:crypto'
import { access, open, readdir, realpath } from 'node:fs/promises'
import { dirname, join, sep } from 'node:path'
import { fileURLToPath } from 'node:url'
import { splitPassages } from './passage.js'

/** Larger files are lists and bundles rather than something to read. */
export const fileSizeMax = 1024 * 1024
/** No file gives more passages than this, so that none crowds out the others. */
export const passagesPerFileMax = 200
/** No file gives more passages to a sample than this. */
const samplesPerFileMax = 5
/** Looking for files stops after this many directory entries. */
const entryCountMax = 200_000
/** Ids have to stay below 1,024 bytes. */
const idPathBytesMax = 900

/**
 * The folder that the demo reads when it is given none: the nearest `node_modules` above this file.
 * @returns {Promise<string>}
 */
export async function findNodeModules() {
  for (let folder = dirname(fileURLToPath(import.meta.url)); ; folder = dirname(folder)) {
    const candidate = folder.endsWith(`${sep}node_modules`) ? folder : join(folder, 'node_modules')
    const found = await access(candidate).then(
      () => true,
      () => false,
    )
    if (found) return candidate
    if (folder === dirname(folder)) {
      throw Object.assign(new Error('no node_modules folder found: run npm ci, or name a folder of text'), {
        code: 'NOT_FOUND',
      })
    }
  }
}

/**
 * @typedef {object} Corpus
 * @property {string} folder
 * @property {readonly SourceFile[]} files
 * @property {CorpusReport} report
 * @property {(limit?: number) => AsyncGenerator<PassageDocument>} passages  reads file by file, as fast as they are taken
 * @property {(count: number) => Promise<string[]>} sample  texts from files all over the folder
 */

/**
 * Lists the text files of a folder. Symbolic links inside it are not followed, so no loop can trap the walk.
 *
 * @param {string} folder
 * @param {{ anyText?: boolean }} [options]  `anyText`: every file that looks like text, not only documentation and types
 * @returns {Promise<Corpus>}
 * @throws the file system's error if `folder` itself cannot be listed
 */
export async function openCorpus(folder, options = {}) {
  const root = await realpath(folder)
  await readdir(root)
  /** @type {CorpusReport} */
  const report = { files: 0, passages: 0, duplicates: 0, unsuitable: 0, unreadable: [] }
  const files = interleavePackages(await listFiles(root, options.anyText ?? false, report))
  return {
    folder: root,
    files,
    report,
    passages: (limit = Number.POSITIVE_INFINITY) => readPassages(root, files, limit, report),
    sample: (count) => samplePassages(root, files, count),
  }
}

/** The text by which a passage is embedded and thus found. @param {Payload} payload @returns {string} */
export function passageText(payload) {
  return `${payload.package} ${payload.title}\n${payload.text}`
}

/**
 * Passages with their vectors, ready to be stored.
 * @param {import('./embedder.js').Embedder} embedder
 * @param {readonly PassageDocument[]} passages
 * @returns {Promise<(PassageDocument & { vector: Float32Array })[]>}
 */
export async function embedPassages(embedder, passages) {
  const vectors = await embedder.embed(passages.map(({ payload }) => passageText(payload)))
  return passages.map(({ id, payload }, index) => {
    const vector = vectors[index]
    if (!vector) throw new Error(`${embedder.model} gave ${vectors.length} vectors for ${passages.length} texts`)
    return { id, vector, payload }
  })
}

/**
 * @param {string} root
 * @param {boolean} anyText
 * @param {CorpusReport} report
 * @returns {Promise<SourceFile[]>}
 */
async function listFiles(root, anyText, report) {
  /** @type {SourceFile[]} */
  const files = []
  const folders = ['']
  let entryCount = 0
  for (let folder = folders.pop(); folder !== undefined && entryCount < entryCountMax; folder = folders.pop()) {
    const entries = await readdir(join(root, folder), { withFileTypes: true }).catch((error) => {
      report.unreadable.push({ path: folder, code: error.code })
      return []
    })
    entryCount += entries.length
    for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
      const path = folder === '' ? entry.name : `${folder}/${entry.name}`
      if (entry.isDirectory()) {
        if (!anyText || !(entry.name.startsWith('.') || entry.name === 'node_modules')) folders.push(path)
      } else if (entry.isFile()) {
        const kind = kindOf(entry.name, anyText)
        if (kind) files.push({ path, package: packageOf(path), kind })
      }
    }
  }
  return files
}

/** @param {string} name @param {boolean} anyText @returns {Kind | undefined} */
function kindOf(name, anyText) {
  if (/\.(?:md|mdx|markdown)$/i.test(name)) return 'markdown'
  if (/\.d\.[cm]?ts$/i.test(name)) return 'types'
  if (/\.(?:txt|rst|adoc|asciidoc)$/i.test(name)) return 'text'
  if (!anyText || /(?:^\.|\.min\.|\.map$|\.lock$|-lock\.)/i.test(name)) return undefined
  return 'text'
}

/** `a` of `a/readme.md` and `.pnpm/a@1/node_modules/a/x.md`, `@a/b` of `@a/b/c.md`. @param {string} path @returns {string} */
function packageOf(path) {
  const [first = '', second, ...rest] = path
    .slice(path.lastIndexOf('/node_modules/') + 1)
    .replace(/^node_modules\//, '')
    .split('/')
  if (second === undefined) return ''
  return first.startsWith('@') && rest.length > 0 ? `${first}/${second}` : first
}

/**
 * One file of every package in turn, each package's readme first and its licence and history last: what is read before
 * the limit then comes from everywhere.
 * @param {SourceFile[]} files
 * @returns {SourceFile[]}
 */
function interleavePackages(files) {
  /** @param {SourceFile} file */
  const rank = ({ path, kind }) => {
    const name = path.slice(path.lastIndexOf('/') + 1)
    if (/^(?:licen[cs]e|copying|notice|third.?party|changelog|history|authors)/i.test(name)) return 4
    if (/^readme/i.test(name)) return 0
    return { markdown: 1, types: 2, text: 3 }[kind]
  }
  const ranked = files.map((file) => ({ file, rank: rank(file), turn: 0 }))
  ranked.sort((a, b) => a.rank - b.rank || (a.file.path < b.file.path ? -1 : 1))
  /** @type {Map<string, number>} */
  const turns = new Map()
  for (const entry of ranked) {
    entry.turn = turns.get(entry.file.package) ?? 0
    turns.set(entry.file.package, entry.turn + 1)
  }
  return ranked.sort((a, b) => Number(a.rank > 3) - Number(b.rank > 3) || a.turn - b.turn).map(({ file }) => file)
}

/**
 * @param {string} root
 * @param {readonly SourceFile[]} files
 * @param {number} limit
 * @param {CorpusReport} report
 * @returns {AsyncGenerator<PassageDocument>}
 */
async function* readPassages(root, files, limit, report) {
  /** @type {Set<string>} */
  const seen = new Set()
  let count = 0
  for (const file of files) {
    const text = await readText(root, file, report)
    if (text === undefined) continue
    let fromFile = 0
    for (const [position, passage] of splitPassages(text, file.kind).entries()) {
      if (!isWorthReading(passage.text, file.kind)) continue
      const digest = createHash('sha256').update(passage.text.replace(/\s+/g, ' ')).digest('base64')
      if (seen.has(digest)) {
        report.duplicates++
        continue
      }
      seen.add(digest)
      if (fromFile++ === 0) report.files++
      report.passages++
      yield document(file, passage, position)
      if (++count >= limit) return
      if (fromFile >= passagesPerFileMax) break
    }
  }
}

/**
 * @param {SourceFile} file
 * @param {import('./passage.js').Passage} passage
 * @param {number} position
 * @returns {PassageDocument}
 */
function document(file, passage, position) {
  const title = passage.title || file.path.slice(file.path.lastIndexOf('/') + 1)
  const { path, kind } = file
  return {
    id: `${shortPath(path)}#${position}`,
    payload: { text: passage.text, path, package: file.package, title, kind, position },
  }
}

/** A path as it is, or its digest where it's too long for an id. @param {string} path @returns {string} */
function shortPath(path) {
  return Buffer.byteLength(path) <= idPathBytesMax ? path : createHash('sha256').update(path).digest('hex')
}

/** Left out: rules, empty exports and other passages with next to nothing to find. @param {string} text @param {Kind} kind */
function isWorthReading(text, kind) {
  const letters = text.match(/[\p{L}\p{N}]/gu)?.length ?? 0
  return letters >= (kind === 'types' ? 60 : 3)
}

/**
 * @param {string} root
 * @param {SourceFile} file
 * @param {CorpusReport} report
 * @returns {Promise<string | undefined>} undefined, and the reason in the report, for what is no text to read
 */
async function readText(root, file, report) {
  try {
    const handle = await open(join(root, file.path), 'r')
    try {
      const stats = await handle.stat()
      const text =
        stats.size > fileSizeMax ? undefined : (await handle.readFile()).toString('utf8').replace(/^\ufeff/, '')
      if (text !== undefined && looksReadable(text)) return text
      report.unsuitable++
    } finally {
      await handle.close()
    }
  } catch (error) {
    report.unreadable.push({
      path: file.path,
      code: /** @type {NodeJS.ErrnoException} */ (error).code ?? String(error),
    })
  }
  return undefined
}

/** Whether it's neither binary nor minified, judged by its beginning. @param {string} text @returns {boolean} */
function looksReadable(text) {
  const head = text.slice(0, 65_536)
  let odd = 0
  let blank = 0
  let ascii = 0
  for (let i = 0; i < head.length; i++) {
    const unit = head.charCodeAt(i)
    if (unit === 0xfffd || (unit < 32 && unit !== 9 && unit !== 10 && unit !== 12 && unit !== 13)) odd++
    if (unit <= 32) blank++
    if (unit < 128) ascii++
  }
  if (odd > head.length / 100) return false
  const dense = blank < head.length * 0.06 && ascii > head.length * 0.8
  return !(dense && head.length > 2000)
}

/**
 * The first passages of files in an order that has nothing to do with their place (by digest of the path).
 * @param {string} root
 * @param {readonly SourceFile[]} files
 * @param {number} count
 * @returns {Promise<string[]>}
 */
async function samplePassages(root, files, count) {
  const shuffled = files.map((file) => ({ file, digest: createHash('sha256').update(file.path).digest('hex') }))
  shuffled.sort((a, b) => (a.digest < b.digest ? -1 : 1))
  const aside = { files: 0, passages: 0, duplicates: 0, unsuitable: 0, unreadable: [] }
  /** @type {string[]} */
  const texts = []
  for (const { file } of shuffled) {
    if (texts.length >= count) break
    const limit = Math.min(samplesPerFileMax, count - texts.length)
    for await (const { payload } of readPassages(root, [file], limit, aside)) texts.push(passageText(payload))
  }
  return texts
}
