/**
 * The tabs of one origin that share a database: one of them leads and holds it, the others let the leader carry out their calls.
 *
 * Each tab has a worker, and each worker one of these. Who leads is decided by a Web Lock, for which all of them wait: it falls with its
 * worker, however that ends. Whoever gets it opens the database, replaying the log where the one before ended without a word, and says so
 * on a channel that all hear. Every follower has a channel of its own, on which its calls go to the leader and the answers come back. A
 * leader that says nothing for seconds though it is asked is taken to be frozen, and the lock is taken from it; the storage backend sees to
 * it that nothing which it does from then on is acknowledged (`directory/web-lock.ts`).
 */
import type { DatabaseEvent, DatabaseInfo } from '../api.ts'
import { acquireWebLock, type WebLock } from '../directory/web-lock.ts'
import { IsovecError, isIsovecError } from '../errors.ts'
import type { LocalDatabase } from '../local-database.ts'
import {
  type CallMessage,
  disconnected,
  encodeError,
  isRepeatable,
  protocolVersion,
  type Request,
  type Response,
} from './protocol.ts'
import { type Answer, Server, type Session } from './server.ts'

/** Silence after which a leader is asked whether it is there, in ms. */
const silenceMs = 1_000
/** Silence after which it is taken to be frozen. The proof of the lock is younger than this (`directory/web-lock.ts`). */
const frozenMs = 5_000
/** Time after which a call that found no leader is given up. */
const leaderlessMs = 30_000

/** What is said to all tabs. */
type Announcement =
  | { readonly type: 'lead'; readonly leader: string; readonly version: number }
  | { readonly type: 'hello'; readonly from: string; readonly version: number }
  /** Somebody who will lead reads what there is. */
  | { readonly type: 'opening' }

/** What is said between a follower and a leader. */
type Wire =
  | { readonly type: 'welcome'; readonly leader: string; readonly location: string }
  | { readonly type: 'refused'; readonly leader: string; readonly version: number }
  | { readonly type: 'request'; readonly leader: string; readonly request: Request }
  | { readonly type: 'response'; readonly leader: string; readonly response: Response }
  | { readonly type: 'ping'; readonly leader: string }
  | { readonly type: 'pong'; readonly leader: string }

/** What a tab needs of the place where it is. */
export type TabOptions = {
  /** Of the database. */
  readonly name: string
  /**
   * Opens the database in this worker.
   * @param steal whether to take its lock from whoever has it
   */
  readonly open: (onEvent: (event: DatabaseEvent) => void, steal: boolean) => Promise<LocalDatabase>
  /** Says something to the page. */
  readonly answer: Answer
  /** Adds what the platform knows of storage. */
  readonly info: (info: DatabaseInfo) => Promise<DatabaseInfo>
}

type Pending = { readonly call: CallMessage; isSent: boolean; readonly since: number }

/** Where calls go. */
type Goal =
  | { readonly kind: 'none' }
  | { readonly kind: 'here'; readonly session: Session }
  | { readonly kind: 'leader'; readonly leader: string }

/** One tab's part in a shared database. */
export class Tab {
  readonly #options: TabOptions
  readonly #id: string = crypto.randomUUID()
  readonly #control: BroadcastChannel
  readonly #wire: BroadcastChannel
  readonly #pending = new Map<number, Pending>()
  #goal: Goal = { kind: 'none' }
  /** Of a leader. */
  #server: Server | undefined
  /** Whether answers of the database that this tab holds, or held, still count. */
  #reign = { isOver: true }
  readonly #followers = new Map<string, Follower>()
  #lock: WebLock | undefined
  #heardAt = performance.now()
  #watch: ReturnType<typeof setInterval> | undefined
  /** Whether this tab waits for the lock. */
  #isRunning = false
  #isEnded = false
  readonly #ending = new AbortController()
  /** Resolves with the database's location when there is somebody to carry out calls, and rejects if that can't be. */
  readonly ready: Promise<string>
  #settleReady!: { resolve: (location: string) => void; reject: (error: unknown) => void }

  constructor(options: TabOptions) {
    this.#options = options
    this.#control = new BroadcastChannel(`isovec:${options.name}`)
    this.#wire = new BroadcastChannel(wireName(options.name, this.#id))
    this.ready = new Promise((resolve, reject) => {
      this.#settleReady = { resolve, reject }
    })
    this.#control.onmessage = ({ data }) => this.#hear(data as Announcement)
    this.#wire.onmessage = ({ data }) => this.#read(data as Wire)
  }

