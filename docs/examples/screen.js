/**
 * What the demo prints: colour only on a terminal that wants it, a progress line that overwrites itself on a terminal
 * and plain lines elsewhere.
 *
 * @typedef {{ update: (text: string) => void, done: (text: string) => void }} Progress
 * @typedef {object} Screen
 * @property {(text?: string) => void} line
 * @property {(text: string) => void} heading
 * @property {(label: string, text: string) => void} field   wrapped text beside a label
 * @property {() => Progress} progress
 * @property {(text: string) => string} strong
 * @property {(text: string) => string} faint
 */

/** Columns used, on wider screens too. */
export const screenWidth = 96
const labelWidth = 14
/** Between two progress lines where they don't overwrite each other. */
const progressIntervalMs = 2000
/** Between two updates of one that does. */
const repaintIntervalMs = 80

/**
 * @param {NodeJS.WriteStream} stream
 * @param {NodeJS.ProcessEnv} [environment]
 * @returns {Screen}
 */
export function createScreen(stream, environment = process.env) {
  const terminal = stream.isTTY === true && environment.TERM !== 'dumb'
  const colour = terminal && !environment.NO_COLOR
  let painted = ''
  /** @param {string} text */
  const paint = (text) => {
    if (text === painted) return
    stream.write(`\r\x1b[2K${text}`)
    painted = text
  }
  /** @param {string} [text] */
  const line = (text = '') => {
    const below = painted
    if (below !== '') paint('')
    stream.write(`${text}\n`)
    if (below !== '') paint(below)
  }
  /** @param {string} code @returns {(text: string) => string} */
  const style = (code) => (text) => (colour ? `\x1b[${code}m${text}\x1b[0m` : text)
  const strong = style('1')
  const faint = style('2')
  return {
    line,
    strong,
    faint,
    heading: (text) => line(`\n${strong(text)}`),
    field(label, text) {
      const [first = '', ...rest] = wrapText(text, screenWidth - labelWidth - 2)
      line(`  ${faint(label.padEnd(labelWidth))}${first}`)
      for (const next of rest) line(`  ${' '.repeat(labelWidth)}${next}`)
    },
    progress() {
      let printedAt = performance.now()
      return {
        update(text) {
          if (performance.now() - printedAt < (terminal ? repaintIntervalMs : progressIntervalMs)) return
          printedAt = performance.now()
          if (terminal) paint(`  ${text.slice(0, (stream.columns || 80) - 3)}`)
          else line(`  ${text}`)
        },
        done(text) {
          if (terminal) paint('')
          line(`  ${text}`)
        },
      }
    },
  }
}

/**
 * @param {string} text
 * @param {number} width
 * @returns {string[]} lines of at most `width` UTF-16 code units; a longer word is cut
 */
export function wrapText(text, width) {
  /** @type {string[]} */
  const lines = []
  let current = ''
  for (const word of text.split(/\s+/)) {
    for (let start = 0; start < word.length; start += width) {
      const part = word.slice(start, start + width)
      if (current !== '' && current.length + 1 + part.length > width) {
        lines.push(current)
        current = part
      } else current = current === '' ? part : `${current} ${part}`
    }
  }
  return current === '' ? lines : [...lines, current]
}

/**
 * @param {string} text
 * @returns {string} without control characters: those of a stranger's file must not reach the terminal
 */
export function printableText(text) {
  return text.replace(/[\p{Cc}\p{Cf}]+/gu, ' ')
}

/** @param {string} text @param {number} length @returns {string} its beginning, if it's longer */
export function cutEnd(text, length) {
  return text.length <= length ? text : `${text.slice(0, length - 1)}…`
}

/** @param {string} text @param {number} length @returns {string} its end, if it's longer */
export function cutStart(text, length) {
  return text.length <= length ? text : `…${text.slice(text.length - length + 1)}`
}

/**
 * The part of a passage that has most of the query's words, as running text.
 * @param {string} text
 * @param {string} query
 * @param {number} length
 * @returns {string} about `length` characters
 */
export function excerptText(text, query, length) {
  const words = printableText(text)
    .replace(/(?:^|\s)(?:\/\*+|\*+\/|\*|\/\/+)(?=\s|$)/g, ' ')
    .trim()
    .split(/\s+/)
  /** @param {string} given */
  const stems = (given) => (given.toLowerCase().match(/[\p{L}\p{N}]{3,}/gu) ?? []).map((word) => word.slice(0, 4))
  const wanted = new Set(stems(query))
  /** @type {{ start: number, end: number, score: number }[]} */
  const windows = []
  for (let start = 0, end = 0; end < words.length; start++) {
    let size = 0
    let score = 0
    end = start
    for (const word of words.slice(start)) {
      size += word.length + 1
      if (end > start && size > length) break
      if (stems(word).some((stem) => wanted.has(stem))) score++
      end++
    }
    windows.push({ start, end, score })
  }
  const top = Math.max(...windows.map(({ score }) => score))
  const best = windows.filter(({ score }) => score === top)
  const { start, end } = best.find((window) => window.start === 0) ?? best[best.length >> 1] ?? { start: 0, end: 0 }
  const part = words.slice(start, end).join(' ')
  const short = part.length > length ? [...part].slice(0, length).join('') : part
  return `${start > 0 ? '… ' : ''}${short}${end < words.length ? ' …' : ''}`
}

/** @param {number} count @returns {string} `12,345` */
export function formatCount(count) {
  return Math.round(count).toLocaleString('en-US')
}

/** @param {number} count @param {string} noun @param {string} [plural] @returns {string} `1 file`, `2 files` */
export function formatPlural(count, noun, plural = `${noun}s`) {
  return `${formatCount(count)} ${count === 1 ? noun : plural}`
}

/** @param {number} ms @returns {string} `0.42 ms`, `42 ms` or `4.2 s` */
export function formatDuration(ms) {
  if (ms >= 1000) return `${(ms / 1000).toFixed(1)} s`
  return `${ms >= 10 ? Math.round(ms) : ms.toFixed(2)} ms`
}

/** @param {number} bytes @returns {string} `12.3 MB` */
export function formatBytes(bytes) {
  if (bytes < 1e6) return `${(bytes / 1e3).toFixed(1)} kB`
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(2)} GB`
}
