/**
 * Options of opening: checked and copied within the call.
 */
import type { DatabaseEvent, OpenOptions } from './api.ts'
import { throwIfAborted } from './errors.ts'
import { checkCallback, checkFlag, checkOptions, checkSignal, invalid, refuseUnsupported } from './options.ts'

const openKeys = ['readOnly', 'mustExist', 'lockTimeout', 'signal', 'onEvent', 'requestPersistence', 'wasm', 'worker']
const laterOpenKeys = ['memoryLimit']

/** Options with every value filled in. */
export type CheckedOpen = {
  readonly isReader: boolean
  readonly mustExist: boolean
  readonly lockTimeout: number
  readonly signal: AbortSignal | undefined
  readonly onEvent: ((event: DatabaseEvent) => void) | undefined
  readonly requestPersistence: boolean
  readonly wasm: OpenOptions['wasm']
  readonly worker: OpenOptions['worker']
}

/** @throws IsovecError `INVALID_ARGUMENT`, `UNSUPPORTED`, `ABORTED` */
export function checkOpen(given: OpenOptions | undefined): CheckedOpen {
  refuseUnsupported(given, laterOpenKeys, 'options')
  const options = checkOptions(given, [...openKeys, ...laterOpenKeys])
  const signal = checkSignal(options.signal)
  const lockTimeout = options.lockTimeout ?? 0
  if (typeof lockTimeout !== 'number' || !(lockTimeout >= 0))
    throw invalid('options.lockTimeout', 'is not a time in ms')
  const onEvent = checkCallback(options.onEvent, 'options.onEvent')
  const isReader = checkFlag(options.readOnly, false, 'options.readOnly')
  const mustExist = checkFlag(options.mustExist, isReader, 'options.mustExist')
  if (isReader && !mustExist) throw invalid('options.mustExist', 'can not be false where nothing may be made')
  const requestPersistence = checkFlag(options.requestPersistence, false, 'options.requestPersistence')
  const { wasm, worker } = options
  if (worker !== undefined && typeof worker !== 'function' && !(worker instanceof URL)) {
    throw invalid('options.worker', 'is neither a URL nor a function')
  }
  throwIfAborted(signal)
  return { isReader, mustExist, lockTimeout, signal, onEvent, requestPersistence, wasm, worker }
}
