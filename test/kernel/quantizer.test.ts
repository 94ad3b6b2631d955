import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { codeStride, type Metric, type Quantizer } from '../../src/kernel/index.ts'
import { runs } from '../support/property.ts'
import { normalVector, randomNumbers } from '../support/vectors.ts'
import { encoded, leftOut, scannedCodes } from './reference.ts'
import { clusters, imageOf, kernelOf, metrics } from './support.ts'

const dimensions = [...Array.from({ length: 52 }, (_, i) => i + 16), 96, 128, 384, 784]

/** The codes of all rows, padding included, and per row two sums and the bits of an f32 beside them. */
function stored(image: ReturnType<typeof imageOf>): { codes: Uint8Array; terms: Uint32Array<ArrayBuffer> } {
  const codes = new Uint8Array(image.section('codes').byteLength)
  image.readSection('codes', 0, codes)
  const terms = new Uint8Array(image.section('terms').byteLength)
  image.readSection('terms', 0, terms)
  return { codes, terms: new Uint32Array(terms.buffer) }
}

for (const build of ['simd', 'debug'] as const) {
  describe(`codes of the ${build} build`, async () => {
    const kernel = await kernelOf(build)

    it('and distances on them equal plain TypeScript bit for bit', () => {
      const random = randomNumbers(11)
      for (const dimension of dimensions) {
        const rows = clusters(9, dimension, dimension)
        const query = normalVector(dimension, random)
        for (const metric of metrics) {
          const image = imageOf(kernel, metric, rows, { codes: true })
          const quantizer = image.quantizer!
          const { codes, terms } = stored(image)
          const stride = codeStride(dimension)
          const expected = rows.map((row) => encoded(metric, quantizer, row))
          for (const [row, own] of expected.entries()) {
            expect(codes.subarray(row * stride, row * stride + dimension)).toEqual(own)
            expect(codes.subarray(row * stride + dimension, (row + 1) * stride).every((code) => code === 0)).toBe(true)
            expect(terms[row * 3]).toBe(own.reduce((sum, code) => sum + (code - 64) ** 2, 0))
            expect(terms[row * 3 + 1]).toBe(own.reduce((sum, code) => sum + code ** 2, 0))
            const left = leftOut(metric, quantizer, rows[row]!, own)
            const bound = new Float32Array(terms.buffer)[row * 3 + 2]!
            expect(bound).toBeGreaterThanOrEqual(left)
            expect(bound).toBeLessThanOrEqual(left * 1.00001)
          }
          image.prepare(query)
          const distances = new Float32Array(9)
          image.scanCodes(0, 9, distances)
          expect(distances).toEqual(Float32Array.from(expected, (own) => scannedCodes(metric, quantizer, query, own)))
          image.release()
        }
      }
    })

    it('stay exact at the largest dimension with the largest codes and weights', () => {
      const dimension = 65_536
      const rows = [1, -1].map((sign) => new Float32Array(dimension).fill(sign))
      const image = imageOf(kernel, 'euclidean', rows)
      image.setQuantizer({ delta: 1 / 64, origin: new Float32Array(dimension) })
      image.encode(0, 2)
      const sums = stored(image).terms.filter((_, i) => i % 3 !== 2)
      expect(sums).toEqual(Uint32Array.of(dimension * 63 ** 2, dimension * 127 ** 2, dimension * 64 ** 2, 0))
      image.prepare(new Float32Array(dimension).fill(-127))
      const distances = new Float32Array(2)
      image.scanCodes(0, 2, distances)
      expect(distances[0]).toBeCloseTo(dimension * (127 + 63 / 64) ** 2, -5)
      expect(distances[1]).toBeCloseTo(dimension * 126 ** 2, -5)
      image.release()
    })
  })
}

