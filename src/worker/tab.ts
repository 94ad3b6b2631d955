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
import { randomName } from '../directory/place-name.ts'
import { acquireWebLock, type WebLock } from '../directory/web-lock.ts'
import { IsovecError, isIsovecError } from '../errors.ts'
import type { LocalDatabase } from '../local-database.ts'
import {
  type Announcement,
  Follower,
  isClosed,
  leaderLockName,
  presenceName,
  type Reign,
  type Wire,
  wireName,
} from './follower.ts'
import {
  type CallMessage,
  disconnected,
  encodeError,
  isChanging,
  isRepeatable,
  protocolVersion,
  type Request,
} from './protocol.ts'
import { type Answer, Server, type Session } from './server.ts'

/** Silence after which a leader is asked whether it is there, in ms. */
const silenceMs = 1_000
/** Silence after which it is taken to be frozen. The proof of the lock is younger than this (`directory/web-lock.ts`). */
const frozenMs = 5_000
/** Times that it was asked by then, each in a turn of its own. */
const askedCountMin = 6
/** Time after which a call that found no leader is given up. */
const leaderlessMs = 30_000

/** What a tab needs of the place where it is. */
export type TabOptions = {
  /** Of the database. */
  readonly name: string
  /**
   * Opens the database in this worker.
   * @param how `steal`: whether to take its lock from whoever has it; `isAgain`: whether it was there before
   */
  readonly open: (
    onEvent: (event: DatabaseEvent) => void,
    how: { readonly steal: boolean; readonly isAgain: boolean },
  ) => Promise<LocalDatabase>
  /** Says something to the page. */
  readonly answer: Answer
  /** Adds what the platform knows of storage. */
  readonly info: (info: DatabaseInfo) => Promise<DatabaseInfo>
}

type Pending = { readonly call: CallMessage; isSent: boolean; isAborted: boolean; since: number }

/** Where calls go. */
type Goal =
  | { readonly kind: 'none' }
  | { readonly kind: 'here'; readonly session: Session }
  | { readonly kind: 'leader'; readonly leader: string }

/** One tab's part in a shared database. */
export class Tab {
  readonly #options: TabOptions
  readonly #id: string = randomName()
  readonly #control: BroadcastChannel
  readonly #wire: BroadcastChannel
  readonly #pending = new Map<number, Pending>()
  #goal: Goal = { kind: 'none' }
  /** A leader that ends in good order, whose answers still count. */
  #resigning: string | undefined
  /** Of a leader. */
  #server: Server | undefined
  /** Of this tab as a leader, each time anew. */
  #reign: Reign = { id: '', isOver: true, isEnding: false }
  #reignCount = 0
  #stopping: Promise<void> | undefined
  readonly #followers = new Map<string, Follower>()
  #lock: WebLock | undefined
  #heardAt = performance.now()
  #lookedAt = performance.now()
  /** Times that a leader was asked whether it is there, since it was heard of. */
  #askedCount = 0
  #wake: () => void = () => {}
  #watch: ReturnType<typeof setInterval> | undefined
  /** Ends the waiting for the lock. */
  #run: AbortController | undefined
  #isReady = false
  #isRefused = false
  #isEnded = false
  readonly #ending = new AbortController()
  /** Resolves with the database's location when there is somebody to carry out calls, and rejects if that can't be. */
  readonly ready: Promise<string>
  #settleReady!: { resolve: (location: string) => void; reject: (error: unknown) => void }

