/**
 * What tabs say to each other, and how a leader serves the others.
 */
import type { DatabaseInfo } from '../api.ts'
import type { Request, Response } from './protocol.ts'
import type { Server, Session } from './server.ts'

/** What is said to all tabs. */
export type Announcement =
  | { readonly type: 'lead'; readonly leader: string; readonly version: number }
  | { readonly type: 'hello'; readonly from: string; readonly version: number }
  /** Somebody who will lead reads what there is. */
  | { readonly type: 'opening' }
  /** A leader ends in good order: what it hasn't taken up is for the next one. */
  | { readonly type: 'resign'; readonly leader: string }

/** What is said between a follower and a leader. */
export type Wire =
  | { readonly type: 'welcome'; readonly leader: string; readonly location: string }
  | { readonly type: 'refused'; readonly leader: string; readonly version: number }
  | { readonly type: 'request'; readonly leader: string; readonly request: Request }
  | { readonly type: 'response'; readonly leader: string; readonly response: Response }
  /** A request came too late for a leader that ends: it has not been touched. */
  | { readonly type: 'untouched'; readonly leader: string; readonly id: number }
  | { readonly type: 'ping'; readonly leader: string }
  | { readonly type: 'pong'; readonly leader: string }

/** The time for which a tab leads. */
export type Reign = {
  readonly id: string
  /** Whether its answers count no longer. */
  isOver: boolean
  /** Whether what it has not begun is for the next leader. */
  isEnding: boolean
}

/** Whether a call found the database closed, which then has not begun with it. */
export function isClosed(response: Response): response is Extract<Response, { type: 'error' }> {
  return response.type === 'error' && response.error.code === 'CLOSED'
}

export function leaderLockName(name: string): string {
  return `isovec:tabs:${name}:leader`
}

export function wireName(name: string, id: string): string {
  return `isovec:tabs:${name}:${id}`
}

export function presenceName(name: string, id: string): string {
  return `isovec:tabs:${name}:tab:${id}`
}

/** A tab that the leader serves. */
export class Follower {
  /** Resolves when the tab is gone or is served no longer. */
  readonly whenGone: Promise<void>
  readonly #reign: Reign
  readonly #wire: BroadcastChannel
  readonly #server: Server
  readonly #session: Session
  readonly #ending = new AbortController()
  #isEnded = false

  constructor(
    name: string,
    reign: Reign,
    id: string,
    server: Server,
    info: (info: DatabaseInfo) => Promise<DatabaseInfo>,
  ) {
    this.#reign = reign
    this.#server = server
    this.#wire = new BroadcastChannel(wireName(name, id))
    this.#wire.onmessage = ({ data }) => this.#read(data as Wire)
    this.#session = server.connect((response) => this.#answer(response), info)
    // Its lock is free when the tab is gone.
    this.whenGone = navigator.locks
      .request(presenceName(name, id), { mode: 'shared', signal: this.#ending.signal }, async () => {})
      .catch(() => {})
      .then(() => this.end())
  }

  welcome(): void {
    this.#say({ type: 'welcome', leader: this.#reign.id, location: this.#server.database.location })
  }

  end(): void {
    if (this.#isEnded) return
    this.#isEnded = true
    this.#ending.abort()
    this.#server.disconnect(this.#session)
    this.#wire.close()
  }

  #read(message: Wire): void {
    const { id: leader, isEnding } = this.#reign
    if (message.leader !== leader) return
    if (message.type === 'ping') this.#say({ type: 'pong', leader })
    else if (message.type === 'request') {
      if (!isEnding) this.#session.take(message.request)
      else if (message.request.type === 'call') this.#say({ type: 'untouched', leader, id: message.request.id })
    }
  }

  #answer(response: Response): void {
    const { id: leader, isEnding, isOver } = this.#reign
    if (isOver) return
    if (isEnding && isClosed(response)) this.#say({ type: 'untouched', leader, id: response.id })
    else this.#say({ type: 'response', leader, response })
  }

  #say(message: Wire): void {
    if (!this.#isEnded) this.#wire.postMessage(message)
  }
}
