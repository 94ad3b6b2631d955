/**
 * Where the numbers of each kind of file lie, as docs/format.md tells it: for damage that goes where the structure is.
 */
import { sectionsOf } from '../support/damage.ts'

/** A number in a file. */
export type Field = { readonly at: number; readonly size: 1 | 2 | 4 | 8 }

export type Kind = 'wal' | 'manifest' | 'seg' | 'graph' | 'del' | 'patch'

export function kindOf(name: string): Kind {
  return name.slice(name.indexOf('.') + 1) as Kind
}

export const view = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)

/** A run of numbers of one size. */
function run(from: number, to: number, size: Field['size']): Field[] {
  return Array.from({ length: Math.max(0, Math.floor((to - from) / size)) }, (_, i) => ({ at: from + i * size, size }))
}

const preamble: readonly Field[] = [...run(8, 16, 4), ...run(16, 20, 4), { at: 32, size: 8 }]

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

function walFields(bytes: Uint8Array): Field[] {
  const fields: Field[] = [...preamble, ...run(40, 88, 8)]
  const numbers = view(bytes)
  for (const { at, payloadSize } of recordsOf(bytes)) {
    fields.push({ at: at + 4, size: 1 }, { at: at + 8, size: 4 }, ...run(at + 16, at + 32, 8))
    const start = at + 32
    const end = start + payloadSize
    if (payloadSize < 8) continue
    fields.push({ at: start, size: 4 })
    for (let offset = start + 8; offset + 8 <= end; ) {
      const idSize = numbers.getUint16(offset + 2, true)
      const size = numbers.getUint32(offset + 4, true)
      fields.push(...run(offset, offset + 2, 1), { at: offset + 2, size: 2 }, { at: offset + 4, size: 4 })
      const next = offset + 8 + idSize + size + (bytes[offset] === 1 ? 12 : 0)
      fields.push(...run(offset + 8, Math.min(end, next), 1).filter((_, i) => i % 5 === 0))
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

function sectionFields(bytes: Uint8Array, kind: 'seg' | 'graph'): Field[][] {
  const own =
    kind === 'seg' ? [...run(40, 64, 4), ...run(64, 88, 8), ...run(88, 96, 4)] : [...run(40, 56, 8), ...run(56, 84, 4)]
  const table = Array.from({ length: Math.min(123, view(bytes).getUint32(4072, true)) }, (_, i) => [
    { at: 128 + 32 * i, size: 4 } as const,
    ...run(136 + 32 * i, 160 + 32 * i, 8),
  ])
  const groups: Field[][] = [
    [...preamble, ...own],
    [...table.flat(), { at: 4072, size: 4 }, { at: 4080, size: 8 }],
  ]
  for (const { id, offset, length } of soundSections(bytes)) {
    if (kind === 'seg' && id === 32 && length >= 16) {
      const columns = view(bytes).getUint32(offset + 4, true)
      groups.push(run(offset, offset + 8, 4))
      groups.push(run(offset + 16, offset + 24 + 8 * Math.min(columns, 100), 4))
    }
    groups.push(run(offset, offset + length, wide[kind]![id] ?? 1))
  }
  return groups.filter((group) => group.length > 0)
}

function companionFields(bytes: Uint8Array): Field[] {
  const fields: Field[] = [...preamble, { at: 40, size: 4 }]
  const count = bytes.length < 64 ? 0 : view(bytes).getUint32(40, true)
  for (let i = 0; i < Math.min(count, 50); i++) {
    const at = 64 + 16 * i
    fields.push({ at, size: 4 }, { at: at + 4, size: 4 }, { at: at + 8, size: 8 })
  }
  return fields
}

/** The numbers of a file in groups, all of which are met as often as the others. */
export function fieldsOf(kind: Kind, bytes: Uint8Array): Field[][] {
  const fits = (group: readonly Field[]): Field[] => group.filter(({ at, size }) => at + size <= bytes.length)
  const groups = (): Field[][] => {
    switch (kind) {
      case 'wal':
        return [walFields(bytes)]
      case 'manifest':
        return [[...preamble, ...run(16, 24, 4), ...run(24, 56, 8)]]
      case 'del':
        return [companionFields(bytes)]
      case 'patch':
        return [companionFields(bytes), run(64, bytes.length, 1)]
      default:
        return bytes.length < 4096 ? [[...preamble]] : sectionFields(bytes, kind)
    }
  }
  return groups()
    .map(fits)
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
    return run(64, bytes.length, 8)
      .filter((_, i) => i % 2 === 0)
      .map(({ at }) => ({ at, size: 16 }))
      .filter(({ at }) => at + 16 <= bytes.length)
  }
  return []
}
