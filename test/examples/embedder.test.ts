import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createEmbedder, stemWord } from '../../docs/examples/embedder.js'

const seed = process.env.FC_SEED === undefined ? {} : { seed: Number(process.env.FC_SEED) }

function dot(a: Float32Array, b: Float32Array): number {
  return a.reduce((sum, value, index) => sum + value * b[index]!, 0)
}

/** Well-formed text, any code units at all (lone surrogates too), white space, punctuation, control characters. */
const anyText = fc.oneof(
  fc.string({ unit: 'grapheme', minLength: 1 }),
  fc.string({ unit: 'binary', minLength: 1 }),
  fc.array(fc.integer({ min: 0, max: 0xffff }), { minLength: 1 }).map((units) => String.fromCharCode(...units)),
  fc.string({ unit: fc.constantFrom(' ', '\n', '\t', '.', '-', '\u0000', '\u200b', '\ufeff'), minLength: 1 }),
)

describe('embedder', () => {
  it('gives finite vectors of length 1, the same ones each time, for any text', async () => {
    const first = await createEmbedder()
    const second = await createEmbedder()
    await fc.assert(
      fc.asyncProperty(fc.array(anyText, { maxLength: 4 }), async (texts) => {
        const vectors = await first.embed(texts)
        expect(vectors.length).toBe(texts.length)
        expect(await second.embed(texts)).toEqual(vectors)
        for (const vector of vectors) {
          expect(vector).toBeInstanceOf(Float32Array)
          expect(vector.length).toBe(first.dimension)
          expect(vector.every(Number.isFinite)).toBe(true)
          expect(dot(vector, vector)).toBeCloseTo(1, 5)
        }
      }),
      seed,
    )
  })

  it('gives a vector even for no text and for features that the sample made worthless', async () => {
    const embedder = await createEmbedder({ sample: Array.from({ length: 2000 }, () => 'the same words') })
    for (const vector of await embedder.embed(['', '  ', 'the same words', '. . .'])) {
      expect(dot(vector, vector)).toBeCloseTo(1, 5)
    }
  })

  it('does not let the neighbours in a batch matter', async () => {
    const embedder = await createEmbedder()
    const [alone] = await embedder.embed(['a lonely text'])
    const [, among] = await embedder.embed(['before', 'a lonely text', 'after'])
    expect(among).toEqual(alone)
  })

  it.each([
    ['how to stop a child process', 'Stops the child process by a signal', 'Rounds a number to two digits'],
    ['readFileSync', 'Reads a file, blocking: read it whole', 'Plays a sound in the browser'],
    ['parsing of JSON streams', 'A parser for a stream of JSON', 'Colours for terminals and their names'],
    ['größere Äpfel pflücken', 'Der größere Apfel wurde gepflückt', 'Ein Zug fährt nach Norden'],
    ['東京都の天気予報', '天気予報によると東京は晴れ', '料理の作り方を学ぶ'],
    ['recieve mesages', 'receives messages', 'draws triangles'],
  ])('puts %j nearer to %j than to %j', async (query, near, far) => {
    const embedder = await createEmbedder()
    const [q, n, f] = await embedder.embed([query, near, far])
    expect(dot(q!, n!)).toBeGreaterThan(dot(q!, f!) + 0.1)
  })

  it('keeps inner products of the projection: unrelated texts are near a right angle', async () => {
    const embedder = await createEmbedder()
    let state = 1
    const letter = () => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0
      return String.fromCharCode(97 + ((state >>> 16) % 26))
    }
    const word = () => Array.from({ length: 9 }, letter).join('')
    const vectors = await embedder.embed(Array.from({ length: 40 }, () => Array.from({ length: 30 }, word).join(' ')))
    const products = vectors.flatMap((a, i) => vectors.slice(i + 1).map((b) => dot(a, b)))
    const mean = products.reduce((sum, value) => sum + value, 0) / products.length
    expect(Math.abs(mean)).toBeLessThan(0.05)
    expect(Math.max(...products.map(Math.abs))).toBeLessThan(0.3)
  })

  it('weighs down what is common in the sample', async () => {
    const sample = Array.from({ length: 200 }, (_, i) => `declare export interface number${i}`)
    const plain = await createEmbedder()
    const fitted = await createEmbedder({ sample })
    const texts = ['export declare interface zebra', 'export declare interface', 'zebra']
    const [a, b, c] = await plain.embed(texts)
    const [d, e, f] = await fitted.embed(texts)
    expect(dot(d!, f!)).toBeGreaterThan(dot(a!, c!))
    expect(dot(d!, e!)).toBeLessThan(dot(a!, b!))
  })

  it('names models apart that give other vectors', async () => {
    const fit = (sample: string[]) => createEmbedder({ sample })
    const models = [await createEmbedder(), await fit(['one']), await fit(['two']), await fit(['one', 'two'])]
    expect(new Set(models.map(({ model }) => model)).size).toBe(4)
    expect((await fit(['one'])).model).toBe(models[1]!.model)
    expect((await fit([])).model).toBe(models[0]!.model)
  })

  it.each([
    ['streams', 'stream'],
    ['streaming', 'stream'],
    ['streamed', 'stream'],
    ['queries', 'query'],
    ['stopped', 'stop'],
    ['names', 'nam'],
    ['name', 'nam'],
    ['process', 'process'],
    ['status', 'status'],
    ['string', 'string'],
    ['is', 'is'],
    ['größe', 'größe'],
  ])('stems %s to %s', (word, stem) => {
    expect(stemWord(word)).toBe(stem)
  })
})
