/**
 * Cuts a text into passages: pieces of about 400 to 900 characters that end where a paragraph, a section or a
 * declaration ends, since one vector can stand for a few sentences but not for a whole file.
 *
 * @typedef {'markdown' | 'types' | 'text'} Kind
 * @typedef {{ text: string, title: string }} Passage  `title`: heading, declaration or '' where there is none
 * @typedef {{ text: string, title: string, opens: boolean }} Block  `opens`: a section or declaration begins here
 */

/** A passage is never longer than this. */
export const passageLengthMax = 900
/** From this length on a passage ends where the next section begins. */
export const passageLengthGood = 400
/** Below this length a passage is filled up with the beginning of the next block, even if that cuts the block. */
export const passageLengthMin = 250

/**
 * @param {string} text
 * @param {Kind} kind
 * @returns {Passage[]} in the order of the text. Nothing but white space and, in Markdown, badges is left out
 */
export function splitPassages(text, kind) {
  const lines = text.replace(/\r\n?/g, '\n').split('\n')
  if (kind === 'markdown') return packBlocks(markdownBlocks(lines), '\n\n')
  if (kind === 'types') return packBlocks(typesBlocks(lines), '\n')
  return packBlocks(textBlocks(lines), '\n\n')
}

/** A title taken from running text is cut here. */
const titleLengthMax = 80
/** A longer line is no heading, whatever it begins with. */
const headingLengthMax = 200
/** A line that holds nothing but badges, images or HTML tags. */
const decoration = /^\s*(?:\[?!\[[^\]]*\]\([^)]*\)(?:\]\([^)]*\))?\s*|<[^>]*>\s*)+$/

/**
 * Sections and paragraphs; fenced code stays whole and a heading stays with what follows it.
 * @param {readonly string[]} lines
 * @returns {Generator<Block>}
 */
function* markdownBlocks(lines) {
  let title = ''
  /** @type {string[]} */
  let block = []
  let opens = false
  let fence = ''
  for (const line of lines) {
    const mark = /^\s*(`{3,}|~{3,})/.exec(line)?.[1] ?? ''
    if (fence !== '' || mark !== '') {
      block.push(line)
      if (fence === '') fence = mark
      else if (mark.startsWith(fence) && line.trim() === mark) fence = ''
      continue
    }
    const heading = line.length <= headingLengthMax ? /^#{1,6}\s+(.*?)[\s#]*$/.exec(line)?.[1] : undefined
    if (heading !== undefined || (line.trim() === '' && !isHeading(block))) {
      if (block.length > 0) yield { text: block.join('\n'), title, opens }
      block = []
      opens = false
    }
    if (heading !== undefined) {
      title = plainText(heading) || title
      opens = true
    }
    if (line.trim() !== '' && !decoration.test(line)) block.push(line)
  }
  if (block.length > 0) yield { text: block.join('\n'), title, opens }
}

/** @param {readonly string[]} block @returns {boolean} whether there is nothing in it but a heading */
function isHeading(block) {
  return block.length === 1 && /^#{1,6}\s/.test(block[0] ?? '')
}

/** @param {string} markdown @returns {string} without links, emphasis and tags */
function plainText(markdown) {
  return markdown
    .replace(/!?\[([^\]]*)\]\([^)]*\)/g, '$1')
    .replace(/<[^>]*>/g, '')
    .replace(/[`*]/g, '')
    .replace(/\s+/g, ' ')
    .trim()
}