  constructor(options: TabOptions) {
    this.#options = options
    this.#control = new BroadcastChannel(`isovec:tabs:${options.name}`)
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
    this.#pending.set(request.id, { call: request, isSent: false, isAborted: false, since: performance.now() })
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
      pending.isAborted = true
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
    // Writes under way are waited for, whoever carries them out; where nobody does, they have a limit of their own.
    while (this.#server === undefined && [...this.#pending.values()].some(({ call }) => isChanging(call.name))) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
    this.#isEnded = true
    this.#ending.abort()
    clearInterval(this.#watch)
    try {
      await this.#stopping
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
      if (this.#run === undefined && this.#lock === undefined && !this.#isRefused) void this.#runForLeader(false)
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
    else if (goal.kind === 'leader') {
      try {
        this.#say({ type: 'request', leader: goal.leader, request })
      } catch (cause) {
        if (request.type !== 'call') throw cause
        const message = 'a call is too large to be sent to the tab that leads'
        this.#reject(request.id, new IsovecError('OUT_OF_MEMORY', message, { cause, outcome: 'none' }))
      }
    }
  }

  /** Hands an answer to the page, unless the call was given up. */
  readonly #receive: Answer = (response, transfer) => {
    if (response.type === 'result' || response.type === 'error') {
      if (!this.#pending.delete(response.id)) return
      this.#wake()
    } else if (response.type === 'progress' && !this.#pending.has(response.id)) return
    this.#options.answer(response, transfer)
  }

  #reject(id: number, error: IsovecError): void {
    if (!this.#pending.delete(id)) return
    this.#wake()
    this.#options.answer({ type: 'error', id, error: encodeError(error) })
  }

  /** A call comes back as it was sent, and waits for the next leader. */
  #takeBack(id: number): void {
    const pending = this.#pending.get(id)
    if (pending === undefined) return
    pending.isSent = false
    pending.since = performance.now()
    if (pending.isAborted) this.#abort(id)
    else this.#send(id)
  }

  /** Calls go to somebody else from now on. Of those under way, what can't be done twice is given up. */
  #turnTo(goal: Goal): void {
    const isSame = goal.kind === this.#goal.kind && leaderOf(goal) === leaderOf(this.#goal)
    this.#goal = goal
    if (isSame) return
    this.#resigning = undefined
    this.#heard()
    this.#giveUpSent()
    if (goal.kind === 'none') return
    for (const [id, { isSent }] of [...this.#pending]) if (!isSent) this.#send(id)
    this.#options.answer({
      type: 'event',
      event: { type: 'role', role: goal.kind === 'here' ? 'leader' : 'follower' },
    })
  }

  #giveUpSent(): void {
    for (const [id, pending] of this.#pending) {
      if (!pending.isSent) continue
      pending.isSent = false
      pending.since = performance.now()
      if (!isRepeatable(pending.call)) this.#reject(id, disconnected(pending.call, 'unknown'))
      else if (pending.isAborted) this.#abort(id)
    }
  }

  #heard(): void {
    this.#heardAt = performance.now()
    this.#askedCount = 0
  }

  // --- leading

  async #runForLeader(steal: boolean): Promise<void> {
    this.#run?.abort()
    const run = new AbortController()
    this.#run = run
    const end = (): void => run.abort()
    this.#ending.signal.addEventListener('abort', end, { once: true })
    try {
      const lock = await acquireWebLock(leaderLockName(this.#options.name), {
        timeout: steal ? 0 : Number.POSITIVE_INFINITY,
        signal: run.signal,
        steal,
      })
      if (this.#run === run) this.#run = undefined
      if (this.#isEnded || this.#lock !== undefined) await lock.release()
      else await this.#lead(lock, steal)
    } catch (error) {
      // Another attempt has taken the place of this one, or the tab ends.
      if (!run.signal.aborted) this.#fail(error)
    } finally {
      if (this.#run === run) this.#run = undefined
      this.#ending.signal.removeEventListener('abort', end)
    }
  }

  async #lead(lock: WebLock, steal: boolean): Promise<void> {
    this.#lock = lock
    this.#turnTo({ kind: 'none' })
    this.#announce({ type: 'opening' })
    try {
      const database = await this.#options.open((event) => this.#server?.tell(event), {
        steal,
        isAgain: this.#isReady,
      })
      const server = new Server(database)
      this.#server = server
      const reign: Reign = { id: `${this.#id} ${++this.#reignCount}`, isOver: false, isEnding: false }
      this.#reign = reign
      void lock.whenLost.then(() => this.#overthrown(server))
      const receive: Answer = (response, transfer) => {
        if (reign.isOver) return
        if (reign.isEnding && !this.#isEnded && isClosed(response)) this.#takeBack(response.id)
        else this.#receive(response, transfer)
      }
      const session = server.connect(receive, (info) => this.#options.info({ ...info, role: 'leader' }))
      this.#ready(database.location)
      this.#turnTo({ kind: 'here', session })
      this.#announce({ type: 'lead', leader: reign.id, version: protocolVersion })
      await server.tellFacts()
    } catch (error) {
      this.#lock = undefined
      await lock.release()
      throw error
    }
  }

  #ready(location: string): void {
    this.#isReady = true
    this.#settleReady.resolve(location)
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
  #stopLeading(): Promise<void> {
    const server = this.#server
    if (server === undefined) return this.#stopping ?? Promise.resolve()
    this.#stopping = this.#stop(server).finally(() => {
      this.#stopping = undefined
    })
    return this.#stopping
  }

