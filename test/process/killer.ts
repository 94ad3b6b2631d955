/** Kills writers in whatever they are at, and learns how long that takes. */
import { expect } from 'vitest'
import type { Choice } from '../../src/directory/crash-image.ts'
import type { Child } from '../support/child.ts'

/** What a writer says of the phases of its work, beside what else it reports. */
export type PhaseReport<Phase extends string> =
  | { readonly phase: Phase }
  | { readonly done: Phase; readonly ms: number }

/** The rounds of one test. */
export class Killer<Phase extends string> {
  /** How often a writer was killed in each phase. */
  readonly kills = new Map<Phase | 'between', number>()
  readonly #choose: Choice
  /** Milliseconds that phases take on this machine, as far as is known, so that kills come at any moment of them. */
  readonly #durations = new Map<Phase, number>()

  constructor(choose: Choice) {
    this.#choose = choose
  }

  /**
   * Lets a writer work up to a phase and kills it at some moment from then on.
   * @param hear is told of all other reports, in order
   * @param earliest share of the phase's duration before which no kill comes
   */
  async round<Report extends object>(
    child: Child<PhaseReport<Phase> | Report>,
    target: Phase,
    hear: (report: Report) => void | Promise<void>,
    earliest = 0,
  ): Promise<void> {
    const duration = this.#durations.get(target) ?? 30
    const delay = duration * (earliest + ((1.1 - earliest / 5) * this.#choose(1000)) / 1000)
    let now: Phase | 'between' = 'between'
    let timer: NodeJS.Timeout | undefined
    let targetDone = false
    try {
      for (let report = await child.next(); report !== undefined; report = await child.next()) {
        if ('phase' in report) {
          now = report.phase
          if (now === target) timer ??= setTimeout(() => child.signal('SIGKILL'), delay)
        } else if ('done' in report) {
          now = 'between'
          if (report.done !== target) continue
          targetDone = true
          this.#durations.set(target, report.ms)
        } else await hear(report)
      }
    } finally {
      clearTimeout(timer)
      child.signal('SIGKILL')
    }
    expect(await child.ended, `a writer under way to ${target} ended by itself`).toEqual({
      code: null,
      signal: 'SIGKILL',
    })
    // Kills that never meet the end of a phase come too early to meet all of it.
    if (!targetDone) this.#durations.set(target, duration * 1.2)
    this.kills.set(now, (this.kills.get(now) ?? 0) + 1)
  }

  /** How often writers were killed in which phase, for people to read. */
  describe(phases: readonly Phase[]): string {
    return [...phases, 'between' as const].map((phase) => `${phase} ${this.kills.get(phase) ?? 0}`).join(', ')
  }
}
