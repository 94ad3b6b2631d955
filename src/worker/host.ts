/**
 * What a worker does: opens the database that it is told to, and carries out what is asked of it.
 */
import type { DatabaseInfo, OpenOptions } from '../api.ts'
import { randomName } from '../directory/place-name.ts'
import { acquireWebLock } from '../directory/web-lock.ts'
import { openLocal, type PlatformBackend } from '../open.ts'
import type { CheckedOpen } from '../open-options.ts'
import { salvage } from '../salvage.ts'
import { mergeDatabases, restore } from '../tools.ts'
import type { Port } from './connection.ts'
import { type CallMessage, type ErrorMessage, encodeError, type Request, type Response } from './protocol.ts'
import { type Answer, Server } from './server.ts'
import { streamFrom } from './stream.ts'
import { Tab } from './tab.ts'

/** What a worker is to open. */
export type OpenMessage = {
  readonly place: string
  readonly options: Pick<CheckedOpen, 'isReader' | 'mustExist' | 'lockTimeout'> & {
    readonly wasm: SentWasm
  }
}

/** A kernel as it is sent; an address as text. */
export type SentWasm = Exclude<OpenOptions['wasm'], URL> | string

function withWasm(sent: SentWasm): { wasm?: Exclude<OpenOptions['wasm'], undefined> } {
  if (sent === undefined) return {}
  return { wasm: typeof sent === 'string' ? new URL(sent) : sent }
}

/** The first message to a worker, with the port on which everything else goes. */
export type StartMessage = { readonly port: MessagePort; readonly version: number } & (
  | { readonly kind: 'open'; readonly open: OpenMessage }
  | { readonly kind: 'tool' }
)

/** The first answer. */
export type StartAnswer =
  | {
      readonly type: 'started'
      readonly location: string
      /** The lock that is free when the worker is gone; undefined where there are no locks. */
      readonly presence: string | undefined
    }
  | { readonly type: 'failed'; readonly error: ErrorMessage }

/** What a worker stands on. */
export type Surroundings = {
  readonly platformBackend: PlatformBackend
  /** Whether databases are shared with the workers of other tabs. */
  readonly isShared: boolean
}

/** Begins what a {@link StartMessage} asks for. */
export async function start(message: StartMessage, surroundings: Surroundings): Promise<void> {
  const { port } = message
  const answer: Answer = (response, transfer = []) => port.postMessage(response, transfer)
  try {
    if (message.kind === 'tool') {
      const presence = await holdPresence(surroundings)
      listen(port, (request) => void carryOutTool(request, port, answer, surroundings))
      say(port, { type: 'started', location: '', presence })
      return
    }
    const { open } = message
    const started =
      surroundings.isShared && !open.options.isReader
        ? await share(open, port, answer, surroundings)
        : await serve(open, port, answer, surroundings)
    say(port, started)
  } catch (error) {
    say(port, { type: 'failed', error: encodeError(error) })
  }
}

function say(port: Port, message: StartAnswer): void {
  port.postMessage(message, [])
}

function listen(port: Port, take: (request: Request) => void): void {
  port.addEventListener('message', ({ data }) => take(data as Request))
  port.start()
}

/** Holds a lock for as long as this worker is there, and tells its name. */
async function holdPresence({ isShared }: Surroundings): Promise<string | undefined> {
  if (!isShared) return undefined
  const presence = `isovec:worker:${randomName()}`
  await acquireWebLock(presence, { timeout: 0 })
  return presence
}

/** Serves a database to one page alone. */
async function serve(
  message: OpenMessage,
  port: Port,
  answer: Answer,
  surroundings: Surroundings,
): Promise<StartAnswer> {
  const { platformBackend } = surroundings
  const presence = await holdPresence(surroundings)
  let server: Server | undefined
  const database = await openLocal(
    message.place,
    checkedOf(message, (event) => server?.tell(event)),
    platformBackend,
  )
  server = new Server(database)
  const session = server.connect(answer, withStorage)
  listen(port, (request) => {
    if (isClose(request)) void database.close().then(...answers(request.id, answer))
    else session.take(request)
  })
  return { type: 'started', location: database.location, presence }
}

