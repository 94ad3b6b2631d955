/**
 * The k nearest of a stream of rows whose distances are known only to lie in an interval.
 */

/** Keeps every row that may be among the k nearest: a row is out only once k others are certainly nearer. */
export class Selection {
  readonly #k: number
  /** Max-heap of the k smallest upper bounds. */
  readonly #uppers: Float64Array
  #size = 0
  #rows: number[] = []
  #lowers: number[] = []
  #dropAt: number

  constructor(k: number) {
    this.#k = k
    this.#dropAt = 4 * k + 1024
    this.#uppers = new Float64Array(k)
  }

  /** A row whose lower bound lies above this can't be among the k nearest. */
  get limit(): number {
    return this.#size < this.#k ? Number.POSITIVE_INFINITY : this.#uppers[0]!
  }

  /**
   * Offers a row. NaN as a lower bound keeps it whatever comes; NaN as an upper bound rules nothing out.
   * The caller has compared `lower` with {@link limit}.
   */
  offer(row: number, lower: number, upper: number): void {
    this.#rows.push(row)
    this.#lowers.push(lower)
    if (!Number.isNaN(upper)) this.#push(upper)
    if (this.#rows.length < this.#dropAt) return
    this.#drop()
    // Where many rows are equally near all of them stay; looking through them each time would take quadratic time.
    this.#dropAt = Math.max(4 * this.#k + 1024, 2 * this.#rows.length)
  }

  /** The rows that may be among the k nearest, in the order in which they were offered. */
  candidates(): Uint32Array {
    this.#drop()
    return Uint32Array.from(this.#rows)
  }

  #drop(): void {
    const { limit } = this
    let kept = 0
    for (let i = 0; i < this.#rows.length; i++) {
      if (this.#lowers[i]! > limit) continue
      this.#rows[kept] = this.#rows[i]!
      this.#lowers[kept++] = this.#lowers[i]!
    }
    this.#rows.length = kept
    this.#lowers.length = kept
  }

  #push(upper: number): void {
    const heap = this.#uppers
    if (this.#size < this.#k) {
      let child = this.#size++
      while (child > 0) {
        const parent = (child - 1) >> 1
        if (heap[parent]! >= upper) break
        heap[child] = heap[parent]!
        child = parent
      }
      heap[child] = upper
      return
    }
    if (upper >= heap[0]!) return
    let parent = 0
    for (;;) {
      let child = 2 * parent + 1
      if (child >= this.#k) break
      if (child + 1 < this.#k && heap[child + 1]! > heap[child]!) child++
      if (heap[child]! <= upper) break
      heap[parent] = heap[child]!
      parent = child
    }
    heap[parent] = upper
  }
}
