import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { seededChoice } from '../../src/directory/crash-image.ts'
import type { StoreImage } from '../../src/directory/memory.ts'
import { changed, filesOf, flipped } from '../support/damage.ts'
import { DamageRun, loggedImage, readDamaged, segmentedImage, segmentedQueries } from '../support/damage-run.ts'
import { digestOf } from '../support/history.ts'
import { seed, seedCrypto } from '../support/seed.ts'

const run = new DamageRun()
let restoreCrypto: () => void
beforeAll(() => {
  restoreCrypto = seedCrypto(seed)
})
afterAll(() => {
  restoreCrypto()
  const { counts } = run
  console.log(`damage: ${counts.refused} refused, ${counts.equal} with nothing lost (ISOVEC_SEED=${seed})`)
})

describe('damage is told or costs nothing', () => {
  test('a log that ends too early is read up to its last whole record', { timeout: 120_000 }, async () => {
    const { image, states } = await loggedImage('crash')
    const wal = filesOf(image).find(({ name }) => name.endsWith('.wal'))!
    const seen = new Set<number>()
    for (let size = 0; size < wal.bytes.length; size++) {
      const read = await readDamaged(changed(image, wal.directory, wal.name, wal.bytes.slice(0, size)))
      if (size < 128) {
        expect(read, `cut at ${size}`).toBeUndefined()
        continue
      }
      const step = states.indexOf(digestOf(read!.contents))
      expect(step, `cut at ${size}`).toBeGreaterThanOrEqual(0)
      // A longer log never shows less.
      expect(step).toBeGreaterThanOrEqual(Math.max(0, ...seen))
      seen.add(step)
    }
    expect([...seen]).toEqual([0, 1, 2, 3])
  })

  test.each(['crash', 'close'] as const)(
    'every bit of a small database, after a %s',
    { timeout: 300_000 },
    async (end) => {
      const { image, states } = await loggedImage(end)
      const whole = (await readDamaged(image))!
      expect(digestOf(whole.contents)).toBe(states.at(-1))
      for (const file of filesOf(image)) {
        const { name } = file
        // After a close only the log differs.
        if (end === 'close' && !name.endsWith('.wal')) continue
        const outcomes = await run.flipEvery(image, file, whole)
        // A manifest has another one to stand in for it. Of a log everything matters but the padding of two records and, of 40 bytes
        // each, the last mark and the close record.
        if (name.endsWith('.manifest')) expect(outcomes.refused, name).toBe(0)
        else expect(outcomes.equal, name).toBe(8 * (4 + (end === 'crash' ? 40 : 80)))
      }
    },
  )

  test('bits here and there of a database with segments, tombstones and a graph', { timeout: 300_000 }, async () => {
    const image = await segmentedImage()
    const whole = (await readDamaged(image, segmentedQueries))!
    const kinds = new Set(filesOf(image).map(({ name }) => name.split('.')[1]))
    expect([...kinds].sort()).toEqual(['del', 'graph', 'manifest', 'patch', 'seg', 'wal'])
    await run.flipSome(image, whole, seededChoice(seed), 40)
  })

  test('files that are missing, cut, empty, doubled or in the place of others', { timeout: 300_000 }, async () => {
    await run.misplaceFiles(await segmentedImage())
    for (const end of ['crash', 'close'] as const) await run.misplaceFiles((await loggedImage(end)).image)
  })

  test('a manifest alone, or a collection alone, is no new database', async () => {
    const { image } = await loggedImage('close')
    const withoutRoot: StoreImage = { root: new Map(), directories: image.directories }
    expect(await readDamaged(withoutRoot)).toBeUndefined()
    const withoutCollection: StoreImage = { root: image.root, directories: new Map() }
    expect(await readDamaged(withoutCollection)).toBeUndefined()
    const bothDamaged = new Map([...image.root!].map(([name, bytes]) => [name, flipped(bytes, 700)]))
    expect(await readDamaged({ root: bothDamaged, directories: image.directories })).toBeUndefined()
    expect(await readDamaged({ root: bothDamaged, directories: new Map() })).toBeUndefined()
  })
})
