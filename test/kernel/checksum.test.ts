import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { runs } from '../support/property.ts'
import { xxh64 } from './reference.ts'
import { kernelOf } from './support.ts'

const halves = ({ low, high }: { low: number; high: number }): bigint => (BigInt(high) << 32n) | BigInt(low)

/** The sanity buffer of the reference implementation (xxHash, tests/sanity_test.c). */
function sanityBuffer(length: number): Uint8Array {
  const bytes = new Uint8Array(length)
  let generator = 2654435761n
  for (let i = 0; i < length; i++) {
    bytes[i] = Number(generator >> 56n)
    generator = (generator * 11400714785074694797n) & ((1n << 64n) - 1n)
  }
  return bytes
}

/** Published sums: length, seed, xxh64 (xxHash, tests/sanity_test_vectors.h). */
const published: readonly (readonly [length: number, seed: bigint, sum: bigint])[] = [
  [0, 0n, 0xef46db3751d8e999n],
  [0, 2654435761n, 0xac75fda2929b17efn],
  [1, 0n, 0xe934a84adb052768n],
  [1, 2654435761n, 0x5014607643a9b4c3n],
  [4, 0n, 0x9136a0dca57457een],
  [14, 0n, 0x8282dcc4994e35c8n],
  [14, 2654435761n, 0xc3bd6bf63deb6df0n],
  [222, 0n, 0xb641ae8cb691c174n],
  [222, 2654435761n, 0x20cb8ab7ae10c14an],
]

for (const build of ['simd', 'debug'] as const) {
  describe(`checksums of the ${build} build`, async () => {
    const kernel = await kernelOf(build)

    it('equal the published ones', () => {
      for (const [length, seed, sum] of published) {
        const bytes = sanityBuffer(length)
        expect(xxh64(bytes, seed), `reference, ${length} bytes`).toBe(sum)
        expect(halves(kernel.checksum64(bytes, Number(seed), 0)), `${length} bytes`).toBe(sum)
      }
      expect(halves(kernel.checksum64(new TextEncoder().encode('abc')))).toBe(0x44bc2cf5ad770999n)
    })

    it('equal the specification for any bytes and seed, in whatever pieces', () => {
      const uint32 = fc.nat(0xffffffff)
      fc.assert(
        fc.property(
          fc.uint8Array({ maxLength: 300 }),
          fc.array(fc.nat(60)),
          uint32,
          uint32,
          (bytes, cuts, low, high) => {
            const expected = xxh64(bytes, (BigInt(high) << 32n) | BigInt(low))
            expect(halves(kernel.checksum64(bytes, low, high))).toBe(expected)
            const hasher = kernel.hasher(low, high)
            const other = kernel.hasher(high, low)
            let from = 0
            for (const cut of [...cuts, bytes.length]) {
              hasher.update(bytes.subarray(from, from + cut))
              other.update(bytes.subarray(0, cut))
              hasher.digest()
              from = Math.min(bytes.length, from + cut)
            }
            expect(halves(hasher.digest())).toBe(expected)
          },
        ),
        runs(300),
      )
    })

    it('take inputs larger than the transfer area', () => {
      for (const length of [65_407, 65_408, 65_409, 200_001]) {
        const bytes = sanityBuffer(length)
        const expected = xxh64(bytes, 1n)
        expect(halves(kernel.checksum64(bytes, 1))).toBe(expected)
        const hasher = kernel.hasher(1)
        hasher.update(bytes)
        expect(halves(hasher.digest())).toBe(expected)
      }
    })
  })
}
