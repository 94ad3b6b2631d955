/**
 * Carries out the calls of one or many connections on a database that is open in this thread.
 */
import type { DatabaseEvent, DatabaseInfo, ResolvedCollectionOptions } from '../api.ts'
import type { AnyDocument, AnyResult, CollectionCalls, Configuration, Loop, RecallTerms, Written } from '../calls.ts'
import { IsovecError } from '../errors.ts'
import type { LocalDatabase } from '../local-database.ts'
import type { CheckedSearch } from '../request.ts'
import type { FilterNode } from '../search/filter.ts'
import type { Wanted } from '../search/hydrate.ts'
import type { PackedBatch } from '../storage/batch.ts'
import {
  type CallMessage,
  type CollectionFacts,
  encodeError,
  encodeEvent,
  type Request,
  type Response,
} from './protocol.ts'

/** Says something to whoever called. */
export type Answer = (message: Response, transfer?: ArrayBuffer[]) => void

/** A database that is served, and those that it is served to. */
export class Server {
  readonly database: LocalDatabase
  readonly #sessions = new Set<Session>()

  constructor(database: LocalDatabase) {
    this.database = database
  }

  /**
   * Begins to serve somebody.
   * @param info adds what this place knows to what the database says of itself
   */
  connect(answer: Answer, info: (info: DatabaseInfo) => Promise<DatabaseInfo>): Session {
    const session = new Session(this, answer, info)
    this.#sessions.add(session)
    return session
  }

  /** Ends the service to somebody who is gone, and frees what was held for them. */
  disconnect(session: Session): void {
    this.#sessions.delete(session)
    session.leaveAll()
  }

