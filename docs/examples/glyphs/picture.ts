/**
 * Pictures as vectors: what a glyph or a drawing looks like, whatever its place and size.
 */

/** Pixels of a side of the normalised picture. */
const side = 24
/** Of these, the longer side of what is drawn; the rest is margin. */
const inkSide = 20
/** The picture is divided into as many cells each way for the histograms of directions. */
const cells = 4
const directions = 8
/** Coverage below this, of 255, is taken for noise at the edge of a glyph. */
const inkMin = 32

/** Components of a vector: the picture itself, then the directions of its edges. */
export const dimension = side * side + cells * cells * directions
/** Name of this way to make vectors: vectors of another one must not be compared with these. */
export const model = 'picture-24-directions-8'

/** Coverage by ink, 0 to 255, row by row. */
export type Picture = { readonly width: number; readonly height: number; readonly coverage: Uint8Array }

type Box = { readonly left: number; readonly top: number; readonly right: number; readonly bottom: number }

/** How much ink there is in each pixel of a transparent canvas. Dark counts more than light, so that coloured glyphs keep their features. */
export function pictureOf({ width, height, data }: ImageData): Picture {
  const coverage = new Uint8Array(width * height)
  for (let at = 0, from = 0; at < coverage.length; at++, from += 4) {
    const alpha = data[from + 3]!
    if (alpha === 0) continue
    const light = (data[from]! * 77 + data[from + 1]! * 151 + data[from + 2]! * 28) / 65536
    coverage[at] = alpha * (1 - 0.7 * light)
  }
  return { width, height, coverage }
}

/** The smallest box around all ink; undefined if there is none. */
export function inkBox({ width, height, coverage }: Picture): Box | undefined {
  let left = width
  let right = 0
  let top = height
  let bottom = 0
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      if (coverage[at]! < inkMin) continue
      if (x < left) left = x
      if (x >= right) right = x + 1
      if (y < top) top = y
      bottom = y + 1
    }
  }
  return right > left ? { left, top, right, bottom } : undefined
}

/** The vector of a picture; undefined if it is blank. */
export function embed(picture: Picture): Float32Array | undefined {
  const box = inkBox(picture)
  if (box === undefined) return undefined
  const pixels = normalise(picture, box)
  blur(pixels)
  blur(pixels)
  const vector = new Float32Array(dimension)
  vector.set(pixels)
  addDirections(pixels, vector.subarray(side * side))
  centre(vector.subarray(0, side * side))
  // Both halves count the same, however much ink there is.
  toUnitLength(vector.subarray(0, side * side))
  toUnitLength(vector.subarray(side * side))
  return vector
}

/** Scales the box to the picture's inner square, centred, proportions kept. */
function normalise({ width, coverage }: Picture, { left, top, right, bottom }: Box): Float32Array {
  const scale = inkSide / Math.max(right - left, bottom - top)
  const columns = sourceRanges(left, right, scale)
  const rows = sourceRanges(top, bottom, scale)
  const pixels = new Float32Array(side * side)
  for (let y = 0; y < side; y++) {
    const [y0, y1] = rows[y]!
    for (let x = 0; x < side; x++) {
      const [x0, x1] = columns[x]!
      if (y1 <= y0 || x1 <= x0) continue
      let sum = 0
      for (let v = Math.floor(y0); v < y1; v++) {
        const part = Math.min(v + 1, y1) - Math.max(v, y0)
        for (let u = Math.floor(x0); u < x1; u++) {
          sum += coverage[v * width + u]! * part * (Math.min(u + 1, x1) - Math.max(u, x0))
        }
      }
      pixels[y * side + x] = (sum * scale * scale) / 255
    }
  }
  return pixels
}

/** Which part of the source, from `low` to `high`, each pixel of a normalised row or column covers. */
function sourceRanges(low: number, high: number, scale: number): [number, number][] {
  const margin = (side - (high - low) * scale) / 2
  return Array.from({ length: side }, (_, at) => [
    Math.max(low, (at - margin) / scale + low),
    Math.min(high, (at + 1 - margin) / scale + low),
  ])
}

/** Weights 1, 2, 1 along rows, then along columns: no drawing meets a glyph to the pixel. */
function blur(pixels: Float32Array): void {
  for (const [step, next] of [
    [1, side],
    [side, 1],
  ] as const) {
    for (let line = 0; line < side; line++) {
      let before = 0
      for (let i = 0, at = line * next; i < side; i++, at += step) {
        const here = pixels[at]!
        const after = i + 1 < side ? pixels[at + step]! : 0
        pixels[at] = (before + 2 * here + after) / 4
        before = here
      }
    }
  }
}

/** Adds each edge to the histograms of the cells around it, by strength and by direction without sense. */
function addDirections(pixels: Float32Array, histograms: Float32Array): void {
  for (let y = 1; y < side - 1; y++) {
    for (let x = 1; x < side - 1; x++) {
      const at = y * side + x
      const dx = pixels[at + 1]! - pixels[at - 1]!
      const dy = pixels[at + side]! - pixels[at - side]!
      const strength = Math.hypot(dx, dy)
      if (strength < 0.01) continue
      const turn = ((Math.atan2(dy, dx) + 2 * Math.PI) % Math.PI) * (directions / Math.PI)
      for (const [row, rowPart] of shares(((y + 0.5) * cells) / side - 0.5, cells)) {
        for (const [column, columnPart] of shares(((x + 0.5) * cells) / side - 0.5, cells)) {
          const weight = strength * rowPart * columnPart
          const first = (row * cells + column) * directions
          const low = Math.floor(turn) % directions
          const high = (low + 1) % directions
          const beyond = turn - Math.floor(turn)
          histograms[first + low]! += weight * (1 - beyond)
          histograms[first + high]! += weight * beyond
        }
      }
    }
  }
  // A root keeps the strongest edges from drowning the others.
  for (let i = 0; i < histograms.length; i++) histograms[i] = Math.sqrt(histograms[i]!)
}

/** The two cells that a position lies between, and how much of it each gets. */
function shares(position: number, count: number): [number, number][] {
  const low = Math.floor(position)
  const part = position - low
  const both: [number, number][] = [
    [low, 1 - part],
    [low + 1, part],
  ]
  return both.filter(([cell]) => cell >= 0 && cell < count)
}

/** Without its mean, an empty margin that two pictures share counts as little as ink that they share. */
function centre(values: Float32Array): void {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length
  for (let i = 0; i < values.length; i++) values[i]! -= mean
}

function toUnitLength(values: Float32Array): void {
  const length = Math.hypot(...values)
  if (length === 0) return
  for (let i = 0; i < values.length; i++) values[i]! /= length
}
