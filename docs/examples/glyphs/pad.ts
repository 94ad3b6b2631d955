/**
 * The field to draw on, by mouse, touch or pen, and what is drawn as a picture.
 */
import { type Canvas2D, drawText, glyphCanvas } from './glyph-source.ts'
import { type Picture, pictureOf } from './picture.ts'

type Point = { readonly x: number; readonly y: number }

/** The pad's own units for each side, whatever its size on the screen. */
const units = 320
/** Width of a line in the picture that is searched for, as a share of the drawing's longer side: about that of letters. */
const penShare = 0.1
/** Pixels of a side of that picture. */
const pictureSide = 96

export class Pad {
  readonly #canvas: HTMLCanvasElement
  readonly #screen: CanvasRenderingContext2D
  readonly #picture: Canvas2D
  readonly #onChange: (isFinal: boolean) => void
  #strokes: Point[][] = []
  #text = ''
  #pointer: number | undefined

  constructor(canvas: HTMLCanvasElement, onChange: (isFinal: boolean) => void) {
    const screen = canvas.getContext('2d')
    const picture = glyphCanvas()
    if (screen === null || picture === undefined) throw new Error('this browser gives no canvas to draw on')
    this.#canvas = canvas
    this.#screen = screen
    this.#picture = picture
    this.#onChange = onChange
    canvas.addEventListener('pointerdown', (event) => this.#begin(event))
    canvas.addEventListener('pointermove', (event) => this.#move(event))
    for (const end of ['pointerup', 'pointercancel'] as const) canvas.addEventListener(end, (event) => this.#end(event))
    new ResizeObserver(() => this.#paint()).observe(canvas)
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.#paint())
  }

  get isEmpty(): boolean {
    return this.#strokes.length === 0 && this.#text === ''
  }

  undo(): void {
    if (this.#text !== '') this.#text = ''
    else this.#strokes.pop()
    this.#changed(true)
  }

  clear(): void {
    this.#strokes = []
    this.#text = ''
    this.#changed(true)
  }

  /** Takes a character instead of a drawing. */
  show(text: string): void {
    this.#strokes = []
    this.#text = text
    this.#changed(true)
  }

  /** What there is to search for; undefined if nothing is. */
  picture(): Picture | undefined {
    if (this.#text !== '') return drawText(this.#picture, this.#text)
    const points = this.#strokes.flat()
    if (points.length === 0) return undefined
    const xs = points.map(({ x }) => x)
    const ys = points.map(({ y }) => y)
    const [left, top] = [Math.min(...xs), Math.min(...ys)]
    const [width, height] = [Math.max(...xs) - left, Math.max(...ys) - top]
    const longer = Math.max(width, height, 1)
    const scale = (pictureSide * (1 - 2 * penShare)) / longer
    const canvas = this.#picture
    canvas.save()
    canvas.clearRect(0, 0, pictureSide, pictureSide)
    canvas.translate(pictureSide / 2, pictureSide / 2)
    canvas.scale(scale, scale)
    canvas.translate(-left - width / 2, -top - height / 2)
    this.#trace(canvas, longer * penShare, '#000')
    canvas.restore()
    return pictureOf(canvas.getImageData(0, 0, pictureSide, pictureSide))
  }

  #begin(event: PointerEvent): void {
    if (this.#pointer !== undefined || event.button !== 0) return
    event.preventDefault()
    this.#pointer = event.pointerId
    this.#canvas.setPointerCapture(event.pointerId)
    this.#text = ''
    this.#strokes.push([this.#pointOf(event)])
    this.#changed(false)
  }

  #move(event: PointerEvent): void {
    if (event.pointerId !== this.#pointer) return
    const stroke = this.#strokes.at(-1)!
    const passed = event.getCoalescedEvents?.() ?? []
    for (const each of passed.length > 0 ? passed : [event]) stroke.push(this.#pointOf(each))
    this.#changed(false)
  }

  #end(event: PointerEvent): void {
    if (event.pointerId !== this.#pointer) return
    this.#pointer = undefined
    this.#changed(true)
  }

  #pointOf({ clientX, clientY }: PointerEvent): Point {
    const { left, top, width, height } = this.#canvas.getBoundingClientRect()
    return { x: ((clientX - left) / width) * units, y: ((clientY - top) / height) * units }
  }

  #changed(isFinal: boolean): void {
    this.#paint()
    this.#onChange(isFinal)
  }

  #paint(): void {
    const pixels = Math.round(this.#canvas.clientWidth * devicePixelRatio)
    if (pixels === 0) return
    if (this.#canvas.width !== pixels) {
      this.#canvas.width = pixels
      this.#canvas.height = pixels
    }
    const { color } = getComputedStyle(this.#canvas)
    const screen = this.#screen
    screen.setTransform(pixels / units, 0, 0, pixels / units, 0, 0)
    screen.clearRect(0, 0, units, units)
    this.#trace(screen, 13, color)
    if (this.#text === '') return
    screen.fillStyle = color
    screen.font = `${units * 0.6}px sans-serif`
    screen.textAlign = 'center'
    screen.textBaseline = 'middle'
    screen.fillText(this.#text, units / 2, units / 2, units)
  }

  #trace(canvas: Canvas2D, width: number, colour: string): void {
    canvas.strokeStyle = colour
    canvas.lineWidth = width
    canvas.lineCap = 'round'
    canvas.lineJoin = 'round'
    for (const [first, ...others] of this.#strokes) {
      canvas.beginPath()
      canvas.moveTo(first!.x, first!.y)
      // A line to where it began makes a dot of a tap.
      canvas.lineTo(first!.x, first!.y)
      for (const { x, y } of others) canvas.lineTo(x, y)
      canvas.stroke()
    }
  }
}
