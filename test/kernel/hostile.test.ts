import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { GraphHeader, VectorImage } from '../../src/kernel/index.ts'
import { runs } from '../support/property.ts'
import { buildWhole, clusters, imageOf, kernelOf } from './support.ts'

const sections = ['levels', 'links', 'upperIndex', 'upperLinks'] as const

/** One damage: bytes of a section overwritten. */
const damage = fc.record({
  kind: fc.constantFrom(...sections),
  at: fc.nat(),
  bytes: fc.oneof(
    fc.uint8Array({ minLength: 1, maxLength: 8 }),
    fc
      .constantFrom(
        [255, 255, 255, 255],
        [255, 255, 255, 127],
        [0, 0, 0, 128],
        [0, 0, 0, 0],
        [15],
        [16],
        [200, 0, 0, 0],
      )
      .map((bytes) => Uint8Array.from(bytes)),
  ),
})

const hugeNumber = fc.oneof(
  fc.nat(20),
  fc.constantFrom(-1, 0.5, Number.NaN, Infinity, 2 ** 31, 2 ** 32 - 1, 2 ** 40, 200),
)

for (const build of ['simd', 'debug'] as const) {
  describe(`a hostile graph, ${build} build`, async () => {
    const kernel = await kernelOf(build)
    const rows = clusters(200, 24, 31)
    const image = imageOf(kernel, 'cosine', rows, { codes: true })
    buildWhole(image, 500, { M: 4, efConstruction: 30, seed: 3 })
    const header = image.graphHeader()
    const sound = sections.map((kind) => {
      const bytes = new Uint8Array(image.section(kind).byteLength)
      image.readSection(kind, 0, bytes)
      return bytes
    })

    function load(target: VectorImage, of: GraphHeader): void {
      target.loadGraph(of)
      for (const [index, kind] of sections.entries()) {
        const size = Math.min(sound[index]!.length, target.section(kind).byteLength)
        target.writeSection(kind, 0, sound[index]!.subarray(0, size))
      }
    }

    function walk(target: VectorImage): void {
      const out = { rows: new Uint32Array(250), distances: new Float32Array(250) }
      for (const question of rows.slice(0, 5)) {
        target.prepare(question)
        const { count, visited } = target.search(250, out)
        expect(count).toBeLessThanOrEqual(200)
        expect(visited).toBeLessThanOrEqual(200)
        for (const row of out.rows.subarray(0, count)) expect(row).toBeLessThan(200)
      }
    }

    it('is refused with a reason, or safe to walk', () => {
      let refused = 0
      fc.assert(
        fc.property(fc.array(damage, { minLength: 1, maxLength: 4 }), (damages) => {
          load(image, header)
          for (const { kind, at, bytes } of damages) {
            const size = image.section(kind).byteLength
            const offset = bytes.length === 4 ? (at % (size >> 2)) * 4 : at % size
            image.writeSection(kind, offset, bytes.subarray(0, size - offset))
          }
          image.prepare(rows[0]!)
          const problem = image.validateGraph()
          expect(image.hasGraph).toBe(problem === null)
          if (problem === null) walk(image)
          else {
            refused++
            expect(problem.length).toBeGreaterThan(5)
            expect(image.search(10, { rows: new Uint32Array(10), distances: new Float32Array(10) }).count).toBe(0)
          }
        }),
        runs(1500),
      )
      expect(refused).toBeGreaterThan(100)
    })

    it('is refused or safe whatever its header says', () => {
      fc.assert(
        fc.property(
          fc.constantFrom<keyof GraphHeader>('M', 'efConstruction', 'seed', 'rows', 'entry', 'maxLevel', 'upperCount'),
          hugeNumber,
          (field, value) => {
            try {
              load(image, { ...header, [field]: value })
            } catch (error) {
              expect(error).toMatchObject({ name: 'IsovecError', code: 'CORRUPTION' })
              return
            }
            if (image.validateGraph() === null) walk(image)
          },
        ),
        runs(300),
      )
      load(image, header)
      expect(image.validateGraph()).toBeNull()
      walk(image)
    })
  })
}