  /** Tells everybody. */
  tell(event: DatabaseEvent): void {
    for (const session of this.#sessions) session.answer({ type: 'event', event: encodeEvent(event) })
  }

  /** Tells everybody how collections are now, before what has changed them is answered. */
  async tellFacts(): Promise<void> {
    let names: Map<number, string>
    try {
      names = await this.database.collectionNames()
    } catch {
      // The database is being closed: nobody needs to know any more, and the change itself has happened.
      return
    }
    const options = new Map<number, ResolvedCollectionOptions>()
    for (const session of this.#sessions) session.gather(names, options)
    for (const session of this.#sessions) session.answer({ type: 'facts', names, options })
  }
}

type Run = {
  readonly signal: AbortSignal
  readonly onProgress: (value: unknown) => void
}

/** A whole number that nobody else begins with. */
function randomNumber(): number {
  const [high = 0, low = 0] = crypto.getRandomValues(new Uint32Array(2))
  return (high & 0xfffff) * 2 ** 32 + low
}

type LoopUnderWay = {
  readonly documents: AsyncIterableIterator<readonly AnyDocument[]>
  /** The first batch, until it is asked for. */
  first: Promise<IteratorResult<readonly AnyDocument[]>> | undefined
}

/** Calls that change what is known of collections. */
const factChanging = new Set([
  'createCollection',
  'renameCollection',
  'dropCollection',
  'configure',
  'buildIndex',
  'refresh',
])

/** The calls of one connection. */
export class Session {
  readonly answer: Answer
  readonly #server: Server
  readonly #info: (info: DatabaseInfo) => Promise<DatabaseInfo>
  readonly #running = new Map<number, AbortController>()
  readonly #collections = new Map<number, CollectionCalls>()
  readonly #opening = new Map<number, Promise<CollectionCalls>>()
  readonly #loops = new Map<number, LoopUnderWay>()
  /** Loops of a leader that is gone must not be taken for those of the next one. */
  #nextLoop = randomNumber()
  #isOver = false

  constructor(server: Server, answer: Answer, info: (info: DatabaseInfo) => Promise<DatabaseInfo>) {
    this.#server = server
    this.answer = answer
    this.#info = info
  }

  /** Takes what was sent. Calls on an open collection begin within this turn, in the order in which they came. */
  take(request: Request): void {
    if (request.type === 'abort') {
      this.#running.get(request.id)?.abort()
      return
    }
    if (request.type === 'call') void this.#carryOut(request)
  }

  /** Ends loops that nobody will go on with. */
  leaveAll(): void {
    this.#isOver = true
    for (const controller of this.#running.values()) controller.abort()
    for (const loop of this.#loops.values()) leave(loop)
    this.#loops.clear()
  }

  async #carryOut(call: CallMessage): Promise<void> {
    const { id } = call
    const controller = new AbortController()
    this.#running.set(id, controller)
    const onProgress = (value: unknown): void => this.answer({ type: 'progress', id, value })
    try {
      const value = await this.#run(call, { signal: controller.signal, onProgress })
      if (factChanging.has(call.name)) await this.#server.tellFacts()
      this.answer({ type: 'result', id, value }, vectorsOf(value))
    } catch (error) {
      this.answer({ type: 'error', id, error: encodeError(error) })
    } finally {
      this.#running.delete(id)
    }
  }

  #run(call: CallMessage, run: Run): Promise<unknown> {
    switch (call.target.kind) {
      case 'database':
        return this.#onDatabase(call, run)
      case 'loop':
        return this.#onLoop(call, call.target.number)
      case 'collection': {
        const { number } = call.target
        // Not an await, and behind those that wait for the same: no call passes an earlier one.
        const open = this.#opening.has(number) ? undefined : this.#collections.get(number)
        return open === undefined
          ? this.#open(number).then((opened) => this.#onCollection(opened, call, run))
          : this.#onCollection(open, call, run)
      }
    }
  }

  /** A collection that somebody has opened before, perhaps where another worker held the database. */
  #open(number: number): Promise<CollectionCalls> {
    let opening = this.#opening.get(number)
    if (opening === undefined) {
      opening = this.#server.database.collectionAt(number).then((collection) => this.#know(collection))
      this.#opening.set(number, opening)
      const forget = (): boolean => this.#opening.delete(number)
      opening.then(forget, forget)
    }
    return opening
  }

  #know(collection: CollectionCalls): CollectionCalls {
    this.#collections.set(collection.number, collection)
    return collection
  }

  /** Adds the options of the collections that are known here, and forgets those that were dropped. */
  gather(names: ReadonlyMap<number, string>, options: Map<number, ResolvedCollectionOptions>): void {
    for (const [number, collection] of this.#collections) {
      if (names.has(number)) options.set(number, collection.options)
      else if (collection.isClosed) this.#collections.delete(number)
    }
  }

  async #onDatabase({ name, args }: CallMessage, { signal, onProgress }: Run): Promise<unknown> {
    const { database } = this.#server
    const values = args as never[]
    switch (name) {
      case 'createCollection':
        return factsOf(this.#know(await database.createCollection(values[0]!, values[1]!, values[2]!)))
      case 'openCollection':
        return factsOf(this.#know(await database.openCollection(values[0]!, values[1])))
      case 'hasCollection':
        return database.hasCollection(values[0]!)
      case 'listCollections':
        return database.listCollections()
      case 'renameCollection':
        return database.renameCollection(values[0]!, values[1]!, values[2]!)
      case 'dropCollection':
        return database.dropCollection(values[0]!)
      case 'snapshot':
        return database.snapshot({ destination: values[0]!, isCompact: values[1]!, signal, onProgress })
      case 'verify':
        return database.verify({ isFull: values[0]!, signal, onProgress })
      case 'info':
        return this.#info(await database.info())
      case 'refresh':
        return database.refresh()
      default:
        throw unknown(name)
    }
  }

  #onCollection(collection: CollectionCalls, call: CallMessage, { signal, onProgress }: Run): Promise<unknown> {
    const { name, args } = call
    if (collection.isClosed) {
      return Promise.reject(
        new IsovecError('CLOSED', `the collection ${collection.name} is closed`, { collection: collection.name }),
      )
    }
    switch (name) {
      case 'write':
        return collection.write(args[0] as PackedBatch, {
          durability: args[1] as never,
          signal,
        }) satisfies Promise<Written>
      case 'deleteWhere':
        return collection.deleteWhere(args[0] as FilterNode, { durability: args[1] as never, signal })
      case 'getMany':
        return collection.getMany(args[0] as string[], args[1] as Wanted, signal)
      case 'has':
        return collection.has(args[0] as string)
      case 'count':
        return collection.count(args[0] as FilterNode | undefined, signal)
      case 'loop': {
        if (this.#isOver) return Promise.reject(new IsovecError('DISCONNECTED', 'nobody is there to read'))
        const number = this.#nextLoop++
        const documents = collection.loop({ ...(args[0] as Loop), signal: undefined })
        // In this turn: the loop reads the moment of its call.
        const first = documents.next()
        first.catch(() => {})
        this.#loops.set(number, { documents, first })
        return Promise.resolve(number)
      }
      case 'search':
        return collection.search({ ...(args[0] as CheckedSearch), signal })
      case 'searchMany':
        return collection.searchMany(
          (args[0] as CheckedSearch[]).map((asked) => ({ ...asked, signal })),
          signal,
        )
      case 'measureRecall':
        return collection.measureRecall({ ...(args[0] as RecallTerms), signal })
      case 'flush':
        return collection.flush()
      case 'sync':
        return collection.sync()
      case 'compact':
        return collection.compact({ signal, onProgress })
      case 'buildIndex':
        return collection.buildIndex(args[0] as { M?: number; efConstruction?: number }, { signal, onProgress })
      case 'dropIndex':
        return collection.dropIndex()
      case 'hasIndex':
        return collection.hasIndex()
      case 'configure':
        return collection.configure(args[0] as Configuration)
      case 'stats':
        return collection.stats().then(({ lastBackgroundError: error, ...stats }) => ({
          ...stats,
          ...(error === undefined ? {} : { lastBackgroundError: encodeError(error) }),
        }))
      case 'settled':
        return collection.settled()
      default:
        return Promise.reject(unknown(name))
    }
  }

  async #onLoop({ name }: CallMessage, number: number): Promise<readonly AnyDocument[] | undefined> {
    const loop = this.#loops.get(number)
    if (name === 'leave') {
      this.#loops.delete(number)
      if (loop !== undefined) leave(loop)
      return undefined
    }
    if (loop === undefined) {
      throw new IsovecError('DISCONNECTED', 'the worker that read this loop is gone, and its moment with it')
    }
    const { documents, first = documents.next() } = loop
    loop.first = undefined
    const step = await first.catch((error: unknown) => {
      this.#loops.delete(number)
      throw error
    })
    if (step.done === true) this.#loops.delete(number)
    return step.done === true ? undefined : step.value
  }
}

/** Frees what a loop holds. It reads no further, so that there is nothing that could fail and matter. */
function leave({ documents }: LoopUnderWay): void {
  documents.return?.().catch(() => {})
}

function unknown(name: string): IsovecError {
  return new IsovecError('UNSUPPORTED', `this worker knows no call ${name}`)
}

function factsOf({ number, name, options, isReadOnly }: CollectionCalls): CollectionFacts {
  return { number, name, options, isReadOnly }
}

/** Memory of vectors that were read for a call and are of no use here once it is answered. */
function vectorsOf(value: unknown): ArrayBuffer[] {
  const results = Array.isArray(value) ? value : [value]
  const buffers: ArrayBuffer[] = []
  const add = (document: AnyDocument | undefined): void => {
    if (document?.vector instanceof Float32Array) buffers.push(document.vector.buffer as ArrayBuffer)
  }
  for (const result of results) {
    const hits = (result as Partial<AnyResult> | undefined)?.hits
    if (Array.isArray(hits)) hits.forEach(add)
    else if (typeof result === 'object') add(result as AnyDocument)
  }
  return buffers
}
