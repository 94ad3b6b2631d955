import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Bitmap } from '../../src/codec/bitmap.ts'
import type { Condition } from '../../src/condition.ts'
import { isIsovecError } from '../../src/errors.ts'
import { Slice } from '../../src/slice.ts'
import { attributeLimits } from '../../src/storage/attribute-log.ts'
import { ColumnBuilder, type ColumnLimits, columnLimits } from '../../src/storage/column-builder.ts'
import { openColumns } from '../../src/storage/columns.ts'
import { MemoryColumns } from '../../src/storage/memory-columns.ts'
import { encodePayload, filtering, type Json, type Payload, rowsNaively, rowsOf } from '../support/attributes.ts'
import { runs } from '../support/property.ts'
import { seed } from '../support/seed.ts'
import { randomNumbers } from '../support/vectors.ts'

type Payloads = readonly (Json | undefined)[]

function build(payloads: Payloads, limits?: ColumnLimits): Uint8Array {
  const builder = new ColumnBuilder(payloads.length, 'test', limits)
  payloads.forEach((each, row) => {
    builder.add(row, encodePayload(each))
  })
  return builder.finish()
}

/** Columns of payloads, and the rows whose payload was asked for. */
function open(payloads: Payloads, bytes = build(payloads), cacheSizeMax?: number) {
  const asked: number[] = []
  const payloadAt = (row: number) => {
    asked.push(row)
    return encodePayload(payloads[row])
  }
  return { columns: openColumns(bytes, payloads.length, payloadAt, 'test', cacheSizeMax), asked, bytes }
}

const equal = (...values: (string | number | boolean | null)[]): Condition => ({ kind: 'equal', values })
const range = (operator: 'gt' | 'gte' | 'lt' | 'lte', value: string | number | boolean): Condition => ({
  kind: 'range',
  operator,
  value,
})
const prefix = (value: string): Condition => ({ kind: 'prefix', value })
const exists: Condition = { kind: 'exists' }

describe('answers as a walk through the payloads does', () => {
  let hits = 0
  const check = (limits?: ColumnLimits, cacheSizeMax?: number, numRuns = 150) =>
    fc.assert(
      fc.asyncProperty(filtering, async ({ payloads: documents, questions: asked }) => {
        const { columns } = open(documents, build(documents, limits), cacheSizeMax)
        const source = { rowCount: documents.length, payloadAt: (row: number) => encodePayload(documents[row]) }
        const memory = new MemoryColumns(source, 'test', limits)
        for (const [at, test] of asked) {
          const rows = rowsNaively(documents, at, test)
          hits += rows.length
          expect(await rowsOf(columns.match(at, test)), `${at} ${JSON.stringify(test)}`).toEqual(rows)
          expect(await rowsOf(memory.match(at, test)), `memory ${at} ${JSON.stringify(test)}`).toEqual(rows)
        }
      }),
      runs(numRuns),
    )

  test('with the limits as they are', async () => {
    await check(undefined, undefined, 500)
    expect(hits).toBeGreaterThan(2000)
  })
  test('with one column unpacked at a time', () => check(undefined, 0))
  test('with few paths', () => check({ ...columnLimits, pathCountMax: 2 }))
  test('with short paths', () => check({ ...columnLimits, pathSizeMax: 9 }))
  test('with few values at a path', () => check({ ...columnLimits, valuesPerRowMax: 1 / 256 }))
  test('with few values in all', () => check({ ...columnLimits, valueCountMax: 20 }))
  test('with few distinct values', () => check({ ...columnLimits, keySizeMax: 60 }))
  test('with small columns', () => check({ ...columnLimits, columnSizeMax: 24 }))
  test('with small columns in all', () => check({ ...columnLimits, columnsSizeMax: 40 }))
})

test('a memtable shows no row beyond those asked for, and those that were added since', async () => {
  await fc.assert(
    fc.asyncProperty(
      filtering,
      fc.infiniteStream(fc.nat()),
      async ({ payloads: documents, questions: asked }, numbers) => {
        let rowCount = 0
        const memory = new MemoryColumns({
          get rowCount() {
            return rowCount
          },
          payloadAt: (row) => encodePayload(documents[row]),
        })
        for (const [at, test] of asked) {
          rowCount += numbers.next().value! % (documents.length - rowCount + 1)
          const seen = numbers.next().value! % (rowCount + 1)
          expect(await rowsOf(memory.match(at, test))).toEqual(rowsNaively(documents.slice(0, rowCount), at, test))
          const some = await memory.match(at, test, new Slice(), seen)
          expect(some.length).toBe(seen)
          expect([...some.rows()]).toEqual(rowsNaively(documents.slice(0, seen), at, test))
        }
      },
    ),
    runs(300),
  )
})

