/** Draws glyphs beside the page: a message says from where, each further one asks for the next batch. */
import { GlyphSource, glyphCanvas } from './glyph-source.ts'

/** Milliseconds of drawing for one answer. */
const turn = 60

const scope = globalThis as unknown as Pick<Worker, 'postMessage'> & { onmessage: (event: MessageEvent) => void }
let source: GlyphSource | undefined

scope.onmessage = ({ data }: MessageEvent<{ from?: number }>) => {
  if (data.from !== undefined) {
    const canvas = glyphCanvas()
    source = canvas && new GlyphSource(canvas, data.from)
    // Without a canvas here the page draws itself.
    scope.postMessage({ isReady: source !== undefined })
    return
  }
  const batch = source?.batch(turn)
  scope.postMessage({ batch }, batch === undefined ? [] : [batch.vectors.buffer])
}
