/**
 * Draws the characters of the catalogue with the fonts that are installed, and says which of them have a picture.
 */
import { catalogue, type Glyph } from './catalogue.ts'
import { embed, inkBox, type Picture, pictureOf } from './picture.ts'

/** Pixels of a side of the canvas, and the font's size on it. */
const canvasSide = 96
const fontSize = 56
/** Code points of no meaning, of four and of five digits: what is drawn for them stands for a missing glyph. */
const unassigned = [
  [0x0378, 0x0380, 0x05ff, 0x0ad2],
  [0x1fbfd, 0x1fbfe, 0x1013f, 0x1cfff],
]

/** Characters of a block that are tried before all of them are. */
const probes = 40

export type Canvas2D = CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D

/** Glyphs one after another, and how far the catalogue is done. */
export type GlyphBatch = {
  readonly glyphs: readonly Glyph[]
  /** Of all glyphs, one after the other. */
  readonly vectors: Float32Array
  /** Where in the catalogue each of them stands. */
  readonly positions: readonly number[]
  readonly next: number
  readonly total: number
  readonly milliseconds: number
}

/** A canvas to draw characters on; undefined where the browser has none for this thread. */
export function glyphCanvas(): Canvas2D | undefined {
  const settings = { willReadFrequently: true } as const
  if (typeof OffscreenCanvas !== 'undefined') {
    const context = new OffscreenCanvas(canvasSide, canvasSide).getContext('2d', settings)
    return context instanceof OffscreenCanvasRenderingContext2D ? context : undefined
  }
  if (typeof document === 'undefined') return undefined
  const canvas = document.createElement('canvas')
  canvas.width = canvasSide
  canvas.height = canvasSide
  const context = canvas.getContext('2d', settings)
  return context instanceof CanvasRenderingContext2D ? context : undefined
}

/** The picture of a text, as large as fits. */
export function drawText(canvas: Canvas2D, text: string): Picture {
  const full = drawAt(canvas, text, fontSize)
  const box = inkBox(full)
  const isCut =
    box !== undefined && (box.left === 0 || box.top === 0 || box.right === canvasSide || box.bottom === canvasSide)
  return isCut ? drawAt(canvas, text, fontSize / 3) : full
}

function drawAt(canvas: Canvas2D, text: string, size: number): Picture {
  canvas.clearRect(0, 0, canvasSide, canvasSide)
  canvas.fillStyle = '#000'
  canvas.font = `${size}px sans-serif`
  canvas.textAlign = 'center'
  canvas.textBaseline = 'middle'
  canvas.fillText(text, canvasSide / 2, canvasSide / 2)
  return pictureOf(canvas.getImageData(0, 0, canvasSide, canvasSide))
}

/** Walks the catalogue from a position on. */
export class GlyphSource {
  readonly #canvas: Canvas2D
  readonly #glyphs = catalogue()
  readonly #missing: (picture: Picture) => boolean
  #next: number
  /** The block that was last begun. */
  #block = ''

  constructor(canvas: Canvas2D, from: number) {
    this.#canvas = canvas
    this.#next = from
    const tests = unassigned.map((codes) =>
      missingTest(codes.map((code) => drawText(canvas, String.fromCodePoint(code)))),
    )
    this.#missing = (picture) => tests.some((isMissing) => isMissing(picture))
  }

  /**
   * Steps over a block of which no font has any of a few characters: browsers look long for each that is missing. Answers whether it
   * did.
   */
  #skipBlock(): boolean {
    const { block } = this.#glyphs[this.#next]!
    if (block === this.#block) return false
    this.#block = block
    let end = this.#next
    while (this.#glyphs[end]?.block === block) end++
    const length = end - this.#next
    if (length < 4 * probes) return false
    for (let probe = 0; probe < probes; probe++) {
      const { character } = this.#glyphs[this.#next + Math.floor((probe * length) / probes)]!
      const picture = drawText(this.#canvas, character)
      if (inkBox(picture) !== undefined && !this.#missing(picture)) return false
    }
    this.#next = end
    return true
  }

  /** Draws for some milliseconds; undefined when the catalogue is done. */
  batch(milliseconds: number): GlyphBatch | undefined {
    if (this.#next >= this.#glyphs.length) return undefined
    const begin = performance.now()
    const glyphs: Glyph[] = []
    const positions: number[] = []
    const found: Float32Array[] = []
    while (this.#next < this.#glyphs.length && performance.now() - begin < milliseconds) {
      if (this.#skipBlock()) continue
      const position = this.#next++
      const glyph = this.#glyphs[position]!
      const picture = drawText(this.#canvas, glyph.character)
      const vector = this.#missing(picture) ? undefined : embed(picture)
      if (vector === undefined) continue
      glyphs.push(glyph)
      positions.push(position)
      found.push(vector)
    }
    const length = found[0]?.length ?? 0
    const vectors = new Float32Array(found.length * length)
    for (const [i, vector] of found.entries()) vectors.set(vector, i * length)
    return {
      glyphs,
      vectors,
      positions,
      next: this.#next,
      total: this.#glyphs.length,
      milliseconds: performance.now() - begin,
    }
  }
}

/**
 * Tells pictures of missing glyphs by samples of them. Most browsers draw the same box each time; some write the code point into it, and
 * then only its frame is compared.
 */
function missingTest(samples: readonly Picture[]): (picture: Picture) => boolean {
  const [first, ...others] = samples
  const box = first && inkBox(first)
  if (first === undefined || box === undefined) return () => false
  const isSame = (picture: Picture): boolean => picture.coverage.every((value, at) => value === first.coverage[at])
  if (others.every(isSame)) return isSame
  const isFrame = (at: number): boolean => {
    const x = at % first.width
    const y = Math.floor(at / first.width)
    return x < box.left + 2 || x >= box.right - 2 || y < box.top + 2 || y >= box.bottom - 2
  }
  const frame = (picture: Picture): boolean =>
    picture.coverage.every((value, at) => !isFrame(at) || value === first.coverage[at])
  return others.every(frame) ? frame : isSame
}
