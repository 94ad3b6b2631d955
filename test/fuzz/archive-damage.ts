/**
 * Tar archives as they lie in bytes, and damage that goes where their structure is.
 */
import type { Choice } from '../../src/directory/crash-image.ts'
import { pick, someSize } from './input.ts'
import { joined } from './mutate.ts'

const block = 512
const encoder = new TextEncoder()

/** An entry: where its header begins and where the next one may. */
type Entry = { readonly at: number; readonly end: number }

function octal(bytes: Uint8Array, at: number, size: number): number {
  const text = Buffer.from(bytes.subarray(at, at + size)).toString('latin1')
  return Number.parseInt(text.replace(/[\0 ].*$/s, ''), 8)
}

/** Entries as far as their sizes lead. */
export function entriesOf(bytes: Uint8Array): Entry[] {
  const entries: Entry[] = []
  for (let at = 0; at + block <= bytes.length && bytes[at] !== 0; ) {
    const size = octal(bytes, at + 124, 12)
    const end = at + block + Math.ceil((Number.isFinite(size) ? size : 0) / block) * block
    if (end > bytes.length) {
      entries.push({ at, end: bytes.length })
      break
    }
    entries.push({ at, end })
    at = end
  }
  return entries
}

/** Makes the checksum of each header hold, in place. */
export function repairHeaders(bytes: Uint8Array): void {
  for (const { at } of entriesOf(bytes)) {
    bytes.fill(0x20, at + 148, at + 156)
    const sum = bytes.subarray(at, at + block).reduce((all, byte) => all + byte, 0)
    bytes.set(encoder.encode(`${sum.toString(8).padStart(6, '0')}\0 `), at + 148)
  }
}

function field(bytes: Uint8Array, at: number, size: number, value: Uint8Array): Uint8Array {
  const copy = bytes.slice()
  copy.fill(0, at, at + size)
  copy.set(value.subarray(0, size), at)
  return copy
}

const text = (value: string): Uint8Array => encoder.encode(value)

/** An entry of its own. */
function entry(name: string, type: string, body: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(block + Math.ceil(body.length / block) * block)
  bytes.set(text(name).subarray(0, 100))
  bytes.set(text('0000644\0'), 100)
  bytes.set(text(body.length.toString(8).padStart(11, '0')), 124)
  bytes.set(text('00000000000\0'), 136)
  bytes.set(text(type), 156)
  bytes.set(text('ustar\x0000'), 257)
  bytes.set(body, block)
  repairHeaders(bytes)
  return bytes
}

/** One line of an extended header, which begins with its own length. */
function paxLine(key: string, value: string): Uint8Array {
  const rest = text(` ${key}=${value}\n`).length
  let size = rest + 1
  while (size !== rest + String(size).length) size = rest + String(size).length
  return text(`${size} ${key}=${value}\n`)
}

const hostileNames = [
  '../x',
  '../../1/5.seg',
  '../1.manifest',
  '/1/5.seg',
  '/etc/passwd',
  '1/../2/5.seg',
  '1/../../1.manifest',
  './1/1.wal',
  '1//1.wal',
  '1/./2.seg',
  'a/1/1.wal',
  'a/b/c/1.manifest',
  'C:\\1\\5.seg',
  '99999999999999999/1.seg',
  '9007199254740991/1.wal',
  '0/1.wal',
  '1/9007199254740991.wal',
  '1/99.wal',
  '3/1.manifest',
  '9.manifest',
  '1/1.reserve',
  'lock',
  '',
  '/',
  '.',
  '1/',
  '__proto__/1.wal',
  '\u{1f600}/1.wal',
]

/** A name that leads elsewhere, or that of another entry. */
function someName(bytes: Uint8Array, entries: readonly Entry[], choose: Choice): string {
  if (choose(3) > 0) return choose(20) === 0 ? '1/'.repeat(someSize(choose, 3000)) : pick(choose, hostileNames)
  const { at } = pick(choose, entries)
  return Buffer.from(bytes.subarray(at, at + 100))
    .toString('latin1')
    .replace(/\0.*$/s, '')
}

function someSizeField(now: number, choose: Choice): Uint8Array {
  const octals = [now + 1, now - 1, now + block, now - block, 0, now * 2, 8 ** 11 - 1, choose(5000)]
  switch (choose(4)) {
    case 0:
      // Base 256: sizes that no octal number has, negative ones, and more than any number is exact for.
      return Uint8Array.of(
        pick(choose, [128, 255]),
        ...Array.from({ length: 11 }, () => pick(choose, [0, 1, 127, 255])),
      )
    case 1:
      return text(pick(choose, ['-1', '', 'zzz', '9', ' 7 7', '0x10', '777777777777', '\0\0\0']))
    default:
      return text(Math.max(0, pick(choose, octals)).toString(8).padStart(11, '0'))
  }
}

