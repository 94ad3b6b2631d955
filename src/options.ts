/**
 * Checks of what callers pass: every option known, every value in range, before anything happens.
 */

import type { CollectionOptions } from './api.ts'
import { IsovecError } from './errors.ts'
import { mMax } from './kernel/limits.ts'
import { metrics } from './kernel/metric.ts'
import { dimensionMax } from './storage/batch.ts'
import {
  type HnswOptions,
  hnswEfConstructionMax,
  isModelName,
  type ResolvedCollectionOptions,
} from './storage/collection-manifest.ts'
import { isCollectionName } from './storage/root-manifest.ts'

const hnswDefaults: HnswOptions = { M: 16, efConstruction: 200 }

/** The error for an argument. */
export function invalid(field: string, problem: string): IsovecError {
  return new IsovecError('INVALID_ARGUMENT', `${field}: ${problem}`, { field })
}

/** `value` as an object of options; `undefined` is none. */
export function checkOptions<T extends object>(value: T | undefined, known: readonly string[], field = 'options'): T {
  if (value === undefined) return {} as T
  if (typeof value !== 'object' || value === null) throw invalid(field, 'is not an object')
  for (const key of Object.keys(value)) {
    if (!known.includes(key)) throw invalid(`${field}.${key}`, 'is not an option here')
  }
  return value
}

/** Options that belong to the contract but not to this version: refused rather than ignored. */
export function refuseUnsupported(value: object | undefined, keys: readonly string[], field: string): void {
  for (const key of keys) {
    if (typeof value === 'object' && value !== null && (value as Record<string, unknown>)[key] !== undefined) {
      throw new IsovecError('UNSUPPORTED', `${field}.${key} is not supported by this version`, {
        field: `${field}.${key}`,
      })
    }
  }
}

/** A whole number in a range; `fallback` where it is undefined. */
export function checkWhole(value: unknown, fallback: number, min: number, max: number, field: string): number {
  if (value === undefined) return fallback
  if (!Number.isSafeInteger(value) || (value as number) < min || (value as number) > max) {
    throw invalid(field, `${String(value)} is not a whole number from ${min} to ${max}`)
  }
  return value as number
}

/** One of a few words; `fallback` where it is undefined. */
export function checkChoice<T extends string>(value: unknown, choices: readonly T[], fallback: T, field: string): T {
  if (value === undefined) return fallback
  const found = choices.find((choice) => choice === value)
  if (found === undefined) throw invalid(field, `${String(value)} is none of ${choices.join(', ')}`)
  return found
}

/** A boolean; `fallback` where it is undefined. @throws IsovecError `INVALID_ARGUMENT` */
export function checkFlag(value: unknown, fallback: boolean, field: string): boolean {
  if (value === undefined) return fallback
  if (typeof value !== 'boolean') throw invalid(field, 'is not a boolean')
  return value
}

/** @throws IsovecError `INVALID_ARGUMENT` */
export function checkCollectionName(name: unknown): asserts name is string {
  if (!isCollectionName(name)) {
    throw invalid(
      'name',
      `${JSON.stringify(name)} is no name for a collection: a-z, 0-9, - and _, at most 64, not - or _ first`,
    )
  }
}

/** An AbortSignal or undefined. @throws IsovecError `INVALID_ARGUMENT` */
export function checkSignal(value: unknown, field = 'options.signal'): AbortSignal | undefined {
  if (value === undefined || value instanceof AbortSignal) return value
  // A signal of another realm is an instance of another class.
  const signal = value as Partial<AbortSignal> | null
  if (typeof signal?.aborted === 'boolean' && typeof signal.addEventListener === 'function')
    return signal as AbortSignal
  throw invalid(field, 'is not an AbortSignal')
}

/** A function or undefined. @throws IsovecError `INVALID_ARGUMENT` */
export function checkCallback<T>(value: T, field: string): T {
  if (value === undefined || typeof value === 'function') return value
  throw invalid(field, 'is not a function')
}

/** The name of a model. */
export function checkModel(value: unknown, field: string): string | undefined {
  if (value === undefined) return undefined
  if (typeof value !== 'string' || !isModelName(value)) throw invalid(field, 'is not a text of 1 to 1,024 characters')
  return value
}

/** Graph parameters; what isn't given is taken from `base`. */
export function checkHnsw(
  value: { M?: number; efConstruction?: number } | undefined,
  field: string,
  base: HnswOptions = hnswDefaults,
): HnswOptions {
  return {
    M: checkWhole(value?.M, base.M, 2, mMax, `${field}.M`),
    efConstruction: checkWhole(
      value?.efConstruction,
      base.efConstruction,
      1,
      hnswEfConstructionMax,
      `${field}.efConstruction`,
    ),
  }
}

/** When a write is acknowledged: once synced, or once handed to the platform. */
export const durabilities = ['strict', 'buffered'] as const
const automatic = ['auto', 'manual'] as const

/** A collection's options with every value filled in. */
export function resolveCollectionOptions(given: CollectionOptions): ResolvedCollectionOptions {
  const known = ['dimension', 'metric', 'durability', 'hnsw', 'quantization', 'vectors', 'compaction', 'index', 'model']
  if (given === undefined) throw invalid('options', 'are needed, with at least a dimension')
  const options = checkOptions(given, [...known, 'ifExists'])
  if (options.dimension === undefined) throw invalid('options.dimension', 'is needed')
  if ((options.vectors as string) === 'disk') {
    throw new IsovecError('UNSUPPORTED', "vectors: 'disk' is not supported by this version", {
      field: 'options.vectors',
    })
  }
  const model = checkModel(options.model, 'options.model')
  return {
    dimension: checkWhole(options.dimension, 0, 1, dimensionMax, 'options.dimension'),
    metric: checkChoice(options.metric, metrics, 'cosine', 'options.metric'),
    durability: checkChoice(options.durability, durabilities, 'strict', 'options.durability'),
    hnsw: checkHnsw(checkOptions(options.hnsw, ['M', 'efConstruction'], 'options.hnsw'), 'options.hnsw'),
    quantization: checkChoice(options.quantization, ['auto', 'sq8', 'none'], 'auto', 'options.quantization'),
    vectors: checkChoice(options.vectors, ['memory'], 'memory', 'options.vectors'),
    compaction: checkChoice(options.compaction, automatic, 'auto', 'options.compaction'),
    index: checkChoice(options.index, automatic, 'auto', 'options.index'),
    ...(model === undefined ? {} : { model }),
  }
}

/** What of a collection's options can be changed. */
export function checkConfiguration(
  given: Partial<Pick<CollectionOptions, 'durability' | 'compaction' | 'index'>>,
  current: ResolvedCollectionOptions,
): ResolvedCollectionOptions {
  const options = checkOptions(given, ['durability', 'compaction', 'index'])
  return {
    ...current,
    durability: checkChoice(options.durability, durabilities, current.durability, 'options.durability'),
    compaction: checkChoice(options.compaction, automatic, current.compaction, 'options.compaction'),
    index: checkChoice(options.index, automatic, current.index, 'options.index'),
  }
}
