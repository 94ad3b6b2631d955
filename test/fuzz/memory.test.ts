import { spawn } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { beforeAll, describe, expect, test } from 'vitest'
import type { StoreImage } from '../../src/directory/memory.ts'
import { bundleForChild } from '../support/bundle.ts'
import { changed, filesOf } from '../support/damage.ts'
import { temporaryFolder } from '../support/folder.ts'
import { type BaseName, baseOf, makeBases } from './bases.ts'
import { type Kind, kindOf, recordsOf, view } from './layout.ts'
import type { ImageText, MemoryReport } from './memory-child.ts'
import { type Repair, repaired } from './repair.ts'

const memoryMax = 16 * 1024 * 1024

beforeAll(makeBases)

type Claim = {
  readonly what: string
  readonly kind: Kind
  readonly base?: BaseName
  readonly repair?: Repair
  /** Writes the claim into a copy of the file, or makes another file of it. */
  readonly make: (bytes: Uint8Array, numbers: DataView) => Uint8Array | undefined
}

/** Sets a 32-bit number, or the low half of a longer one. */
const at =
  (offset: number, value: number) =>
  (_: Uint8Array, numbers: DataView): undefined =>
    numbers.setUint32(offset, value, true) as undefined

const at64 =
  (offset: number, value: bigint) =>
  (_: Uint8Array, numbers: DataView): undefined =>
    numbers.setBigUint64(offset, value, true) as undefined

/** A manifest whose body was changed as text. */
const body =
  (pattern: RegExp, replacement: string) =>
  (bytes: Uint8Array): Uint8Array => {
    const text = new TextDecoder().decode(bytes.subarray(64))
    const other = text.replace(pattern, replacement)
    expect(other).not.toBe(text)
    return Uint8Array.of(...bytes.subarray(0, 64), ...new TextEncoder().encode(other))
  }

/** Sets a number in the last record of a log that holds a batch; offsets are from the record's start. */
const inBatch =
  (offset: number, value: number) =>
  (bytes: Uint8Array, numbers: DataView): undefined => {
    const record = recordsOf(bytes).findLast(({ payloadSize }) => payloadSize > 0)!
    numbers.setUint32(record.at + offset, value, true)
  }

/** Where the entry of a section stands in the table of a file. */
function entryOf(numbers: DataView, id: number): number {
  for (let place = 128; place < 4072; place += 32) if (numbers.getUint32(place, true) === id) return place
  throw new Error(`there is no section ${id}`)
}

const inSection =
  (id: number, offset: number, value: number) =>
  (_: Uint8Array, numbers: DataView): undefined => {
    numbers.setUint32(Number(numbers.getBigUint64(entryOf(numbers, id) + 8, true)) + offset, value, true)
  }

const claims: readonly Claim[] = [
  { what: 'rows of a segment', kind: 'manifest', make: body(/"rowCount":\d+/g, '"rowCount":4294967294') },
  { what: 'length of a segment', kind: 'manifest', make: body(/"length":\d+/g, '"length":9007199254740991') },
  { what: 'tombstones', kind: 'manifest', make: body(/"count":\d+/g, '"count":4294967294') },
  { what: 'dimension', kind: 'manifest', make: body(/"dimension":\d+/g, '"dimension":65536') },
  { what: 'first log', kind: 'manifest', make: body(/"firstWal":\d+/g, '"firstWal":9007199254740990') },
  {
    what: 'nesting',
    kind: 'manifest',
    make: body(/"segments":.*/s, `"segments":${'['.repeat(450)}${']'.repeat(450)}}`),
  },
  { what: 'size of the body', kind: 'manifest', repair: 'checksums', make: at(16, 0xffff_ffff) },
  { what: 'size of a batch', kind: 'wal', make: inBatch(8, 0xffff_fff0) },
  { what: 'operations', kind: 'wal', make: inBatch(32, 0xffff_ffff) },
  { what: 'payload of an operation', kind: 'wal', make: inBatch(44, 0xffff_ffff) },
  { what: 'id of an operation', kind: 'wal', make: inBatch(40, 0xffff_0101) },
  { what: 'first sequence', kind: 'wal', make: at64(80, 2n ** 53n - 1n) },
  { what: 'rows', kind: 'seg', make: at(40, 0xffff_fffe) },
  { what: 'dimension', kind: 'seg', make: at(44, 65_536) },
  { what: 'size of a block', kind: 'seg', make: at(60, 0xffff_ffff) },
  { what: 'sections', kind: 'seg', make: at(4072, 0xffff_ffff) },
  { what: 'size of the file', kind: 'seg', repair: 'checksums', make: at64(4080, 2n ** 40n) },
  { what: 'size of a section', kind: 'seg', make: (_, v) => void v.setBigUint64(entryOf(v, 2) + 16, 2n ** 32n, true) },
  { what: 'end of an id', kind: 'seg', make: inSection(1, 8, 0xffff_ffff) },
  { what: 'end of a payload', kind: 'seg', make: inSection(4, 8, 0xffff_ffff) },
  { what: 'columns', kind: 'seg', make: inSection(32, 4, 0xffff_ffff) },
  { what: 'rows of columns', kind: 'seg', make: inSection(32, 0, 0xffff_ffff) },
  { what: 'end of a column', kind: 'seg', make: inSection(32, 20, 0xffff_ffff) },
  { what: 'a kibibyte', kind: 'seg', make: (bytes) => bytes.slice(0, 1024) },
  { what: 'rows', kind: 'graph', base: 'smallGraph', make: at(56, 0xffff_fffe) },
  { what: 'M', kind: 'graph', base: 'smallGraph', make: at(60, 0xffff_ffff) },
  { what: 'highest level', kind: 'graph', base: 'smallGraph', make: at(76, 0xffff_ffff) },
  { what: 'upper lists', kind: 'graph', base: 'smallGraph', make: at(80, 0xffff_ffff) },
  { what: 'sections', kind: 'graph', base: 'smallGraph', make: at(4072, 0xffff_ffff) },
  { what: 'size of a section', kind: 'graph', base: 'smallGraph', make: at64(144, 2n ** 32n) },
  { what: 'tombstones', kind: 'del', make: at(40, 0xffff_fffe) },
  { what: 'row', kind: 'del', make: at(64, 0xffff_fffe) },
  { what: 'sequence', kind: 'del', make: at64(72, 2n ** 63n) },
  { what: 'patches', kind: 'patch', make: at(40, 0xffff_fffe) },
  { what: 'row', kind: 'patch', make: at(64, 0xffff_fffe) },
  { what: 'size of a payload', kind: 'patch', make: at(68, 0xffff_ffff) },
]