const declaration =
  /^\s*(?:export\s+)?(?:default\s+)?(?:declare\s+)?(?:abstract\s+|async\s+)?(?:namespace|module|interface|class|enum|type|function|const|let|var)\s+['"]?([\w$@./:-]+)/

/**
 * Declarations and members, each with the comment before it.
 * @param {readonly string[]} lines
 * @returns {Generator<Block>}
 */
function* typesBlocks(lines) {
  /** @type {{ indent: number, name: string }[]} */
  let path = []
  /** @type {string[]} */
  let block = []
  let opens = false
  let comment = false
  let code = false
  const take = () => {
    const taken = { text: block.join('\n'), title: path.map(({ name }) => name).join('.'), opens }
    block = []
    opens = false
    code = false
    return taken
  }
  for (const line of lines) {
    const trimmed = line.trim()
    const name = comment ? undefined : declaration.exec(line)?.[1]
    const begins = !comment && (/^\/[*/]/.test(trimmed) || name !== undefined)
    if (block.length > 0 && ((trimmed === '' && !comment) || (begins && code))) yield take()
    if (trimmed === '') continue
    if (name !== undefined) {
      const indent = line.search(/\S/)
      path = [...path.filter((outer) => outer.indent < indent), { indent, name }]
      opens = true
    }
    if (!comment && trimmed.startsWith('/*')) comment = true
    code ||= !comment && !trimmed.startsWith('//')
    if (comment && trimmed.includes('*/')) comment = false
    block.push(line)
  }
  if (block.length > 0) yield take()
}

/**
 * Paragraphs. The first line of the text is the title.
 * @param {readonly string[]} lines
 * @returns {Generator<Block>}
 */
function* textBlocks(lines) {
  const first =
    lines
      .find((line) => /[\p{L}\p{N}]/u.test(line))
      ?.replace(/^[^\p{L}\p{N}]+/u, '')
      .trim() ?? ''
  const title = first.length > titleLengthMax ? first.slice(0, cutPoint(first, titleLengthMax)) : first
  /** @type {string[]} */
  let block = []
  for (const line of [...lines, '']) {
    if (line.trim() !== '') block.push(line)
    else if (block.length > 0) {
      yield { text: block.join('\n'), title, opens: false }
      block = []
    }
  }
}

/**
 * Puts neighbouring blocks together until a passage is long enough, and cuts blocks that are too long.
 * @param {Iterable<Block>} blocks
 * @param {string} separator
 * @returns {Passage[]}
 */
function packBlocks(blocks, separator) {
  /** @type {Passage[]} */
  const passages = []
  let text = ''
  let title = ''
  const close = () => {
    if (text !== '') passages.push({ text, title })
    text = ''
  }
  for (const block of blocks) {
    let rest = dedent(block.text)
    if (block.opens && text.length >= passageLengthGood) close()
    while (rest !== '') {
      const room = passageLengthMax - (text === '' ? 0 : text.length + separator.length)
      if (rest.length > room && text.length >= passageLengthMin) {
        close()
        continue
      }
      const end = rest.length > room ? cutPoint(rest, room) : rest.length
      if (text === '') title = block.title
      text = `${text}${text === '' ? '' : separator}${rest.slice(0, end).trimEnd()}`
      const indented = rest[end] === '\n'
      rest = rest.slice(end).trimEnd()
      rest = indented ? rest.replace(/^\s*\n/, '') : rest.trimStart()
      if (rest !== '') close()
    }
  }
  const last = passages.at(-1)
  if (last && text !== '' && text.length < passageLengthMin / 2) {
    const joined = `${last.text}${separator}${text}`
    if (joined.length <= passageLengthMax) {
      last.text = joined
      text = ''
    }
  }
  close()
  return passages
}

/**
 * Where to cut a text that is longer than `max`: after a line, else a sentence, else a word of its second half.
 * Never inside a surrogate pair.
 * @param {string} text
 * @param {number} max
 * @returns {number} from max / 2 to max
 */
function cutPoint(text, max) {
  const half = Math.ceil(max / 2)
  const line = text.lastIndexOf('\n', max - 1)
  if (line >= half) return line
  for (const boundary of [/[.!?。！？](?=\s|$)/g, /[;,}\])]/g, /\s/g]) {
    const found = [...text.slice(half, max).matchAll(boundary)].at(-1)
    if (found) return half + found.index + 1
  }
  return /[\ud800-\udbff]/.test(text.charAt(max - 1)) ? max - 1 : max
}

/** @param {string} text @returns {string} with the first line's indentation taken off every line, and trailing blanks */
function dedent(text) {
  const lines = text.split('\n')
  const indent = text.search(/\S|$/)
  return lines.map((line) => line.slice(Math.min(indent, line.search(/\S|$/))).trimEnd()).join('\n')
}
