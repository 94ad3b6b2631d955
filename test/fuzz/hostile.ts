/**
 * Values that no caller should pass, made from choices.
 */
import type { Choice } from '../../src/directory/crash-image.ts'
import { pick, someSize } from './input.ts'

/** What a hostile object throws of its own. */
export class HostileError extends Error {}

const hostile = (): never => {
  throw new HostileError('hostile')
}

class Point {
  x = 1
}
class Values extends Array<unknown> {}

export const hostileKeys: readonly string[] = [
  '__proto__',
  'constructor',
  'prototype',
  'toString',
  'hasOwnProperty',
  'toJSON',
  'then',
  'length',
  '',
  '.',
  'a.',
  '.a',
  'a..b',
  '$',
  '$$',
  '$where',
  '$id',
  '0',
  '4294967295',
  '\ud800',
  '\u0000',
  '\u{1f600}',
]

/** Makes values, and keeps whether what it made says the same each time it is read. */
export class Hostile {
  /** Whether everything that was made reads the same each time and throws nothing. */
  isStable = true
  readonly #choose: Choice
  readonly #made: object[] = []

  constructor(choose: Choice) {
    this.#choose = choose
  }

  /** A key that may mean something to JavaScript. */
  key(): string {
    return this.#choose(30) === 0 ? 'k'.repeat(someSize(this.#choose, 5000)) : pick(this.#choose, hostileKeys)
  }

  /** A string: short, long or no text at all. */
  text(): string {
    const choose = this.#choose
    switch (choose(6)) {
      case 0:
        return pick(choose, ['', 'a', 'ab', 'b', '__proto__', '\u0000', '\uffff', '\u{1f600}'])
      case 1:
        return pick(choose, ['\ud800', '\udc00a', 'a\ud83d', '\udc00\ud800'])
      case 2:
        return pick(choose, ['x', '\u4e2d', '\u{1f600}']).repeat(someSize(choose, 400))
      case 3:
        return 'x'.repeat(someSize(choose, 70_000))
      default:
        return `t${choose(5)}`
    }
  }

  number(): number {
    return pick(this.#choose, [
      0,
      -0,
      1,
      -1,
      1.5,
      1e308,
      -1e308,
      5e-324,
      2 ** 53,
      2 ** 53 + 2,
      3.5e38,
      Number.NaN,
      Number.POSITIVE_INFINITY,
      Number.NEGATIVE_INFINITY,
    ])
  }

  /** A value that may stand in JSON. */
  plain(): unknown {
    const choose = this.#choose
    switch (choose(6)) {
      case 0:
        return choose(100) - 50
      case 1:
        return choose(2) === 0
      case 2:
        return null
      case 3:
        return choose(1000) / 7
      default:
        return pick(choose, ['a', 'b', 'ab', 'abc', 't1', 't2', ''])
    }
  }

  /** A value that may not, in most cases. */
  odd(): unknown {
    const choose = this.#choose
    const made = [
      () => undefined,
      () => 1n,
      () => Symbol('s'),
      () => () => 1,
      () => new Date(0),
      () => /x/,
      () => new Map([['a', 1]]),
      () => new Set([1]),
      () => new Point(),
      () => new Values(2),
      () => Object(1),
      () => Object('x'),
      () => Object(1n),
      () => new Error('x'),
      () => Promise.resolve(1),
      () => new Uint8Array(3),
      () => new ArrayBuffer(8),
      () => new DataView(new ArrayBuffer(8)),
      () => Object.create({ a: 1 }) as unknown,
      () => Object.create(null) as unknown,
      () => globalThis,
      () => new WeakMap(),
      () => Object.freeze([1]),
      () => new Array(someSize(choose, 20)),
      () => Object.assign([], { length: 4_294_967_295 }),
      () => Object.assign([1], { extra: 1 }),
      () => ({ [Symbol('s')]: 1 }),
      () => this.number(),
      () => this.text(),
      () => this.proxy({ a: 1 }),
      () => this.proxy([1]),
      () => this.chain(),
      () => this.diamond(),
      () => Array.from({ length: someSize(choose, 12_000) }, (_, i) => i),
      () => Object.fromEntries(Array.from({ length: someSize(choose, 1500) }, (_, i) => [`k${i}`, i])),
      () => this.#made.at(choose(Math.max(1, this.#made.length))),
    ]
    return pick(choose, made)()
  }

  /** The same object, seen through something that may throw, lie or say something else each time. */
  proxy(target: object): object {
    const choose = this.#choose
    const once = (value: unknown): (() => unknown) => {
      let reads = 0
      const later = [() => Number.NaN, () => 'x'.repeat(2_000_000), hostile]
      return () => (reads++ === 0 ? value : later[reads % 3]!())
    }
    switch (choose(8)) {
      case 0:
        return new Proxy(target, {})
      case 1: {
        this.isStable = false
        const { proxy, revoke } = Proxy.revocable(target, {})
        revoke()
        return proxy
      }
      case 2: {
        this.isStable = false
        const traps = ['get', 'ownKeys', 'getOwnPropertyDescriptor', 'getPrototypeOf', 'has'] as const
        return new Proxy(target, { [traps[choose(traps.length)]!]: hostile })
      }
      case 3: {
        this.isStable = false
        let reads = 0
        return new Proxy(target, {
          get: (of, key, receiver) => (reads++ % 2 === 0 ? Reflect.get(of, key, receiver) : Number.NaN),
        })
      }
      case 4: {
        this.isStable = false
        const length = [1e9, -1, 2 ** 53, 'x', Number.NaN, 3][choose(6)]
        return new Proxy(target, {
          get: (of, key, receiver) => (key === 'length' ? length : Reflect.get(of, key, receiver)),
        })
      }
      case 5:
        return this.#withGetter(target, () => 1)
      case 6:
        this.isStable = false
        return this.#withGetter(target, hostile)
      default:
        this.isStable = false
        return this.#withGetter(target, once(1))
    }
  }

  #withGetter(target: object, get: () => unknown): object {
    if (Array.isArray(target)) Object.defineProperty(target, 0, { get, enumerable: true, configurable: true })
    else Object.defineProperty(target, 'a', { get, enumerable: true, configurable: true })
    return target
  }

  /** One object in another, many times over. */
  chain(): object {
    const depth = someSize(this.#choose, 5000)
    const key = pick(this.#choose, ['a', '$not', '$and', '$or', 'b.c'])
    let value: object = { a: 1 }
    for (let i = 0; i < depth; i++) value = this.#choose(2) === 0 && i < 40 ? [value] : { [key]: value }
    return value
  }

  /** Few objects that stand for a number of values that grows exponentially. */
  diamond(): object {
    const key = pick(this.#choose, ['$and', '$or', 'a', '$nor'])
    let value: object = { a: 1 }
    for (let i = this.#choose(40); i > 0; i--) value = { [key]: [value, value] }
    return value
  }

  /** Keeps an object, so that it may come to stand inside of itself. */
  keep<T extends object>(made: T): T {
    this.#made.push(made)
    return made
  }

  /** Sets a property of any name as one of the object's own. */
  set(of: object, key: string, value: unknown): void {
    Object.defineProperty(of, key, { value, enumerable: true, configurable: true, writable: true })
  }
}
