/**
 * Makes every checksum of damaged files hold again, so that the code behind the checksums is met.
 */
import type { StoreImage } from '../../src/directory/memory.ts'
import { type Checksum, type Kernel, loadKernel } from '../../src/kernel/index.ts'
import { type Kind, kindOf, recordsOf, view } from './layout.ts'

/** What is repaired: checksums alone, or also what sizes and counts headers and manifests keep of a file. */
export type Repair = 'checksums' | 'sizes'

const blockDataSize = 16_376

/** The files of a directory, to be changed in place. */
type Files = Map<string, Uint8Array>

/** Repairs an image of which some files were changed. */
export async function repaired(image: StoreImage, changed: ReadonlySet<string>, repair: Repair): Promise<StoreImage> {
  const kernel = await loadKernel()
  const root: Files = new Map(image.root)
  const directories = new Map([...image.directories].map(([number, files]) => [number, new Map(files) as Files]))
  repairDirectory(kernel, root, '', changed, repair)
  for (const [number, files] of directories) repairDirectory(kernel, files, `${number}/`, changed, repair)
  return { root, directories }
}

function repairDirectory(kernel: Kernel, files: Files, prefix: string, all: ReadonlySet<string>, repair: Repair): void {
  const changed = new Set([...files.keys()].filter((name) => all.has(prefix + name)))
  const copy = (name: string): Uint8Array => {
    const bytes = files.get(name)!.slice()
    files.set(name, bytes)
    return bytes
  }
  for (const name of changed) {
    const bytes = copy(name)
    // A manifest comes last: it names the others.
    if (kindOf(name) !== 'manifest') repairFile(kernel, kindOf(name), bytes, repair)
  }
  // A graph names the checksum of its segment.
  for (const name of files.keys()) {
    if (kindOf(name) !== 'graph') continue
    const segment = `${low(view(files.get(name)!), 40)}.seg`
    if (!changed.has(segment)) continue
    const bytes = copy(name)
    const header = files.get(segment)!
    if (bytes.length < 4096 || header.length < 4096) continue
    bytes.set(header.subarray(4088, 4096), 48)
    put(bytes, 4088, kernel.checksum64(bytes.subarray(0, 4088)))
    changed.add(name)
  }
  for (const name of files.keys()) {
    if (kindOf(name) === 'wal' && sealsChanged(files.get(name)!, changed)) repairSeal(kernel, files, copy(name), repair)
  }
  for (const name of [...files.keys()]) {
    if (kindOf(name) !== 'manifest') continue
    const bytes = changed.has(name) ? files.get(name)! : renamed(files, files.get(name)!, changed, repair)
    if (bytes.length < 64) continue
    repairFile(kernel, 'manifest', bytes, repair)
    files.set(name, bytes)
  }
}

/** Repairs the checksums and sizes that a file keeps of itself, in place. */
export function repairFile(kernel: Kernel, kind: Kind, bytes: Uint8Array, repair: Repair): void {
  switch (kind) {
    case 'seg':
    case 'graph':
      repairSections(kernel, bytes, kind, repair)
      break
    case 'wal':
      repairLog(kernel, bytes)
      break
    case 'manifest':
      if (repair === 'sizes' && bytes.length >= 64) view(bytes).setUint32(16, bytes.length - 64, true)
      repairWhole(kernel, bytes)
      break
    case 'del':
    case 'patch':
      repairWhole(kernel, bytes)
  }
}

function low(numbers: DataView, at: number): number {
  return at + 4 <= numbers.byteLength ? numbers.getUint32(at, true) : 0
}

function put(bytes: Uint8Array, at: number, checksum: Checksum): void {
  view(bytes).setUint32(at, checksum.low, true)
  view(bytes).setUint32(at + 4, checksum.high, true)
}

/** Files with one checksum at 56, over what is before and behind the header's end. */
function repairWhole(kernel: Kernel, bytes: Uint8Array): void {
  if (bytes.length < 64) return
  const hasher = kernel.hasher()
  hasher.update(bytes.subarray(0, 56))
  hasher.update(bytes.subarray(64))
  put(bytes, 56, hasher.digest())
}

function repairSections(kernel: Kernel, bytes: Uint8Array, kind: 'seg' | 'graph', repair: Repair): void {
  if (bytes.length < 4096) return
  const numbers = view(bytes)
  const count = Math.min(123, numbers.getUint32(4072, true))
  for (let place = 128; place < 128 + 32 * count; place += 32) {
    const offset = Number(numbers.getBigUint64(place + 8, true))
    const length = Number(numbers.getBigUint64(place + 16, true))
    if (offset + length > bytes.length) continue
    if (kind === 'seg' && numbers.getUint32(place, true) === 11) repairBlocks(kernel, bytes, offset, length)
    else put(bytes, place + 24, kernel.checksum64(bytes.subarray(offset, offset + length)))
  }
  if (repair === 'sizes') numbers.setBigUint64(4080, BigInt(bytes.length), true)
  put(bytes, 4088, kernel.checksum64(bytes.subarray(0, 4088)))
}

