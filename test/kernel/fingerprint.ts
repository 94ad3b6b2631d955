/**
 * Everything that a build of the kernel computes, as a text: equal for all builds or something is wrong. Run as a program it
 * prints that of build/kernel.relaxed.wasm.
 */
import { readFileSync } from 'node:fs'
import { type Kernel, loadKernel, type Metric } from '../../src/kernel/index.ts'
import { normalVector, randomNumbers } from '../support/vectors.ts'

const dimensions = [1, 5, 16, 17, 31, 32, 33, 64, 67, 100, 384]

function rowsOf(dimension: number): Float32Array[] {
  const random = randomNumbers(dimension)
  const centres = Array.from({ length: 10 }, () => normalVector(dimension, random))
  return Array.from({ length: 400 }, (_, row) =>
    normalVector(dimension, random).map((component, i) => component + centres[row % 10]![i]!),
  )
}

/** Sums over scans, codes, graphs and searches of generated rows. */
export function fingerprint(kernel: Kernel): string {
  const lines: string[] = []
  const add = (name: string, bytes: ArrayBufferView) => {
    const { low, high } = kernel.checksum64(new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength))
    lines.push(`${name} ${high.toString(16)} ${low.toString(16)}`)
  }
  for (const dimension of dimensions) {
    for (const metric of ['cosine', 'dot', 'euclidean'] satisfies Metric[]) {
      const rows = rowsOf(dimension)
      const image = kernel.createPool().createImage({ dimension, metric, capacity: rows.length })
      for (const row of rows) image.append(new Uint8Array(row.buffer))
      const quantizer = image.calibrate()
      if (quantizer !== null) image.setQuantizer(quantizer)
      if (quantizer !== null) image.encode(0, rows.length)
      image.beginGraph({ M: 8, efConstruction: 40, seed: 5 })
      while (!image.buildGraph(100));
      for (const kind of ['norms', 'codes', 'terms', 'levels', 'links', 'upperIndex', 'upperLinks'] as const) {
        const bytes = new Uint8Array(image.section(kind).byteLength)
        image.readSection(kind, 0, bytes)
        add(`${metric} ${dimension} ${kind}`, bytes)
      }
      const distances = new Float32Array(rows.length)
      const scores = new Float64Array(rows.length)
      const out = { rows: new Uint32Array(50), distances: new Float32Array(50) }
      for (const query of rows.slice(0, 3)) {
        image.prepare(query)
        image.scan(0, rows.length, distances)
        add(`${metric} ${dimension} scan`, distances)
        if (quantizer !== null) image.scanCodes(0, rows.length, distances)
        add(`${metric} ${dimension} codes scan`, distances)
        image.score(Uint32Array.from(rows.keys()), rows.length, scores)
        add(`${metric} ${dimension} score`, scores)
        lines.push(JSON.stringify(image.search(50, out)))
        add(`${metric} ${dimension} rows`, out.rows)
        add(`${metric} ${dimension} distances`, out.distances)
      }
      image.release()
    }
  }
  return lines.join('\n')
}

if (process.argv[2] === 'relaxed') {
  const kernel = await loadKernel({ wasm: readFileSync(new URL('../../build/kernel.relaxed.wasm', import.meta.url)) })
  console.log(`${kernel.variant}\n${fingerprint(kernel)}`)
}