  /** Name of the lock that is held for as long as a tab is there. */
  get presenceName(): string {
    return presenceName(this.#options.name, this.#id)
  }

  /** Looks for a leader, or becomes one. */
  async begin(): Promise<void> {
    await acquireWebLock(this.presenceName, { timeout: 0 })
    this.#watch = setInterval(() => void this.#look(), silenceMs / 2)
    this.#sayHello()
    void this.#runForLeader(false)
  }

  /** Takes what the page sends. */
  take(request: Request): void {
    if (request.type === 'abort') {
      this.#abort(request.id)
      return
    }
    if (request.type !== 'call') return
    if (request.target.kind === 'database' && request.name === 'close') {
      const { id } = request
      this.end().then(
        () => this.#options.answer({ type: 'result', id, value: undefined }),
        (error: unknown) => this.#options.answer({ type: 'error', id, error: encodeError(error) }),
      )
      return
    }
    this.#pending.set(request.id, { call: request, isSent: false, since: performance.now() })
    this.#send(request.id)
  }

  /** Lets another tab lead, as one does that is about to be frozen. */
  async stepDown(): Promise<void> {
    if (this.#server === undefined) return
    await this.#stopLeading()
    void this.#runForLeader(false)
  }

  #abort(id: number): void {
    const pending = this.#pending.get(id)
    if (pending === undefined) return
    if (pending.isSent) {
      this.#pass({ type: 'abort', id })
      return
    }
    this.#reject(id, new IsovecError('ABORTED', 'the operation was aborted', { outcome: 'none' }))
  }

  /**
   * Closes the database if this tab leads, and leaves the others to themselves. The lock of its presence stays until the worker ends: it
   * tells the page that no answer will come.
   */
  async end(): Promise<void> {
    this.#isEnded = true
    this.#ending.abort()
    clearInterval(this.#watch)
    try {
      await this.#stopLeading()
    } finally {
      this.#control.close()
      this.#wire.close()
    }
  }

  // --- calls of this tab

  /** Sends a call on, if there is somebody to take it. */
  #send(id: number): void {
    const pending = this.#pending.get(id)
    if (pending === undefined) return
    if (this.#goal.kind === 'none') {
      // After an attempt that has failed: another one.
      if (!this.#isRunning && this.#lock === undefined) void this.#runForLeader(false)
      return
    }
    pending.isSent = true
    if (this.#goal.kind === 'leader' && this.#pendingSent === 1) this.#heardAt = performance.now()
    this.#pass(pending.call)
  }

  get #pendingSent(): number {
    let count = 0
    for (const { isSent } of this.#pending.values()) if (isSent) count++
    return count
  }

  #pass(request: Request): void {
    const goal = this.#goal
    if (goal.kind === 'here') goal.session.take(request)
    else if (goal.kind === 'leader') this.#say({ type: 'request', leader: goal.leader, request })
  }

  /** Hands an answer to the page, unless the call was given up. */
  readonly #receive: Answer = (response, transfer) => {
    if (response.type === 'result' || response.type === 'error') {
      if (!this.#pending.delete(response.id)) return
    } else if (response.type === 'progress' && !this.#pending.has(response.id)) return
    this.#options.answer(response, transfer)
  }

  #reject(id: number, error: IsovecError): void {
    if (this.#pending.delete(id)) this.#options.answer({ type: 'error', id, error: encodeError(error) })
  }

  /** Calls go to somebody else from now on. Of those under way, what can't be done twice is given up. */
  #turnTo(goal: Goal): void {
    const isSame = goal.kind === this.#goal.kind && leaderOf(goal) === leaderOf(this.#goal)
    this.#goal = goal
    if (isSame) return
    this.#heardAt = performance.now()
    this.#giveUpSent()
    if (goal.kind === 'none') return
    for (const id of [...this.#pending.keys()]) this.#send(id)
    this.#options.answer({
      type: 'event',
      event: { type: 'role', role: goal.kind === 'here' ? 'leader' : 'follower' },
    })
  }

  #giveUpSent(): void {
    for (const [id, pending] of this.#pending) {
      if (!pending.isSent) continue
      if (isRepeatable(pending.call)) pending.isSent = false
      else this.#reject(id, disconnected(pending.call, 'unknown'))
    }
  }

  // --- leading

  async #runForLeader(steal: boolean): Promise<void> {
    this.#isRunning = true
    try {
      const lock = await acquireWebLock(`isovec:${this.#options.name}:leader`, {
        timeout: steal ? 0 : Number.POSITIVE_INFINITY,
        signal: this.#ending.signal,
        steal,
      })
      if (this.#isEnded || this.#lock !== undefined) await lock.release()
      else await this.#lead(lock, steal)
    } catch (error) {
      if (!this.#isEnded) this.#fail(error)
    } finally {
      this.#isRunning = false
    }
  }

  async #lead(lock: WebLock, steal: boolean): Promise<void> {
    this.#lock = lock
    this.#turnTo({ kind: 'none' })
    this.#announce({ type: 'opening' })
    try {
      const database = await this.#options.open((event) => this.#server?.tell(event), steal)
      const server = new Server(database)
      this.#server = server
      void lock.whenLost.then(() => this.#overthrown(server))
      const reign = { isOver: false }
      this.#reign = reign
      const receive: Answer = (response, transfer) => {
        if (!reign.isOver) this.#receive(response, transfer)
      }
      const session = server.connect(receive, (info) => this.#options.info({ ...info, role: 'leader' }))
      this.#settleReady.resolve(database.location)
      this.#turnTo({ kind: 'here', session })
      this.#announce({ type: 'lead', leader: this.#id, version: protocolVersion })
    } catch (error) {
      this.#lock = undefined
      await lock.release()
      throw error
    }
  }

  /** The database can't be opened: this tab's calls fail with the reason, and the next one tries again. */
  #fail(error: unknown): void {
    this.#settleReady.reject(error)
    const cause = isIsovecError(error)
      ? error
      : new IsovecError('IO', 'the database could not be opened', { cause: error })
    for (const [id, { call, isSent }] of this.#pending) {
      if (!isSent) this.#reject(id, disconnected(call, 'none', cause))
    }
  }

  /** Ends what is under way in good order, and lets go of the database. */
  async #stopLeading(): Promise<void> {
    const server = this.#server
    if (server === undefined) return
    this.#server = undefined
    this.#goal = { kind: 'none' }
    try {
      await server.database.close()
    } finally {
      for (const follower of this.#followers.values()) follower.end()
      this.#followers.clear()
      this.#reign.isOver = true
      this.#giveUpSent()
      const lock = this.#lock
      this.#lock = undefined
      await lock?.release()
    }
  }

  /** Another tab has taken the lock: what this one holds of the database is of the past. */
  async #overthrown(server: Server): Promise<void> {
    if (this.#server !== server) return
    // What it would still answer is of no account: calls are made again, or given up.
    this.#reign.isOver = true
    this.#turnTo({ kind: 'none' })
    await this.#stopLeading().catch(() => {
      // Nothing of it reaches the disk any more; the new leader has what was acknowledged.
    })
    this.#sayHello()
    if (!this.#isRunning) void this.#runForLeader(false)
  }

  #serve(from: string, version: number): void {
    const server = this.#server
    if (server === undefined) {
      if (this.#lock !== undefined) this.#announce({ type: 'opening' })
      return
    }
    const known = this.#followers.get(from)
    if (known !== undefined) {
      known.welcome()
      return
    }
    const info = (found: DatabaseInfo): Promise<DatabaseInfo> => this.#options.info({ ...found, role: 'follower' })
    const follower = new Follower(this.#options.name, this.#id, from, server, info)
    this.#followers.set(from, follower)
    if (version === protocolVersion) follower.welcome()
    else follower.refuse()
    void follower.whenGone.then(() => {
      if (this.#followers.get(from) === follower) this.#followers.delete(from)
    })
  }

  // --- following

  #sayHello(): void {
    this.#announce({ type: 'hello', from: this.#id, version: protocolVersion })
  }

  #announce(announcement: Announcement): void {
    this.#control.postMessage(announcement)
  }

  #hear(announcement: Announcement): void {
    switch (announcement.type) {
      case 'hello':
        this.#serve(announcement.from, announcement.version)
        break
      case 'opening':
        this.#heardAt = performance.now()
        break
      case 'lead':
        // Whoever has taken the lock from this tab is heard of by the lock itself.
        if (this.#server !== undefined || announcement.leader === leaderOf(this.#goal)) break
        this.#turnTo({ kind: 'none' })
        this.#heardAt = performance.now()
        this.#sayHello()
    }
  }

  #say(message: Wire): void {
    this.#wire.postMessage(message)
  }