/** A collection that has only its newest generation, so that nothing stands in for it, and a file of it that makes the claim. */
async function imageOf({ kind, base = 'closed', repair = 'sizes', make }: Claim): Promise<StoreImage> {
  let { image } = await baseOf(base)
  const inside = filesOf(image).filter(({ directory }) => directory === 1)
  const byNumber = (name: string): number => Number.parseInt(name, 10)
  const ofKind = inside.filter(({ name }) => kindOf(name) === kind).sort((a, b) => byNumber(a.name) - byNumber(b.name))
  const manifests = inside.filter(({ name }) => kindOf(name) === 'manifest').map(({ name }) => byNumber(name))
  for (const number of manifests) {
    if (number < Math.max(...manifests)) image = changed(image, 1, `${number}.manifest`, undefined)
  }
  const { name, bytes } = ofKind.at(-1)!
  const copy = bytes.slice()
  const made = make(copy, view(copy)) ?? copy
  expect(made.length).toBeLessThan(20_000)
  return repaired(changed(image, 1, name, made), new Set([`1/${name}`]), repair)
}

function textOf(image: StoreImage): ImageText {
  const files = (named: ReadonlyMap<string, Uint8Array>): [string, string][] =>
    [...named].map(([name, bytes]) => [name, Buffer.from(bytes).toString('base64')])
  return {
    root: files(image.root!),
    directories: [...image.directories].map(([number, named]) => [number, files(named)]),
  }
}

describe('a small file that claims gigabytes', () => {
  test('costs next to no memory', { timeout: 120_000 }, async () => {
    const folder = await temporaryFolder()
    const bundle = await bundleForChild(new URL('memory-child.ts', import.meta.url))
    const child = spawn(process.execPath, ['--expose-gc', bundle], { stdio: ['pipe', 'pipe', 'inherit'] })
    try {
      const lines = createInterface(child.stdout)[Symbol.asyncIterator]()
      const reportOf = async (name: string, image: StoreImage): Promise<MemoryReport> => {
        const path = join(folder, `${name}.json`)
        await writeFile(path, JSON.stringify(textOf(image)))
        child.stdin.write(`${path}\n`)
        const { value, done } = await lines.next()
        if (done) throw new Error(`the process ended at ${name}`)
        return JSON.parse(value) as MemoryReport
      }
      // What it takes to read anything at all.
      for (const base of ['closed', 'smallGraph'] as const) {
        const { codes } = await reportOf(base, (await baseOf(base)).image)
        expect(codes).toEqual([])
      }
      const told: string[] = []
      let refused = 0
      for (const [index, claim] of claims.entries()) {
        const { codes, grown, total, largest } = await reportOf(String(index), await imageOf(claim))
        const name = `${claim.kind}: ${claim.what}`
        if (codes.length > 0) refused++
        // A graph is built again.
        else if (claim.kind !== 'graph') told.push(`${name} is not refused`)
        if (Math.max(grown, total) > memoryMax) {
          told.push(`${name} takes ${grown >> 20} MiB, asks for ${total >> 20} MiB, ${largest >> 20} MiB at once`)
        }
      }
      expect(told).toEqual([])
      console.log(`memory: ${claims.length} hostile files, ${refused} refused, each with less than 16 MiB`)
    } finally {
      child.kill()
    }
  })
})