describe('calibration', async () => {
  const kernel = await kernelOf('debug')

  /** Mean squared error of the codes of all rows. */
  function errorOf(metric: Metric, quantizer: Quantizer, rows: readonly Float32Array[]): number {
    let error = 0
    for (const row of rows) {
      for (const [i, code] of encoded(metric, quantizer, row).entries()) {
        error += (row[i]! - quantizer.origin[i]! - quantizer.delta * (code - 64)) ** 2
      }
    }
    return error / (rows.length * rows[0]!.length)
  }

  it('clamps outliers rather than lose precision everywhere', () => {
    const random = randomNumbers(12)
    const rows = Array.from({ length: 2000 }, () => normalVector(64, random))
    rows[100]![3] = 12
    const image = imageOf(kernel, 'euclidean', rows)
    const quantizer = image.calibrate()!
    expect(quantizer.delta * 64).toBeLessThan(7)
    const chosen = errorOf('euclidean', quantizer, rows)
    for (const factor of [0.5, 0.7, 1.4, 2]) {
      expect(chosen).toBeLessThan(errorOf('euclidean', { ...quantizer, delta: quantizer.delta * factor }, rows))
    }
  })

  it('centres each dimension', () => {
    const rows = clusters(300, 32, 13).map((row) => row.map((component, i) => component * 0.01 + i * 100))
    const quantizer = imageOf(kernel, 'euclidean', rows).calibrate()!
    expect(Math.sqrt(errorOf('euclidean', quantizer, rows))).toBeLessThan(0.001)
  })

  it('says none for short rows, no rows and rows without extent', () => {
    expect(imageOf(kernel, 'cosine', clusters(50, 15, 1)).calibrate()).toBeNull()
    expect(kernel.createPool().createImage({ dimension: 32, metric: 'dot', capacity: 0 }).calibrate()).toBeNull()
    expect(imageOf(kernel, 'dot', [new Float32Array(32), new Float32Array(32)]).calibrate()).toBeNull()
  })

  it('gives the same twice and survives a round trip through f32', () => {
    const rows = clusters(3000, 24, 14)
    const first = imageOf(kernel, 'cosine', rows).calibrate()!
    expect(imageOf(kernel, 'cosine', rows).calibrate()).toEqual(first)
    expect(Math.fround(first.delta)).toBe(first.delta)
  })

  it('works at any scale', () => {
    for (const scale of [1e-30, 1e-10, 1e10, 1e30]) {
      const rows = clusters(400, 48, 15).map((row) => row.map((component) => component * scale))
      for (const metric of metrics) {
        const image = imageOf(kernel, metric, rows, { codes: true })
        image.prepare(rows[17]!)
        const distances = new Float32Array(400)
        image.scanCodes(0, 400, distances)
        expect(distances.every(Number.isFinite), `${metric} ${scale}`).toBe(true)
        if (metric !== 'dot') expect(distances.indexOf(Math.min(...distances))).toBe(17)
        image.release()
      }
    }
  })
})

describe('codes that were read', async () => {
  const kernel = await kernelOf('debug')

  it('are refused after any change of a byte in them or their sums, and with an error that is none', () => {
    const image = imageOf(kernel, 'cosine', clusters(20, 37, 16), { codes: true })
    expect(image.validateCodes()).toBe(true)
    fc.assert(
      fc.property(
        fc.constantFrom('codes' as const, 'terms' as const),
        fc.nat(),
        fc.integer({ min: 1, max: 255 }),
        (kind, at, flip) => {
          const place = at % image.section(kind).byteLength
          // The last four bytes of twelve bound the error, and a bound can't be told from another.
          const offset = kind === 'terms' && place % 12 >= 8 ? place - 8 : place
          const byte = new Uint8Array(1)
          image.readSection(kind, offset, byte)
          image.writeSection(kind, offset, Uint8Array.of(byte[0]! ^ flip))
          expect(image.validateCodes()).toBe(false)
          image.writeSection(kind, offset, byte)
          expect(image.validateCodes()).toBe(true)
        },
      ),
      runs(300),
    )
    for (const error of [-1, Number.NaN]) {
      image.writeSection('terms', 8, new Uint8Array(Float32Array.of(error).buffer))
      expect(image.validateCodes()).toBe(false)
    }
    image.encode(0, 1)
    expect(image.validateCodes()).toBe(true)
  })

  it('need a quantiser that makes sense', () => {
    const image = imageOf(kernel, 'cosine', clusters(20, 37, 16))
    const origin = new Float32Array(37)
    for (const quantizer of [
      { delta: 0, origin },
      { delta: -1, origin },
      { delta: Number.NaN, origin },
      { delta: Infinity, origin },
      { delta: 1, origin: new Float32Array(36) },
      { delta: 1, origin: new Float32Array(37).fill(Infinity) },
    ]) {
      expect(() => image.setQuantizer(quantizer)).toThrow('not a quantiser')
    }
    expect(image.hasCodes).toBe(false)
  })
})
