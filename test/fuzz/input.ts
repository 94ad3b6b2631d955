/**
 * What fuzzing is made of: inputs that are lists of steps, made from choices, run against an oracle.
 */
import type { Choice } from '../../src/directory/crash-image.ts'
import type { IsovecErrorCode } from '../../src/errors.ts'

/** What a step may be kept as in a fixture. */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json }

/** One input: where it begins and what is done to it. Steps can be left out one by one. */
export type Input = { readonly base: Json; readonly steps: readonly Json[] }

/** What became of an input that was met as it should be: what any of it was refused with, each code once; none if all was answered. */
export type Outcome = { readonly refusals: readonly IsovecErrorCode[] }

/** Something to throw inputs at. */
export type Target = {
  readonly name: string
  /** An input that follows from the choices. */
  make(choose: Choice): Input
  /** Shorter versions of a step, the shortest first; none by default. */
  shorter?(step: Json): Iterable<Json>
  /** Runs an input. Rejects with {@link Finding} where it is met in a way that it must not be. */
  run(input: Input): Promise<Outcome>
}

/** A behaviour that nothing may cause. */
export class Finding extends Error {
  constructor(problem: string, cause?: unknown) {
    super(problem, cause === undefined ? undefined : { cause })
    this.name = 'Finding'
  }

  /** The problem, with the place where it came up: the same for all inputs that meet the same mistake. */
  get signature(): string {
    const { cause } = this
    const place =
      cause instanceof Error
        ? cause.stack
            ?.split('\n')
            .find((line) => /^\s+at /.test(line))
            ?.trim()
            .replace(/:\d+:\d+\)?$/, '')
        : undefined
    // Numbers differ from input to input.
    return `${this.message.replace(/\d+/g, 'N')} ${place?.replace(/\(.*[/\\]/, '(') ?? ''}`.trim()
  }
}

/** Throws unless something holds that no input may break. */
export function demand(holds: boolean, problem: string): void {
  if (!holds) throw new Finding(problem)
}

/** A choice function that notes what was chosen. */
export function recording(choose: Choice, taken: number[]): Choice {
  return (count) => {
    const choice = choose(count)
    taken.push(choice)
    return choice
  }
}

/** A choice function that repeats what was chosen, and takes the first once that runs out. */
export function replaying(taken: readonly number[]): Choice {
  let next = 0
  return (count) => Math.min(taken[next++] ?? 0, count - 1)
}

/** Shorter lists of choices: parts left out, then numbers replaced by 0. */
export function* shorterChoices(step: Json): Iterable<Json> {
  const taken = step as readonly number[]
  for (let size = taken.length >> 1; size > 0; size >>= 1) {
    for (let from = 0; from + size <= taken.length; from += size) yield taken.toSpliced(from, size)
  }
  for (const [index, choice] of taken.entries()) if (choice !== 0) yield taken.with(index, 0)
}

/** A target whose steps are lists of choices, from which something is made anew each time. */
export abstract class ChoiceTarget implements Target {
  abstract readonly name: string

  abstract make(choose: Choice): Input

  abstract run(input: Input): Promise<Outcome>

  shorter(step: Json): Iterable<Json> {
    return shorterChoices(step)
  }

  /** The choices that were taken to make something. */
  protected choices(choose: Choice, make: (choose: Choice) => unknown): number[] {
    const taken: number[] = []
    make(recording(choose, taken))
    return taken
  }

  /** What gives the choices of a step once more. */
  protected again(step: Json | undefined): Choice {
    return replaying((step ?? []) as readonly number[])
  }
}

/** One of several. */
export function pick<T>(choose: Choice, values: readonly T[]): T {
  return values[choose(values.length)]!
}

/** A number whose size is as likely to be small as large. */
export function someSize(choose: Choice, max: number): number {
  return choose(Math.min(max, 2 ** choose(Math.ceil(Math.log2(max + 1)) + 1)) + 1)
}
