/**
 * Hostile filters without a database: parsed, and evaluated over columns of a segment and of a memtable alike.
 */
import { Bitmap } from '../../src/codec/bitmap.ts'
import type { Choice } from '../../src/directory/crash-image.ts'
import { IsovecError } from '../../src/errors.ts'
import { type FilterNode, idPath, parseFilter, selectRows } from '../../src/search/filter.ts'
import type { AttributeColumns } from '../../src/snapshot.ts'
import { ColumnBuilder, columnLimits } from '../../src/storage/column-builder.ts'
import { openColumns } from '../../src/storage/columns.ts'
import { MemoryColumns } from '../../src/storage/memory-columns.ts'
import { evaluate } from '../support/evaluate.ts'
import { holdsFor, matches, type RawFilter } from '../support/filter-reference.ts'
import { docs, FilterMaker, payloads } from './filter-target.ts'
import { ChoiceTarget, demand, Finding, type Input, type Outcome } from './input.ts'

const bytes = payloads.map((text) => (text === undefined ? undefined : new TextEncoder().encode(text)))
const rowCount = docs.length

function built(limits = columnLimits): AttributeColumns {
  const builder = new ColumnBuilder(rowCount, 'columns', limits)
  for (const [row, payload] of bytes.entries()) builder.add(row, payload)
  return openColumns(builder.finish(), rowCount, (row) => bytes[row], 'columns')
}

export class ParsedFilterTarget extends ChoiceTarget {
  readonly name = 'parse-filter'
  readonly #columns: readonly AttributeColumns[] = [
    built(),
    built({ ...columnLimits, columnSizeMax: 60 }),
    new MemoryColumns({ rowCount, payloadAt: (row) => bytes[row] }),
  ]

  make(choose: Choice): Input {
    return { base: null, steps: [this.choices(choose, (each) => new FilterMaker(each).filter())] }
  }

  async run({ steps }: Input): Promise<Outcome> {
    const maker = new FilterMaker(this.again(steps[0]))
    const filter = maker.filter()
    let node: FilterNode
    try {
      node = parseFilter(filter)
    } catch (error) {
      const isRefusal = error instanceof IsovecError && error.code === 'INVALID_ARGUMENT'
      if (!isRefusal) throw new Finding(`a filter is met with ${String(error).slice(0, 200)}`, error)
      demand(/^filter/.test(error.field ?? ''), `a refusal names the field ${error.field}`)
      return { refusals: [error.code] }
    }
    demand(JSON.stringify(node) === JSON.stringify(structuredClone(node)), 'a parsed filter is not plain')
    // What reads differently each time was read once: what it was taken for decides.
    const passes = maker.hostile.isStable
      ? docs.map(({ id, payload }) => matches(filter as RawFilter, id, payload))
      : docs.map(({ id, payload }) => evaluate(node, id, payload as never))
    const expected = passes.flatMap((isPassing, row) => (isPassing ? [row] : [])).join()
    for (const [index, columns] of this.#columns.entries()) {
      const rows = await selectRows(node, rowCount, (path, condition) =>
        path === idPath ? idsMatching(path, condition) : columns.match(path, condition),
      )
      const found = rows.rows().join()
      if (found !== expected) throw new Finding(`columns ${index} find ${found} instead of ${expected}`)
    }
    return { refusals: [] }
  }
}

function idsMatching(path: string, condition: Parameters<AttributeColumns['match']>[1]): Bitmap {
  const rows = Bitmap.of(rowCount)
  for (const [row, { id }] of docs.entries()) if (holdsFor(id, undefined, path, condition)) rows.add(row)
  return rows
}
