import * as fc from 'fast-check'
import { expect, test } from 'vitest'
import { ByteReader, ByteWriter } from '../../src/codec/bytes.ts'
import { runs } from '../support/property.ts'

type Part =
  | { kind: 'uint8' | 'uint16' | 'uint32'; value: number }
  | { kind: 'bytes'; value: Uint8Array }
  | { kind: 'utf8'; value: string }

const part: fc.Arbitrary<Part> = fc.oneof(
  { weight: 4, arbitrary: fc.nat(0xff).map((value) => ({ kind: 'uint8' as const, value })) },
  fc.nat(0xffff).map((value) => ({ kind: 'uint16' as const, value })),
  fc.nat(0x7fffffff).map((value) => ({ kind: 'uint32' as const, value })),
  fc.uint8Array({ maxLength: 40 }).map((value) => ({ kind: 'bytes' as const, value })),
  fc.string({ unit: 'grapheme', maxLength: 20 }).map((value) => ({ kind: 'utf8' as const, value })),
)

test('a writer grows with whatever is written, and a reader reads it back', () => {
  fc.assert(
    fc.property(fc.nat(4), fc.array(part, { maxLength: 60 }), (capacity, parts) => {
      const writer = new ByteWriter(capacity)
      const sizes = parts.map((each) => {
        const before = writer.size
        if (each.kind === 'bytes') writer.bytes(each.value)
        else if (each.kind === 'utf8') expect(writer.utf8(each.value)).toBe(writer.size - before)
        else writer[each.kind](each.value)
        return writer.size - before
      })
      const reader = new ByteReader(writer.finish(), 'test')
      for (const [i, each] of parts.entries()) {
        if (each.kind === 'bytes') expect(reader.bytes(sizes[i]!)).toEqual(each.value)
        else if (each.kind === 'utf8') expect(reader.utf8(sizes[i]!)).toBe(each.value)
        else expect(reader[each.kind]()).toBe(each.value)
      }
      expect(reader.remaining).toBe(0)
    }),
    runs(300),
  )
})

test('a writer grows byte by byte', () => {
  const writer = new ByteWriter(1)
  for (let i = 0; i < 1000; i++) writer.uint8(i & 0xff)
  expect(writer.size).toBe(1000)
  expect(writer.finish()).toEqual(Uint8Array.from({ length: 1000 }, (_, i) => i & 0xff))
})
