/**
 * Searches, operations and documents as callers give them: checked, copied, and every default filled in.
 */
import type { Document, ResolvedCollectionOptions } from './api.ts'
import { payloadDepthMax } from './codec/json.ts'
import { efMax } from './kernel/limits.ts'
import { metrics } from './kernel/metric.ts'
import { checkChoice, checkFlag, checkOptions, checkSignal, checkWhole, invalid, refuseUnsupported } from './options.ts'
import { type FilterNode, parseFilter } from './search/filter.ts'
import type { Wanted } from './search/hydrate.ts'
import { type Projection, projectionOf } from './search/projection.ts'
import type { Query } from './search/query.ts'
import { type BatchBuilder, checkId, copyVector } from './storage/batch.ts'

/** A search with every value filled in. */
export type CheckedSearch = Omit<Query, 'vector' | 'count' | 'open' | 'isLate'> & {
  /** The question, or the id of the document whose vector it is. */
  readonly vector: Float32Array | string
  readonly filter: FilterNode | undefined
  readonly signal: AbortSignal | undefined
  readonly k: number
  readonly offset: number
  readonly wanted: Wanted
}

const hitsWanted: Wanted = { payload: true, vector: false }
/** What reads by id return unless told otherwise. */
export const allWanted: Wanted = { payload: true, vector: true }
/** Recall that approximate searches aim at unless told otherwise. */
const defaultRecall = 0.95
/** Hits that a search may ask for. */
export const kMax = 10_000
const requestKeys = [
  'vector',
  'near',
  'k',
  'filter',
  'mode',
  'recall',
  'ef',
  'metric',
  'minScore',
  'offset',
  'include',
  'signal',
]
/** Paths that a projection may have. */
const projectionPathsMax = 1000

/** @throws IsovecError `INVALID_ARGUMENT`, `WRONG_DIMENSION`, `UNSUPPORTED` */
export function checkSearch(given: object, options: ResolvedCollectionOptions, field: string): CheckedSearch {
  if (typeof given !== 'object' || given === null) throw invalid(field, 'is not an object')
  refuseUnsupported(given, ['groupBy', 'groupSize'], field)
  const request: { [key: string]: unknown } = checkOptions(given, requestKeys, field) as Record<string, unknown>
  const metric = checkChoice(request.metric, metrics, options.metric, `${field}.metric`)
  const vector = checkQuestion(request, options.dimension, field)
  if (metric === 'cosine' && typeof vector !== 'string' && vector.every((component) => component === 0)) {
    throw invalid(`${field}.vector`, 'a zero vector has no direction under cosine')
  }
  const mode = checkChoice(request.mode, ['auto', 'exact', 'approximate'], 'auto', `${field}.mode`)
  const { minScore } = request
  if (minScore !== undefined && (typeof minScore !== 'number' || Number.isNaN(minScore))) {
    throw invalid(`${field}.minScore`, 'is not a number')
  }
  return {
    vector,
    metric,
    isExact: mode === 'exact' || metric !== options.metric,
    k: checkWhole(request.k, 10, 1, kMax, `${field}.k`),
    offset: checkWhole(request.offset, 0, 0, Number.MAX_SAFE_INTEGER, `${field}.offset`),
    ef: request.ef === undefined ? undefined : checkWhole(request.ef, 0, 1, efMax, `${field}.ef`),
    recall: checkRecall(request.recall, `${field}.recall`),
    minScore: minScore ?? Number.NEGATIVE_INFINITY,
    filter: checkFilter(request.filter, `${field}.filter`),
    signal: checkSignal(request.signal, `${field}.signal`),
    wanted: checkInclude(request.include, hitsWanted, `${field}.include`),
  }
}

function checkQuestion(
  { vector, near }: { vector?: unknown; near?: unknown },
  dimension: number,
  field: string,
): Float32Array | string {
  if (near === undefined) return copyVector(vector, dimension, `${field}.vector`)
  if (vector !== undefined) throw invalid(`${field}.near`, 'a search is for a vector or near a document, not both')
  checkId(near, `${field}.near`)
  return near
}

/** A target for recall: the one of the contract if undefined. */
export function checkRecall(value: unknown, field: string): number {
  if (value === undefined) return defaultRecall
  if (typeof value !== 'number' || !(value > 0 && value <= 1)) throw invalid(field, 'is not a share above 0 up to 1')
  return value
}

/** The filter of a read, undefined for none. */
export function checkFilter(filter: unknown, field: string): FilterNode | undefined {
  return filter === undefined ? undefined : parseFilter(filter, field)
}

/** What to return beside the id; what isn't said is as in `fallback`. */
export function checkInclude(value: unknown, fallback: Wanted, field = 'options.include'): Wanted {
  if (value === undefined) return fallback
  const { payload, vector } = checkOptions(value as Record<string, unknown>, ['payload', 'vector'], field)
  return {
    payload: checkProjection(payload, fallback.payload, `${field}.payload`),
    vector: checkFlag(vector, fallback.vector, `${field}.vector`),
  }
}

function checkProjection(payload: unknown, fallback: Projection | false, field: string): Projection | false {
  if (!Array.isArray(payload)) return checkFlag(payload, fallback !== false, field)
  if (payload.length > projectionPathsMax) throw invalid(field, `a projection has at most ${projectionPathsMax} paths`)
  for (const [index, path] of payload.entries()) {
    const keys = typeof path === 'string' ? path.split('.') : []
    const isPath = keys.length > 0 && keys.every((key) => key !== '' && !key.startsWith('$'))
    if (!isPath) throw invalid(`${field}[${index}]`, 'is not a path into payloads')
    if (keys.length > payloadDepthMax) throw invalid(`${field}[${index}]`, `has more than ${payloadDepthMax} levels`)
  }
  return projectionOf(payload)
}

/** Checks an operation and adds it to a batch. */
export function addOperation(batch: BatchBuilder, operation: unknown, field: string): void {
  if (typeof operation !== 'object' || operation === null) throw invalid(field, 'is not an object')
  const keys = Object.keys(operation)
  if (keys.length !== 1) throw invalid(field, 'names not exactly one of upsert, patch and delete')
  const given = operation as { upsert?: unknown; patch?: unknown; delete?: unknown }
  if (keys[0] === 'patch') addPatch(batch, given.patch, `${field}.patch`)
  else if (keys[0] === 'upsert') addDocument(batch, given.upsert, `${field}.upsert`)
  else if (keys[0] === 'delete') batch.delete(given.delete, `${field}.delete`)
  else throw invalid(`${field}.${keys[0]}`, 'is not an operation')
}

function addPatch(batch: BatchBuilder, patch: unknown, field: string): void {
  if (typeof patch !== 'object' || patch === null) throw invalid(field, 'is not a patch')
  const given = checkOptions(patch as Record<string, unknown>, ['id', 'payload', 'unset'], field)
  batch.patch(given.id, given.payload, given.unset, field)
}

/** Checks a document and adds it to a batch. */
export function addDocument(batch: BatchBuilder, doc: unknown, field: string): void {
  if (typeof doc !== 'object' || doc === null) throw invalid(field, 'is not a document')
  const { id, vector, payload } = checkOptions(doc as Partial<Document>, ['id', 'vector', 'payload'], field)
  batch.upsert(id, vector, payload, field)
}
