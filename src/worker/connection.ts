/**
 * Calls over a port, from the side of those who call.
 */
import { abortError, IsovecError, isIsovecError } from '../errors.ts'
import {
  type CallMessage,
  decodeError,
  disconnected,
  type ErrorMessage,
  isChanging,
  isReading,
  type Request,
  type Response,
  type Target,
} from './protocol.ts'

/** One end of a channel: a `MessagePort`, or what is like one. */
export interface Port {
  postMessage(message: unknown, transfer: Transferable[]): void
  addEventListener(type: 'message', listener: (event: { readonly data: unknown }) => void): void
  start(): void
  close(): void
}

/** What stays on this side of a call. */
export type CallOptions = {
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((value: never) => void) | undefined
  /** Memory that goes with the call and is of no use here any more. */
  readonly transfer?: readonly Transferable[]
}

type Pending = {
  readonly call: CallMessage
  readonly resolve: (value: unknown) => void
  readonly reject: (error: unknown) => void
  readonly onProgress: ((value: never) => void) | undefined
  readonly signal: AbortSignal | undefined
}

/** What is said without being asked for. */
export type Notice = Extract<Response, { type: 'event' | 'facts' }>

/** Calls under way to the other end of a port. */
export class Connection {
  readonly #port: Port
  readonly #onNotice: (notice: Notice) => void
  readonly #pending = new Map<number, Pending>()
  #nextId = 1
  #end: ((call: CallMessage) => IsovecError) | undefined

  constructor(port: Port, onNotice: (notice: Notice) => void) {
    this.#port = port
    this.#onNotice = onNotice
    port.addEventListener('message', ({ data }) => this.#take(data as Response))
    port.start()
  }

  /** Whether calls have somebody to carry them out. */
  get isOpen(): boolean {
    return this.#end === undefined
  }

  /**
   * Makes a call. Calls arrive in the order in which they are made.
   * @throws IsovecError what the call fails with; `ABORTED`; `DISCONNECTED`
   */
  call<T>(target: Target, name: string, args: readonly unknown[], options: CallOptions = {}): Promise<T> {
    const call: CallMessage = { type: 'call', id: this.#nextId++, target, name, args }
    const { signal, onProgress, transfer = [] } = options
    if (this.#end !== undefined) return Promise.reject(this.#end(call))
    if (signal?.aborted) return Promise.reject(abortError(signal, isChanging(name) ? 'none' : undefined))
    return new Promise<T>((resolve, reject) => {
      const onAbort = (): void => {
        this.#post({ type: 'abort', id: call.id }, [])
        // What may have changed something is over when the other side says what it came to.
        if (isReading(name)) this.#settle(call.id)?.reject(abortError(signal!))
      }
      signal?.addEventListener('abort', onAbort, { once: true })
      const forget = (): void => signal?.removeEventListener('abort', onAbort)
      this.#pending.set(call.id, {
        call,
        resolve: (value) => {
          forget()
          resolve(value as T)
        },
        reject: (error) => {
          forget()
          reject(error)
        },
        onProgress,
        signal,
      })
      try {
        this.#post(call, [...transfer])
      } catch (cause) {
        // Arguments are plain; a message can still be larger than what the platform takes.
        this.#settle(call.id)?.reject(
          new IsovecError('OUT_OF_MEMORY', 'a call is too large to be sent', { cause, outcome: 'none' }),
        )
      }
    })
  }

  /** Says something that has no answer. */
  #post(message: Request, transfer: Transferable[]): void {
    this.#port.postMessage(message, transfer)
  }

  /**
   * Ends the connection: nothing more is heard from the other side.
   * @param error what calls under way and later ones fail with; by default `DISCONNECTED` with the outcome that is known
   */
  end(error?: () => IsovecError): void {
    if (this.#end !== undefined) return
    this.#end = error ?? ((call) => disconnected(call, 'none'))
    this.#port.close()
    for (const [id, { call }] of this.#pending) {
      this.#settle(id)!.reject(error?.() ?? disconnected(call, 'unknown'))
    }
  }

  #settle(id: number): Pending | undefined {
    const pending = this.#pending.get(id)
    this.#pending.delete(id)
    return pending
  }

  #take(message: Response): void {
    switch (message.type) {
      case 'result':
        this.#settle(message.id)?.resolve(message.value)
        break
      case 'error': {
        const pending = this.#settle(message.id)
        pending?.reject(withReason(message.error, pending.signal))
        break
      }
      case 'progress': {
        const { onProgress } = this.#pending.get(message.id) ?? {}
        onProgress?.(message.value as never)
        break
      }
      default:
        this.#onNotice(message)
    }
  }
}

/** The error that was sent; of an abort the reason, which has stayed here. */
function withReason(message: ErrorMessage, signal: AbortSignal | undefined): Error {
  const error = decodeError(message)
  if (!signal?.aborted || !isIsovecError(error) || error.code !== 'ABORTED') return error
  return abortError(signal, error.outcome)
}
