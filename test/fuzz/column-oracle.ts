/**
 * Attribute columns read as docs/format.md tells them, in no hurry, value by value and bit by bit.
 */
import type { Condition, Scalar } from '../../src/condition.ts'
import { view } from './layout.ts'

/** What is no such column. */
class Impossible extends Error {}

function require(holds: boolean): void {
  if (!holds) throw new Impossible()
}

/** What a reading gives, undefined where the bytes are none. */
function possible<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch (error) {
    if (error instanceof Impossible) return undefined
    throw error
  }
}

const types = ['null', 'boolean', 'number', 'string', 'text'] as const
type Value = { readonly type: (typeof types)[number]; readonly body: Uint8Array; readonly rows: readonly number[] }
type Front = { readonly isKept: boolean; readonly rows: readonly number[]; readonly cursor: ColumnBytes }

/** The bytes of one column, read front to back. */
class ColumnBytes {
  readonly #bytes: Uint8Array
  readonly #rowCount: number
  #at = 0

  constructor(bytes: Uint8Array, rowCount: number) {
    this.#bytes = bytes
    this.#rowCount = rowCount
  }

  get isAtEnd(): boolean {
    return this.#at === this.#bytes.length
  }

  take(size: number): Uint8Array {
    require(size <= this.#bytes.length - this.#at)
    this.#at += size
    return this.#bytes.subarray(this.#at - size, this.#at)
  }

  byte(): number {
    return this.take(1)[0]!
  }

  varint(): number {
    let value = 0n
    for (let shift = 0n; shift < 35n; shift += 7n) {
      const byte = this.byte()
      value |= BigInt(byte & 127) << shift
      if (byte < 128) {
        require(value < 2n ** 32n)
        return Number(value)
      }
    }
    throw new Impossible()
  }

  /** Lists of so many rows each, one after the other, up to the end of a byte. */
  lists(counts: readonly number[]): number[][] {
    let bit = 0
    const next = (): number => {
      const at = this.#at + (bit >> 3)
      require(at < this.#bytes.length)
      return (this.#bytes[at]! >> (bit++ & 7)) & 1
    }
    const lists = counts.map((count) => this.#list(count, next))
    this.take(Math.ceil(bit / 8))
    return lists
  }

  #list(count: number, bit: () => number): number[] {
    const n = this.#rowCount
    require(count > 0 && count <= n)
    const m = Math.min(count, n - count)
    const k = m === 0 ? 0 : Math.floor(Math.log2(Math.floor(n / m)))
    const listed = new Uint8Array(n)
    let row = -1
    for (let i = 0; i < m; i++) {
      let high = 0
      while (bit() === 0) high++
      let low = 0
      for (let j = 0; j < k; j++) low += bit() << j
      row += high * 2 ** k + low + 1
      require(row < n)
      listed[row] = 1
    }
    const wanted = count <= n - count ? 1 : 0
    const rows: number[] = []
    for (let each = 0; each < n; each++) if (listed[each] === wanted) rows.push(each)
    return rows
  }
}

/** The body of a value, undefined where it is not told by its body alone. */
function bodyOf(value: Scalar): { type: Value['type']; body: Uint8Array } | undefined {
  if (value === null) return { type: 'null', body: new Uint8Array(0) }
  if (typeof value === 'boolean') return { type: 'boolean', body: Uint8Array.of(Number(value)) }
  if (typeof value === 'string') {
    return /^[\0-\x7f]{0,128}$/.test(value) ? { type: 'string', body: new TextEncoder().encode(value) } : undefined
  }
  const body = new Uint8Array(8)
  new DataView(body.buffer).setFloat64(0, value + 0)
  const isNegative = body[0]! >= 128
  return { type: 'number', body: body.map((byte, i) => (isNegative ? byte ^ 255 : i === 0 ? byte ^ 128 : byte)) }
}

const compare = (a: Uint8Array, b: Uint8Array): number => Buffer.compare(a, b)

/** A section of attribute columns. */
export class ColumnOracle {
  readonly #rowCount: number
  /** The bytes of columns by name, which is compared byte by byte. */
  readonly #columns: ReadonlyMap<string, Uint8Array>

  private constructor(rowCount: number, columns: ReadonlyMap<string, Uint8Array>) {
    this.#rowCount = rowCount
    this.#columns = columns
  }

  /** Undefined where the directory is impossible. */
  static open(bytes: Uint8Array, rowCount: number): ColumnOracle | undefined {
    return possible(() => {
      require(bytes.length >= 40)
      const numbers = view(bytes)
      const count = numbers.getUint32(4, true)
      const namesAt = 16 + 8 * (count + 1)
      require(numbers.getUint32(0, true) === rowCount && namesAt + 16 <= bytes.length)
      const starts = (from: number): number[] =>
        Array.from({ length: count + 1 }, (_, i) => numbers.getUint32(from + 4 * i, true))
      const names = starts(16)
      const columns = starts(16 + 4 * (count + 1))
      const columnsAt = namesAt + names.at(-1)!
      require(names[0] === 0 && columns[0] === 0 && columnsAt + columns.at(-1)! === bytes.length - 16)
      const found = new Map<string, Uint8Array>()
      let before: Uint8Array | undefined
      for (let i = 0; i < count; i++) {
        require(names[i]! <= names[i + 1]! && columns[i]! < columns[i + 1]!)
        const name = bytes.subarray(namesAt + names[i]!, namesAt + names[i + 1]!)
        require(before === undefined || compare(before, name) < 0)
        found.set(
          Buffer.from(name).toString('latin1'),
          bytes.subarray(columnsAt + columns[i]!, columnsAt + columns[i + 1]!),
        )
        before = name
      }
      return new ColumnOracle(rowCount, found)
    })
  }

  /** The rows for which a condition holds; undefined where the column is impossible, `unknown` where payloads or orders decide. */
  rowsOf(path: string, condition: Condition): readonly number[] | undefined | 'unknown' {
    const bytes = this.#columns.get(Buffer.from(path).toString('latin1'))
    if (bytes === undefined) return this.#columns.has('') ? 'unknown' : []
    const front = possible(() => this.#front(bytes))
    if (condition.kind === 'exists') return front?.rows
    if (front === undefined) return undefined
    if (!front.isKept) return 'unknown'
    const values = possible(() => this.#values(front.cursor))
    if (values === undefined || condition.kind !== 'equal') return values === undefined ? undefined : 'unknown'
    const rows = new Set<number>()
    for (const value of condition.values) {
      const wanted = bodyOf(value)
      if (wanted === undefined) return 'unknown'
      for (const { type, body, rows: own } of values) {
        if (type === wanted.type && compare(body, wanted.body) === 0) for (const row of own) rows.add(row)
      }
    }
    return [...rows].sort((a, b) => a - b)
  }

  #front(bytes: Uint8Array): Front {
    const cursor = new ColumnBytes(bytes, this.#rowCount)
    const kind = cursor.byte()
    require(kind < 2)
    const [rows] = cursor.lists([cursor.varint()])
    require(kind === 0 || cursor.isAtEnd)
    return { isKept: kind === 0, rows: rows!, cursor }
  }

  #values(cursor: ColumnBytes): Value[] {
    const counts = types.map(() => cursor.varint())
    require(counts[0]! <= 1 && counts[1]! <= 2)
    const sizes = cursor.take(counts[3]!)
    require(sizes.every((size) => size <= 128))
    const bodies = types.flatMap((type, t) => {
      let before: Uint8Array | undefined
      // One that is impossible ends it, however many are told.
      const found: { type: Value['type']; body: Uint8Array }[] = []
      for (let i = 0; i < counts[t]!; i++) {
        const body = cursor.take(type === 'string' ? sizes[i]! : [0, 1, 8, 0, 72][t]!)
        require(before === undefined || compare(before, body) < 0)
        require(type !== 'boolean' || body[0]! <= 1)
        found.push({ type, body })
        before = body
      }
      return found
    })
    const lists = cursor.lists(bodies.map(() => cursor.varint()))
    require(cursor.isAtEnd)
    return bodies.map((body, i) => ({ ...body, rows: lists[i]! }))
  }
}
