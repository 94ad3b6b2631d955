/**
 * Where the numbers of each kind of file lie, as docs/format.md tells it: for damage that goes where the structure is.
 */
import { sectionsOf } from '../support/damage.ts'

/** A number in a file. */
export type Field = { readonly at: number; readonly size: 1 | 2 | 4 | 8 }

/** Numbers of one size that lie side by side: so many bytes have so many numbers that each is made only when it is asked for. */
type Run = Field & { readonly count: number }

/** Numbers that are met as often as those of any other group. */
export class FieldGroup {
  readonly #runs: readonly Run[]
  readonly length: number

  constructor(runs: readonly Run[]) {
    this.#runs = runs
    this.length = runs.reduce((sum, { count }) => sum + count, 0)
  }

  at(index: number): Field {
    let rest = index
    for (const { at, size, count } of this.#runs) {
      if (rest < count) return { at: at + rest * size, size }
      rest -= count
    }
    throw new Error(`there is no field ${index}`)
  }
}

/** Kinds of file, and of what lies in them: the section of attribute columns, a payload. */
export type Kind = 'wal' | 'manifest' | 'seg' | 'graph' | 'del' | 'patch' | 'columns' | 'payload'

/** The kind of a file of a database. */
export function kindOf(name: string): Kind {
  return name.slice(name.indexOf('.') + 1) as Kind
}

export const view = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)

const one = (at: number, size: Field['size']): Run => ({ at, size, count: 1 })

const run = (from: number, to: number, size: Field['size']): Run => ({
  at: from,
  size,
  count: Math.max(0, Math.floor((to - from) / size)),
})

const preamble: readonly Run[] = [run(8, 20, 4), one(32, 8)]

/** A record of a log. */
export type LogRecord = { readonly at: number; readonly payloadSize: number; readonly end: number }

/** Records as far as their sizes lead. */
export function recordsOf(bytes: Uint8Array): LogRecord[] {
  const records: LogRecord[] = []
  const numbers = view(bytes)
  for (let at = 128; at + 40 <= bytes.length; ) {
    const payloadSize = numbers.getUint32(at + 8, true)
    const end = at + 40 + Math.ceil(payloadSize / 8) * 8
    if (end > bytes.length) break
    records.push({ at, payloadSize, end })
    at = end
  }
  return records
}

function walFields(bytes: Uint8Array): Run[] {
  const fields: Run[] = [...preamble, run(40, 88, 8)]
  const numbers = view(bytes)
  for (const { at, payloadSize } of recordsOf(bytes)) {
    fields.push(one(at + 4, 1), one(at + 8, 4), run(at + 16, at + 32, 8))
    const start = at + 32
    const end = start + payloadSize
    if (payloadSize < 8) continue
    fields.push(one(start, 4))
    for (let offset = start + 8; offset + 8 <= end; ) {
      const idSize = numbers.getUint16(offset + 2, true)
      const size = numbers.getUint32(offset + 4, true)
      fields.push(run(offset, offset + 2, 1), one(offset + 2, 2), one(offset + 4, 4))
      const next = offset + 8 + idSize + size + (bytes[offset] === 1 ? 12 : 0)
      for (let at = offset + 8; at < Math.min(end, next); at += 5) fields.push(one(at, 1))
      offset = next
    }
  }
  return fields
}

/** Sizes of the numbers in sections, by kind and id; the others are bytes. */
const wide: { readonly [kind: string]: { readonly [id: number]: Field['size'] } } = {
  seg: { 1: 4, 3: 4, 4: 4, 5: 8, 10: 4, 6: 4, 7: 4, 9: 4 },
  graph: { 2: 4, 3: 4, 4: 4, 5: 4 },
}

/** The sections that lie inside of a file, as far as its table can be read at all. */
function soundSections(bytes: Uint8Array): { id: number; offset: number; length: number }[] {
  if (bytes.length < 4096 || view(bytes).getUint32(4072, true) > 123) return []
  return sectionsOf(bytes).filter(({ offset, length }) => offset + length <= bytes.length)
}