/** Shares a database with other tabs. */
async function share(
  message: OpenMessage,
  port: Port,
  answer: Answer,
  { platformBackend }: Surroundings,
): Promise<StartAnswer> {
  const tab = new Tab({
    name: message.place,
    answer,
    info: withStorage,
    open(onEvent, { steal, isAgain }) {
      const checked = checkedOf(message, onEvent)
      // What was there must be there still: nothing is begun anew under those who use it.
      const options = isAgain ? { ...checked, mustExist: true } : checked
      return openLocal(message.place, options, platformBackend, steal)
    },
  })
  await tab.begin()
  try {
    const location = await tab.ready
    listen(port, (request) => {
      if (request.type !== 'step-down') tab.take(request)
      // Whoever leads next reads what there is; what became of each call is said to those who made it.
      else tab.stepDown().catch(() => {})
    })
    return { type: 'started', location, presence: tab.presenceName }
  } catch (error) {
    await tab.end()
    throw error
  }
}

function isClose(request: Request): request is CallMessage {
  return request.type === 'call' && request.target.kind === 'database' && request.name === 'close'
}

function answers(id: number, answer: Answer): [() => void, (error: unknown) => void] {
  return [
    () => answer({ type: 'result', id, value: undefined }),
    (error) => answer({ type: 'error', id, error: encodeError(error) }),
  ]
}

function checkedOf({ options }: OpenMessage, onEvent: CheckedOpen['onEvent']): CheckedOpen {
  const { wasm, ...checked } = options
  return {
    ...checked,
    signal: undefined,
    onEvent,
    requestPersistence: false,
    wasm: withWasm(wasm).wasm,
    worker: undefined,
  }
}

/** What the browser says of room and of how long it keeps data. */
async function withStorage(info: DatabaseInfo): Promise<DatabaseInfo> {
  const storage = globalThis.navigator?.storage
  if (storage === undefined) return info
  // Either may be refused, as in a private window; what isn't known isn't told.
  const [estimate, persisted] = await Promise.all([
    storage.estimate().catch(() => undefined),
    storage.persisted().catch(() => undefined),
  ])
  return {
    ...info,
    ...(estimate?.usage === undefined ? {} : { usage: estimate.usage }),
    ...(estimate?.quota === undefined ? {} : { quota: estimate.quota }),
    ...(persisted === undefined ? {} : { persisted }),
  }
}

/** A place, or a stream that is read through a port. */
export type ToolSource = string | { readonly stream: MessagePort }

const running = new Map<number, AbortController>()

async function carryOutTool(
  request: Request,
  port: Port,
  answer: Answer,
  { platformBackend }: Surroundings,
): Promise<void> {
  if (request.type === 'abort') running.get(request.id)?.abort()
  if (request.type !== 'call') return
  const { id, name, args } = request
  const controller = new AbortController()
  running.set(id, controller)
  const onProgress = (value: unknown): void => port.postMessage({ type: 'progress', id, value } satisfies Response, [])
  try {
    const places = args.slice(0, -1) as string[]
    const { wasm, ...rest } = args.at(-1) as { readonly wasm: SentWasm; readonly maxBytes?: number }
    const options = { ...rest, ...withWasm(wasm), signal: controller.signal, onProgress }
    const value =
      name === 'restore'
        ? await restore(sourceOf(args[0] as ToolSource), places[1]!, options, platformBackend)
        : name === 'salvage'
          ? await salvage(places[0]!, places[1]!, options, platformBackend)
          : await mergeDatabases(places[0]!, places[1]!, places[2]!, options, platformBackend)
    answer({ type: 'result', id, value })
  } catch (error) {
    answer({ type: 'error', id, error: encodeError(error) })
  } finally {
    running.delete(id)
  }
}

function sourceOf(source: ToolSource): string | ReadableStream<Uint8Array> {
  return typeof source === 'string' ? source : streamFrom(source.stream)
}
