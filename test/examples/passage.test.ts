import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { passageLengthMax, passageLengthMin, splitPassages } from '../../docs/examples/passage.js'

const seed = process.env.FC_SEED === undefined ? {} : { seed: Number(process.env.FC_SEED) }
const kinds = ['markdown', 'types', 'text'] as const

const word = fc.string({
  unit: fc.constantFrom('a', 'e', 'n', 'é', '漢', '😀', '.', ',', '{', '*', '#'),
  minLength: 1,
  maxLength: 12,
})
const line = fc.array(word, { maxLength: 20 }).map((words) => words.join(' '))
const prose = fc.array(
  fc.oneof(line, fc.constantFrom('', '', '/**', ' */', '```', '## Title', 'export interface A {', '}')),
  {
    maxLength: 60,
  },
)

/** @returns what counts of a text: all but white space */
function ink(text: string): string {
  return text.replace(/\s+/g, '')
}

describe('splitting into passages', () => {
  it.each(kinds)('keeps every character of %s in order, in passages of bounded length', (kind) => {
    fc.assert(
      fc.property(prose, fc.constantFrom('\n', '\r\n'), (lines, end) => {
        const passages = splitPassages(lines.join(end), kind)
        expect(ink(passages.map(({ text }) => text).join(''))).toBe(ink(lines.join('')))
        for (const { text } of passages) {
          expect(text.length).toBeGreaterThan(0)
          expect(text.length).toBeLessThanOrEqual(passageLengthMax)
          expect(text).not.toMatch(/\p{Cs}/u)
        }
      }),
      seed,
    )
  })

  it.each(kinds)('survives any string as %s', (kind) => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 4000, size: 'max' }), (text) => {
        for (const passage of splitPassages(text, kind))
          expect(passage.text.length).toBeLessThanOrEqual(passageLengthMax)
      }),
      { ...seed, numRuns: 50 },
    )
  })

  it('makes passages of a good size of ordinary prose', () => {
    const paragraph = 'A sentence of some length that says little. '.repeat(3).trim()
    const passages = splitPassages(Array.from({ length: 40 }, () => paragraph).join('\n\n'), 'text')
    expect(passages.length).toBeGreaterThan(5)
    for (const { text } of passages.slice(0, -1)) expect(text.length).toBeGreaterThanOrEqual(passageLengthMin)
    for (const { text } of passages) expect(text.endsWith('.')).toBe(true)
  })

  it('cuts a single long line at the ends of sentences, and without any at the limit', () => {
    const sentences = Array.from({ length: 100 }, (_, i) => `This is sentence number ${i}.`).join(' ')
    const passages = splitPassages(sentences, 'text')
    expect(passages.every(({ text }) => /^This .*\.$/s.test(text))).toBe(true)
    expect(splitPassages('x'.repeat(2000), 'text').map(({ text }) => text.length)).toEqual([900, 900, 200])
    expect(splitPassages(`x${'😀'.repeat(1000)}`, 'text').some(({ text }) => /\p{Cs}/u.test(text))).toBe(false)
  })

  it('cuts after a line, but not after one that comes early', () => {
    const lines = Array.from({ length: 60 }, (_, i) => `line ${i} of many`)
    for (const { text } of splitPassages(lines.join('\n'), 'text')) expect(text).toMatch(/^line .* many$/s)
    const [first] = splitPassages(`short\n${'word '.repeat(500)}`, 'text')
    expect(first!.text.length).toBeGreaterThan(passageLengthMax / 2)
  })

  it('begins a passage at a heading, takes it as title and drops badges', () => {
    const body = 'Some words about the matter at hand. '.repeat(14)
    const passages = splitPassages(
      `# The [tool](https://x.y) \`a\`\n\n[![ci](https://a/b.svg)](https://a)\n<br>\n\n${body}\n\n## Use ##\n\n${body}`,
      'markdown',
    )
    expect(passages.map(({ title }) => title)).toEqual(['The tool a', 'Use'])
    expect(passages[1]!.text.startsWith('## Use ##\nSome words')).toBe(true)
    expect(passages[0]!.text).not.toContain('badge')
    expect(passages[0]!.text).not.toContain('ci')
  })

  it('sees no heading inside fenced code', () => {
    const passages = splitPassages(`## Real\n\n\`\`\`sh\n# not a heading\n\nrun\n\`\`\`\n\nafter`, 'markdown')
    expect(passages).toEqual([{ title: 'Real', text: '## Real\n```sh\n# not a heading\n\nrun\n```\n\nafter' }])
  })

  it('names a declaration by its path and keeps its comment with it', () => {
    const member = (name: string) =>
      `        /**\n         * ${`What ${name} does. `.repeat(22)}\n         */\n        function ${name}(): void;`
    const passages = splitPassages(
      `declare module "fs" {\n    namespace promises {\n${member('read')}\n${member('write')}\n    }\n}\ninterface Other {\n    a: 1\n}`,
      'types',
    )
    expect(passages.map(({ title }) => title)).toEqual(['fs', 'fs.promises.write'])
    expect(passages[1]!.text).toMatch(/^\/\*\*\n \* What write does[\s\S]*function write\(\): void;/)
  })
})
