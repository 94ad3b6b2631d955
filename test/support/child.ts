import { type ChildProcess, spawn } from 'node:child_process'
import { onTestFinished } from 'vitest'

/** How a process ended: by itself with a code, or by a signal. */
export type Ending = { readonly code: number | null; readonly signal: NodeJS.Signals | null }

/** A process that reports one JSON value per line on its standard output. It ends with the test that started it. */
export class Child<Message> {
  /** Resolves when the process has ended and all that it had written was received. */
  readonly ended: Promise<Ending>
  readonly #process: ChildProcess
  readonly #messages: Message[] = []
  #isOver = false
  #wake: () => void = () => {}

  /** Starts plain Node with a bundled script. What it writes to its standard error is shown. */
  constructor(script: string, ...task: string[]) {
    const child = spawn(process.execPath, [script, ...task], { stdio: ['pipe', 'pipe', 'inherit'] })
    this.#process = child
    onTestFinished(async () => {
      await this.kill()
    })
    let unfinished = ''
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      // A kill can come in the middle of a line: what has no end was not reported.
      const lines = `${unfinished}${chunk}`.split('\n')
      unfinished = lines.pop()!
      for (const line of lines) this.#messages.push(JSON.parse(line) as Message)
      this.#wake()
    })
    this.ended = new Promise((resolve, reject) => {
      const end = (settle: () => void): void => {
        this.#isOver = true
        this.#wake()
        settle()
      }
      child.once('error', (error) => end(() => reject(error)))
      child.once('close', (code, signal) => end(() => resolve({ code, signal })))
    })
    // Told to whoever waits for the end, as every test does when it is over.
    this.ended.catch(() => {})
  }

  get pid(): number {
    return this.#process.pid!
  }

  /** Whether a report waits for {@link next}. */
  get hasMessage(): boolean {
    return this.#messages.length > 0
  }

  /** The next report, undefined when there will be none. One caller at a time. */
  async next(): Promise<Message | undefined> {
    while (this.#messages.length === 0 && !this.#isOver) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
    return this.#messages.shift()
  }

  /** The next report of a process that must have one. */
  async report(): Promise<Message> {
    const message = await this.next()
    if (message === undefined) throw new Error(`the child said nothing: ${JSON.stringify(await this.ended)}`)
    return message
  }

  /** Sends a line to its standard input. */
  tell(line: string): void {
    this.#process.stdin!.write(`${line}\n`)
  }

  signal(signal: NodeJS.Signals): void {
    this.#process.kill(signal)
  }

  /** Ends the process as `kill -9` does and waits until it is gone. */
  kill(): Promise<Ending> {
    this.signal('SIGKILL')
    return this.ended
  }
}
