/**
 * Databases of which one kind of file was damaged.
 */
import type { StoreImage } from '../../src/directory/memory.ts'
import { changed, filesOf } from '../support/damage.ts'
import { digestOf } from '../support/history.ts'
import { type Base, type BaseName, baseOf } from './bases.ts'
import { Exercise, type Read } from './exercise.ts'
import { Finding, type Input, type Json, type Outcome, pick, type Target } from './input.ts'
import { type Kind, kindOf } from './layout.ts'
import type { Meter } from './meter.ts'
import { decodeSplice, mutated, spliced } from './mutate.ts'
import { type Repair, repaired } from './repair.ts'

/** Where an input of such a target begins. */
type FileInput = { readonly database: BaseName; readonly repair: Repair | 'none'; readonly writes: boolean }

const pathOf = ({ directory, name }: { directory: number | undefined; name: string }): string =>
  directory === undefined ? name : `${directory}/${name}`

const placeOf = (path: string): { directory: number | undefined; name: string } => {
  const slash = path.indexOf('/')
  return slash < 0
    ? { directory: undefined, name: path }
    : { directory: Number(path.slice(0, slash)), name: path.slice(slash + 1) }
}

function bytesAt(image: StoreImage, path: string): Uint8Array | undefined {
  const { directory, name } = placeOf(path)
  return directory === undefined ? image.root!.get(name) : image.directories.get(directory)?.get(name)
}

/** Memory that any input may make the library ask for, and how much of it at once. */
const allocatedMax = 64 * 1024 * 1024
const allocatedAtOnceMax = 16 * 1024 * 1024

const wholes = new Map<BaseName, Read>()

/** What is read of a base as it is. */
async function wholeOf(name: BaseName): Promise<Read> {
  let whole = wholes.get(name)
  if (whole === undefined) {
    const exercise = new Exercise()
    whole = await exercise.run((await baseOf(name)).image, false)
    if (whole === undefined) throw new Error(`the base ${name} is refused with ${[...exercise.codes]}`)
    wholes.set(name, whole)
  }
  return whole
}

/** Needs {@link makeBases} before its first input. */
export class FileTarget implements Target {
  readonly name: string
  readonly #kind: Kind
  readonly #bases: readonly BaseName[]
  readonly #meter: Meter
  readonly #files = new Map<BaseName, readonly { path: string; bytes: Uint8Array }[]>()
  /** The bytes of all those files. */
  readonly #others: Uint8Array[] = []

  constructor(name: string, kind: Kind, bases: readonly BaseName[], meter: Meter) {
    this.name = name
    this.#kind = kind
    this.#bases = bases
    this.#meter = meter
  }

  /** Reads the bases that inputs are made of. */
  async prepare(): Promise<void> {
    for (const name of this.#bases) {
      const { image } = await baseOf(name)
      const files = filesOf(image)
        .filter((file) => kindOf(file.name) === this.#kind)
        .map((file) => ({ path: pathOf(file), bytes: file.bytes }))
      this.#files.set(name, files)
      this.#others.push(...files.map(({ bytes }) => bytes))
      await wholeOf(name)
    }
  }

  make(choose: (count: number) => number): Input {
    const database = pick(choose, this.#bases)
    const files = this.#files.get(database)!
    const others = this.#others
    const now = new Map<string, Uint8Array>(files.map(({ path, bytes }) => [path, bytes]))
    const repair = pick(choose, ['none', 'none', 'checksums', 'sizes'] as const)
    const steps: Json[] = []
    const count = 1 + choose(choose(3) === 0 ? 6 : 2)
    // Mostly one file: damage to several at once is met at the first of them.
    let { path } = pick(choose, files)
    for (let i = 0; i < count; i++) {
      if (choose(6) === 0) path = pick(choose, files).path
      const before = now.get(path)!
      const { after, splice } = mutated(before, choose, this.#kind, others)
      steps.push({ file: path, ...splice })
      now.set(path, after)
    }
    return { base: { database, repair, writes: choose(8) === 0 }, steps }
  }

  async run({ base, steps }: Input): Promise<Outcome> {
    const { database, repair, writes } = base as FileInput
    const whole = await baseOf(database)
    const image = await damagedImage(whole, steps, repair)
    const exercise = new Exercise()
    exercise.onRead = (dimensions) => this.#checkMemory(dimensions)
    this.#meter.begin()
    const read = await exercise.run(image, writes)
    this.#checkMemory([])
    if (repair === 'none' && read !== undefined) await checkContents(whole, database, steps, read)
    return { refusals: [...new Set([...exercise.codes, ...exercise.told])] }
  }

  #checkMemory(dimensions: readonly number[]): void {
    const { total, largest } = this.#meter
    // Vectors of such a dimension are that large.
    if (dimensions.some((dimension) => dimension > 1000)) return
    if (total > allocatedMax) throw new Finding(`${total >> 20} MiB are allocated`)
    if (largest > allocatedAtOnceMax) throw new Finding(`${largest >> 20} MiB are allocated at once`)
  }
}

/** A base with splices in its files. */
async function damagedImage(whole: Base, steps: readonly Json[], repair: Repair | 'none'): Promise<StoreImage> {
  let { image } = whole
  const paths = new Set<string>()
  for (const step of steps) {
    const { file, ...splice } = decodeSplice(step)
    const bytes = bytesAt(image, file)
    if (bytes === undefined) continue
    const { directory, name } = placeOf(file)
    image = changed(image, directory, name, spliced(bytes, splice))
    paths.add(file)
  }
  return repair === 'none' ? image : await repaired(image, paths, repair)
}

/** Damage that no checksum was made to agree with costs nothing where it isn't refused; but a log may have lost its torn tail. */
async function checkContents(whole: Base, name: BaseName, steps: readonly Json[], read: Read): Promise<void> {
  const expected = await wholeOf(name)
  const digest = digestOf(read.contents)
  if (digest !== digestOf(expected.contents)) {
    const isLog = steps.some((step) => decodeSplice(step).file.endsWith('.wal'))
    if (isLog && whole.states.includes(digest)) return
    throw new Finding(`silently ${read.contents.size} documents instead of ${expected.contents.size}, or others`)
  }
  if (read.found.join('\n') !== expected.found.join('\n')) throw new Finding('silently other answers')
}
