/** Calls from a test into a page, and from a page into its workers. This module runs in the browser. */

/** What a page or a worker can be asked for, by name. */
export type Methods = { readonly [name: string]: (...args: never[]) => unknown }

/** An error as it crosses from the browser to the test. */
export type PlainError = { readonly name: string; readonly message: string; readonly [field: string]: unknown }

/** How a call ended. */
export type Outcome = { readonly value: unknown } | { readonly error: PlainError }

type Call = { readonly id: number; readonly method: string; readonly args: readonly unknown[] }

const errorFields = ['code', 'file', 'offset', 'field', 'outcome', 'stack'] as const

function plainError(error: unknown): PlainError {
  if (!(error instanceof Error)) return { name: 'Error', message: `thrown: ${String(error)}` }
  const fields: { [field: string]: unknown } = { name: error.name, message: error.message }
  for (const field of errorFields) {
    const value = (error as unknown as { [field: string]: unknown })[field]
    if (value !== undefined) fields[field] = value
  }
  if (error.cause !== undefined) fields.cause = plainError(error.cause)
  return fields as PlainError
}

/** Runs a method and tells how it ended. */
export async function outcomeOf(methods: Methods, method: string, args: readonly unknown[]): Promise<Outcome> {
  try {
    const run = methods[method] as ((...args: readonly unknown[]) => unknown) | undefined
    if (run === undefined) throw new Error(`no method ${method}`)
    return { value: await run(...args) }
  } catch (error) {
    return { error: plainError(error) }
  }
}

/** The value of a call, or its error thrown. */
export function settled(outcome: Outcome): unknown {
  if (!('error' in outcome)) return outcome.value
  const { message, stack, cause, ...fields } = outcome.error
  const plain = cause as PlainError | undefined
  const error = new Error(message, plain === undefined ? undefined : { cause: plain })
  return reject(Object.assign(error, fields, { message: `${message}\n  in the browser: ${String(stack)}` }))
}

function reject(error: Error): never {
  throw error
}

/** Lets the page that started this worker call `methods`. */
export function answerCalls(methods: Methods): void {
  const scope = globalThis as unknown as { onmessage: unknown; postMessage(message: unknown): void }
  scope.onmessage = async ({ data }: MessageEvent<Call>) => {
    scope.postMessage({ id: data.id, outcome: await outcomeOf(methods, data.method, data.args) })
  }
}

/** A dedicated worker that answers calls. */
export class TestWorker {
  readonly #worker: Worker
  readonly #waiting = new Map<number, (outcome: Outcome) => void>()
  #count = 0

  constructor(url: string) {
    this.#worker = new Worker(url, { type: 'module' })
    this.#worker.onmessage = ({ data }: MessageEvent<{ id: number; outcome: Outcome }>) => {
      this.#waiting.get(data.id)?.(data.outcome)
      this.#waiting.delete(data.id)
    }
    this.#worker.onerror = ({ message }) => {
      for (const end of this.#waiting.values())
        end({ error: { name: 'Error', message: `the worker failed: ${message}` } })
      this.#waiting.clear()
    }
  }

  /** The call is on its way when this returns. Never settles if the worker is ended before. */
  outcome(method: string, ...args: readonly unknown[]): Promise<Outcome> {
    return new Promise((resolve) => {
      const id = ++this.#count
      this.#waiting.set(id, resolve)
      this.#worker.postMessage({ id, method, args } satisfies Call)
    })
  }

  async call(method: string, ...args: readonly unknown[]): Promise<unknown> {
    return settled(await this.outcome(method, ...args))
  }

  /** Ends it at once, whatever it is doing. */
  terminate(): void {
    this.#waiting.clear()
    this.#worker.terminate()
  }
}

/** What a test finds in the page. */
export type TestWindow = { outcome(method: string, args: readonly unknown[]): Promise<Outcome> }

/** Lets the test call `methods` in this page, start workers and call theirs. */
export function answerTest(methods: Methods): void {
  const workers = new Map<number, TestWorker>()
  const all: Methods = {
    ...methods,
    startWorker(url: string) {
      workers.set(workers.size, new TestWorker(url))
      return workers.size - 1
    },
    callWorker: (id: number, method: string, args: readonly unknown[]) => workers.get(id)!.outcome(method, ...args),
    terminateWorker: (id: number) => workers.get(id)!.terminate(),
  }
  const scope = window as unknown as { isovecTest: TestWindow }
  scope.isovecTest = { outcome: (method, args) => outcomeOf(all, method, args) }
}
