import { onTestFinished, vi } from 'vitest'

/**
 * From here on to the end of the test each look at the clock takes a millisecond and nothing else takes any time: what works in slices
 * gives the event loop back after as many steps on every machine.
 */
export function stepClock(): void {
  let now = performance.now()
  const spy = vi.spyOn(performance, 'now').mockImplementation(() => ++now)
  onTestFinished(() => spy.mockRestore())
}

/** Counts how often the event loop turns. */
export class TurnCount {
  #count = 0
  #next: NodeJS.Immediate

  constructor() {
    const again = (): void => {
      this.#count++
      this.#next = setImmediate(again)
    }
    this.#next = setImmediate(again)
  }

  /** Ends the count and returns it. */
  end(): number {
    clearImmediate(this.#next)
    return this.#count
  }
}
