/**
 * Opens and reads databases in a process of its own, so that nothing else takes memory, and tells what it took: one after the other, as
 * their files are named on the standard input.
 */
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import type { StoreImage } from '../../src/directory/memory.ts'
import { Exercise } from './exercise.ts'
import { Meter } from './meter.ts'

/** An image as it is handed over. */
export type ImageText = { readonly root: [string, string][]; readonly directories: [number, [string, string][]][] }

/** What one database led to. */
export type MemoryReport = {
  readonly codes: readonly string[]
  /** Bytes by which the process has grown, or has been larger than ever before. */
  readonly grown: number
  /** Bytes that were asked for in buffers, and the largest piece. */
  readonly total: number
  readonly largest: number
}

function imageOf({ root, directories }: ImageText): StoreImage {
  const files = (named: [string, string][]): Map<string, Uint8Array> =>
    new Map(named.map(([name, text]) => [name, new Uint8Array(Buffer.from(text, 'base64'))]))
  return { root: files(root), directories: new Map(directories.map(([number, named]) => [number, files(named)])) }
}

/** The process now, what it has in use, and the most that it ever was. */
function sizes(): number[] {
  const { rss, heapUsed, external } = process.memoryUsage()
  return [rss, heapUsed + external, process.resourceUsage().maxRSS * 1024]
}

const meter = new Meter()
meter.on()
for await (const path of createInterface(process.stdin)) {
  const image = imageOf(JSON.parse(readFileSync(path, 'utf8')) as ImageText)
  globalThis.gc?.()
  const before = sizes()
  meter.begin()
  const exercise = new Exercise()
  await exercise.run(image, false)
  const after = sizes()
  const grown = Math.max(...after.map((size, i) => size - before[i]!))
  const { total, largest } = meter
  const report: MemoryReport = { codes: [...exercise.codes], grown, total, largest }
  console.log(JSON.stringify(report))
}
