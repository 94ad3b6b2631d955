/**
 * The write-ahead log: what was acknowledged and is not yet in a segment.
 *
 * A log is written front to back by one writer and sealed by its successor, whose header says where it ended, at which sequence and
 * with which chained checksum. A sealed log must be valid to its sealed end. In the newest log the first bad record is a torn tail,
 * unless a later valid record proves that what it held had been synced: then it is damage, and never dropped silently.
 * The layout is in docs/format.md.
 */
import { alignUp, bytesEqual, readUint64, utf8Encode, viewOf, writeUint64 } from '../codec/bytes.ts'
import type { Directory, WritableFile } from '../directory/directory.ts'
import { IsovecError } from '../errors.ts'
import type { Checksum, Kernel } from '../kernel/index.ts'
import { Slice } from '../slice.ts'
import { checkReaderVersion, hasMagic, writePreamble } from './file-header.ts'
import { fileName } from './file-names.ts'
import { syncFile } from './sync-file.ts'

const magic = utf8Encode('isovecWL')
/** Bytes before the first record. */
export const walHeaderSize = 128
const headerChecksumOffset = 120
const recordHeaderSize = 32
const trailerSize = 8
const recordBatch = 1
const recordMark = 2
const recordClose = 3
/** Bytes behind a bad record that are looked through between two looks at the clock; a multiple of 8. */
const proofStep = 64 * 1024
/** Size of a log that is still read; writers rotate long before. */
const readableSizeMax = 1024 * 1024 * 1024

/** Where a log ended: written into the header of its successor. */
export type Seal = {
  readonly number: number
  readonly validEnd: number
  readonly lastSequence: number
  readonly chain: Checksum
}

/** A batch record: an encoded batch and its place in the order of writes. */
export type WalRecord = { readonly sequence: number; readonly bytes: Uint8Array; readonly offset: number }

/** Everything that a log holds. */
export type WalContent = {
  readonly number: number
  readonly predecessor: Seal | undefined
  readonly records: readonly WalRecord[]
  /** Where this log ended. */
  readonly seal: Seal
  /** Whether the log ends in a close record: everything in it was synced. */
  readonly closed: boolean
  readonly size: number
}

/** What is left of a log. */
export type WalSurvivors = {
  readonly records: readonly WalRecord[]
  /** Bytes that belong to no valid record. */
  readonly skipped: number
  readonly predecessor: Seal | undefined
}

type Salt = Checksum

/** Appends to a log that this process created. Calls must not overlap. */
export class WalWriter {
  readonly number: number
  readonly #kernel: Kernel
  readonly #file: WritableFile
  readonly #salt: Salt
  #chain: Checksum
  #validEnd = walHeaderSize
  #lastSequence: number
  #durableSequence: number

  private constructor(kernel: Kernel, file: WritableFile, number: number, salt: Salt, baseSequence: number) {
    this.#kernel = kernel
    this.#file = file
    this.number = number
    this.#salt = salt
    this.#chain = salt
    this.#lastSequence = baseSequence
    this.#durableSequence = baseSequence
  }

  /**
   * Creates a log and syncs its header, so that no record can outlive the seal of the log before it.
   * @param baseSequence the sequence before the log's first
   */
  static async create(
    kernel: Kernel,
    directory: Directory,
    number: number,
    uuid: Uint8Array,
    baseSequence: number,
    predecessor: Seal | undefined,
  ): Promise<WalWriter> {
    const random = new Uint32Array(2)
    crypto.getRandomValues(random)
    const salt = { low: random[0]!, high: random[1]! }
    const file = await directory.create(fileName(number, 'wal'))
    try {
      await file.append(encodeHeader(kernel, number, uuid, salt, baseSequence, predecessor))
      await syncFile(file)
    } catch (error) {
      await file.close()
      throw error
    }
    return new WalWriter(kernel, file, number, salt, baseSequence)
  }

  /** Bytes of valid log so far. */
  get size(): number {
    return this.#validEnd
  }

  get lastSequence(): number {
    return this.#lastSequence
  }

  /** All sequences up to this one survive power loss. */
  get durableSequence(): number {
    return this.#durableSequence
  }

