/**
 * The kernel: vectors, graphs and checksums in WASM. Everything is synchronous once it is loaded.
 */
export type { Checksum, Hasher } from './checksum.ts'
export type {
  DistanceBound,
  GraphHeader,
  GraphOptions,
  Quantizer,
  SearchOutput,
} from './image.ts'
export { VectorImage } from './image.ts'
export type { SectionKind } from './image-memory.ts'
export { type Kernel, type KernelSource, loadKernel } from './kernel.ts'
export { efMax, mMax } from './limits.ts'
export { codeStride, type Metric, termSize, vectorStride } from './metric.ts'
export { ImagePool, type ImageShape } from './pool.ts'
