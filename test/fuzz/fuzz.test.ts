import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { seededChoice } from '../../src/directory/crash-image.ts'
import { seed } from '../support/seed.ts'
import { baseOf } from './bases.ts'
import { campaign, meter, prepare } from './campaign.ts'
import { Finding, type Input, recording, replaying, shorterChoices, type Target } from './input.ts'
import { spliceBetween, spliced } from './mutate.ts'
import { repaired } from './repair.ts'
import { fuzz, inputOf, runInput } from './runner.ts'
import { type TargetName, targetNames, targetOf } from './targets.ts'

const folder = join(import.meta.dirname, 'fixtures')

prepare()

describe('nothing that is read or passed leads to anything but an answer or a refusal', () => {
  campaign({
    wal: 500,
    manifest: 400,
    segment: 500,
    graph: 300,
    tombstones: 200,
    patches: 300,
    filter: 2000,
    document: 700,
    archive: 800,
  })
})

describe('what was found once is not found again', () => {
  const names = readdirSync(folder).filter((name) => name.endsWith('.json'))
  // Longer than an input may take before it is told as a finding.
  test.each(names)('%s', { timeout: 60_000 }, async (name) => {
    const { target, input } = JSON.parse(readFileSync(join(folder, name), 'utf8')) as {
      target: TargetName
      input: Input
    }
    await runInput(await targetOf(target, meter), input)
  })
})

describe('the harness', () => {
  test('makes the same input of the same seed and number', { timeout: 60_000 }, async () => {
    for (const name of targetNames) {
      const target = await targetOf(name, meter)
      expect(inputOf(target, seed, 5)).toEqual(inputOf(target, seed, 5))
      expect(inputOf(target, seed, 5)).not.toEqual(inputOf(target, seed, 6))
    }
  })

  test('keeps a mutation as the bytes that it replaced', () => {
    const choose = seededChoice(seed)
    const some = (): Uint8Array => Uint8Array.from({ length: choose(9) }, () => choose(3))
    for (let i = 0; i < 500; i++) {
      const [before, after] = [some(), some()]
      expect([...spliced(before, spliceBetween(before, after))]).toEqual([...after])
    }
  })

  test('repairs a database that is whole to what it was', async () => {
    for (const name of ['closed', 'crashed', 'smallGraph'] as const) {
      const { image } = await baseOf(name)
      const all = [...image.directories].flatMap(([number, files]) =>
        [...files.keys()].map((file) => `${number}/${file}`),
      )
      for (const repair of ['checksums', 'sizes'] as const) {
        const result = await repaired(image, new Set([...image.root!.keys(), ...all]), repair)
        expect(result).toEqual(image)
      }
    }
  })

  test('makes a finding small, and tells where it was met', async () => {
    // Three choices of the largest of all kinds, somewhere among others.
    const target: Target = {
      name: 'example',
      make: (choose) => ({
        base: null,
        steps: Array.from({ length: 6 }, () => {
          const taken: number[] = []
          const choice = recording(choose, taken)
          for (let i = 0; i < 8; i++) choice(4)
          return taken
        }),
      }),
      shorter: shorterChoices,
      run: async ({ steps }) => {
        const has = steps.some((step) => {
          const choose = replaying(step as number[])
          return Array.from({ length: 8 }, () => choose(4)).filter((choice) => choice === 3).length > 2
        })
        if (has) throw new Finding('three of the largest')
        return { refusals: [] }
      },
    }
    const { findings, counts } = await fuzz(target, { seed, runs: 30 })
    expect(findings).toHaveLength(1)
    expect(findings[0]!.input.steps).toEqual([[3, 3, 3]])
    expect(findings[0]!.problem).toBe('three of the largest')
    expect(counts.get(findings[0]!.signature)).toBeGreaterThan(5)
    expect(inputOf(target, seed, findings[0]!.number).steps).toHaveLength(6)
  })

  test('finds what is never answered, what nobody awaits and what takes too much memory', async () => {
    const of = (run: () => Promise<unknown>): Target => ({
      name: 'example',
      make: () => ({ base: null, steps: [] }),
      run: async () => {
        await run()
        return { refusals: [] }
      },
    })
    const unseen = await fuzz(
      of(async () => {
        void Promise.reject(new Error('nobody looks'))
        await new Promise((resolve) => setTimeout(resolve, 1))
      }),
      { seed, runs: 1 },
    )
    expect(unseen.findings.map(({ problem }) => problem)).toEqual(['rejects unseen with Error: nobody looks'])
    const foreign = await fuzz(
      of(async () => {
        throw new TypeError('not ours')
      }),
      { seed, runs: 1 },
    )
    expect(foreign.findings[0]?.problem).toMatch(/not ours/)
    meter.begin()
    const copy = new Uint8Array(new Float64Array(1000))
    expect(copy.length).toBe(1000)
    expect([meter.total, meter.largest]).toEqual([9000, 8000])
    new WebAssembly.Memory({ initial: 1 }).grow(2)
    expect(meter.largest).toBe(131_072)
  })
})
