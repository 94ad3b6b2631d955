import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  createScreen,
  excerptText,
  formatBytes,
  formatCount,
  formatDuration,
  formatPlural,
  wrapText,
} from '../../docs/examples/screen.js'

const seed = process.env.FC_SEED === undefined ? {} : { seed: Number(process.env.FC_SEED) }

function capture(isTTY: boolean, environment: Record<string, string> = {}) {
  let output = ''
  const stream = { isTTY, columns: 40, write: (text: string) => (output += text) }
  return { screen: createScreen(stream as unknown as NodeJS.WriteStream, environment), output: () => output }
}

describe('screen', () => {
  it('writes plain lines without control characters where it is no terminal', () => {
    const { screen, output } = capture(false)
    screen.heading('Head')
    screen.progress().update('too early to tell')
    screen.progress().done('all of it')
    screen.field('label', 'a value')
    expect(output()).toBe('\nHead\n  all of it\n  label         a value\n')
  })

  it('uses colour on a terminal, unless NO_COLOR is set', () => {
    const coloured = capture(true)
    coloured.screen.heading('Head')
    expect(coloured.output()).toContain('\x1b[1mHead\x1b[0m')
    const plain = capture(true, { NO_COLOR: '1' })
    plain.screen.heading('Head')
    expect(plain.output()).toBe('\nHead\n')
  })

  it('wraps to the width and loses nothing', () => {
    fc.assert(
      fc.property(fc.string(), fc.integer({ min: 1, max: 30 }), (text, width) => {
        const lines = wrapText(text, width)
        expect(lines.join('').replace(/\s/g, '')).toBe(text.replace(/\s/g, ''))
        for (const line of lines) expect(line.length).toBeLessThanOrEqual(width)
      }),
      seed,
    )
  })

  it('shows the part that holds the words of the query', () => {
    const filler = 'nothing of note here '.repeat(20)
    const excerpt = excerptText(`${filler}streams of chunks are read ${filler}`, 'reading chunks of a stream', 60)
    expect(excerpt).toMatch(/^… .*streams of chunks are read .* …$/)
    expect(excerptText('/**\n * A short\n * text\n */', 'text', 60)).toBe('A short text')
  })

  it('keeps excerpts short and free of what a terminal would obey', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 500 }), fc.string(), (text, query) => {
        const excerpt = excerptText(text, query, 80)
        expect([...excerpt].length).toBeLessThanOrEqual(84)
        expect(excerpt).not.toMatch(/[\p{Cc}\u202a-\u202e]/u)
      }),
      seed,
    )
  })

  it('formats numbers', () => {
    expect([formatCount(12_345.4), formatPlural(1, 'file'), formatPlural(0, 'file')]).toEqual([
      '12,345',
      '1 file',
      '0 files',
    ])
    expect([0.4249, 9.99, 42.4, 4210].map(formatDuration)).toEqual(['0.42 ms', '9.99 ms', '42 ms', '4.2 s'])
    expect([120, 1_234_000, 2_500_000_000].map(formatBytes)).toEqual(['0.1 kB', '1.2 MB', '2.50 GB'])
  })
})