test('the same rows give the same bytes, at one go or in slices', async () => {
  await fc.assert(
    fc.asyncProperty(filtering, async ({ payloads: documents }) => {
      const builder = new ColumnBuilder(documents.length, 'test')
      documents.forEach((each, row) => {
        builder.add(row, encodePayload(each))
      })
      expect(await builder.finishInSlices(new Slice())).toEqual(build(documents))
    }),
    runs(50),
  )
})

describe('reads payloads only where it must', () => {
  const head = 'x'.repeat(64)
  const texts = [`${head}${'a'.repeat(100)}`, `${head}${'b'.repeat(100)}`, `y${'a'.repeat(200)}`, 'x', `${head}`]
  const documents = texts.map((text) => ({ text }))
  const cases: [Condition, rows: number[], asked: number[]][] = [
    [equal(texts[0]!), [0], [0]],
    [equal(`${head}${'c'.repeat(100)}`), [], []],
    [equal('x'), [3], []],
    [prefix('x'), [0, 1, 3, 4], []],
    [prefix(head), [0, 1, 4], []],
    [prefix(`${head}a`), [0], [0, 1]],
    [range('gt', head), [0, 1, 2], []],
    [range('gte', head), [0, 1, 2, 4], []],
    [range('lt', head), [3], []],
    [range('lte', head), [3, 4], []],
    [range('gt', `${head}b`), [1, 2], [0, 1]],
    [range('lte', `${head}b`), [0, 3, 4], [0, 1]],
    [range('lt', 'y'), [0, 1, 3, 4], []],
    [exists, [0, 1, 2, 3, 4], []],
  ]
  test.each(cases)('%j', async (condition, rows, wanted) => {
    const { columns, asked } = open(documents)
    expect(await rowsOf(columns.match('text', condition))).toEqual(rows)
    expect(asked).toEqual(wanted)
  })

  test('waits for payloads that come later, and tells of those that cannot be read', async () => {
    const bytes = build(documents)
    const later = openColumns(bytes, 5, async (row) => encodePayload(documents[row]), 'test')
    expect(await rowsOf(later.match('text', equal(texts[0]!)))).toEqual([0])
    const broken = openColumns(bytes, 5, () => new TextEncoder().encode('{"text'), 'test')
    await expect(rowsOf(broken.match('text', equal(texts[0]!)))).rejects.toMatchObject({ code: 'CORRUPTION' })
  })

  test('answers at once where no byte must be fetched', () => {
    const { columns } = open(documents)
    for (const condition of [exists, equal('x', 1, null), prefix('x'), range('lt', 'z')]) {
      expect(columns.match('text', condition)).toBeInstanceOf(Bitmap)
      expect(columns.match('nothing', condition)).toBeInstanceOf(Bitmap)
    }
  })
})

test('asks for no payload where the paths were not too many', async () => {
  const { columns, asked } = open([{ a: 1 }, { b: 2 }, { '': 1, 'a.b': 1, $c: 1 }])
  for (const at of ['c', 'a.b', '', '$c', 'a.', '.a']) expect(await rowsOf(columns.match(at, exists))).toEqual([])
  expect(asked).toEqual([])
})

test('a result belongs to whoever asked', async () => {
  const { columns } = open([{ a: 1 }, { a: 2 }])
  for (const condition of [exists, equal(1, 2)]) {
    ;(await columns.match('a', condition)).not()
    expect(await rowsOf(columns.match('a', condition))).toEqual([0, 1])
  }
})

test('refuses a payload that is not JSON', () => {
  const builder = new ColumnBuilder(1, 'test')
  expect(() => builder.add(0, new TextEncoder().encode('{'))).toThrow(expect.objectContaining({ code: 'CORRUPTION' }))
  expect(() => builder.add(0, Uint8Array.of(0x22, 0xff, 0x22))).toThrow(expect.objectContaining({ code: 'CORRUPTION' }))
})

