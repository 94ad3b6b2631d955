/**
 * Counts the memory that is asked for in typed arrays, array buffers and WASM memories, before garbage is collected and whether or not it is
 * ever touched.
 */
const constructors = [
  'ArrayBuffer',
  'Uint8Array',
  'Uint16Array',
  'Uint32Array',
  'Int32Array',
  'Float32Array',
  'Float64Array',
  'BigUint64Array',
] as const

/** Bytes that a construction by these arguments allocates. */
function sizeOf(constructed: { readonly byteLength: number }, first: unknown): number {
  return first instanceof ArrayBuffer ? 0 : constructed.byteLength
}

/** Counts while it is on. */
export class Meter {
  /** Bytes asked for since {@link begin}. */
  total = 0
  /** The largest of them that were asked for at once. */
  largest = 0
  readonly #restore: (() => void)[] = []

  begin(): void {
    this.total = 0
    this.largest = 0
  }

  /** Begins to count, in the whole realm. */
  on(): void {
    for (const name of constructors) {
      const original = globalThis[name]
      const counted = new Proxy(original, {
        construct: (target, given, newTarget) => {
          const constructed = Reflect.construct(target, given, newTarget === counted ? target : newTarget) as {
            byteLength: number
          }
          this.#add(name === 'ArrayBuffer' ? constructed.byteLength : sizeOf(constructed, given[0]))
          return constructed
        },
      })
      this.#replace(globalThis, name, counted)
    }
    const { grow } = WebAssembly.Memory.prototype
    const add = (bytes: number): void => this.#add(bytes)
    this.#replace(WebAssembly.Memory.prototype, 'grow', function (this: WebAssembly.Memory, pages: number): number {
      const before = grow.call(this, pages)
      add(pages * 65_536)
      return before
    })
  }

  /** Ends counting. */
  off(): void {
    for (const restore of this.#restore.splice(0)) restore()
  }

  #add(bytes: number): void {
    this.total += bytes
    this.largest = Math.max(this.largest, bytes)
  }

  #replace(owner: object, name: string, value: unknown): void {
    const original = Object.getOwnPropertyDescriptor(owner, name)!
    Object.defineProperty(owner, name, { ...original, value })
    this.#restore.push(() => Object.defineProperty(owner, name, original))
  }
}
