/** The exports of the kernel, and nothing else: flat functions over numbers. Addresses are u32 into linear memory. */
export { build } from './build'
export { calibrate, calibrationSize } from './calibrate'
export { hash, hashDigest, hashInit, hashSize, hashUpdate } from './checksum'
export { assignLevels, checkGraph, clearLinks } from './graph'
export {
  boundRows,
  createImage,
  entryOf,
  heapBase,
  killRow,
  maxLevelOf,
  placeCodes,
  placeGraph,
  placeRows,
  questionAt,
  questionNorm,
  resultsAt,
  scan,
  scanCoded,
  scanRows,
  score,
  setProgress,
  setQuantizer,
  setRows,
  shapeGraph,
  usesRelaxedSimd,
  visitedCount,
} from './image'
export { codeStride, imageSize, layoutScratch, linkStride, scratchSize, vectorStride } from './memory'
export { checkCodes, encodeRows, largestNorm, measureNorms, prepareQuery } from './quantize'
export { collect, gateAt, prepareGate, search } from './search'