  /** What the successor's header says of this log. */
  get seal(): Seal {
    return { number: this.number, validEnd: this.#validEnd, lastSequence: this.#lastSequence, chain: this.#chain }
  }

  /**
   * Appends encoded batches, which take the next sequences in order, with one call to the file.
   * After a failure the valid end stands where it stood; the log must then be sealed there and appended to no more.
   */
  async append(batches: readonly Uint8Array[]): Promise<void> {
    const parts: Uint8Array[] = []
    let size = 0
    let chain = this.#chain
    let sequence = this.#lastSequence
    for (const batch of batches) {
      const record = encodeRecord(this.#kernel, this.#salt, recordBatch, ++sequence, this.#durableSequence, batch)
      chain = extendChain(this.#kernel, chain, record.trailer)
      parts.push(...record.parts)
      size += record.size
    }
    await this.#file.append(parts)
    this.#chain = chain
    this.#validEnd += size
    this.#lastSequence = sequence
  }

  /** Makes everything appended so far survive power loss. */
  async sync(): Promise<void> {
    const sequence = this.#lastSequence
    await syncFile(this.#file)
    this.#durableSequence = sequence
  }

  /** Appends the proof of how far the log is synced; it isn't synced itself. */
  async mark(): Promise<void> {
    await this.#control(recordMark)
  }

  /** Ends the log cleanly: a close record, synced. What comes next is {@link abandon}. */
  async end(): Promise<void> {
    await this.sync()
    await this.#control(recordClose)
    await syncFile(this.#file)
  }

  /** Gives the file up without another byte: after its end, after a failure or once a successor has sealed it. */
  async abandon(): Promise<void> {
    await this.#file.close()
  }

  async #control(type: number): Promise<void> {
    const record = encodeRecord(this.#kernel, this.#salt, type, 0, this.#durableSequence, new Uint8Array(0))
    await this.#file.append(record.parts)
    this.#chain = extendChain(this.#kernel, this.#chain, record.trailer)
    this.#validEnd += record.size
  }
}

function encodeHeader(
  kernel: Kernel,
  number: number,
  uuid: Uint8Array,
  salt: Salt,
  baseSequence: number,
  predecessor: Seal | undefined,
): Uint8Array {
  const bytes = new Uint8Array(walHeaderSize)
  const view = viewOf(bytes)
  writePreamble(bytes, magic)
  bytes.set(uuid, 16)
  writeUint64(view, 32, number)
  writeChecksum(view, 40, salt)
  if (predecessor !== undefined) {
    writeUint64(view, 48, predecessor.number)
    writeUint64(view, 56, predecessor.validEnd)
    writeUint64(view, 64, predecessor.lastSequence)
    writeChecksum(view, 72, predecessor.chain)
  }
  writeUint64(view, 80, baseSequence)
  writeChecksum(view, headerChecksumOffset, kernel.checksum64(bytes.subarray(0, headerChecksumOffset)))
  return bytes
}

function encodeRecord(
  kernel: Kernel,
  salt: Salt,
  type: number,
  sequence: number,
  durableSequence: number,
  payload: Uint8Array,
): { parts: Uint8Array[]; trailer: Checksum; size: number } {
  const header = new Uint8Array(recordHeaderSize)
  const view = viewOf(header)
  view.setUint8(4, type)
  view.setUint32(8, payload.length, true)
  writeUint64(view, 16, sequence)
  writeUint64(view, 24, durableSequence)
  view.setUint32(0, kernel.checksum64(header.subarray(4), salt.low, salt.high).low, true)

  const padding = alignUp(payload.length, 8) - payload.length
  const end = new Uint8Array(padding + trailerSize)
  const trailer = recordChecksum(kernel, salt, header, payload)
  writeChecksum(viewOf(end), padding, trailer)
  const parts = payload.length === 0 ? [header, end] : [header, payload, end]
  return { parts, trailer, size: recordHeaderSize + payload.length + end.length }
}

function recordChecksum(kernel: Kernel, salt: Salt, header: Uint8Array, payload: Uint8Array): Checksum {
  const hasher = kernel.hasher(salt.low, salt.high)
  hasher.update(header)
  hasher.update(payload)
  return hasher.digest()
}

function extendChain(kernel: Kernel, chain: Checksum, trailer: Checksum): Checksum {
  const bytes = new Uint8Array(8)
  writeChecksum(viewOf(bytes), 0, trailer)
  return kernel.checksum64(bytes, chain.low, chain.high)
}

function writeChecksum(view: DataView, offset: number, checksum: Checksum): void {
  view.setUint32(offset, checksum.low, true)
  view.setUint32(offset + 4, checksum.high, true)
}

function readChecksum(view: DataView, offset: number): Checksum {
  return { low: view.getUint32(offset, true), high: view.getUint32(offset + 4, true) }
}

function sameChecksum(a: Checksum, b: Checksum): boolean {
  return a.low === b.low && a.high === b.high
}

/**
 * Reads a log.
 *
 * @param sealedBy the seal in the successor's header; undefined for a log whose tail may be torn
 * @throws IsovecError `CORRUPTION` for a bad header, a record that is bad though it is sealed or proven synced, a gap in the sequences
 */
export async function readWal(
  kernel: Kernel,
  directory: Directory,
  uuid: Uint8Array,
  number: number,
  sealedBy: Seal | undefined,
): Promise<WalContent> {
  return (await openScan(kernel, directory, uuid, number, sealedBy)).content()
}

/**
 * Reads whatever of a log still verifies, be it a newest one or not.
 * @returns its batches in the order in which they lie, and how many bytes belong to none
 * @throws IsovecError `CORRUPTION` if nothing can be told of it, since its header is damaged
 */
export async function salvageWal(
  kernel: Kernel,
  directory: Directory,
  uuid: Uint8Array,
  number: number,
): Promise<WalSurvivors> {
  return (await openScan(kernel, directory, uuid, number, undefined)).survivors()
}

async function openScan(
  kernel: Kernel,
  directory: Directory,
  uuid: Uint8Array,
  number: number,
  sealedBy: Seal | undefined,
): Promise<WalScan> {
  const name = fileName(number, 'wal')
  const file = await directory.open(name)
  let bytes: Uint8Array
  try {
    if (file.size > readableSizeMax) throw corrupt(name, 0, `a log of ${file.size} bytes`)
    bytes = new Uint8Array(file.size)
    await file.read(0, bytes)
  } finally {
    await file.close()
  }
  const header = decodeHeader(kernel, bytes, name, number, uuid)
  if (header === undefined) throw corrupt(name, 0, 'the header is damaged')
  return new WalScan(kernel, name, bytes, number, header, sealedBy)
}

/** What a log's header says, without reading the log; undefined where its creation was interrupted. */
async function peekHeader(
  kernel: Kernel,
  directory: Directory,
  uuid: Uint8Array,
  number: number,
): Promise<WalHeader | undefined> {
  const name = fileName(number, 'wal')
  const file = await directory.open(name)
  try {
    const bytes = new Uint8Array(Math.min(file.size, walHeaderSize))
    await file.read(0, bytes)
    const header = decodeHeader(kernel, bytes, name, number, uuid)
    if (header === undefined && file.size > walHeaderSize) throw corrupt(name, 0, 'the header is damaged')
    return header
  } finally {
    await file.close()
  }
}

type WalHeader = { readonly salt: Salt; readonly baseSequence: number; readonly predecessor: Seal | undefined }

function decodeHeader(
  kernel: Kernel,
  bytes: Uint8Array,
  name: string,
  number: number,
  uuid: Uint8Array,
): WalHeader | undefined {
  if (bytes.length < walHeaderSize || !hasMagic(bytes, magic)) return undefined
  const view = viewOf(bytes)
  const checksum = kernel.checksum64(bytes.subarray(0, headerChecksumOffset))
  if (!sameChecksum(checksum, readChecksum(view, headerChecksumOffset))) return undefined
  checkReaderVersion(bytes, name)
  if (!bytesEqual(bytes.subarray(16, 32), uuid) || readUint64(view, 32) !== number) {
    throw corrupt(name, 16, 'the log belongs elsewhere')
  }
  const baseSequence = readUint64(view, 80)
  const predecessor = {
    number: readUint64(view, 48) ?? -1,
    validEnd: readUint64(view, 56) ?? -1,
    lastSequence: readUint64(view, 64) ?? -1,
    chain: readChecksum(view, 72),
  }
  if (baseSequence === undefined || predecessor.validEnd < 0 || predecessor.lastSequence < 0) {
    throw corrupt(name, 48, 'the header holds impossible numbers')
  }
  return { salt: readChecksum(view, 40), baseSequence, predecessor: predecessor.number === 0 ? undefined : predecessor }
}

type RawRecord = {
  readonly type: number
  readonly sequence: number
  readonly durableSequence: number
  readonly payload: Uint8Array
  readonly trailer: Checksum
  readonly end: number
}

/** One pass over the bytes of a log. */
class WalScan {
  readonly #kernel: Kernel
  readonly #name: string
  readonly #bytes: Uint8Array
  readonly #view: DataView
  readonly #number: number
  readonly #header: WalHeader
  readonly #sealedBy: Seal | undefined

  constructor(
    kernel: Kernel,
    name: string,
    bytes: Uint8Array,
    number: number,
    header: WalHeader,
    sealedBy: Seal | undefined,
  ) {
    this.#kernel = kernel
    this.#name = name
    this.#bytes = bytes
    this.#view = viewOf(bytes)
    this.#number = number
    this.#header = header
    this.#sealedBy = sealedBy
  }

  async content(): Promise<WalContent> {
    const limit = this.#sealedBy?.validEnd ?? this.#bytes.length
    if (limit > this.#bytes.length) throw this.#corrupt(this.#bytes.length, 'the log is shorter than it was sealed')
    const records: WalRecord[] = []
    let offset = walHeaderSize
    let lastSequence = this.#header.baseSequence
    let chain: Checksum = this.#header.salt
    let closed = false
    const slice = new Slice()
    while (offset < limit) {
      if (slice.isOver) await slice.next()
      const record = this.#recordAt(offset, limit)
      if (record === undefined) break
      if (record.type === recordBatch) {
        if (record.sequence !== lastSequence + 1) {
          throw this.#corrupt(offset, `sequence ${record.sequence} follows ${lastSequence}`)
        }
        lastSequence = record.sequence
        records.push({ sequence: record.sequence, bytes: record.payload, offset: offset + recordHeaderSize })
      }
      // A log whose records follow each other may still lack the last ones before a mark.
      if (record.durableSequence > lastSequence) {
        const synced = `all up to sequence ${record.durableSequence} was synced when this was written`
        throw this.#corrupt(offset, `${synced}, and there is nothing behind ${lastSequence}`)
      }
      closed = record.type === recordClose
      chain = extendChain(this.#kernel, chain, record.trailer)
      offset = record.end
    }
    const seal = { number: this.#number, validEnd: offset, lastSequence, chain }
    await this.#checkEnd(seal, slice)
    const size = this.#bytes.length
    return {
      number: this.#number,
      predecessor: this.#header.predecessor,
      records,
      seal,
      closed: closed && offset === size,
      size,
    }
  }

  /** Every batch whose record holds, whatever lies between them, and the bytes that belong to none. */
  async survivors(): Promise<WalSurvivors> {
    const records: WalRecord[] = []
    const slice = new Slice()
    let skipped = 0
    for (let offset = walHeaderSize; offset < this.#bytes.length; ) {
      if (offset % proofStep === 0 && slice.isOver) await slice.next()
      const record = this.#recordAt(offset, this.#bytes.length)
      if (record === undefined) {
        skipped += Math.min(8, this.#bytes.length - offset)
        offset += 8
        continue
      }
      if (record.type === recordBatch) {
        records.push({ sequence: record.sequence, bytes: record.payload, offset: offset + recordHeaderSize })
      }
      offset = record.end
    }
    return { records, skipped, predecessor: this.#header.predecessor }
  }

  async #checkEnd(seal: Seal, slice: Slice): Promise<void> {
    const sealedBy = this.#sealedBy
    if (sealedBy !== undefined) {
      const holds =
        seal.validEnd === sealedBy.validEnd &&
        seal.lastSequence === sealedBy.lastSequence &&
        sameChecksum(seal.chain, sealedBy.chain)
      if (!holds) throw this.#corrupt(seal.validEnd, 'a record of a sealed log is damaged')
      return
    }
    const proof = await this.#laterProof(seal.validEnd, seal.lastSequence + 1, slice)
    if (proof !== undefined) {
      throw this.#corrupt(
        seal.validEnd,
        `a record is damaged, and the one at byte ${proof.offset} proves that all up to sequence ${proof.durableSequence} was synced; ` +
          `sequences from ${seal.lastSequence + 1} on are at stake`,
      )
    }
  }

  /** Looks behind a bad record for a valid one which says that `sequence` was synced. */
  async #laterProof(
    from: number,
    sequence: number,
    slice: Slice,
  ): Promise<{ offset: number; durableSequence: number } | undefined> {
    for (
      let offset = alignUp(from + 1, 8);
      offset + recordHeaderSize + trailerSize <= this.#bytes.length;
      offset += 8
    ) {
      if (offset % proofStep === 0 && slice.isOver) await slice.next()
      const record = this.#recordAt(offset, this.#bytes.length)
      if (record !== undefined && record.durableSequence >= sequence) {
        return { offset, durableSequence: record.durableSequence }
      }
    }
    return undefined
  }

  /** The record at `offset`, or undefined if there is no valid one that ends by `limit`. */
  #recordAt(offset: number, limit: number): RawRecord | undefined {
    if (offset + recordHeaderSize + trailerSize > limit) return undefined
    const view = this.#view
    const type = view.getUint8(offset + 4)
    // Cheap tests first: behind damage this runs at every eighth byte.
    if (type < recordBatch || type > recordClose || view.getUint8(offset + 5) !== 0) return undefined
    if (view.getUint16(offset + 6, true) !== 0 || view.getUint32(offset + 12, true) !== 0) return undefined
    const size = view.getUint32(offset + 8, true)
    const end = offset + recordHeaderSize + alignUp(size, 8) + trailerSize
    if (end > limit) return undefined
    const { salt } = this.#header
    const header = this.#bytes.subarray(offset, offset + recordHeaderSize)
    if (view.getUint32(offset, true) !== this.#kernel.checksum64(header.subarray(4), salt.low, salt.high).low) {
      return undefined
    }
    const payload = this.#bytes.subarray(offset + recordHeaderSize, offset + recordHeaderSize + size)
    const trailer = readChecksum(view, end - trailerSize)
    if (!sameChecksum(trailer, recordChecksum(this.#kernel, salt, header, payload))) return undefined
    const sequence = readUint64(view, offset + 16)
    const durableSequence = readUint64(view, offset + 24)
    if (sequence === undefined || durableSequence === undefined) return undefined
    return { type, sequence, durableSequence, payload, trailer, end }
  }

  #corrupt(offset: number, problem: string): IsovecError {
    return corrupt(this.#name, offset, problem)
  }
}

/**
 * Reads the logs from `first` on, oldest first. A log is checked against the seal in its successor; where the successor restates
 * what came before instead of sealing it, as after an unclean end, the log is read like a newest one. Sequences may therefore repeat
 * from one log to the next.
 *
 * @param numbers of all logs in the directory
 * @throws IsovecError `CORRUPTION` if a log is missing or damaged
 */
export async function readWalChain(
  kernel: Kernel,
  directory: Directory,
  uuid: Uint8Array,
  first: number,
  numbers: readonly number[],
): Promise<WalContent[]> {
  // Whoever opens it is told whether it is lost or was replaced.
  if (!numbers.includes(first)) await (await directory.open(fileName(first, 'wal'))).close()
  const finished: { number: number; predecessor: Seal | undefined }[] = []
  for (const number of numbers.filter((candidate) => candidate >= first).sort((a, b) => a - b)) {
    const header = await peekHeader(kernel, directory, uuid, number)
    if (header !== undefined) finished.push({ number, predecessor: header.predecessor })
  }
  if (finished[0]?.number !== first) throw corrupt(fileName(first, 'wal'), 0, 'the log is missing or damaged')
  const contents: WalContent[] = []
  for (let i = 0; i < finished.length; i++) {
    const { number } = finished[i]!
    const sealedBy = finished[i + 1]?.predecessor
    if (sealedBy !== undefined && sealedBy.number !== number) {
      throw corrupt(fileName(sealedBy.number, 'wal'), 0, 'a sealed log is missing')
    }
    contents.push(await readWal(kernel, directory, uuid, number, sealedBy))
  }
  return contents
}

function corrupt(file: string, offset: number, problem: string): IsovecError {
  return new IsovecError('CORRUPTION', `${file}: ${problem} (at byte ${offset})`, { file, offset })
}
