/**
 * Time on the wall and time on the processor.
 */

/**
 * @typedef {object} Time
 * @property {number} wallMs
 * @property {number} cpuMs of all threads of this process; what a busy machine takes away is not in it
 */

/** Adds up the time of what is run under it. */
export class Stopwatch {
  wallMs = 0
  cpuMs = 0

  /**
   * @template T
   * @param {() => T | Promise<T>} work
   * @returns {Promise<T>}
   */
  async run(work) {
    const cpu = process.cpuUsage()
    const started = performance.now()
    try {
      const running = work()
      return running instanceof Promise ? await running : running
    } finally {
      this.wallMs += performance.now() - started
      const { user, system } = process.cpuUsage(cpu)
      this.cpuMs += (user + system) / 1000
    }
  }
}