  #read(message: Wire): void {
    if (this.#server !== undefined || this.#isEnded) return
    if (message.type === 'welcome') {
      this.#settleReady.resolve(message.location)
      this.#turnTo({ kind: 'leader', leader: message.leader })
    } else if (message.type === 'refused') {
      const text = `another tab leads with messages of version ${message.version}, this one knows ${protocolVersion}: reload it`
      this.#fail(new IsovecError('UNSUPPORTED_VERSION', text))
    } else if (this.#goal.kind === 'leader' && message.leader === this.#goal.leader) {
      this.#heardAt = performance.now()
      if (message.type === 'response') this.#receive(message.response)
    }
  }

  /** Asks a leader that says nothing whether it is there, and takes its place if it isn't. */
  async #look(): Promise<void> {
    const now = performance.now()
    for (const [id, { call, isSent, since }] of this.#pending) {
      if (!isSent && now - since > leaderlessMs) {
        const outcome = disconnected(call, 'none').outcome
        this.#reject(
          id,
          new IsovecError(
            'TIMEOUT',
            `no tab has answered for ${leaderlessMs / 1000} s`,
            outcome === undefined ? {} : { outcome },
          ),
        )
      }
    }
    if (this.#lock !== undefined || this.#isEnded) return
    const leader = leaderOf(this.#goal)
    // A leader of whom nothing is wanted needs to say nothing.
    if (leader !== undefined && this.#pendingSent === 0) this.#heardAt = now
    const silence = now - this.#heardAt
    if (silence < silenceMs) return
    if (leader === undefined) this.#sayHello()
    else this.#say({ type: 'ping', leader })
    if (silence >= frozenMs) await this.#takeOver(leader)
  }

  /** One tab at a time, so that a leader which has just begun isn't taken for the one that was frozen. */
  async #takeOver(frozen: string | undefined): Promise<void> {
    await navigator.locks.request(`isovec:${this.#options.name}:take-over`, { ifAvailable: true }, async (mutex) => {
      if (mutex === null || leaderOf(this.#goal) !== frozen || this.#isEnded) return
      if (performance.now() - this.#heardAt < frozenMs) return
      this.#turnTo({ kind: 'none' })
      await this.#runForLeader(true)
    })
  }
}

function leaderOf(goal: Goal): string | undefined {
  return goal.kind === 'leader' ? goal.leader : undefined
}

function wireName(name: string, id: string): string {
  return `isovec:${name}:${id}`
}

function presenceName(name: string, id: string): string {
  return `isovec:${name}:tab:${id}`
}

/** A tab that the leader serves. */
class Follower {
  /** Resolves when the tab is gone or is served no longer. */
  readonly whenGone: Promise<void>
  readonly #leader: string
  readonly #wire: BroadcastChannel
  readonly #server: Server
  readonly #session: Session
  readonly #ending = new AbortController()
  #isEnded = false

  constructor(
    name: string,
    leader: string,
    id: string,
    server: Server,
    info: (info: DatabaseInfo) => Promise<DatabaseInfo>,
  ) {
    this.#leader = leader
    this.#server = server
    this.#wire = new BroadcastChannel(wireName(name, id))
    this.#wire.onmessage = ({ data }) => this.#read(data as Wire)
    this.#session = server.connect((response) => this.#say({ type: 'response', leader, response }), info)
    // Its lock is free when the tab is gone.
    this.whenGone = navigator.locks
      .request(presenceName(name, id), { mode: 'shared', signal: this.#ending.signal }, async () => {})
      .catch(() => {})
      .then(() => this.end())
  }

  welcome(): void {
    this.#say({ type: 'welcome', leader: this.#leader, location: this.#server.database.location })
  }

  refuse(): void {
    this.#say({ type: 'refused', leader: this.#leader, version: protocolVersion })
  }

  end(): void {
    if (this.#isEnded) return
    this.#isEnded = true
    this.#ending.abort()
    this.#server.disconnect(this.#session)
    this.#wire.close()
  }

  #read(message: Wire): void {
    if (message.leader !== this.#leader) return
    if (message.type === 'ping') this.#say({ type: 'pong', leader: this.#leader })
    else if (message.type === 'request') this.#session.take(message.request)
  }

  #say(message: Wire): void {
    if (!this.#isEnded) this.#wire.postMessage(message)
  }
}
