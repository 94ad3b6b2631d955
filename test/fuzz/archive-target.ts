/**
 * Hostile archives: refused with nothing left behind, or restored to what was archived.
 */
import { gzipSync } from 'node:zlib'
import { packTar } from 'modern-tar'
import type { Choice } from '../../src/directory/crash-image.ts'
import { type MemoryBackend, memoryBackend } from '../../src/directory/memory.ts'
import { IsovecError, type IsovecErrorCode } from '../../src/errors.ts'
import { openDatabase, restore } from '../../src/index.ts'
import { filesOf } from '../support/damage.ts'
import { digestOf } from '../support/history.ts'
import { readContents } from '../support/recovered.ts'
import { damagedArchive, damagedBytes, repairHeaders } from './archive-damage.ts'
import { baseOf, makeBases, withSeededCrypto } from './bases.ts'
import { demand, Finding, type Input, type Json, type Outcome, pick, type Target } from './input.ts'
import type { Meter } from './meter.ts'
import { decodeSplice, spliceBetween, spliced } from './mutate.ts'

/** What an archive may be refused with. */
const refusals: ReadonlySet<IsovecErrorCode> = new Set(['CORRUPTION', 'UNSUPPORTED_VERSION'])
/** Memory that an archive of some tens of kilobytes may ask for. */
const allocatedMax = 64 * 1024 * 1024

/** Where an input begins: what is damaged, and how the bytes arrive. */
type ArchiveInput = {
  readonly form: (typeof forms)[number]
  /** Whether the checksums of headers are made to hold. */
  readonly isRepaired: boolean
  readonly pieceSize: number
}

/** Whether the archive is damaged before it is compressed, or after. */
const forms = ['tar', 'gzip of a damaged tar', 'damaged gzip'] as const

function streamOf(bytes: Uint8Array, pieceSize: number): ReadableStream<Uint8Array> {
  let at = 0
  return new ReadableStream({
    pull: (controller) => {
      if (at >= bytes.length) controller.close()
      else controller.enqueue(bytes.slice(at, at + pieceSize))
      at += pieceSize
    },
  })
}

/** What each collection of a database holds. */
async function contentsOf(backend: MemoryBackend): Promise<string> {
  const db = await openDatabase(backend, { readOnly: true })
  try {
    const lines: string[] = []
    for (const name of await db.listCollections()) {
      lines.push(`${name} ${digestOf(await readContents(await db.openCollection(name)))}`)
    }
    return lines.join('\n')
  } finally {
    await db.close()
  }
}

const isEmpty = (backend: MemoryBackend): boolean => {
  const { root, directories } = backend.image()
  return (root?.size ?? 0) === 0 && directories.size === 0
}

export class ArchiveTarget implements Target {
  readonly name = 'archive'
  readonly #tar: Uint8Array
  readonly #gzip: Uint8Array
  readonly #contents: string
  readonly #meter: Meter

  private constructor(tar: Uint8Array, contents: string, meter: Meter) {
    this.#tar = tar
    this.#gzip = new Uint8Array(gzipSync(tar))
    this.#contents = contents
    this.#meter = meter
  }

  /** @param meter is on wherever memory is to be watched */
  static async create(meter: Meter): Promise<ArchiveTarget> {
    await makeBases()
    const { image } = await baseOf('closed')
    const snapshot = memoryBackend()
    await withSeededCrypto(99, () => restore(memoryBackend(image), snapshot))
    const tar = await packTar(
      filesOf(snapshot.image()).map(({ directory, name, bytes }) => ({
        header: {
          name: directory === undefined ? name : `${directory}/${name}`,
          size: bytes.length,
          type: 'file' as const,
          // The time of day would make another archive each time.
          mtime: new Date(0),
        },
        body: bytes.slice(),
      })),
    )
    const contents = await contentsOf(snapshot)
    const target = new ArchiveTarget(tar, contents, meter)
    const { refusals } = await target.run({ base: { form: 'tar', isRepaired: false, pieceSize: 4096 }, steps: [] })
    if (refusals.length > 0) throw new Error(`the archive is refused as it is with ${refusals}`)
    return target
  }

  make(choose: Choice): Input {
    const form = pick(choose, [forms[0], forms[0], forms[0], forms[1], forms[2]])
    const isRepaired = choose(4) > 0
    const pieceSize = pick(choose, [100, 512, 1000, 4096, 1 << 20])
    const steps: Json[] = []
    let now = form === 'damaged gzip' ? this.#gzip : this.#tar
    for (let i = 1 + choose(choose(3) === 0 ? 4 : 1); i > 0; i--) {
      const after = form === 'damaged gzip' ? damagedBytes(now, choose) : damagedArchive(now, choose)
      steps.push(spliceBetween(now, after))
      now = after
    }
    return { base: { form, isRepaired, pieceSize }, steps }
  }

  async run({ base, steps }: Input): Promise<Outcome> {
    const { form, isRepaired, pieceSize } = base as ArchiveInput
    let bytes: Uint8Array = (form === 'damaged gzip' ? this.#gzip : this.#tar).slice()
    for (const step of steps) bytes = spliced(bytes, decodeSplice(step))
    if (isRepaired && form !== 'damaged gzip') repairHeaders(bytes)
    if (form === 'gzip of a damaged tar') bytes = new Uint8Array(gzipSync(bytes))
    const target = memoryBackend()
    this.#meter.begin()
    const code = await this.#restored(bytes, pieceSize, target)
    demand(this.#meter.total <= allocatedMax, `${this.#meter.total >> 20} MiB are allocated`)
    if (code !== undefined) {
      demand(isEmpty(target), 'a refused archive leaves files behind')
      return { refusals: [code] }
    }
    const found = await contentsOf(target)
    if (found !== this.#contents) throw new Finding(`${found} is restored instead of ${this.#contents}`)
    return { refusals: [] }
  }

  /** What an archive is refused with, if it is. */
  async #restored(bytes: Uint8Array, pieceSize: number, target: MemoryBackend): Promise<IsovecErrorCode | undefined> {
    try {
      await restore(streamOf(bytes, pieceSize), target)
      return undefined
    } catch (error) {
      if (error instanceof IsovecError && refusals.has(error.code)) return error.code
      throw new Finding(`an archive is met with ${String(error).slice(0, 200)}`, error)
    }
  }
}