function sectionFields(bytes: Uint8Array, kind: 'seg' | 'graph'): Run[][] {
  const own = kind === 'seg' ? [run(40, 64, 4), run(64, 88, 8), run(88, 96, 4)] : [run(40, 56, 8), run(56, 84, 4)]
  const table = Array.from({ length: Math.min(123, view(bytes).getUint32(4072, true)) }, (_, i) => [
    one(128 + 32 * i, 4),
    run(136 + 32 * i, 160 + 32 * i, 8),
  ])
  const groups: Run[][] = [
    [...preamble, ...own],
    [...table.flat(), one(4072, 4), one(4080, 8)],
  ]
  for (const { id, offset, length } of soundSections(bytes)) {
    if (kind === 'seg' && id === 32) groups.push(...columnFields(bytes, offset, offset + length))
    else groups.push([run(offset, offset + length, wide[kind]![id] ?? 1)])
  }
  return groups
}

/** Counts, the directory, and what it leads to. */
function columnFields(bytes: Uint8Array, from: number, to: number): Run[][] {
  const whole = [run(from, to, 1)]
  if (to - from < 16) return [whole]
  const columns = Math.min(view(bytes).getUint32(from + 4, true), 100)
  return [[run(from, from + 8, 4)], [run(from + 16, Math.min(to, from + 24 + 8 * columns), 4)], whole]
}

function companionFields(bytes: Uint8Array): Run[] {
  const fields: Run[] = [...preamble, one(40, 4)]
  const count = bytes.length < 64 ? 0 : view(bytes).getUint32(40, true)
  for (let i = 0; i < Math.min(count, 50); i++) {
    const at = 64 + 16 * i
    fields.push(run(at, at + 8, 4), one(at + 8, 8))
  }
  return fields
}

/** What was found of bytes before. */
const known = new WeakMap<Uint8Array, readonly FieldGroup[]>()

/** The numbers of a file in groups, all of which are met as often as the others. The bytes must never change. */
export function fieldsOf(kind: Kind, bytes: Uint8Array): readonly FieldGroup[] {
  let groups = known.get(bytes)
  if (groups === undefined) {
    groups = groupsOf(kind, bytes)
    known.set(bytes, groups)
  }
  return groups
}

function groupsOf(kind: Kind, bytes: Uint8Array): FieldGroup[] {
  const fitting = ({ at, size, count }: Run): Run => run(at, Math.min(bytes.length, at + size * count), size)
  const groups = (): Run[][] => {
    switch (kind) {
      case 'wal':
        return [walFields(bytes)]
      case 'manifest':
        return [[...preamble, run(16, 24, 4), run(24, 56, 8)]]
      case 'del':
        return [companionFields(bytes)]
      case 'patch':
        return [companionFields(bytes), [run(64, bytes.length, 1)]]
      case 'columns':
        return columnFields(bytes, 0, bytes.length)
      case 'payload':
        return [[run(0, bytes.length, 1)]]
      default:
        return bytes.length < 4096 ? [[...preamble]] : sectionFields(bytes, kind)
    }
  }
  return groups()
    .map((group) => new FieldGroup(group.map(fitting)))
    .filter((group) => group.length > 0)
}

/** Pieces of a file that stand for something of their own: records, sections, entries. */
export function piecesOf(kind: Kind, bytes: Uint8Array): { at: number; size: number }[] {
  if (kind === 'wal') return recordsOf(bytes).map(({ at, end }) => ({ at, size: end - at }))
  if (kind === 'seg' || kind === 'graph') {
    const sections = soundSections(bytes).map(({ offset, length }) => ({ at: offset, size: length }))
    return [...sections, ...sections.map((_, i) => ({ at: 128 + 32 * i, size: 32 }))]
  }
  if (kind === 'del' || kind === 'patch') {
    const count = Math.max(0, Math.floor((bytes.length - 64) / 16))
    return Array.from({ length: count }, (_, i) => ({ at: 64 + 16 * i, size: 16 }))
  }
  return []
}
