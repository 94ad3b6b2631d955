/**
 * Ends the process where an input holds the thread for good, which nothing in the same thread can tell.
 */
import { Worker } from 'node:worker_threads'

const code = `
const { workerData: { shared, name, timeMax } } = require('node:worker_threads')
const words = new Int32Array(shared)
let last = -1
let since = Date.now()
setInterval(() => {
  const fed = Atomics.load(words, 0)
  if (fed !== last) {
    last = fed
    since = Date.now()
  } else if (Date.now() - since > timeMax) {
    require('node:fs').writeSync(2, 'fuzz: ' + name + ': input ' + Atomics.load(words, 1) + ' holds the thread\\n')
    process.kill(process.pid, 'SIGKILL')
  }
}, 500)
`

export class Watchdog {
  readonly #words: Int32Array
  readonly #worker: Worker

  /**
   * @param name what is run, for the message
   * @param timeMax milliseconds without {@link feed} after which the process ends
   */
  constructor(name: string, timeMax: number) {
    const shared = new SharedArrayBuffer(8)
    this.#words = new Int32Array(shared)
    this.#worker = new Worker(code, { eval: true, workerData: { shared, name, timeMax } })
    this.#worker.unref()
  }

  /** Tells that an input begins. */
  feed(number: number): void {
    Atomics.store(this.#words, 1, number)
    Atomics.add(this.#words, 0, 1)
  }

  end(): void {
    void this.#worker.terminate()
  }
}
