import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { loadKernel } from '../../src/kernel/index.ts'
import { REGION_UNIT, type Region, RegionAllocator } from '../../src/kernel/region.ts'
import { runs } from '../support/property.ts'
import { buildWhole, bytesOf, clusters, kernelOf } from './support.ts'

describe('regions', () => {
  it('never overlap, and freed ones are used again', () => {
    const step = fc.oneof(fc.record({ allocate: fc.integer({ min: 0, max: 5000 }) }), fc.record({ free: fc.nat() }))
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const memory = new WebAssembly.Memory({ initial: 1, maximum: 20 })
        const regions = new RegionAllocator(memory, 100)
        const live: Region[] = []
        for (const each of steps) {
          if ('allocate' in each) live.push(regions.allocate(each.allocate))
          else if (live.length > 0) regions.free(live.splice(each.free % live.length, 1)[0]!)
          const sorted = [...live].sort((a, b) => a.offset - b.offset)
          let end = 100
          for (const region of sorted) {
            expect(region.offset % REGION_UNIT).toBe(0)
            expect(region.offset).toBeGreaterThanOrEqual(end)
            end = region.offset + region.size
          }
          expect(end).toBeLessThanOrEqual(memory.buffer.byteLength)
          expect(regions.used).toBe(live.reduce((sum, region) => sum + region.size, 0))
        }
        for (const region of live) regions.free(region)
        expect(regions.used).toBe(0)
        expect(regions.allocate(64).offset).toBe(128)
      }),
      runs(200),
    )
  })

  it('say OUT_OF_MEMORY and change nothing when the memory is full', () => {
    const memory = new WebAssembly.Memory({ initial: 1, maximum: 2 })
    const regions = new RegionAllocator(memory, 0)
    const first = regions.allocate(100_000)
    expect(() => regions.allocate(40_000)).toThrow(expect.objectContaining({ code: 'OUT_OF_MEMORY' }))
    expect(regions.used).toBe(first.size)
    expect(regions.allocate(20_000).offset).toBe(first.size)
  })
})

describe('image pool', async () => {
  const kernel = await kernelOf('simd')

  it('lets small images share an instance and gives all of it back', () => {
    const pool = kernel.createPool()
    const images = Array.from({ length: 200 }, () => pool.createImage({ dimension: 8, metric: 'cosine', capacity: 10 }))
    expect(pool.instances).toBe(1)
    for (const [number, image] of images.entries()) {
      for (let row = 0; row < 100; row++) image.append(bytesOf(new Float32Array(8).fill(number * 1000 + row)))
    }
    for (const [number, image] of images.entries()) {
      expect(image.vectorAt(99)[7]).toBe(number * 1000 + 99)
      expect(image.bytes).toBeGreaterThan(100 * 32)
    }
    const size = pool.bytes
    for (const image of images) image.release()
    images[0]!.release()
    expect(pool.instances).toBe(0)
    expect(pool.bytes).toBe(0)
    const again = kernel.createPool()
    again.createImage({ dimension: 8, metric: 'cosine', capacity: 10 })
    expect(again.bytes).toBeLessThanOrEqual(size)
    again.close()
  })

  it('gives a large image an instance of its own', () => {
    const pool = kernel.createPool()
    pool.createImage({ dimension: 16, metric: 'dot', capacity: 100 })
    pool.createImage({ dimension: 1024, metric: 'dot', capacity: 20_000 })
    pool.createImage({ dimension: 16, metric: 'dot', capacity: 100 })
    expect(pool.instances).toBe(2)
    pool.close()
  })

  it('says OUT_OF_MEMORY for what fits in no instance, before anything changes', () => {
    const pool = kernel.createPool()
    const image = pool.createImage({ dimension: 65_536, metric: 'euclidean', capacity: 2 })
    image.append(bytesOf(new Float32Array(65_536).fill(3)))
    const before = [image.bytes, pool.bytes, pool.instances]
    const full = expect.objectContaining({ code: 'OUT_OF_MEMORY' })
    expect(() => image.reserve(20_000)).toThrow(full)
    expect(() => pool.createImage({ dimension: 65_536, metric: 'euclidean', capacity: 20_000 })).toThrow(full)
    expect([image.bytes, pool.bytes, pool.instances]).toEqual(before)
    expect(image.vectorAt(0)[65_535]).toBe(3)
    pool.close()
  })

  it('holds at most 32 instances a realm', () => {
    const pools = Array.from({ length: 34 }, () => kernel.createPool())
    const made = pools.map((pool) => {
      try {
        pool.createImage({ dimension: 4, metric: 'cosine', capacity: 1 })
        return 'made'
      } catch (error) {
        return (error as { code: string }).code
      }
    })
    expect(made).toEqual([...Array(32).fill('made'), 'OUT_OF_MEMORY', 'OUT_OF_MEMORY'])
    for (const pool of pools) pool.close()
    expect(() =>
      kernel.createPool().createImage({ dimension: 4, metric: 'cosine', capacity: 1 }).release(),
    ).not.toThrow()
  })

  it('moves an image that outgrows a shared instance, with codes, graph, dead rows and question', () => {
    const pool = kernel.createPool()
    const neighbour = pool.createImage({ dimension: 16_384, metric: 'dot', capacity: 1 })
    neighbour.append(bytesOf(new Float32Array(16_384).fill(2)))
    const rows = clusters(300, 32, 41)
    const image = pool.createImage({ dimension: 32, metric: 'cosine', capacity: 1 })
    for (const row of rows) image.append(bytesOf(row))
    image.setQuantizer(image.calibrate()!)
    image.encode(0, 300)
    buildWhole(image)
    image.setDead(5)
    image.prepare(rows[7]!)
    const out = { rows: new Uint32Array(30), distances: new Float32Array(30) }
    image.search(30, out)
    const before = [...out.rows]
    expect(pool.instances).toBe(1)
    neighbour.reserve(40_000)
    image.reserve(10_000_000)
    expect(pool.instances).toBe(2)
    image.search(30, out)
    expect([...out.rows]).toEqual(before)
    expect(image.isDead(5)).toBe(true)
    expect(image.vectorAt(299)).toEqual(rows[299])
    expect(neighbour.vectorAt(0)[16_383]).toBe(2)
    pool.close()
  })
})

describe('loading', () => {
  it('compiles once and shares', async () => {
    expect(await loadKernel()).toBe(await loadKernel())
    const { module } = await loadKernel()
    const given = await loadKernel({ wasm: module })
    expect(await loadKernel({ wasm: module })).toBe(given)
  })

  it('reads a URL', async () => {
    const url = new URL('../../build/kernel.simd.wasm', import.meta.url)
    const kernel = await loadKernel({ wasm: url })
    expect(kernel.variant).toBe('simd128')
    expect(await loadKernel({ wasm: new URL(url.href) })).toBe(kernel)
    await expect(loadKernel({ wasm: new URL('./missing.wasm', url) })).rejects.toMatchObject({ code: 'IO' })
  })

  it('refuses what is no kernel', async () => {
    await expect(loadKernel({ wasm: Uint8Array.of(1, 2, 3) })).rejects.toMatchObject({ code: 'UNSUPPORTED' })
    const empty = Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0)
    await expect(loadKernel({ wasm: empty })).rejects.toMatchObject({ code: 'UNSUPPORTED' })
  })
})
