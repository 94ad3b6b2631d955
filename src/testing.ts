/**
 * For authors of backends: what every backend must do, and a backend that fails, fills up or crashes where it is told to.
 */
export {
  type ConformanceCase,
  type ConformanceFactory,
  type ConformanceSubject,
  conformanceCases,
} from './directory/conformance.ts'
export { type Change, type Choice, imageKey, seededChoice } from './directory/crash-image.ts'
export {
  type CrashOptions,
  type Fault,
  type FaultyBackend,
  type FaultyOptions,
  faultyBackend,
  isStopped,
  type Look,
} from './directory/faulty.ts'
export { type MemoryBackend, memoryBackend, type StoreImage } from './directory/memory.ts'
