import { describe, expect, it } from 'vitest'
import { compareRecovered, digestDocument } from '../../docs/examples/crash.js'

const payload = (text: string) => ({
  text,
  path: 'a.md',
  package: 'a',
  title: 'A',
  kind: 'markdown' as const,
  position: 0,
})
const written = ['a', 'b', 'c', 'd'].map((id, index) => ({
  id,
  vector: Float32Array.of(index, 1),
  payload: payload(id),
}))
type Written = (typeof written)[number]

/** The four documents were issued, all but the last acknowledged. */
function compare(found: Written[]) {
  const digests = new Map(written.map((document) => [document.id, digestDocument(document)]))
  const acknowledged = new Map([...digests].slice(0, 3))
  const collection = {
    async *iterate() {
      yield* found
    },
  }
  return compareRecovered(collection as never, { issued: digests, acknowledged, batches: 3 })
}

describe('comparing what a crash left', () => {
  it('finds nothing wrong if all that was acknowledged is there, with or without the batch in flight', async () => {
    expect(await compare(written)).toEqual({ recovered: 4, lost: [], changed: [], foreign: [] })
    expect(await compare(written.slice(0, 3))).toEqual({ recovered: 3, lost: [], changed: [], foreign: [] })
  })

  it('finds what is lost, changed in vector or payload, or was never written', async () => {
    const [a, b, c] = written as [Written, Written, Written]
    expect(await compare([a, c])).toMatchObject({ recovered: 2, lost: ['b'] })
    expect(await compare([a, { ...b, vector: Float32Array.of(1, 1.0000001) }, c])).toMatchObject({ changed: ['b'] })
    expect(await compare([a, { ...b, payload: payload('B') }, c])).toMatchObject({ changed: ['b'] })
    expect(await compare([...written, { ...a, id: 'e' }])).toMatchObject({ foreign: ['e'] })
  })

  it('does not depend on the order of payload fields', () => {
    const { text, ...rest } = payload('x')
    expect(digestDocument({ payload: { ...rest, text } })).toBe(digestDocument({ payload: { text, ...rest } }))
  })
})
