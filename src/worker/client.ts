/**
 * Databases that lie in a worker: starts it, and gives the database at its other end.
 */
import type { Database, MergeReport, RestoreOptions, SalvageReport, SnapshotReport, ToolOptions } from '../api.ts'
import { DatabaseHandle } from '../database.ts'
import { checkDatabaseName } from '../directory/place-name.ts'
import { abortable, abortError, IsovecError } from '../errors.ts'
import type { CheckedOpen } from '../open-options.ts'
import { checkCallback, checkOptions, checkSignal, invalid } from '../options.ts'
import { Connection } from './connection.ts'
import type { SentWasm, StartAnswer, StartMessage, ToolSource } from './host.ts'
import { decodeError, protocolVersion } from './protocol.ts'
import { RemoteDatabase } from './remote.ts'
import { streamTo } from './stream.ts'

type Started = {
  readonly port: MessagePort
  readonly location: string
  readonly presence: string | undefined
  readonly stop: () => void
}

/** Opens a database of a name in a worker. Fails as `openDatabase` does. */
export async function openInWorker(name: string, options: CheckedOpen): Promise<Database> {
  checkDatabaseName(name)
  const { isReader, mustExist, lockTimeout, signal, onEvent, requestPersistence } = options
  // Not awaited: a browser may ask the person, who may never answer.
  if (requestPersistence) void globalThis.navigator?.storage?.persist?.().catch(() => {})
  const wasm = plainWasm(options.wasm)
  const open = { place: name, options: { isReader, mustExist, lockTimeout, wasm } }
  const { port, location, presence, stop } = await startWorker({ kind: 'open', open }, options.worker, signal)
  const onFreeze = (): void => port.postMessage({ type: 'step-down' })
  const document = (globalThis as { document?: EventTarget }).document
  document?.addEventListener('freeze', onFreeze)
  const database = new RemoteDatabase(port, {
    location,
    onEvent,
    onClose() {
      document?.removeEventListener('freeze', onFreeze)
      endWatch()
      stop()
    },
  })
  const endWatch = watch(presence, () => database.disconnect())
  return new DatabaseHandle(database)
}

/** Calls `gone` when a worker is gone, whose lock is free then. Returns what ends that. */
function watch(presence: string | undefined, gone: () => void): () => void {
  const ending = new AbortController()
  if (presence !== undefined) {
    navigator.locks.request(presence, { mode: 'shared', signal: ending.signal }, gone).catch(() => {})
  }
  return () => ending.abort()
}

/** What can be sent of a kernel. */
function plainWasm(wasm: CheckedOpen['wasm']): SentWasm {
  return wasm instanceof URL ? wasm.href : wasm
}

type Start = StartMessage extends infer Message
  ? Message extends StartMessage
    ? Omit<Message, 'port' | 'version'>
    : never
  : never

async function startWorker(
  message: Start,
  given: CheckedOpen['worker'],
  signal: AbortSignal | undefined,
): Promise<Started> {
  const worker = await makeWorker(given)
  const { port1: port, port2 } = new MessageChannel()
  const stop = (): void => {
    port.close()
    worker.terminate()
  }
  const started = new Promise<StartAnswer>((resolve, reject) => {
    worker.addEventListener(
      'error',
      (event) => {
        const reason = event.message === '' || event.message === undefined ? 'no reason is told' : event.message
        const text = `the worker that holds the database could not be started (${reason}); where a policy forbids blob workers, pass the option worker`
        reject(new IsovecError('UNSUPPORTED', text))
      },
      { once: true },
    )
    // Events may come before it: they are of a database that nobody has yet.
    port.addEventListener('message', ({ data }: MessageEvent<{ readonly type: string }>) => {
      if (data.type === 'started' || data.type === 'failed') resolve(data as StartAnswer)
    })
    port.start()
  })
  try {
    worker.postMessage({ ...message, port: port2, version: protocolVersion }, [port2])
    const answer = await abortable(started, signal)
    if (answer.type === 'failed') throw decodeError(answer.error)
    if (signal?.aborted) throw abortError(signal)
    return { port, location: answer.location, presence: answer.presence, stop }
  } catch (error) {
    stop()
    throw error
  }
}

async function makeWorker(given: CheckedOpen['worker']): Promise<Worker> {
  try {
    return await tryWorker(given)
  } catch (cause) {
    if (cause instanceof IsovecError) throw cause
    throw new IsovecError('UNSUPPORTED', `no worker can be started: ${String(cause)}; see the option worker`, { cause })
  }
}

async function tryWorker(given: CheckedOpen['worker']): Promise<Worker> {
  if (typeof given === 'function') return given()
  if (typeof Worker === 'undefined') {
    throw new IsovecError(
      'UNSUPPORTED',
      'no worker can be started here; pass a backend such as indexedDbBackend(name) as the location',
    )
  }
  if (given !== undefined) return new Worker(given, { type: 'module', name: 'isovec' })
  const { source } = await import('./source.ts')
  const url = URL.createObjectURL(new Blob([source], { type: 'text/javascript' }))
  try {
    return new Worker(url, { name: 'isovec' })
  } finally {
    URL.revokeObjectURL(url)
  }
}

/** The tools for whole databases, where one of the places is a name. */
export const toolsInWorker = {
  restore: (source: string | ReadableStream<Uint8Array>, destination: string, options: RestoreOptions | undefined) =>
    runTool<SnapshotReport>('restore', [source, destination], options),
  salvage: (source: string, destination: string, options: ToolOptions | undefined) =>
    runTool<SalvageReport>('salvage', [source, destination], options),
  mergeDatabases: (base: string, other: string, destination: string, options: ToolOptions | undefined) =>
    runTool<MergeReport>('mergeDatabases', [base, other, destination], options),
}

async function runTool<T>(
  name: string,
  places: readonly (string | ReadableStream<Uint8Array>)[],
  given: RestoreOptions | undefined,
): Promise<T> {
  const known = ['signal', 'onProgress', 'wasm', 'worker', ...(name === 'restore' ? ['maxBytes'] : [])]
  const { signal: asked, onProgress: told, wasm, worker, ...rest } = checkOptions(given, known)
  const signal = checkSignal(asked)
  const onProgress = checkCallback(told, 'options.onProgress')
  const stream = places.find((place) => typeof place !== 'string')
  if (stream?.locked === true) throw invalid('source', 'is a stream that somebody else reads')
  try {
    const { port, presence, stop } = await startWorker({ kind: 'tool' }, worker, signal)
    const connection = new Connection(port, () => {})
    const endWatch = watch(presence, () => connection.end())
    const transfer: Transferable[] = []
    const args: ToolSource[] = places.map((place) => {
      if (typeof place === 'string') return place
      const { port1, port2 } = new MessageChannel()
      streamTo(port1, place)
      transfer.push(port2)
      return { stream: port2 }
    })
    const options = { ...rest, wasm: plainWasm(wasm) }
    try {
      return await connection.call<T>({ kind: 'database' }, name, [...args, options], { signal, onProgress, transfer })
    } finally {
      endWatch()
      stop()
    }
  } catch (error) {
    // Whoever sends it is not to wait for ever; one that is read by now is ended by its reader.
    if (stream?.locked === false) await stream.cancel(error).catch(() => {})
    throw error
  }
}