function repairBlocks(kernel: Kernel, bytes: Uint8Array, offset: number, length: number): void {
  const numbers = view(bytes)
  const salt = { low: numbers.getUint32(80, true), high: numbers.getUint32(84, true) }
  for (let from = 0, index = 0; from + 8 < length; from += blockDataSize + 8, index++) {
    const size = Math.min(blockDataSize, length - from - 8)
    const at = offset + from
    const data = bytes.subarray(at, at + size)
    put(bytes, at + size, kernel.checksum64(data, (salt.low ^ index) >>> 0, salt.high))
  }
}

function repairLog(kernel: Kernel, bytes: Uint8Array): void {
  if (bytes.length < 128) return
  const numbers = view(bytes)
  const salt = { low: numbers.getUint32(40, true), high: numbers.getUint32(44, true) }
  put(bytes, 120, kernel.checksum64(bytes.subarray(0, 120)))
  for (const { at, payloadSize, end } of recordsOf(bytes)) {
    numbers.setUint32(at, kernel.checksum64(bytes.subarray(at + 4, at + 32), salt.low, salt.high).low, true)
    put(bytes, end - 8, kernel.checksum64(bytes.subarray(at, at + 32 + payloadSize), salt.low, salt.high))
  }
}

const sealsChanged = (log: Uint8Array, changed: ReadonlySet<string>): boolean =>
  log.length >= 128 && changed.has(`${low(view(log), 48)}.wal`)

/** Makes a log's header say of the one before what that has become. */
function repairSeal(kernel: Kernel, files: Files, bytes: Uint8Array, repair: Repair): void {
  const numbers = view(bytes)
  const before = files.get(`${numbers.getUint32(48, true)}.wal`)!
  if (before.length < 128) return
  const sealedEnd = repair === 'checksums' ? Number(numbers.getBigUint64(56, true)) : Number.POSITIVE_INFINITY
  const { validEnd, lastSequence, chain } = endOf(kernel, before, sealedEnd)
  if (repair === 'sizes') {
    numbers.setBigUint64(56, BigInt(validEnd), true)
    numbers.setBigUint64(64, lastSequence, true)
  }
  put(bytes, 72, chain)
  put(bytes, 120, kernel.checksum64(bytes.subarray(0, 120)))
}

/** What a seal says of a log of 128 bytes or more that ends where its sizes lead, at `sealedEnd` at most. */
export function endOf(
  kernel: Kernel,
  log: Uint8Array,
  sealedEnd: number,
): { validEnd: number; lastSequence: bigint; chain: Checksum } {
  const numbers = view(log)
  let chain: Checksum = { low: numbers.getUint32(40, true), high: numbers.getUint32(44, true) }
  let validEnd = 128
  let lastSequence = numbers.getBigUint64(80, true)
  for (const { at, end } of recordsOf(log)) {
    if (end > sealedEnd) break
    chain = kernel.checksum64(log.subarray(end - 8, end), chain.low, chain.high)
    validEnd = end
    if (log[at + 4] === 1) lastSequence = numbers.getBigUint64(at + 16, true)
  }
  return { validEnd, lastSequence, chain }
}

type Named = { number?: unknown; length?: unknown; checksum?: unknown; count?: unknown; rowCount?: unknown }

/** A manifest that names files as they have become. */
function renamed(files: Files, manifest: Uint8Array, changed: ReadonlySet<string>, repair: Repair): Uint8Array {
  const body = JSON.parse(new TextDecoder().decode(manifest.subarray(64))) as {
    segments?: { file: Named; tombstones?: Named; patches?: Named; graph?: Named }[]
  }
  const update = (entry: Named | undefined, kind: string): void => {
    const name = `${entry?.number}.${kind}`
    const bytes = files.get(name)
    if (entry === undefined || bytes === undefined || !changed.has(name)) return
    if (repair === 'sizes') entry.length = bytes.length
    if (kind === 'seg' || kind === 'graph') {
      if (bytes.length >= 4096) entry.checksum = Buffer.from(bytes.subarray(4088, 4096)).reverse().toString('hex')
      if (kind === 'seg' && repair === 'sizes') entry.rowCount = Math.max(1, low(view(bytes), 40))
    } else if (repair === 'sizes') {
      entry.count = Math.max(1, low(view(bytes), 40))
    }
  }
  for (const segment of body.segments ?? []) {
    update(segment.file, 'seg')
    update(segment.graph, 'graph')
    update(segment.tombstones, 'del')
    update(segment.patches, 'patch')
  }
  const text = new TextEncoder().encode(JSON.stringify(body))
  const bytes = new Uint8Array(64 + text.length)
  bytes.set(manifest.subarray(0, 64))
  bytes.set(text, 64)
  view(bytes).setUint32(16, text.length, true)
  return bytes
}
