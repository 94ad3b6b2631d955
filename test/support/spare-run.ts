import type { Choice } from '../../src/directory/crash-image.ts'
import type { StoreImage } from '../../src/directory/memory.ts'
import { isIsovecError } from '../../src/errors.ts'
import { changed, filesOf, flipped, type StoredFile, sectionsOf } from './damage.ts'
import type { CrashKind } from './history.ts'
import { checkRecovery } from './recovered.ts'
import type { Scenario } from './scenario.ts'

/** What a manifest says, as far as it matters for what only the newest one names. */
type Named = {
  readonly file: StoredFile
  readonly names: ReadonlySet<string>
  readonly firstWal: number
  readonly directories: readonly number[]
}

/** Bits of each log that are flipped at each call. */
const bitsPerLog = 1

/**
 * Damages what a process leaves that ends at any call. What the newest generation of a directory introduced, itself included, may be
 * damaged at no cost. Other damage is refused, or costs nothing that had been synced.
 */
export class SpareRun {
  /** Images that were recovered. */
  checked = 0
  /** Those of them that were refused, as they may be. */
  refused = 0
  readonly #choose: Choice

  constructor(choose: Choice) {
    this.#choose = choose
  }

  async damageEverywhere(scenario: Scenario, isEnough = (): boolean => false, from = 0): Promise<void> {
    for (let at = from; at <= scenario.backend.changes.length && !isEnough(); at++) {
      const image = scenario.backend.crashImage({ kind: 'process', at })
      if (image.root === undefined) continue
      for (const directory of [undefined, ...image.directories.keys()])
        await this.#damage(scenario, at, image, directory)
    }
  }

  async #damage(scenario: Scenario, at: number, image: StoreImage, directory: number | undefined): Promise<void> {
    const files = filesOf(image).filter((file) => file.directory === directory)
    const [newest, previous] = manifestsOf(files)
    if (newest === undefined) return
    // A root with one generation is one that is being made, and so is a directory that no root names.
    const isNamed = directory === undefined ? newest.file.name !== '1.manifest' : isNamedIn(image, directory)
    if (!isNamed) return
    await this.#check(scenario, 'process', at, this.#flip(image, newest.file), `${newest.file.name} damaged`)
    const own = files.filter(({ name }) => newest.names.has(name) && !previous?.names.has(name))
    for (const file of own) {
      const damaged = this.#flip(image, file)
      await this.#check(scenario, 'process', at, damaged, `${directory}/${file.name} damaged`)
      // Most of a small segment is padding and header, but what is damaged within a section is met later, and made good in another way.
      if (file.name.endsWith('.seg')) {
        const inside = this.#flipSection(image, file)
        await this.#check(scenario, 'process', at, inside, `a section of ${directory}/${file.name} damaged`)
      }
      // Twice: what is fallen back to must reach as far as what it stands in for.
      const wal = files.find(({ name }) => name === `${newest.firstWal}.wal`)
      if (wal === undefined) continue
      const twice = changed(damaged, directory, wal.name, undefined)
      await this.#check(scenario, 'power', at, twice, `${directory}/${file.name} damaged and ${wal.name} missing`)
    }
    for (const file of files.filter(({ name, bytes }) => name.endsWith('.wal') && bytes.length > 0)) {
      for (let i = 0; i < bitsPerLog; i++) {
        await this.#check(scenario, 'power', at, this.#flip(image, file), `${directory}/${file.name} damaged`)
      }
    }
  }

  #flip(image: StoreImage, { directory, name, bytes }: StoredFile): StoreImage {
    return changed(image, directory, name, flipped(bytes, this.#choose(bytes.length * 8)))
  }

  #flipSection(image: StoreImage, { directory, name, bytes }: StoredFile): StoreImage {
    const sections = sectionsOf(bytes)
    const { offset, length } = sections[this.#choose(sections.length)]!
    return changed(image, directory, name, flipped(bytes, offset * 8 + this.#choose(length * 8)))
  }

  /** @param kind what must be there: what survives the end of a process, or where damage may be refused, what survives power loss */
  async #check({ history }: Scenario, kind: CrashKind, at: number, image: StoreImage, what: string): Promise<void> {
    this.checked++
    try {
      await checkRecovery(image, history, kind, at, this.#choose)
    } catch (error) {
      if (kind === 'power' && isIsovecError(error) && error.code === 'CORRUPTION') {
        this.refused++
        return
      }
      throw new Error(`a process ended after change ${at}, ${what}: ${(error as Error).message}`, { cause: error })
    }
  }
}

/** The manifests among files, newest first, as far as they are whole. */
function manifestsOf(files: readonly StoredFile[]): Named[] {
  return files
    .filter(({ name, bytes }) => name.endsWith('.manifest') && bytes.length > 64)
    .sort((a, b) => Number.parseInt(b.name, 10) - Number.parseInt(a.name, 10))
    .map((file) => {
      const body = JSON.parse(new TextDecoder().decode(file.bytes.subarray(64))) as Body
      const names = (body.segments ?? []).flatMap(({ file: { number }, tombstones, patches, graph }) => [
        `${number}.seg`,
        ...(tombstones === undefined ? [] : [`${tombstones.number}.del`]),
        ...(patches === undefined ? [] : [`${patches.number}.patch`]),
        ...(graph === undefined ? [] : [`${graph.number}.graph`]),
      ])
      return {
        file,
        names: new Set(names),
        firstWal: body.firstWal ?? 0,
        directories: (body.collections ?? []).map(({ directory }) => directory),
      }
    })
}

function isNamedIn(image: StoreImage, directory: number): boolean {
  const [root] = manifestsOf(filesOf(image).filter((file) => file.directory === undefined))
  return root?.directories.includes(directory) === true
}

type Numbered = { readonly number: number }
type Body = {
  readonly collections?: readonly { directory: number }[]
  readonly firstWal?: number
  readonly segments?: readonly { file: Numbered; tombstones?: Numbered; patches?: Numbered; graph?: Numbered }[]
}
