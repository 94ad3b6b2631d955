/** What was asked for and what was acknowledged, in the order of the calls that reached the disk: the judge of every recovery. */

/** Documents by id, each as one text of its vector's bits and its payload. */
export type Contents = ReadonlyMap<string, string>

/** A vector's 32-bit floats, bit for bit, and the payload. */
export function textOf(vector: ArrayLike<number>, payload: unknown): string {
  const bits = new Uint32Array(Float32Array.from(vector).buffer)
  return `${bits.join()} ${payload === undefined ? '' : JSON.stringify(payload)}`
}

/** The text of a document after a patch; of none without a document. */
export function patchedText(
  text: string | undefined,
  set: { readonly [key: string]: unknown },
  unset: readonly string[],
): string | undefined {
  if (text === undefined) return undefined
  const at = text.indexOf(' ')
  const before = text.slice(at + 1)
  const fields = new Map<string, unknown>(Object.entries({ ...(before === '' ? {} : JSON.parse(before)), ...set }))
  for (const name of unset) fields.delete(name)
  if (before === '' && fields.size === 0) return text
  return `${text.slice(0, at)} ${JSON.stringify(Object.fromEntries(fields))}`
}

/** Equal for equal contents, whatever their order, and otherwise equal only by a chance of 2^-60 or so. */
export function digestOf(contents: Contents): string {
  let low = 0
  let high = 0
  for (const [id, text] of contents) {
    const hash = hashOf(`${id}\n${text}`)
    low = (low + hash[0]) >>> 0
    high = (high + hash[1]) >>> 0
  }
  return `${contents.size}:${low.toString(36)}:${high.toString(36)}`
}

function hashOf(text: string): [number, number] {
  let low = 0xdeadbeef
  let high = 0x41c6ce57
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i)
    low = Math.imul(low ^ code, 2654435761)
    high = Math.imul(high ^ code, 1597334677)
  }
  low = Math.imul(low ^ (low >>> 16), 2246822507) ^ Math.imul(high ^ (high >>> 13), 3266489909)
  high = Math.imul(high ^ (high >>> 16), 2246822507) ^ Math.imul(low ^ (low >>> 13), 3266489909)
  return [low >>> 0, high >>> 0]
}

export type CrashKind = 'process' | 'power'

/** Notes from which change on something survives crashes of some kinds. */
export type Acknowledge = (kinds: readonly CrashKind[], at: number) => void

type Epoch<State> = {
  /** Number of changes to the store from which on this epoch holds. */
  readonly from: number
  /** The state after each step; the first is what the epoch began with. */
  readonly states: State[]
  /** Numbers of changes at which each step was asked for, and from which on it survives each kind of crash. */
  readonly issuedAt: number[]
  readonly survivesFrom: { readonly process: number[]; readonly power: number[] }
}

/** States in order, one step after the other. A recovery begins a new epoch, in which what it didn't bring back never happened. */
export class Timeline<State> {
  readonly #epochs: Epoch<State>[] = []

  constructor(from: number, state: State) {
    this.begin(from, state)
  }

  /** Begins an epoch with a state that survives everything. */
  begin(from: number, state: State): void {
    this.#epochs.push({
      from,
      states: [state],
      issuedAt: [from],
      survivesFrom: { process: [from], power: [from] },
    })
  }

  get #last(): Epoch<State> {
    return this.#epochs.at(-1)!
  }

  /** The state after all that was asked for. */
  get latest(): State {
    return this.#last.states.at(-1)!
  }

  /** Notes a step that is asked for now. Returns what notes its acknowledgement. */
  issue(at: number, state: State): Acknowledge {
    const epoch = this.#last
    epoch.states.push(state)
    epoch.issuedAt.push(at)
    return this.#acknowledger(epoch)
  }

  /** Returns what notes that all that was asked for until now survives. */
  barrier(): Acknowledge {
    return this.#acknowledger(this.#last)
  }

  /** States that may be recovered from a crash of a kind after so many changes: everything acknowledged, nothing that wasn't asked for. */
  allowed(kind: CrashKind, at: number): State[] {
    const epoch = this.#epochs.findLast(({ from }) => from <= at)
    if (epoch === undefined) return []
    const survivors = epoch.survivesFrom[kind]
    let first = 0
    let last = 0
    for (let i = 0; i < epoch.states.length; i++) {
      if ((survivors[i] ?? Number.POSITIVE_INFINITY) <= at) first = i
      if (epoch.issuedAt[i]! <= at) last = i
    }
    return epoch.states.slice(first, last + 1)
  }

  #acknowledger(epoch: Epoch<State>): Acknowledge {
    const step = epoch.states.length - 1
    return (kinds, at) => {
      for (const kind of kinds) {
        for (let i = 0; i <= step; i++) epoch.survivesFrom[kind][i] = Math.min(epoch.survivesFrom[kind][i] ?? at, at)
      }
    }
  }
}

/** Which collection, by a number of its own, has which name. */
export type Names = ReadonlyMap<string, number>

/** The histories of a database and its collections. */
export class History {
  readonly root: Timeline<Names>
  readonly collections = new Map<number, Timeline<string>>()

  constructor(from = 0, names: Names = new Map()) {
    this.root = new Timeline(from, names)
  }
}