type Mutator = (bytes: Uint8Array, entries: readonly Entry[], choose: Choice) => Uint8Array

const renamed: Mutator = (bytes, entries, choose) => {
  const { at } = pick(choose, entries)
  const value = text(someName(bytes, entries, choose))
  return choose(4) === 0 ? field(bytes, at + 345, 155, value) : field(bytes, at, 100, value)
}

const resized: Mutator = (bytes, entries, choose) => {
  const { at } = pick(choose, entries)
  return field(bytes, at + 124, 12, someSizeField(octal(bytes, at + 124, 12), choose))
}

const retyped: Mutator = (bytes, entries, choose) => {
  const { at } = pick(choose, entries)
  const copy = field(bytes, at + 156, 1, text(pick(choose, [...'01234567xgLKSVZ', '\0'])))
  return choose(2) === 0 ? copy : field(copy, at + 157, 100, text(someName(bytes, entries, choose)))
}

/** An extended header, a long name, a link or a file of its own, in front of an entry. */
const inserted: Mutator = (bytes, entries, choose) => {
  const { at } = pick(choose, entries)
  const name = someName(bytes, entries, choose)
  const made = [
    () => entry('x', pick(choose, ['x', 'g']), paxLine('path', name)),
    () =>
      entry(
        'x',
        pick(choose, ['x', 'g']),
        paxLine('size', pick(choose, ['0', '1', '-1', '1e9', '99999999999999', 'x'])),
      ),
    () => entry('x', 'x', paxLine('linkpath', name)),
    () => entry('x', 'x', text(pick(choose, ['99999 path=a\n', '5 a=b', '-1 path=x\n', 'path', '\xff\xfe', '0 =\n']))),
    () => entry('././@LongLink', pick(choose, ['L', 'K']), text(`${name}\0`)),
    () => entry(name, pick(choose, ['1', '2', '5']), new Uint8Array(0)),
    () => entry(name, '0', new Uint8Array(someSize(choose, 2000)).fill(choose(256))),
  ]
  return joined(bytes.subarray(0, at), pick(choose, made)(), bytes.subarray(at))
}

/** Entries doubled, left out, or one in the place of another. */
const shuffled: Mutator = (bytes, entries, choose) => {
  const one = pick(choose, entries)
  const other = pick(choose, entries)
  const before = bytes.subarray(0, one.at)
  const after = bytes.subarray(one.end)
  const own = bytes.subarray(one.at, one.end)
  const others = bytes.subarray(other.at, other.end)
  return joined(before, ...pick(choose, [[], [own, own], [own, others], [others], [others, own]]), after)
}

const flipped: Mutator = (bytes, entries, choose) => {
  const { at, end } = pick(choose, entries)
  const copy = bytes.slice()
  copy[at + choose(choose(2) === 0 ? block : end - at)]! ^= 1 << choose(8)
  return copy
}

const cut: Mutator = (bytes, entries, choose) =>
  bytes.subarray(0, choose(2) === 0 ? choose(bytes.length) : pick(choose, entries).at + choose(2) * choose(block))

const trailed: Mutator = (bytes, _entries, choose) =>
  joined(bytes.subarray(0, bytes.length - choose(3) * block), new Uint8Array(someSize(choose, 3000)).fill(choose(3)))

const mutators: readonly Mutator[] = [
  renamed,
  renamed,
  resized,
  resized,
  retyped,
  inserted,
  inserted,
  shuffled,
  shuffled,
  flipped,
  flipped,
  cut,
  trailed,
]

/** A tar archive after some damage. */
export function damagedArchive(bytes: Uint8Array, choose: Choice): Uint8Array {
  const entries = entriesOf(bytes)
  return entries.length === 0 ? bytes : pick(choose, mutators)(bytes, entries, choose)
}

/** Bytes after damage that knows nothing of what they are, for what is compressed. */
export function damagedBytes(bytes: Uint8Array, choose: Choice): Uint8Array {
  if (bytes.length === 0) return bytes
  if (choose(4) === 0) return bytes.subarray(0, choose(bytes.length))
  const copy = bytes.slice()
  const at = choose(choose(2) === 0 ? Math.min(bytes.length, 20) : bytes.length)
  for (let i = at; i < Math.min(bytes.length, at + 1 + choose(4)); i++) copy[i] = choose(256)
  return choose(8) === 0 ? joined(copy, new Uint8Array(someSize(choose, 100)).fill(choose(256))) : copy
}
