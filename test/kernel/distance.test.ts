import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type Metric, vectorStride } from '../../src/kernel/index.ts'
import { runs } from '../support/property.ts'
import { normalVector, randomNumbers } from '../support/vectors.ts'
import { exactScore, scanned, storedNorm } from './reference.ts'
import { bytesOf, imageOf, kernelOf, metrics } from './support.ts'

const dimensions = [...Array.from({ length: 67 }, (_, i) => i + 1), 96, 100, 127, 128, 255, 384, 784, 1536]

/** Components of all sizes that f32 knows, and the plain ones. */
const component = fc.oneof(
  fc.double({ min: -2, max: 2, noNaN: true }).map(Math.fround),
  fc.constantFrom(0, -0, 1e30, -1e30, 1e-30, -1e-30, 1e-42, -1.4e-45, 3.4e38, 1.2e-38).map(Math.fround),
)

const question = fc
  .integer({ min: 1, max: 40 })
  .chain((dimension) =>
    fc.tuple(
      fc.constantFrom<Metric>(...metrics),
      fc.array(component, { minLength: dimension, maxLength: dimension }),
      fc.array(fc.array(component, { minLength: dimension, maxLength: dimension }), { minLength: 1, maxLength: 9 }),
    ),
  )

for (const build of ['simd', 'debug'] as const) {
  describe(`distances of the ${build} build`, async () => {
    const kernel = await kernelOf(build)

    it('equal plain TypeScript bit for bit in every dimension', () => {
      const random = randomNumbers(5)
      for (const dimension of dimensions) {
        const rows = Array.from({ length: 7 }, () => normalVector(dimension, random))
        const query = normalVector(dimension, random)
        for (const metric of metrics) {
          const image = imageOf(kernel, metric, rows)
          image.prepare(query)
          const distances = new Float32Array(7)
          image.scan(0, 7, distances)
          expect(distances, `${metric} ${dimension}`).toEqual(
            Float32Array.from(rows, (row) => scanned(metric, query, row)),
          )
          const scores = new Float64Array(7)
          image.score(Uint32Array.of(0, 1, 2, 3, 4, 5, 6), 7, scores)
          expect(scores, `${metric} ${dimension}`).toEqual(
            Float64Array.from(rows, (row) => exactScore(metric, query, row)),
          )
          image.release()
        }
      }
    })

    it('score zero vectors as 0 under cosine', () => {
      const [zero, other] = [new Float32Array(9), new Float32Array(9).fill(2)]
      const image = imageOf(kernel, 'cosine', [zero, other])
      for (const query of [zero, other]) {
        const scores = new Float64Array(2)
        image.prepare(query)
        image.score(Uint32Array.of(0, 1), 2, scores)
        expect(scores).toEqual(Float64Array.of(0, query === other ? 1 : 0))
      }
      image.release()
    })

    it('score no vector above 1 against itself', () => {
      const random = randomNumbers(7)
      const rows = Array.from({ length: 300 }, () => normalVector(7, random))
      const image = imageOf(kernel, 'cosine', rows)
      const score = new Float64Array(1)
      for (const [row, vector] of rows.entries()) {
        image.prepare(vector)
        image.score(Uint32Array.of(row), 1, score)
        expect(score[0]).toBeLessThanOrEqual(1)
        expect(score[0]).toBeCloseTo(1, 12)
      }
      image.release()
    })

    it('equal plain TypeScript for components of any size', () => {
      fc.assert(
        fc.property(question, ([metric, query, rows]) => {
          const vectors = rows.map((row) => Float32Array.from(row))
          const asked = Float32Array.from(query)
          const image = imageOf(kernel, metric, vectors)
          image.prepare(asked)
          const distances = new Float32Array(rows.length)
          image.scan(0, rows.length, distances)
          expect(distances).toEqual(Float32Array.from(vectors, (row) => scanned(metric, asked, row)))
          const scores = new Float64Array(rows.length)
          image.score(Uint32Array.from(rows.keys()), rows.length, scores)
          expect(scores).toEqual(Float64Array.from(vectors, (row) => exactScore(metric, asked, row)))
          const norms = new Float32Array(rows.length)
          image.norms(0, rows.length, norms)
          expect(norms).toEqual(Float32Array.from(vectors, storedNorm))
          image.release()
        }),
        runs(200),
      )
    })
  })
}

