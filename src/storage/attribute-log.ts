/**
 * The values of payloads as they come: a tree of paths and a log of (value, row), chained by path. What a segment's columns are built
 * from, and what a memtable is filtered by.
 */
import { isAddressable, isRecord } from '../condition.ts'
import { parsePayload } from './attribute.ts'
import { KeyTable } from './key-table.ts'
import { KeyEncoder } from './value-key.ts'

/** What a log takes before it leaves values to be read from the payloads. */
export type AttributeLimits = {
  /** Paths. */
  readonly pathCountMax: number
  /** Bytes of a dotted path, at up to 3 for a code unit. */
  readonly pathSizeMax: number
  /** Values at one path, on an average over the rows and some more: beyond, it's a list that nobody filters by, such as an embedding. */
  readonly valuesPerRowMax: number
  /** Values of all paths. */
  readonly valueCountMax: number
  /** Bytes of distinct values. */
  readonly keySizeMax: number
}

export const attributeLimits: AttributeLimits = {
  pathCountMax: 2 ** 20,
  pathSizeMax: 1024,
  valuesPerRowMax: 64,
  valueCountMax: 2 ** 27,
  keySizeMax: 2 ** 30,
}

/** Rows that a path is granted before its values are too many. */
const rowsGranted = 1024

/** A path and the values found at it. */
export class PathNode {
  readonly parent: PathNode | undefined
  readonly key: string
  /** Size of the dotted path, in code units. */
  readonly pathLength: number
  children: Map<string, PathNode> | undefined
  /** Whether all values are in the log. If not, it has only the rows where something is at the path. */
  isKept = true
  /** The newest entry in the log, counted from 1; 0 while there is none. */
  last = 0
  /** Entries in the log. */
  count = 0

  constructor(parent: PathNode | undefined, key: string) {
    this.parent = parent
    this.key = key
    this.pathLength = parent?.parent === undefined ? key.length : parent.pathLength + 1 + key.length
  }

  /** The dotted path. */
  get path(): string {
    return this.parent?.parent === undefined ? this.key : `${this.parent.path}.${this.key}`
  }
}

/** The node above all paths: the empty path, at which there are rows but never values. */
function createRoot(): PathNode {
  const root = new PathNode(undefined, '')
  root.isKept = false
  return root
}

/** In place of a value: something is at the path, but no scalar, or none that is kept. */
export const noValue = 0xffffffff

const chunkBits = 12
const chunkSize = 1 << chunkBits
const entrySize = 3

/** Entries of three numbers: value, row, and the entry before of the same path. */
class EntryList {
  readonly #chunks: Uint32Array[] = []
  #count = 0

  get count(): number {
    return this.#count
  }

  get memorySize(): number {
    return this.#chunks.length * chunkSize * entrySize * 4
  }

  /** Appends an entry and returns its number, from 1. */
  push(value: number, row: number, previous: number): number {
    const index = this.#count++
    if ((index & (chunkSize - 1)) === 0) this.#chunks.push(new Uint32Array(chunkSize * entrySize))
    const chunk = this.#chunks[index >>> chunkBits]!
    const at = (index & (chunkSize - 1)) * entrySize
    chunk[at] = value
    chunk[at + 1] = row
    chunk[at + 2] = previous
    return this.#count
  }

  valueAt(entry: number): number {
    return this.#chunks[(entry - 1) >>> chunkBits]![((entry - 1) & (chunkSize - 1)) * entrySize]!
  }

  rowAt(entry: number): number {
    return this.#chunks[(entry - 1) >>> chunkBits]![((entry - 1) & (chunkSize - 1)) * entrySize + 1]!
  }

  previousOf(entry: number): number {
    return this.#chunks[(entry - 1) >>> chunkBits]![((entry - 1) & (chunkSize - 1)) * entrySize + 2]!
  }
}

/** Values of rows, gathered one payload after the other. */
export class AttributeLog {
  readonly keys = new KeyTable()
  #entries = new EntryList()
  #root = createRoot()
  #pathCount = 0
  #rowCount = 0
  #isFull = false
  readonly #encoder = new KeyEncoder()
  readonly #limits: AttributeLimits
  readonly #name: string

