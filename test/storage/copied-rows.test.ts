import * as fc from 'fast-check'
import { expect, test } from 'vitest'
import type { Slice } from '../../src/slice.ts'
import { ChangeTransfer, rowsVisibleAt } from '../../src/storage/copied-rows.ts'
import { Overlay } from '../../src/storage/overlay.ts'
import type { Segment } from '../../src/storage/segment.ts'
import type { RowRun } from '../../src/storage/segment-writer.ts'
import { Tombstones } from '../../src/storage/tombstones.ts'
import { runs } from '../support/property.ts'

/** A slice that is over at every look. */
function shortSlice(): { slice: Slice; count(): number } {
  let count = 0
  const slice = { isOver: true, next: async () => void count++ } as unknown as Slice
  return { slice, count: () => count }
}

function sourceOf(rowCount: number, tombstones: Tombstones): RowRun['source'] {
  return {
    rowCount,
    tombstones,
    isVisible: (row: number, at: number) => !tombstones.isDead(row, at),
  } as unknown as RowRun['source']
}

/** A segment that was patched. */
function patchedSource(rowCount: number, overlay: Overlay): RowRun['source'] {
  const source = { rowCount, overlay, tombstones: new Tombstones(), isVisible: () => true }
  return source as unknown as RowRun['source']
}

/** An output that takes note of each call. */
function outputOf(rowCount: number): { output: Segment; killed: [number, number][] } {
  const killed: [number, number][] = []
  const output = { rowCount, kill: (row: number, sequence: number) => killed.push([row, sequence]) > 0 }
  return { output: output as unknown as Segment, killed }
}

type Fated = { readonly fates: readonly number[]; readonly tombstones: Tombstones }

function die({ fates, tombstones }: Fated, isMeant: (fate: number) => boolean, sequence: number): void {
  for (const [row, fate] of fates.entries()) if (isMeant(fate)) tombstones.add(row, sequence)
}

test('rows are chosen in slices', async () => {
  const tombstones = new Tombstones()
  for (let row = 0; row < 100_000; row += 2) tombstones.add(row, row < 50_000 ? 1 : 2)
  const { slice, count } = shortSlice()
  const rows = await rowsVisibleAt(sourceOf(100_000, tombstones), 1, slice)
  expect(rows.length).toBe(75_000)
  expect([rows[0], rows[24_999], rows[25_000], rows[25_001]]).toEqual([1, 49_999, 50_000, 50_001])
  expect(count()).toBeGreaterThan(90)
})

test('deaths are brought over in slices, and what came since in one turn', async () => {
  const tombstones = new Tombstones()
  const rows = Uint32Array.from({ length: 50_000 }, (_, i) => i)
  const { output, killed } = outputOf(rows.length)
  const runsOf = [{ source: sourceOf(rows.length, tombstones), rows, sequence: 0 }]
  for (let row = 0; row < 20_000; row++) tombstones.add(row, 5)
  const deaths = new ChangeTransfer(runsOf, [output])
  const { slice, count } = shortSlice()
  await deaths.advance(slice)
  expect(killed.length).toBe(20_000)
  expect(count()).toBeGreaterThan(15)
  tombstones.add(30_000, 6)
  deaths.finish()
  // One call for the new one, none for those that were brought over before.
  expect(killed.slice(20_000)).toEqual([[30_000, 6]])
  deaths.finish()
  expect(killed.length).toBe(20_001)
})

test('each death reaches the copy of its row, whichever output that is in and whenever it came', async () => {
  const scene = fc.record({
    sources: fc.array(fc.array(fc.nat(9), { minLength: 1, maxLength: 30 }), { minLength: 1, maxLength: 4 }),
    cut: fc.nat(100),
  })
  await fc.assert(
    fc.asyncProperty(scene, async ({ sources, cut }) => {
      // Per row: 0 to 2 dead before copying, 3 dies before the first look, 4 before the second, 5 before the third, else it lives.
      const all = sources.map((fates) => ({ fates, tombstones: new Tombstones() }))
      for (const source of all) die(source, (fate) => fate < 3, 1)
      const copied = all.map(({ fates, tombstones }) => ({
        source: sourceOf(fates.length, tombstones),
        rows: Uint32Array.from(fates.flatMap((fate, row) => (fate < 3 ? [] : [row]))),
        sequence: 0,
      }))
      const order = all.flatMap(({ fates }) => fates.filter((fate) => fate >= 3))
      const first = Math.min(cut, order.length)
      const outputs = [first, order.length - first].filter((size) => size > 0).map(outputOf)
      const deaths = new ChangeTransfer(
        copied,
        outputs.map(({ output }) => output),
      )
      const { slice } = shortSlice()
      for (const moment of [3, 4, 5]) {
        for (const source of all) die(source, (fate) => fate === moment, moment)
        if (moment === 4) await deaths.advance(slice)
        else deaths.finish()
      }
      const found = outputs.flatMap(({ killed }, i) =>
        killed.map(([row, at]) => [row + (i === 0 ? 0 : outputs[0]!.output.rowCount), at]),
      )
      const expected = order.flatMap((fate, row) => (fate <= 5 ? [[row, fate]] : []))
      expect(found.sort((a, b) => a[0]! - b[0]!)).toEqual(expected)
    }),
    runs(300),
  )
})

test('each patch that came since its row was copied reaches the copy, once and in order', async () => {
  const bytes = (n: number) => Uint8Array.of(n)
  const overlays = [new Overlay(), new Overlay()]
  overlays[0]!.add(2, 3, bytes(1))
  const patched: [output: number, row: number, sequence: number, payload: Uint8Array | undefined][] = []
  const outputs = [4, 3].map((rowCount, output) => {
    const patch = (row: number, at: number, payload: Uint8Array | undefined) => patched.push([output, row, at, payload])
    return { rowCount, kill: () => true, patch } as unknown as Segment
  })
  // Of the first source row 1 stays behind. Its last rows are the first of the second output.
  const copied: RowRun[] = [
    { source: patchedSource(6, overlays[0]!), rows: Uint32Array.of(0, 2, 3, 4, 5), sequence: 3 },
    { source: patchedSource(2, overlays[1]!), rows: Uint32Array.of(0, 1), sequence: 3 },
  ]
  const changes = new ChangeTransfer(copied, outputs)
  overlays[0]!.add(2, 4, bytes(2))
  overlays[0]!.add(1, 5, bytes(3))
  overlays[0]!.add(5, 5, undefined)
  await changes.advance(shortSlice().slice)
  expect(patched.splice(0)).toEqual([
    [0, 1, 4, bytes(2)],
    [1, 0, 5, undefined],
  ])
  overlays[0]!.add(2, 6, bytes(4))
  overlays[1]!.add(1, 7, bytes(5))
  overlays[0]!.add(2, 8, bytes(6))
  changes.finish()
  expect(patched.splice(0)).toEqual([
    [0, 1, 6, bytes(4)],
    [1, 2, 7, bytes(5)],
    [0, 1, 8, bytes(6)],
  ])
  changes.finish()
  expect(patched).toEqual([])
})
