import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Bitmap } from '../../src/codec/bitmap.ts'
import { runs } from '../support/property.ts'

// Lengths around the edges of words, where masks go wrong.
const length = fc.oneof(fc.nat({ max: 300 }), fc.constantFrom(0, 1, 31, 32, 33, 63, 64, 65, 96))

/** A bitmap beside the set that it must equal. */
const pair = (size: number): fc.Arbitrary<{ bitmap: Bitmap; rows: Set<number> }> =>
  fc.uniqueArray(fc.nat({ max: Math.max(0, size - 1) })).map((list) => {
    const rows = new Set(size === 0 ? [] : list)
    const bitmap = Bitmap.of(size)
    for (const row of rows) bitmap.add(row)
    return { bitmap, rows }
  })

const two = length.chain((size) => fc.tuple(fc.constant(size), pair(size), pair(size)))

function expectEqual(bitmap: Bitmap, rows: Iterable<number>, size: number): void {
  const wanted = [...rows].sort((a, b) => a - b)
  expect([...bitmap.rows()]).toEqual(wanted)
  expect(bitmap.count()).toBe(wanted.length)
  expect(bitmap.length).toBe(size)
  const seen: number[] = []
  bitmap.forEach((row) => {
    seen.push(row)
  })
  expect(seen).toEqual(wanted)
  const words = new Uint32Array(Math.ceil(size / 32))
  for (const row of wanted) words[row >>> 5]! |= 1 << (row & 31)
  expect(bitmap.words).toEqual(words)
}

const every = (size: number): number[] => Array.from({ length: size }, (_, row) => row)

test('combines as sets do', () => {
  fc.assert(
    fc.property(two, ([size, a, b]) => {
      expectEqual(
        a.bitmap.clone().and(b.bitmap),
        [...a.rows].filter((row) => b.rows.has(row)),
        size,
      )
      expectEqual(a.bitmap.clone().or(b.bitmap), new Set([...a.rows, ...b.rows]), size)
      expectEqual(
        a.bitmap.clone().andNot(b.bitmap),
        [...a.rows].filter((row) => !b.rows.has(row)),
        size,
      )
      expectEqual(
        a.bitmap.clone().not(),
        every(size).filter((row) => !a.rows.has(row)),
        size,
      )
      expectEqual(a.bitmap, a.rows, size)
      expectEqual(b.bitmap, b.rows, size)
    }),
    runs(500),
  )
})

test('has, adds and removes rows', () => {
  fc.assert(
    fc.property(two, ([size, a, b]) => {
      for (const row of every(size + 40)) expect(a.bitmap.has(row)).toBe(a.rows.has(row))
      for (const row of b.rows) {
        a.bitmap.remove(row)
        a.rows.delete(row)
      }
      expectEqual(a.bitmap, a.rows, size)
    }),
    runs(300),
  )
})

test('adds ranges', () => {
  const range = two.chain(([size, a]) =>
    fc.tuple(fc.constant(size), fc.constant(a), fc.nat({ max: size }), fc.nat({ max: size })),
  )
  fc.assert(
    fc.property(range, ([size, a, from, to]) => {
      expectEqual(
        a.bitmap.addRange(from, to),
        new Set([...a.rows, ...every(size).slice(from, Math.max(from, to))]),
        size,
      )
    }),
    runs(500),
  )
})

test('is full or empty to begin with', () => {
  for (const size of [0, 1, 31, 32, 33, 64, 100]) {
    expectEqual(Bitmap.full(size), every(size), size)
    expectEqual(Bitmap.of(size), [], size)
  }
})

test('refuses to combine sets over other rows', () => {
  expect(() => Bitmap.of(3).and(Bitmap.of(4))).toThrow('same rows')
  expect(() => Bitmap.of(3).or(Bitmap.of(40))).toThrow('same rows')
  expect(() => Bitmap.of(40).andNot(Bitmap.of(3))).toThrow('same rows')
})