  async #stop(server: Server): Promise<void> {
    const reign = this.#reign
    this.#server = undefined
    reign.isEnding = true
    this.#goal = { kind: 'none' }
    this.#announce({ type: 'resign', leader: reign.id })
    try {
      await server.database.close()
    } finally {
      for (const follower of this.#followers.values()) follower.end()
      this.#followers.clear()
      reign.isOver = true
      // What is under way by then is that of the next leader, if there is one.
      if (this.#goal.kind === 'none') this.#giveUpSent()
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
    for (const follower of this.#followers.values()) follower.end()
    await this.#stopLeading().catch(() => {
      // Nothing of it reaches the disk any more; the new leader has what was acknowledged.
    })
    if (this.#isEnded) return
    this.#sayHello()
    if (this.#run === undefined) void this.#runForLeader(false)
  }

  #serve(from: string, version: number): void {
    const server = this.#server
    if (server === undefined) {
      if (this.#lock !== undefined) this.#announce({ type: 'opening' })
      return
    }
    if (version !== protocolVersion) {
      const wire = new BroadcastChannel(wireName(this.#options.name, from))
      wire.postMessage({ type: 'refused', leader: this.#reign.id, version: protocolVersion } satisfies Wire)
      wire.close()
      return
    }
    const known = this.#followers.get(from)
    if (known !== undefined) {
      known.welcome()
      return
    }
    const info = (found: DatabaseInfo): Promise<DatabaseInfo> => this.#options.info({ ...found, role: 'follower' })
    const follower = new Follower(this.#options.name, this.#reign, from, server, info)
    this.#followers.set(from, follower)
    follower.welcome()
    void server.tellFacts()
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
        this.#heard()
        break
      case 'resign':
        if (announcement.leader !== leaderOf(this.#goal)) break
        // Answers to what was sent may still come; what is asked from now on waits for the next one.
        this.#resigning = announcement.leader
        this.#goal = { kind: 'none' }
        this.#heard()
        break
      case 'lead':
        // Whoever has taken the lock from this tab is heard of by the lock itself.
        if (this.#server !== undefined || this.#isRefused || announcement.leader === leaderOf(this.#goal)) break
        this.#turnTo({ kind: 'none' })
        this.#giveUpSent()
        this.#resigning = undefined
        this.#heard()
        this.#sayHello()
    }
  }

  #say(message: Wire): void {
    this.#wire.postMessage(message)
  }

  #read(message: Wire): void {
    if (this.#server !== undefined || this.#isEnded) return
    if (message.type === 'welcome') {
      this.#ready(message.location)
      this.#turnTo({ kind: 'leader', leader: message.leader })
      return
    }
    if (message.type === 'refused') {
      this.#isRefused = true
      this.#run?.abort()
      const text = `another tab leads with messages of version ${message.version}, this one knows ${protocolVersion}: reload it`
      this.#fail(new IsovecError('UNSUPPORTED_VERSION', text))
      return
    }
    if (message.leader !== (leaderOf(this.#goal) ?? this.#resigning)) return
    this.#heard()
    if (message.type === 'response') this.#receive(message.response)
    else if (message.type === 'untouched') this.#takeBack(message.id)
  }

  /** Asks a leader that says nothing whether it is there, and takes its place if it isn't. */
  async #look(): Promise<void> {
    const now = performance.now()
    // This tab was not there itself: that it has heard nothing means nothing.
    if (now - this.#lookedAt > silenceMs * 2) this.#heard()
    this.#lookedAt = now
    for (const [id, { call, isSent, since }] of this.#pending) {
      if (!isSent && now - since > leaderlessMs) {
        const outcome = isChanging(call.name) ? { outcome: 'none' as const } : {}
        this.#reject(id, new IsovecError('TIMEOUT', `no tab has answered for ${leaderlessMs / 1000} s`, outcome))
      }
    }
    if (this.#lock !== undefined || this.#isEnded || this.#isRefused) return
    const leader = leaderOf(this.#goal)
    // A leader of whom nothing is wanted needs to say nothing.
    if (leader !== undefined && this.#pendingSent === 0) this.#heard()
    const silence = now - this.#heardAt
    if (silence < silenceMs) return
    this.#askedCount++
    if (leader === undefined) this.#sayHello()
    else this.#say({ type: 'ping', leader })
    // Somebody has the lock, or this tab would.
    if (silence >= frozenMs && this.#askedCount >= askedCountMin && this.#run !== undefined)
      await this.#takeOver(leader)
  }

  /** One tab at a time, so that a leader which has just begun isn't taken for the one that was frozen. */
  async #takeOver(frozen: string | undefined): Promise<void> {
    await navigator.locks.request(
      `isovec:tabs:${this.#options.name}:take-over`,
      { ifAvailable: true },
      async (mutex) => {
        if (mutex === null || leaderOf(this.#goal) !== frozen || this.#isEnded) return
        if (performance.now() - this.#heardAt < frozenMs) return
        this.#turnTo({ kind: 'none' })
        await this.#runForLeader(true)
      },
    )
  }
}

function leaderOf(goal: Goal): string | undefined {
  return goal.kind === 'leader' ? goal.leader : undefined
}