  /** @param name of the file or source, for messages */
  constructor(name: string, limits: AttributeLimits = attributeLimits) {
    this.#name = name
    this.#limits = limits
  }

  /** Rows so far. */
  get rowCount(): number {
    return this.#rowCount
  }

  /** Bytes of memory that values and entries take. */
  get memorySize(): number {
    return this.keys.memorySize + this.#entries.memorySize
  }

  /** The entries of all paths. Those of one are reached from {@link PathNode.last}; their rows never rise on the way. */
  get entries(): Pick<EntryList, 'valueAt' | 'rowAt' | 'previousOf'> {
    return this.#entries
  }

  /** Stands above all paths. Its own entries are the rows with paths that the log has not taken. */
  get root(): PathNode {
    return this.#root
  }

  /**
   * Takes in the payload of the next row, as JSON in UTF-8.
   * @throws IsovecError `CORRUPTION` if it is not that
   */
  add(payload: Uint8Array | undefined): void {
    const parsed = payload === undefined ? undefined : parsePayload(payload, this.#name, this.#rowCount)
    const row = this.#rowCount++
    if (!isRecord(parsed)) return
    if (this.#entries.count > this.#limits.valueCountMax && !this.#isFull) this.#giveUp()
    if (this.#isFull) this.#mark(this.#root, row)
    else this.#record(parsed, this.#root, row)
  }

  /** The node of a dotted path, if the log has it. */
  find(path: string): PathNode | undefined {
    let node: PathNode | undefined = this.#root
    for (const key of path.split('.')) node = node?.children?.get(key)
    return node
  }

  #record(record: Record<string, unknown>, parent: PathNode, row: number): void {
    for (const key of Object.keys(record)) {
      if (!isAddressable(key)) continue
      const node = parent.children?.get(key) ?? this.#grow(parent, key)
      if (node === undefined) {
        this.#mark(this.#root, row)
        continue
      }
      const value = record[key]
      if (typeof value !== 'object' || value === null) this.#value(node, value as string | number | boolean | null, row)
      else if (Array.isArray(value)) this.#list(value, node, row)
      else {
        this.#mark(node, row)
        this.#record(value as Record<string, unknown>, node, row)
      }
    }
  }

  #list(list: readonly unknown[], node: PathNode, row: number): void {
    for (const value of list) {
      if (typeof value !== 'object' || value === null) this.#value(node, value as string | number | boolean | null, row)
      else if (!Array.isArray(value)) this.#record(value as Record<string, unknown>, node, row)
    }
    this.#mark(node, row)
  }

  #value(node: PathNode, value: string | number | boolean | null, row: number): void {
    if (node.isKept) {
      const { valuesPerRowMax, keySizeMax } = this.#limits
      const size = this.#encoder.encode(value)
      const number =
        node.count < valuesPerRowMax * (row + rowsGranted) ? this.keys.add(this.#encoder.bytes, size, keySizeMax) : -1
      if (number >= 0) {
        this.#push(node, number, row)
        return
      }
      node.isKept = false
    }
    this.#mark(node, row)
  }

  /** Notes that something is at a path, unless the newest entry says so. */
  #mark(node: PathNode, row: number): void {
    if (node.last === 0 || this.#entries.rowAt(node.last) !== row) this.#push(node, noValue, row)
  }

  #push(node: PathNode, value: number, row: number): void {
    node.last = this.#entries.push(value, row, node.last)
    node.count++
  }

  #grow(parent: PathNode, key: string): PathNode | undefined {
    const { pathCountMax, pathSizeMax } = this.#limits
    const node = new PathNode(parent, key)
    if (this.#pathCount >= pathCountMax || node.pathLength * 3 > pathSizeMax) return undefined
    this.#pathCount++
    parent.children ??= new Map()
    parent.children.set(key, node)
    return node
  }

  /** Forgets everything: every row is left to be read from its payload. */
  #giveUp(): void {
    this.#isFull = true
    this.#entries = new EntryList()
    this.#root = createRoot()
    for (let row = 0; row < this.#rowCount - 1; row++) this.#mark(this.#root, row)
  }
}
