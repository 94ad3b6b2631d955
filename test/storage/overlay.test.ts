import * as fc from 'fast-check'
import { expect, test } from 'vitest'
import { Bitmap } from '../../src/codec/bitmap.ts'
import { memoryBackend } from '../../src/directory/memory.ts'
import { loadKernel } from '../../src/kernel/index.ts'
import { Slice } from '../../src/slice.ts'
import { Overlay, type PatchedRow, readPatches, writePatches } from '../../src/storage/overlay.ts'
import { runs } from '../support/property.ts'

const kernel = await loadKernel()
const uuid = Uint8Array.from({ length: 16 }, (_, i) => i)
const rowCount = 12

const payloadOf = (n: number): Uint8Array => new TextEncoder().encode(JSON.stringify({ n }))

type Step = { readonly row: number; readonly n: number | undefined; readonly ahead: number }

const step: fc.Arbitrary<Step> = fc.record({
  row: fc.nat(rowCount - 1),
  n: fc.option(fc.nat(3), { nil: undefined }),
  // Several patches of one batch have one sequence.
  ahead: fc.nat(2),
})

/** An overlay, and the payload numbers of all rows after each sequence. */
function layOver(steps: readonly Step[]): { overlay: Overlay; states: (number | undefined | 'own')[][] } {
  const overlay = new Overlay()
  const states: (number | undefined | 'own')[][] = [Array(rowCount).fill('own')]
  let sequence = 1
  for (const { row, n, ahead } of steps) {
    sequence += ahead
    while (states.length <= sequence) states.push([...states.at(-1)!])
    states[sequence]![row] = n
    overlay.add(row, sequence, n === undefined ? undefined : payloadOf(n))
  }
  return { overlay, states }
}

test('each sequence sees the versions of its time, in payloads and in filters', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
      const { overlay, states } = layOver(steps)
      expect(overlay.count).toBe(new Set(steps.map(({ row }) => row)).size)
      for (const [sequence, state] of states.entries()) {
        // Of the rows' own payloads the even ones are said to fulfil the condition.
        const own = Bitmap.of(rowCount)
        for (let row = 0; row < rowCount; row += 2) own.add(row)
        const matches = await overlay.correct(own, 'n', { kind: 'equal', values: [1] }, sequence)
        for (const [row, expected] of state.entries()) {
          const version = overlay.find(row, sequence)
          const found = version < 0 ? 'own' : overlay.payloadOf(version)
          expect(found).toEqual(typeof expected === 'number' ? payloadOf(expected) : expected)
          expect(matches.has(row)).toBe(expected === 'own' ? row % 2 === 0 : expected === 1)
        }
      }
    }),
    runs(200),
  )
})

test('what comes late is left out, and the last of one sequence counts', () => {
  const overlay = new Overlay()
  overlay.add(3, 7, payloadOf(1))
  overlay.add(3, 7, payloadOf(2))
  overlay.add(3, 6, payloadOf(3))
  expect(overlay.payloadOf(overlay.find(3, 7))).toEqual(payloadOf(2))
  expect(overlay.find(3, 6)).toBe(-1)
  expect(overlay.lastUpTo(6)).toBe(0)
  expect(overlay.lastUpTo(9)).toBe(7)
})

test('what comes late and is not known is refused', () => {
  const overlay = new Overlay()
  overlay.add(3, 7, payloadOf(1))
  expect(() => overlay.add(4, 6, payloadOf(2))).toThrow('order')
  overlay.add(4, 7, payloadOf(3))
  overlay.add(3, 8, payloadOf(0))
  // Known, as part of a batch that is read again.
  overlay.add(4, 7, payloadOf(2))
  expect(overlay.payloadOf(overlay.find(4, 8))).toEqual(payloadOf(3))
  expect(overlay.since(6)).toHaveLength(3)
  expect(overlay.since(7)).toEqual([{ row: 3, sequence: 8, payload: payloadOf(0) }])
})

test('what nobody sees any more is forgotten, and the rest stays', async () => {
  const overlay = new Overlay()
  for (let sequence = 1; sequence <= 3000; sequence++) overlay.add(sequence % 2, sequence, payloadOf(sequence))
  const before = overlay.memorySize
  overlay.forget(2000)
  expect(overlay.memorySize).toBeLessThan(before / 2)
  for (const at of [2000, 2001, 2500, 3000]) {
    for (const row of [0, 1]) {
      const written = at % 2 === row ? at : at - 1
      expect(overlay.payloadOf(overlay.find(row, at))).toEqual(payloadOf(written))
    }
  }
  expect(overlay.since(2997).map(({ row, sequence }) => [row, sequence])).toEqual([
    [0, 2998],
    [1, 2999],
    [0, 3000],
  ])
  const matches = await overlay.correct(Bitmap.of(2), 'n', { kind: 'equal', values: [2999] }, 3000)
  expect([...matches.rows()]).toEqual([1])
})

