import { existsSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { clusteredDocuments } from './vectors.ts'

const root = resolve(process.env.ISOVEC_DATA ?? '../shared/data')

/** Vectors of an .fbin or .u8bin file: count, dimension, components. */
function readVectors(file: string, countMax: number): Float32Array[] {
  const bytes = readFileSync(file)
  const [count, dimension] = [bytes.readUInt32LE(0), bytes.readUInt32LE(4)]
  const width = file.endsWith('.u8bin') ? 1 : 4
  return Array.from({ length: Math.min(count, countMax) }, (_, row) => {
    const start = 8 + row * dimension * width
    return Float32Array.from({ length: dimension }, (_, i) =>
      width === 1 ? bytes[start + i]! : bytes.readFloatLE(start + i * 4),
    )
  })
}

/** The beginning of a real set, or clusters of the same shape where it's not at hand, which is said. */
export function loadSet(
  name: string,
  dimension: number,
  rowsMax: number,
  questionsMax: number,
): { rows: Float32Array[]; questions: Float32Array[] } {
  const folder = join(root, name)
  if (!existsSync(folder)) {
    console.log(`${folder} is missing: clusters are used in its place`)
    const rowCount = Math.min(rowsMax, 3000)
    const questionCount = Math.min(questionsMax, 100)
    const all = [...clusteredDocuments(rowCount + questionCount, dimension, 51)].map(({ vector }) => vector)
    return { rows: all.slice(0, rowCount), questions: all.slice(rowCount) }
  }
  const base = ['base.fbin', 'base.u8bin'].map((file) => join(folder, file)).find(existsSync)!
  return { rows: readVectors(base, rowsMax), questions: readVectors(join(folder, 'query.fbin'), questionsMax) }
}