describe('golden bytes', () => {
  const u32 = (...values: number[]) => [...new Uint8Array(Uint32Array.from(values).buffer)]
  const text = (value: string) => [...new TextEncoder().encode(value)]
  const zeros = (count: number) => new Array<number>(count).fill(0)

  test('are those of docs/format.md', () => {
    const bytes = build([
      { n: 1, s: ['b', 'a\u{1f600}'], t: true },
      { n: -2, s: 'b', o: {} },
      { n: 1, t: null },
      { n: 1 },
      undefined,
    ])
    // 4 of 5 rows: the absent one, row 4, is listed: gap 4, k = ⌊log2(5/1)⌋ = 2: unary 1 is 01, then 00.
    const n = [
      0,
      4,
      0b0010,
      0,
      0,
      2,
      0,
      0,
      ...[0x3f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
      ...[0xbf, 0xf0, ...zeros(6)],
    ]
    // -2: row 1 of 5, k = 2: 1 then 01. 1: 3 of 5, the absent ones, rows 1 and 4, k = ⌊log2(5/2)⌋ = 1: 1 then 1; gap 2: 01 then 0.
    n.push(1, 3, 0b010_11_011)
    const o = [0, 1, 0b011, 0, 0, 0, 0, 0]
    // Two of five, rows 0 and 1, k = 1: 1 0, 1 0. Sizes 7 and 1; 'a' and two surrogates, 'b'.
    const s = [0, 2, 0b0101, 0, 0, 0, 2, 0, 7, 1, ...[0x61, 0xed, 0xa0, 0xbd, 0xed, 0xb8, 0x80], 0x62]
    // Row 0: 1 00. Rows 0 and 1: 1 0, 1 0.
    s.push(1, 2, 0b0101_001)
    // Rows 0 and 2: 1 0, 1 1. null: row 2, 1 10 read low bit first. true: row 0, 1 00.
    const t = [0, 2, 0b1101, 1, 1, 0, 0, 0, 1, 1, 1, 0b001_101]
    const columns = [n, o, s, t]
    const ends = columns.map((_, index) => columns.slice(0, index + 1).flat().length)
    expect([...bytes]).toEqual([
      ...u32(5, 4, 0, 0),
      ...u32(0, 1, 2, 3, 4),
      ...u32(0, ...ends),
      ...text('nost'),
      ...columns.flat(),
      ...zeros(16),
    ])
  })

  test('of a text, hold its head and its hash', () => {
    const bytes = build([{ t: 'ab'.repeat(100) }])
    const column = [0, 1, 0, 0, 0, 0, 1, ...text('ab'.repeat(32)), ...hashNaively('ab'.repeat(100)), 1]
    expect([...bytes]).toEqual([
      ...u32(1, 1, 0, 0),
      ...u32(0, 1),
      ...u32(0, column.length),
      ...text('t'),
      ...column,
      ...zeros(16),
    ])
  })

  test('of what is not kept, hold the rows only', () => {
    const list = Array.from({ length: 70_000 }, (_, index) => index)
    const bytes = build([{ a: list }, {}])
    expect([...bytes]).toEqual([...u32(2, 1, 0, 0), ...u32(0, 1), ...u32(0, 3), ...text('a'), 1, 1, 0b01, ...zeros(16)])
  })

  /** The hash as docs/format.md has it. */
  function hashNaively(value: string): number[] {
    const word = (number: bigint) => number & 0xffffffffn
    let a = 0xdeadbeefn
    let b = 0x41c6ce57n
    for (let i = 0; i < value.length; i++) {
      a = word((a ^ BigInt(value.charCodeAt(i))) * 0x9e3779b1n)
      b = word((b ^ BigInt(value.charCodeAt(i))) * 0x5f356495n)
    }
    a = word((a ^ (a >> 16n)) * 0x85ebca6bn) ^ word((b ^ (b >> 13n)) * 0xc2b2ae35n)
    b = word((b ^ (b >> 16n)) * 0x85ebca6bn) ^ word((a ^ (a >> 13n)) * 0xc2b2ae35n)
    return [a, b].flatMap((half) => [24n, 16n, 8n, 0n].map((shift) => Number((half >> shift) & 255n)))
  }
})

describe('damage', () => {
  const documents: Payload[] = Array.from({ length: 40 }, (_, row) => ({
    id: `row ${row}`,
    kind: ['x', 'y', 'z'][row % 3]!,
    list: [row % 5, row % 7, 'é'],
    deep: [{ flag: row % 2 === 0 }, { flag: null }],
    long: 'ab'.repeat(60 + (row % 8)),
    ...(row % 9 === 0 ? { rare: -row / 3 } : {}),
  }))
  const bytes = build(documents)
  const all: [string, Condition][] = [
    ['id', range('gte', 'row 3')],
    ['id', equal('row 7', 'row 39', 'row')],
    ['kind', equal('y')],
    ['kind', exists],
    ['list', range('lt', 3)],
    ['list', equal('é')],
    ['deep.flag', equal(true)],
    ['deep', exists],
    ['long', equal('ab'.repeat(65))],
    ['long', range('lt', 'b')],
    ['rare', range('lte', -4)],
    ['none', exists],
  ]

  /** Asks everything of damaged columns; every answer is one bitmap of the right length, or the refusal. */
  async function askAll(damaged: Uint8Array): Promise<'refused' | 'answered'> {
    let outcome: 'refused' | 'answered' = 'answered'
    try {
      const { columns } = open(documents, damaged)
      for (const [at, condition] of all) {
        try {
          const bitmap = await columns.match(at, condition)
          expect(bitmap.length).toBe(documents.length)
          expect(bitmap.rows().every((row) => row < documents.length)).toBe(true)
        } catch (error) {
          if (!isIsovecError(error) || error.code !== 'CORRUPTION') throw error
          outcome = 'refused'
        }
      }
    } catch (error) {
      if (!isIsovecError(error) || error.code !== 'CORRUPTION') throw error
      outcome = 'refused'
    }
    return outcome
  }

  // The section's checksum finds every flip; what is shown here is that the structure beneath stands by itself.
  test('every byte changed in several ways is refused or read as something else, and never worse', async () => {
    const counts = { refused: 0, answered: 0 }
    for (let at = 0; at < bytes.length; at++) {
      for (const change of [0x01, 0x10, 0xff]) {
        const damaged = bytes.slice()
        damaged[at]! ^= change
        counts[await askAll(damaged)]++
      }
    }
    expect(counts.refused).toBeGreaterThan(bytes.length / 2)
  })

  test('every truncation is refused', async () => {
    for (let size = 0; size < bytes.length; size++)
      expect(await askAll(bytes.slice(0, size)), `${size}`).toBe('refused')
    const longer = new Uint8Array(bytes.length + 1)
    longer.set(bytes)
    expect(await askAll(longer)).toBe('refused')
  })

  test('runs of random bytes never do worse', async () => {
    const random = randomNumbers(seed)
    for (let round = 0; round < 1000; round++) {
      const damaged = bytes.slice()
      const start = Math.floor(random() * damaged.length)
      const end = Math.min(damaged.length, start + 1 + Math.floor(random() * 12))
      const fill = random() < 0.5 ? 0xff : undefined
      for (let at = start; at < end; at++) damaged[at] = fill ?? Math.floor(random() * 256)
      await askAll(damaged)
    }
  })

  test('columns of other rows are refused', () => {
    for (const rowCount of [0, 39, 41, 2 ** 31]) {
      expect(() => openColumns(bytes, rowCount, () => undefined, 'test')).toThrow(
        expect.objectContaining({ code: 'CORRUPTION', file: 'test' }),
      )
    }
  })

  /** A section of one column `c` over many rows. */
  function section(rowCount: number, column: readonly number[]): Uint8Array {
    const header = Uint32Array.from([rowCount, 1, 0, 0, 0, 1, 0, column.length])
    return Uint8Array.from([...new Uint8Array(header.buffer), 0x63, ...column, ...new Array<number>(16).fill(0)])
  }
  const most = [0xff, 0xff, 0xff, 0xff, 0x0f]
  /** One of 2^29 rows has something, and then the numbers of values of each type. */
  const one = [0, 1, 1, 0, 0, 0]
  const hostile: [string, RegExp, readonly number[]][] = [
    ['an unknown kind', /kind/, [2, 1, 1]],
    ['no rows', /number of rows/, [0, 0, 0, 0, 0, 0, 0]],
    ['more rows than there are', /number of rows/, [1, ...most]],
    ['a list longer than the column', /longer than its column/, [1, 0x80, 0x80, 0x80, 0x40]],
    ['a number that doesn’t end', /out of range/, [1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]],
    ['a row that is too high', /list of rows is impossible/, [1, 1, 0x02, 0, 0, 0]],
    ['zeros without end', /list of rows is impossible/, [1, 1, ...new Array<number>(64).fill(0)]],
    ['bytes that nothing calls for', /size of its content/, [1, 1, 1, 0, 0, 0, 0, 0]],
    ['many nulls', /number of values/, [...one, ...most, 0, 0, 0, 0]],
    ['many booleans', /number of values/, [...one, 0, 3, 0, 0, 0, 0, 0, 0, 0]],
    ['many numbers', /number of values/, [...one, 0, 0, ...most, 0, 0]],
    ['many strings', /number of values/, [...one, 0, 0, 0, ...most, 0]],
    ['many texts', /number of values/, [...one, 0, 0, 0, 0, ...most]],
    ['many of several types', /number of values/, [...one, 0, 0, 9, 9, 9, ...new Array<number>(20).fill(1)]],
    ['a long string', /too long/, [...one, 0, 0, 0, 1, 0, 129, ...new Array<number>(140).fill(1)]],
    ['values that end too early', /ends too early/, [...one, 0, 0, 1, 0, 0, 1]],
    ['a boolean of another kind', /value is impossible/, [...one, 0, 1, 0, 0, 0, 2, 1, 1, 0, 0, 0]],
    ['equal values', /not sorted/, [...one, 0, 2, 0, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0]],
    ['a value without rows', /number of rows/, [...one, 0, 1, 0, 0, 0, 0, 0]],
    ['a value with more rows than there are', /number of rows/, [...one, 0, 1, 0, 0, 0, 0, ...most]],
    [
      'lists longer than the column',
      /longer than their column/,
      [...one, 0, 1, 0, 0, 0, 0, 0x80, 0x80, 0x80, 0x40, 0xff],
    ],
    ['no end of a list', /list of rows is impossible/, [...one, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0]],
  ]
  test.each(hostile)('%s: refused without being allocated', async (_, message, column) => {
    const rowCount = 2 ** 29
    const columns = openColumns(section(rowCount, column), rowCount, () => undefined, 'test')
    const before = process.memoryUsage().arrayBuffers
    let refusal: unknown
    try {
      await columns.match('c', equal(1))
    } catch (error) {
      refusal = error
    }
    // A set over the rows takes 64 MiB, whatever the column holds.
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(2 ** 28)
    expect(refusal).toMatchObject({ code: 'CORRUPTION', file: 'test', message: expect.stringMatching(message) })
  })

  test('unsorted values, names and offsets are refused', async () => {
    const unsorted = build([{ a: 'x', b: 'y' }, { a: 'z' }])
    const swapped = unsorted.slice()
    const at = swapped.indexOf(0x78)
    swapped[at] = 0x7a
    const columns = openColumns(swapped, 2, () => undefined, 'test')
    expect(() => columns.match('a', equal('x'))).toThrow(expect.objectContaining({ code: 'CORRUPTION' }))
    const names = unsorted.slice()
    names[names.indexOf(0x61)] = 0x62
    expect(() => openColumns(names, 2, () => undefined, 'test')).toThrow(
      expect.objectContaining({ code: 'CORRUPTION' }),
    )
  })
})

describe('sizes', () => {
  const rowCount = 5000
  const random = randomNumbers(seed)
  const pick = (count: number) => Math.floor(random() * count)
  const words = Array.from({ length: 2000 }, (_, index) => `word${index.toString(36)}`)
  const sentence = (size: number) => {
    let text = ''
    while (text.length < size) text += `${words[pick(words.length)]} `
    return text.slice(0, size)
  }
  const hex = (size: number) => Array.from({ length: size }, () => pick(16).toString(16)).join('')
  const sizePerRow = (make: (row: number) => Payload) =>
    build(Array.from({ length: rowCount }, (_, row) => make(row))).length / rowCount

  test('one value for all rows takes nothing a row', () => {
    expect(build(Array.from({ length: rowCount }, () => ({ lang: 'en' }))).length).toBeLessThan(80)
    expect(
      build(Array.from({ length: rowCount }, (_, row) => ({ lang: row === 7 ? 'de' : 'en' }))).length,
    ).toBeLessThan(90)
  })

  test('categories, years and flags take about the bits that tell them apart', () => {
    expect(sizePerRow(() => ({ category: words[pick(20)]! }))).toBeLessThan(0.85)
    expect(sizePerRow(() => ({ year: 1950 + pick(75) }))).toBeLessThan(1.3)
    expect(sizePerRow(() => ({ flag: pick(2) === 0 }))).toBeLessThan(0.4)
    expect(sizePerRow(() => ({ tags: [0, 1, 2].map(() => words[pick(100)]!) }))).toBeLessThan(3.2)
  })

  test('unique strings take their own size and less than 6 bytes', () => {
    expect(sizePerRow(() => ({ uuid: hex(36) }))).toBeLessThan(36 + 6)
    expect(sizePerRow(() => ({ stamp: 1.6e12 + pick(1e11) }))).toBeLessThan(8 + 4)
  })

  test('long text takes its head, whatever its length', () => {
    expect(sizePerRow(() => ({ text: sentence(500) }))).toBeLessThan(64 + 8 + 6)
    expect(build([{ text: 'x'.repeat(2 ** 20 - 100) }]).length).toBeLessThan(200)
  })

  test('a typical payload takes a quarter of itself', () => {
    const make = (row: number): Payload => ({
      title: sentence(20 + pick(40)),
      author: `Author ${pick(500)}`,
      year: 1950 + pick(75),
      tags: [0, 1, 2].map(() => words[pick(100)]!),
      category: words[pick(20)]!,
      url: `https://example.org/articles/${row}`,
      text: sentence(500),
    })
    expect(sizePerRow(make)).toBeLessThan(180)
  })

  test('a map keyed by ids takes its keys and some tens of bytes each', async () => {
    const documents: Payload[] = Array.from({ length: 100 }, (_, row) => ({
      scores: Object.fromEntries(Array.from({ length: 1000 }, (_, index) => [`${row}-${index}`, index])),
    }))
    const { columns, bytes } = open(documents)
    expect(bytes.length / 100_000).toBeLessThan('scores.99-999'.length + 30)
    expect(await rowsOf(columns.match('scores.42-17', equal(17)))).toEqual([42])
    expect(await rowsOf(columns.match('scores.42-17', range('gt', 17)))).toEqual([])
    expect(await rowsOf(columns.match('scores', exists))).toHaveLength(100)
  })

  test('lists that nobody filters by are left in the payloads', async () => {
    const documents = Array.from({ length: 300 }, (_, row) => ({
      embedding: Array.from({ length: 768 }, (_, i) => row + i / 1000),
    }))
    const { columns, bytes, asked } = open(documents)
    expect(bytes.length).toBeLessThan(100)
    expect(await rowsOf(columns.match('embedding', equal(7.5)))).toEqual([7])
    expect(asked).toHaveLength(300)
    expect(attributeLimits.valuesPerRowMax).toBeLessThan(768)
  })
})

test('values that most rows have are answered as others are', async () => {
  const documents = Array.from({ length: 200 }, (_, row) => ({
    tags: [0, 1, 2, 3].filter((tag) => row % (tag + 5) !== 0),
  }))
  const { columns } = open(documents)
  for (const operand of [-1, 0, 1, 2, 3, 4]) {
    for (const condition of [
      equal(operand),
      range('lt', operand),
      range('gte', operand),
      equal(operand, operand + 2),
    ]) {
      expect(await rowsOf(columns.match('tags', condition))).toEqual(rowsNaively(documents, 'tags', condition))
    }
  }
})

test('large columns are unpacked in slices, the same question asked twice at a time', async () => {
  const documents = Array.from({ length: 30_000 }, (_, row) => ({
    id: `${(row * 7919) % 30_000} of thirty thousand`,
    other: `other ${row}`,
  }))
  const { columns, bytes } = open(documents, build(documents), 500_000)
  expect(bytes.length).toBeGreaterThan(600_000)
  const first = columns.match('id', range('lt', '1'))
  const second = columns.match('id', range('lt', '1'))
  expect(first).toBeInstanceOf(Promise)
  expect(await rowsOf(first)).toEqual(rowsNaively(documents, 'id', range('lt', '1')))
  expect(await rowsOf(second)).toEqual(await rowsOf(first))
  const many = equal(...Array.from({ length: 10_000 }, (_, index) => `${index} of thirty thousand`))
  const found = columns.match('id', many)
  expect(found).toBeInstanceOf(Bitmap)
  expect(await rowsOf(found)).toEqual(
    rowsNaively(documents.slice(0, 300), 'id', many).concat((await rowsOf(found)).filter((row) => row >= 300)),
  )
  expect((await found).count()).toBe(10_000)
  // Either takes some 360 kB unpacked.
  expect(columns.memorySize - bytes.length).toBeGreaterThan(300_000)
  expect(await rowsOf(columns.match('other', equal('other 7')))).toEqual([7])
  expect(await rowsOf(columns.match('id', equal('7919 of thirty thousand')))).toEqual([1])
  expect(columns.memorySize - bytes.length).toBeLessThan(500_000)
})
