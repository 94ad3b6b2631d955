/**
 * Filters over snapshots: which rows of each source pass.
 */
import { Bitmap } from '../codec/bitmap.ts'
import { hasLoneSurrogate } from '../codec/bytes.ts'
import { type Condition, meets } from '../condition.ts'
import type { Slice } from '../slice.ts'
import type { SearchSource, Snapshot } from '../snapshot.ts'
import { type FilterNode, idPath, selectRows } from './filter.ts'

/** Rows of sources that pass a filter and that a snapshot sees. */
export type OpenRows = ReadonlyMap<SearchSource, Bitmap>

/** Ids between two looks at the clock. */
const idsPerLook = 1024

/**
 * The rows that pass a filter. Columns are brought into memory where they are not there yet; without that, and without conditions on
 * ids other than equality, the answer comes at once.
 * @throws IsovecError `CORRUPTION`, `ABORTED`
 */
export function openRows(snapshot: Snapshot, filter: FilterNode, slice: Slice): OpenRows | Promise<OpenRows> {
  const open = new Map<SearchSource, Bitmap>()
  const { sources, sequence } = snapshot
  for (let i = 0; i < sources.length; i++) {
    const found = openRowsOf(sources[i]!, filter, sequence, slice)
    if (found instanceof Promise) return finish(open, snapshot, i, found, filter, slice)
    open.set(sources[i]!, found)
  }
  return open
}

async function finish(
  open: Map<SearchSource, Bitmap>,
  { sources, sequence }: Snapshot,
  index: number,
  first: Promise<Bitmap>,
  filter: FilterNode,
  slice: Slice,
): Promise<OpenRows> {
  open.set(sources[index]!, await first)
  for (const source of sources.slice(index + 1)) {
    open.set(source, await openRowsOf(source, filter, sequence, slice))
    if (slice.isOver) await slice.next()
  }
  return open
}

function openRowsOf(
  source: SearchSource,
  filter: FilterNode,
  sequence: number,
  slice: Slice,
): Bitmap | Promise<Bitmap> {
  // What comes later is not in the snapshot.
  const rowCount = source.rowCount
  if (!source.areColumnsLoaded && needsColumns(filter)) {
    return source.loadColumns(slice).then(() => select(source, filter, sequence, rowCount, slice))
  }
  return select(source, filter, sequence, rowCount, slice)
}

function select(
  source: SearchSource,
  filter: FilterNode,
  sequence: number,
  rowCount: number,
  slice: Slice,
): Bitmap | Promise<Bitmap> {
  const keep = (rows: Bitmap): Bitmap => {
    source.keepVisible(rows, sequence)
    return rows
  }
  const rows = selectRows(filter, rowCount, (path, condition) =>
    path === idPath
      ? matchIds(source, condition, rowCount, slice)
      : inTurn(slice, () => source.matchPayloads(path, condition, sequence, rowCount, slice)),
  )
  return rows instanceof Promise ? rows.then(keep) : keep(rows)
}

/** Begins another slice first where this one is over: a filter may have many conditions. */
function inTurn(slice: Slice, match: () => Bitmap | Promise<Bitmap>): Bitmap | Promise<Bitmap> {
  return slice.isOver ? slice.next().then(match) : match()
}

/** Whether a filter asks for more than ids. */
function needsColumns(node: FilterNode): boolean {
  switch (node.kind) {
    case 'all':
    case 'none':
      return false
    case 'and':
    case 'or':
      return node.nodes.some(needsColumns)
    case 'not':
      return needsColumns(node.node)
    case 'leaf':
      return node.path !== idPath
  }
}

function matchIds(
  source: SearchSource,
  condition: Condition,
  rowCount: number,
  slice: Slice,
): Bitmap | Promise<Bitmap> {
  if (condition.kind === 'exists') return Bitmap.full(rowCount)
  const rows = Bitmap.of(rowCount)
  if (condition.kind !== 'equal') return compareIds(source, condition, rows, slice)
  // What is no Unicode text is no id, and must not be taken for one that it looks like in UTF-8.
  const isId = (value: unknown): value is string => typeof value === 'string' && !hasLoneSurrogate(value)
  source.addIds(new Set(condition.values.filter(isId)), rows)
  return rows
}

async function compareIds(source: SearchSource, condition: Condition, rows: Bitmap, slice: Slice): Promise<Bitmap> {
  if (!source.areIdsLoaded) await source.loadIds()
  for (let row = 0; row < rows.length; row++) {
    if (meets(source.idAt(row), condition)) rows.add(row)
    if (row % idsPerLook === 0 && slice.isOver) await slice.next()
  }
  return rows
}