describe('the bound of a scan', async () => {
  const kernel = await kernelOf('simd')

  it('holds the true distance, or says that it knows nothing', () => {
    fc.assert(
      fc.property(question, ([metric, query, rows]) => {
        const vectors = rows.map((row) => Float32Array.from(row))
        const image = imageOf(kernel, metric, vectors)
        image.prepare(Float32Array.from(query))
        const count = rows.length
        const [distances, norms, scores] = [new Float32Array(count), new Float32Array(count), new Float64Array(count)]
        image.scan(0, count, distances)
        image.norms(0, count, norms)
        image.score(Uint32Array.from(rows.keys()), count, scores)
        const bound = image.bound()
        for (let row = 0; row < count; row++) {
          const truth = metric === 'euclidean' ? scores[row]! ** 2 : -scores[row]!
          const distance = distances[row]!
          const error = bound.relative * (bound.scaledByNorm ? norms[row]! : Math.abs(distance)) + bound.absolute
          expect(distance - error > truth).toBe(false)
          expect(distance + error < truth).toBe(false)
        }
        image.release()
      }),
      runs(500),
    )
  })

  it('holds the true distance on codes as well, of ranges and of named rows', () => {
    let told = 0
    fc.assert(
      fc.property(question, ([metric, query, rows]) => {
        const vectors = rows.map((row) => Float32Array.from(row))
        const image = imageOf(kernel, metric, vectors)
        const quantizer = image.calibrate(true)
        if (quantizer === null) {
          image.release()
          return
        }
        image.setQuantizer(quantizer)
        const count = rows.length
        image.encode(0, count)
        image.prepare(Float32Array.from(query))
        const scores = new Float64Array(count)
        const named = Uint32Array.from(rows.keys()).reverse()
        image.score(named, count, scores)
        for (const list of [undefined, named]) {
          const [lower, upper] = [new Float32Array(count), new Float32Array(count)]
          image.scanBounds(list, 0, count, lower, upper)
          for (let i = 0; i < count; i++) {
            const score = scores[list === undefined ? count - 1 - i : i]!
            const truth = metric === 'euclidean' ? score ** 2 : -score
            if (Number.isFinite(lower[i])) told++
            expect(lower[i]! > truth).toBe(false)
            expect(upper[i]! < truth).toBe(false)
          }
        }
        image.release()
      }),
      runs(500),
    )
    expect(told).toBeGreaterThan(1000)
  })

  it('holds the true distance on codes for questions so small that factors lose bits in f32', () => {
    const random = randomNumbers(9)
    let known = 0
    for (const dimension of [16, 64]) {
      for (const delta of [2 ** -30, 2 ** -10, 1, 2 ** 20]) {
        for (const shift of [0, 0.49]) {
          const vectors = Array.from({ length: 100 }, () =>
            Float32Array.from({ length: dimension }, () => (Math.round(random() * 120 - 60) + shift) * delta),
          )
          const image = imageOf(kernel, 'dot', vectors)
          image.setQuantizer({ delta, origin: new Float32Array(dimension) })
          image.encode(0, 100)
          const [lower, upper, scores] = [new Float32Array(100), new Float32Array(100), new Float64Array(100)]
          for (const size of [1e-20, 1e-26, 1e-30, 1e-32, 1e-36, 1e-38, 1e-40, 1e-44]) {
            for (const isEven of [true, false]) {
              image.prepare(Float32Array.from({ length: dimension }, () => (isEven ? size : size * random())))
              image.scanBounds(undefined, 0, 100, lower, upper)
              image.score(Uint32Array.from(vectors.keys()), 100, scores)
              for (let row = 0; row < 100; row++) {
                if (Number.isFinite(lower[row])) known++
                expect(lower[row]! > -scores[row]!).toBe(false)
                expect(upper[row]! < -scores[row]!).toBe(false)
              }
            }
          }
          image.release()
        }
      }
    }
    expect(known).toBeGreaterThan(1000)
  })

  it('on codes leaves few rows in doubt', () => {
    const random = randomNumbers(6)
    const rows = Array.from({ length: 2000 }, () => normalVector(384, random))
    for (const metric of metrics) {
      const image = imageOf(kernel, metric, rows, { codes: true })
      image.prepare(normalVector(384, random))
      const [lower, upper] = [new Float32Array(2000), new Float32Array(2000)]
      image.scanBounds(undefined, 0, 2000, lower, upper)
      const limit = upper.slice().sort()[9]!
      expect(lower.filter((bound) => bound <= limit).length, metric).toBeLessThan(300)
      image.release()
    }
  })

  it('is narrow for ordinary vectors', () => {
    const random = randomNumbers(6)
    const rows = Array.from({ length: 50 }, () => normalVector(384, random))
    for (const metric of metrics) {
      const image = imageOf(kernel, metric, rows)
      image.prepare(normalVector(384, random))
      const bound = image.bound()
      const size = metric === 'dot' ? 20 : metric === 'euclidean' ? 768 : 1
      expect(bound.relative * size + bound.absolute).toBeLessThan(1e-4 * size * 20)
    }
  })
})

describe('rows', async () => {
  const kernel = await kernelOf('debug')

  it('come back bit for bit, from any alignment and through growth', () => {
    const random = randomNumbers(8)
    for (const dimension of [1, 3, 4, 33, 70]) {
      const image = kernel.createPool().createImage({ dimension, metric: 'cosine', capacity: 1 })
      const rows = Array.from({ length: 300 }, () => normalVector(dimension, random))
      for (const [row, vector] of rows.entries()) {
        const shifted = new Uint8Array(dimension * 4 + 3)
        shifted.set(bytesOf(vector), row % 4)
        expect(image.append(shifted.subarray(row % 4, (row % 4) + dimension * 4))).toBe(row)
        if (row % 3 === 0) image.setDead(row)
      }
      for (const [row, vector] of rows.entries()) {
        expect(image.vectorAt(row)).toEqual(vector)
        expect(image.isDead(row)).toBe(row % 3 === 0)
      }
      expect(image.deadCount).toBe(100)
      expect(image.section('vectors').byteLength).toBe(300 * vectorStride(dimension))
      image.release()
    }
  })

  it('are the same when a section is copied as when they are appended', () => {
    const random = randomNumbers(9)
    const rows = Array.from({ length: 90 }, () => normalVector(37, random))
    const first = imageOf(kernel, 'dot', rows)
    const second = kernel.createPool().createImage({ dimension: 37, metric: 'dot', capacity: 0 })
    second.setRows(90)
    const piece = new Uint8Array(1000)
    const size = first.section('vectors').byteLength
    for (let offset = 0; offset < size; offset += 1000) {
      const part = piece.subarray(0, Math.min(1000, size - offset))
      first.readSection('vectors', offset, part)
      second.writeSection('vectors', offset, part)
    }
    second.computeNorms(0, 90)
    expect(second.checksumSection('vectors')).toEqual(first.checksumSection('vectors'))
    expect(second.checksumSection('norms')).toEqual(first.checksumSection('norms'))
    expect(() => second.writeSection('vectors', size - 10, new Uint8Array(11))).toThrow('within the section')
  })
})
