/**
 * Searches, operations and documents as callers give them: checked, copied, and every default filled in.
 */
import type { Document, Include, ResolvedCollectionOptions, SearchRequest } from './api.ts'
import { IsovecError } from './errors.ts'
import { checkChoice, checkFlag, checkOptions, checkSignal, checkWhole, invalid, refuseUnsupported } from './options.ts'
import type { Wanted } from './search/hydrate.ts'
import { efMax, type Query } from './search/query.ts'
import { type BatchBuilder, copyVector } from './storage/batch.ts'
import { metrics } from './storage/segment.ts'

/** A search with every value filled in. */
export type CheckedSearch = Omit<Query, 'count' | 'open'> & {
  readonly signal: AbortSignal | undefined
  readonly k: number
  readonly offset: number
  readonly wanted: Wanted
}

const hitsWanted: Wanted = { payload: true, vector: false }
/** What reads by id return unless told otherwise. */
export const allWanted: Wanted = { payload: true, vector: true }
/** Hits that a search may ask for. */
export const kMax = 10_000
const requestKeys = ['vector', 'k', 'mode', 'ef', 'metric', 'minScore', 'offset', 'include', 'signal']

/** @throws IsovecError `INVALID_ARGUMENT`, `WRONG_DIMENSION`, `UNSUPPORTED` */
export function checkSearch(request: SearchRequest, options: ResolvedCollectionOptions, field: string): CheckedSearch {
  if (typeof request !== 'object' || request === null) throw invalid(field, 'is not an object')
  refuseUnsupported(request, ['filter', 'near', 'recall', 'groupBy', 'groupSize'], field)
  checkOptions(request, requestKeys, field)
  const metric = checkChoice(request.metric, metrics, options.metric, `${field}.metric`)
  const vector = copyVector(request.vector, options.dimension, `${field}.vector`)
  if (metric === 'cosine' && vector.every((component) => component === 0)) {
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
    minScore: minScore ?? Number.NEGATIVE_INFINITY,
    signal: checkSignal(request.signal, `${field}.signal`),
    wanted: checkInclude(request.include, hitsWanted, `${field}.include`),
  }
}

/** What to return beside the id; what isn't said is as in `fallback`. */
export function checkInclude(value: Include | undefined, fallback: Wanted, field = 'options.include'): Wanted {
  if (value === undefined) return fallback
  checkOptions(value, ['payload', 'vector'], field)
  if (Array.isArray(value.payload)) {
    throw new IsovecError('UNSUPPORTED', `${field}.payload: choosing paths is not supported by this version`, {
      field: `${field}.payload`,
    })
  }
  return {
    payload: checkFlag(value.payload, fallback.payload, `${field}.payload`),
    vector: checkFlag(value.vector, fallback.vector, `${field}.vector`),
  }
}

/** Checks an operation and adds it to a batch. */
export function addOperation(batch: BatchBuilder, operation: unknown, field: string): void {
  if (typeof operation !== 'object' || operation === null) throw invalid(field, 'is not an object')
  refuseUnsupported(operation, ['patch'], field)
  const keys = Object.keys(operation)
  if (keys.length !== 1) throw invalid(field, 'names not exactly one of upsert and delete')
  const given = operation as { upsert?: unknown; delete?: unknown }
  if (keys[0] === 'upsert') addDocument(batch, given.upsert, `${field}.upsert`)
  else if (keys[0] === 'delete') batch.delete(given.delete, `${field}.delete`)
  else throw invalid(`${field}.${keys[0]}`, 'is not an operation')
}

/** Checks a document and adds it to a batch. */
export function addDocument(batch: BatchBuilder, doc: unknown, field: string): void {
  if (typeof doc !== 'object' || doc === null) throw invalid(field, 'is not a document')
  const { id, vector, payload } = checkOptions(doc as Partial<Document>, ['id', 'vector', 'payload'], field)
  batch.upsert(id, vector, payload, field)
}

/** A document with the parts that are wanted, which are those that its type has. */
