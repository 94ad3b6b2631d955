/**
 * Tables in Markdown, on the screen and in docs/benchmarks.md.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describeMachine } from './machine.js'

const page = fileURLToPath(new URL('../../docs/benchmarks.md', import.meta.url))

/** What a run found; prints as it comes in and can be kept. */
export class Report {
  /** @type {string[]} */
  #blocks = []
  #question
  #isKept

  /**
   * @param {string} question name of the benchmark, by which its place on the page is found
   * @param {boolean} isKept whether {@link end} replaces what the page says
   */
  constructor(question, isKept) {
    this.#question = question
    this.#isKept = isKept
  }

  /** Prints the machine, which belongs to every table, and the command that was run. */
  async begin() {
    this.#add(`Measured ${await describeMachine()}.`)
    this.#add(
      `Command: \`${['node', `bench/${this.#question}.js`, ...process.argv.slice(2)].filter((word) => word !== '--write').join(' ')}\``,
    )
  }

  /** @param {string} text a paragraph */
  note(text) {
    this.#add(text)
  }

  /**
   * @param {string} title
   * @param {readonly string[]} columns
   * @param {readonly (readonly (string | number)[])[]} rows
   */
  table(title, columns, rows) {
    const cells = [columns, ...rows.map((row) => row.map(String))]
    const widths = columns.map((_, column) => Math.max(3, ...cells.map((row) => row[column]?.length ?? 0)))
    const line = (/** @type {readonly string[]} */ row) =>
      `| ${row.map((cell, column) => (column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0))).join(' | ')} |`
    const rule = `| ${widths.map((width, column) => (column === 0 ? '-'.repeat(width) : `${'-'.repeat(width - 1)}:`)).join(' | ')} |`
    this.#add(`**${title}**`)
    this.#add([line(columns), rule, ...cells.slice(1).map(line)].join('\n'))
  }

  /** Puts what was found on the page, if that was asked for. */
  end() {
    if (!this.#isKept) return
    const begin = `<!-- ${this.#question}: begin -->`
    const end = `<!-- ${this.#question}: end -->`
    const text = readFileSync(page, 'utf8')
    const from = text.indexOf(begin)
    const to = text.indexOf(end)
    if (from < 0 || to < from) throw new Error(`${page} has no place for ${this.#question}`)
    const found = this.#blocks.join('\n\n')
    writeFileSync(page, `${text.slice(0, from + begin.length)}\n${found}\n${text.slice(to)}`)
  }

  /** @param {string} block */
  #add(block) {
    this.#blocks.push(block)
    console.log(`${block}\n`)
  }
}

/**
 * @param {number} value
 * @param {number} [digits] after the point
 */
export function fixed(value, digits = 2) {
  return value.toFixed(digits)
}

/**
 * Whole numbers with thousands set apart.
 *
 * @param {number} value
 */
export function whole(value) {
  return Math.round(value).toLocaleString('en-US')
}
