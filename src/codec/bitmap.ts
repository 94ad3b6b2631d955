/**
 * Sets of rows as bits.
 */
import { assert } from '../errors.ts'

/** A set of rows below a fixed length. Bits beyond the length are always 0. */
export class Bitmap {
  /** Rows that can be in the set: 0 … length - 1. */
  readonly length: number
  /** Bit `row & 31` of word `row >>> 5` stands for a row. Who writes here keeps the bits beyond `length` at 0. */
  readonly words: Uint32Array

  private constructor(length: number, words: Uint32Array) {
    this.length = length
    this.words = words
  }

  /** The empty set over `length` rows, below 2^32. */
  static of(length: number): Bitmap {
    return new Bitmap(length, new Uint32Array(Math.ceil(length / 32)))
  }

  /** The set of all `length` rows. */
  static full(length: number): Bitmap {
    return Bitmap.of(length).addRange(0, length)
  }

  /** Whether a row is in the set; false for any row that is not below the length. */
  has(row: number): boolean {
    return row < this.length && ((this.words[row >>> 5]! >>> (row & 31)) & 1) === 1
  }

  /** Adds a row below the length. */
  add(row: number): this {
    this.words[row >>> 5]! |= 1 << (row & 31)
    return this
  }

  /** Removes a row below the length. */
  remove(row: number): this {
    this.words[row >>> 5]! &= ~(1 << (row & 31))
    return this
  }

  /** Adds the rows `from` … `to - 1`; `to` is at most the length. O(words). */
  addRange(from: number, to: number): this {
    if (from >= to) return this
    const first = from >>> 5
    const last = (to - 1) >>> 5
    const head = -1 << (from & 31)
    const tail = -1 >>> (31 - ((to - 1) & 31))
    if (first === last) {
      this.words[first]! |= head & tail
      return this
    }
    this.words[first]! |= head
    this.words.fill(0xffffffff, first + 1, last)
    this.words[last]! |= tail
    return this
  }

  /** Keeps the rows that are in `other` too, of the same length. */
  and(other: Bitmap): this {
    const { words } = this
    const others = this.#wordsOf(other)
    for (let i = 0; i < words.length; i++) words[i]! &= others[i]!
    return this
  }

  /** Adds the rows of `other`, of the same length. */
  or(other: Bitmap): this {
    const { words } = this
    const others = this.#wordsOf(other)
    for (let i = 0; i < words.length; i++) words[i]! |= others[i]!
    return this
  }

  /** Removes the rows of `other`, of the same length. */
  andNot(other: Bitmap): this {
    const { words } = this
    const others = this.#wordsOf(other)
    for (let i = 0; i < words.length; i++) words[i]! &= ~others[i]!
    return this
  }

  /** Becomes the set of the rows that were not in it. */
  not(): this {
    const { words } = this
    for (let i = 0; i < words.length; i++) words[i] = ~words[i]!
    const rest = this.length & 31
    if (rest !== 0) words[words.length - 1]! &= -1 >>> (32 - rest)
    return this
  }

  /** Rows in the set. O(words). */
  count(): number {
    const { words } = this
    let count = 0
    for (let i = 0; i < words.length; i++) {
      let word = words[i]!
      if (word === 0) continue
      word -= (word >>> 1) & 0x55555555
      word = (word & 0x33333333) + ((word >>> 2) & 0x33333333)
      count += Math.imul((word + (word >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24
    }
    return count
  }

  clone(): Bitmap {
    return new Bitmap(this.length, this.words.slice())
  }

  /** The rows in the set, rising. */
  rows(): Uint32Array {
    const rows = new Uint32Array(this.count())
    let filled = 0
    this.forEach((row) => {
      rows[filled++] = row
    })
    return rows
  }

  /** Calls `visit` with each row in the set, rising. */
  forEach(visit: (row: number) => void): void {
    const { words } = this
    for (let i = 0; i < words.length; i++) {
      for (let word = words[i]!; word !== 0; word &= word - 1) visit(i * 32 + 31 - Math.clz32(word & -word))
    }
  }

  #wordsOf(other: Bitmap): Uint32Array {
    assert(other.length === this.length, 'sets over the same rows are combined')
    return other.words
  }
}
