/**
 * Watches how long the event loop stands still. What counts is the lesser of the time that passed and the time that this process
 * computed, so that other processes on a busy machine don't count.
 */
export class EventLoopWatch {
  #longest = 0
  #turns = 0
  #sum = 0
  #last = performance.now()
  #lastUsage = process.cpuUsage()
  readonly #timer: NodeJS.Timeout

  constructor() {
    this.#timer = setInterval(() => this.#look(), 1)
  }

  /** Ends the watch; returns the longest and the mean time in milliseconds between two turns. */
  end(): { longest: number; mean: number } {
    this.#look()
    clearInterval(this.#timer)
    return { longest: this.#longest, mean: this.#sum / this.#turns }
  }

  #look(): void {
    const now = performance.now()
    const { user, system } = process.cpuUsage(this.#lastUsage)
    const turn = Math.min(now - this.#last, (user + system) / 1000)
    this.#longest = Math.max(this.#longest, turn)
    this.#sum += turn
    this.#last = now
    this.#lastUsage = process.cpuUsage()
    this.#turns++
  }
}
