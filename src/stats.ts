/**
 * Sizes and counts of an open collection.
 */
import type { CollectionStats } from './api.ts'
import type { CollectionCore } from './core.ts'
import { fileBytes } from './maintenance.ts'
import { liveCountOf } from './snapshot.ts'

/** As of now. */
export function statsOf(core: CollectionCore): CollectionStats {
  const { state, maintenance, writer } = core
  const { segments, sealed, active } = state
  const memtables = [...sealed.map(({ memtable }) => memtable), active]
  const segmentRows = segments.reduce((sum, { rowCount }) => sum + rowCount, 0)
  const segmentDocs = liveCountOf(segments)
  const memtableDocs = liveCountOf(memtables)
  const docs = segmentDocs + memtableDocs
  const memoryBytes = [...segments, ...memtables].reduce((sum, { memorySize }) => sum + memorySize, 0)
  const { lastBackgroundError } = maintenance
  return {
    docs,
    memtableDocs,
    segments: segments.length,
    segmentDocs,
    deleted: segmentRows - segmentDocs,
    deletedRatio: segmentRows === 0 ? 0 : (segmentRows - segmentDocs) / segmentRows,
    bytes: fileBytes(segments),
    walBytes: writer.walSize,
    columnBytes: segments.reduce((sum, { columnSize }) => sum + columnSize, 0),
    indexBytes: segments.reduce((sum, { graphFile }) => sum + (graphFile?.length ?? 0), 0),
    memoryBytes,
    memoryBytesPerDoc: docs === 0 ? 0 : memoryBytes / docs,
    ...(lastBackgroundError === undefined ? {} : { lastBackgroundError }),
  }
}