test('a payload is kept without what it was part of', async () => {
  const batch = new Uint8Array(1024 * 1024)
  const overlay = new Overlay()
  overlay.add(0, 1, batch.subarray(10, 20))
  expect(overlay.payloadOf(0)!.buffer.byteLength).toBe(10)
  const { directory, file } = await filed([
    { row: 0, sequence: 1, payload: batch.subarray(0, 500_000) },
    { row: 1, sequence: 2, payload: batch.subarray(0, 5) },
  ])
  expect((await readPatches(kernel, directory, file, uuid, 4, rowCount)).payloadOf(1)!.buffer.byteLength).toBe(5)
})

test('few stale versions are not worth forgetting', () => {
  const overlay = new Overlay()
  for (let sequence = 1; sequence <= 100; sequence++) overlay.add(0, sequence, payloadOf(sequence))
  overlay.forget(100)
  expect(overlay.since(0)).toHaveLength(100)
})

async function filed(rows: readonly PatchedRow[]) {
  const store = memoryBackend({ root: new Map(), directories: new Map() })
  const directory = await store.directory(1, { create: true })
  const file = await writePatches(kernel, directory, 9, uuid, 4, rows)
  return { store, directory, file, bytes: store.image().directories.get(1)!.get('9.patch')! }
}

test('a file gives back what a sequence sees', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 30 }), fc.nat(40), async (steps, at) => {
      const { overlay, states } = layOver(steps)
      const { directory, file } = await filed(await overlay.versionsAt(at, new Slice()))
      expect(file.lastSequence).toBe(
        Math.max(
          0,
          ...overlay
            .since(0)
            .map(({ sequence }) => sequence)
            .filter((s) => s <= at),
        ),
      )
      const again = await readPatches(kernel, directory, file, uuid, 4, rowCount)
      const state = states[Math.min(at, states.length - 1)]!
      for (const [row, expected] of state.entries()) {
        const version = again.find(row, at)
        const found = version < 0 ? 'own' : again.payloadOf(version)
        expect(found).toEqual(typeof expected === 'number' ? payloadOf(expected) : expected)
      }
    }),
    runs(100),
  )
})

test('hostile entries are refused, though the checksum holds', async () => {
  const good: PatchedRow[] = [
    { row: 2, sequence: 5, payload: payloadOf(1) },
    { row: 4, sequence: 6, payload: undefined },
  ]
  const bad: [string, readonly PatchedRow[]][] = [
    ['rows out of order', [...good].reverse()],
    ['a row twice', [good[0]!, good[0]!]],
    ['a row beyond the segment', [{ row: rowCount, sequence: 5, payload: payloadOf(1) }]],
    ['the sequence 0', [{ row: 0, sequence: 0, payload: payloadOf(1) }]],
  ]
  const read = async (rows: readonly PatchedRow[], change: (view: DataView) => void = () => {}) => {
    const { file, bytes } = await filed(rows)
    const changed = bytes.slice()
    const view = new DataView(changed.buffer)
    change(view)
    const hasher = kernel.hasher()
    hasher.update(changed.subarray(0, 56))
    hasher.update(changed.subarray(64))
    const { low, high } = hasher.digest()
    view.setUint32(56, low, true)
    view.setUint32(60, high, true)
    const store = memoryBackend({ root: new Map(), directories: new Map([[1, new Map([['9.patch', changed]])]]) })
    return readPatches(kernel, await store.directory(1, { create: false }), file, uuid, 4, rowCount)
  }
  expect((await read(good)).count).toBe(2)
  for (const [what, rows] of bad) {
    await expect(read(rows), what).rejects.toMatchObject({ code: 'CORRUPTION', file: '9.patch' })
  }
  const changes: [string, (view: DataView) => void][] = [
    ['payloads that end before the file', (view) => view.setUint32(68, 3, true)],
    ['a payload that ends behind the file', (view) => view.setUint32(68, 8, true)],
    ['a payload of 4 GiB', (view) => view.setUint32(68, 0xffffffff, true)],
    ['a sequence beyond 2^53', (view) => view.setUint32(76, 0xffffffff, true)],
    ['another segment', (view) => view.setUint32(32, 5, true)],
    ['another collection', (view) => view.setUint8(20, 77)],
    ['more entries', (view) => view.setUint32(40, 3, true)],
  ]
  for (const [what, change] of changes) {
    await expect(read(good, change), what).rejects.toMatchObject({ code: 'CORRUPTION', file: '9.patch' })
  }
  await expect(read(good, (view) => view.setUint32(12, 99, true))).rejects.toMatchObject({
    code: 'UNSUPPORTED_VERSION',
  })
})
