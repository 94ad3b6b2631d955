/**
 * Databases that lie in a worker: starts it, and gives the database at its other end.
 */
import type { Database, MergeReport, RestoreOptions, SalvageReport, SnapshotReport, ToolOptions } from '../api.ts'
import { DatabaseHandle } from '../database.ts'
import { checkDatabaseName } from '../directory/place-name.ts'
import { abortable, abortError, IsovecError } from '../errors.ts'
import type { CheckedOpen } from '../open-options.ts'
import { checkCallback, checkOptions, checkSignal } from '../options.ts'
import { Connection } from './connection.ts'
import type { SentWasm, StartAnswer, StartMessage, ToolSource } from './host.ts'
import { decodeError, disconnected, protocolVersion } from './protocol.ts'
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
  const ending = new AbortController()
  const database = new RemoteDatabase(port, {
    location,
    onEvent,
    onClose() {
      document?.removeEventListener('freeze', onFreeze)
      ending.abort()
      stop()
    },
  })
  if (presence !== undefined) {
    // Its lock is free when the worker is gone.
    const gone = (): void => database.disconnect()
    navigator.locks.request(presence, { mode: 'shared', signal: ending.signal }, gone).catch(() => {})
  }
  return new DatabaseHandle(database)
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
  const known = ['signal', 'onProgress', 'wasm', ...(name === 'restore' ? ['maxBytes'] : [])]
  const { signal: asked, onProgress: told, wasm, ...rest } = checkOptions(given, known)
  const signal = checkSignal(asked)
  const onProgress = checkCallback(told, 'options.onProgress')
  const transfer: Transferable[] = []
  const args: ToolSource[] = places.map((place) => {
    if (typeof place === 'string') return place
    const { port1, port2 } = new MessageChannel()
    streamTo(port1, place)
    transfer.push(port2)
    return { stream: port2 }
  })
  const { port, stop } = await startWorker({ kind: 'tool' }, undefined, signal)
  try {
    const connection = new Connection(port, () => {})
    return await connection.call<T>({ kind: 'database' }, name, [...args, { ...rest, wasm: plainWasm(wasm) }], {
      signal,
      onProgress,
      transfer,
    })
  } catch (error) {
    throw error instanceof Error ? error : disconnected(undefined, 'none')
  } finally {
    stop()
  }
}
