/**
 * Work that is written once, as a generator that stops between steps, and done either at one go or in slices.
 */
import type { Slice } from '../slice.ts'

/** Does work at one go. */
export function runNow<T>(steps: Generator<void, T>): T {
  for (;;) {
    const step = steps.next()
    if (step.done === true) return step.value
  }
}

/**
 * Does work as far as a slice goes, and the rest in further ones; without a slice, at one go.
 * @throws IsovecError `ABORTED` by the promise
 */
export function runAsFar<T>(steps: Generator<void, T>, slice: Slice | undefined): T | Promise<T> {
  for (;;) {
    const step = steps.next()
    if (step.done === true) return step.value
    if (slice?.isOver === true) return slice.next().then(() => runInSlices(steps, slice))
  }
}

/**
 * Does work in slices, between which the event loop runs.
 * @throws IsovecError `ABORTED` if the signal of the slices has fired
 */
export async function runInSlices<T>(steps: Generator<void, T>, slice: Slice): Promise<T> {
  for (;;) {
    const step = steps.next()
    if (step.done === true) return step.value
    if (slice.isOver) await slice.next()
  }
}
