/** What measurements below the public API need of the sources. */
export { Bitmap } from '../../src/codec/bitmap.ts'
export { loadKernel } from '../../src/kernel/index.ts'
export { Ranking } from '../../src/search/ranking.ts'
export { scan } from '../../src/search/scan.ts'
export { walk } from '../../src/search/walk.ts'
export { Slice } from '../../src/slice.ts'
export { ColumnBuilder } from '../../src/storage/column-builder.ts'
