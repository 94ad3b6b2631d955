import { join } from 'node:path'
import { expect, test } from 'vitest'
import { bundleForChild } from '../support/bundle.ts'
import { Child } from '../support/child.ts'
import { temporaryFolder } from '../support/folder.ts'
import { longSeconds, type ReaderReport, type Sample, type WriterReport } from './load.ts'

const seconds = Number(process.env.ISOVEC_LOAD_SECONDS ?? 8)
const isLong = seconds >= longSeconds
const readerCount = 2
const mebibyte = 1024 * 1024

/** What a process may take at any moment, whatever it has done so far. The queue alone may hold 256 MiB, and once more as text. */
const residentMax = { writer: 1024 * mebibyte, reader: 768 * mebibyte }
/** Vectors, codes and graphs of some thousand documents, and of their predecessors that were not merged away yet. */
const linearMax = 64 * mebibyte
/** Two logs that wait for their flush, and the one that is written, each up to a group of writes larger than a log that is full. */
const logSizeMax = 3 * (64 + 8) * mebibyte

function middle(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1]!
}

/** Checks that no sample is above its bound, and that what is taken in the end is not more than what was taken half way. */
function expectBounded(name: string, samples: readonly Sample[], residentLimit: number): void {
  const resident = samples.map((sample) => sample.resident)
  const linear = samples.map((sample) => sample.linear)
  expect(samples.length, `samples of ${name}`).toBeGreaterThan(1)
  expect(Math.max(...resident), `resident bytes of ${name}`).toBeLessThan(residentLimit)
  expect(Math.max(...linear), `linear memory of ${name}`).toBeLessThan(linearMax)
  const third = Math.floor(samples.length / 3)
  const [half, end] = [resident.slice(third, 2 * third), resident.slice(2 * third)].map((part) => middle(part))
  const size = (bytes: number): number => Math.round(bytes / mebibyte)
  console.log(
    `load: ${name} took ${size(middle(resident))} MiB, at most ${size(Math.max(...resident))} MiB, ` +
      `${size(half!)} MiB half way and ${size(end!)} MiB in the end; linear memory at most ${size(Math.max(...linear))} MiB`,
  )
  if (isLong) expect(end, `resident bytes of ${name} in the end`).toBeLessThan(half! * 1.3 + 64 * mebibyte)
}

test(
  'many readers, some of them in other processes, see whole batches only beside writers, and memory stays bounded',
  async () => {
    const path = join(await temporaryFolder(), 'data')
    const writer = new Child<WriterReport>(
      await bundleForChild(new URL('./load-writer.ts', import.meta.url)),
      path,
      `${seconds}`,
    )
    expect(await writer.report()).toEqual({ ready: true })
    const readerScript = await bundleForChild(new URL('./load-reader.ts', import.meta.url))
    const readers = Array.from({ length: readerCount }, () => new Child<ReaderReport>(readerScript, path))

    const heardOf = async (reader: Child<ReaderReport>) => {
      const samples: Sample[] = []
      for (;;) {
        const report = await reader.report()
        if ('over' in report) return { samples, ...report.over }
        samples.push(report.sample)
      }
    }
    const reading = Promise.all(readers.map(heardOf))
    // Whichever fails first ends the test.
    const writing = (async () => {
      const samples: Sample[] = []
      const logSizes: number[] = []
      for (;;) {
        const report = await writer.report()
        if ('sample' in report) {
          samples.push(report.sample)
          for (const reader of readers) reader.tell(JSON.stringify(report.acknowledged))
        } else if ('logSize' in report) logSizes.push(report.logSize)
        else if ('over' in report) return { samples, logSizes, ...report.over }
      }
    })()
    const written = await Promise.race([writing, reading.then(() => expect.unreachable('readers ended by themselves'))])
    for (const reader of readers) reader.tell('end')
    const read = await reading
    for (const child of [writer, ...readers]) expect(await child.ended).toEqual({ code: 0, signal: null })

    const { batches, reads, slowestReadMs, refused, ingested, samples, logSizes } = written
    const sum = (value: (each: (typeof read)[number]) => number): number =>
      read.reduce((all, each) => all + value(each), 0)
    console.log(
      `load: ${seconds} s, ${batches.awaited} batches awaited, ${batches.unawaited} not (${refused} of them refused), ` +
        `${ingested} documents ingested; ${reads} reads beside (slowest ${Math.round(slowestReadMs)} ms), ` +
        `${sum((each) => each.reads)} in ${readerCount} other processes with ${sum((each) => each.refreshes)} refreshes ` +
        `(${sum((each) => each.stale)} times stale); log at most ${Math.round(Math.max(...logSizes) / mebibyte)} MiB; 0 torn`,
    )
    expectBounded('the writer', samples, residentMax.writer)
    for (const [number, each] of read.entries()) {
      expectBounded(`reader ${number + 1}`, each.samples, residentMax.reader)
      expect(each.refreshes).toBeGreaterThan(1)
    }
    expect(Math.max(...logSizes)).toBeLessThan(logSizeMax)
    // What even a machine does that has much else to do.
    expect(batches.awaited).toBeGreaterThan(1)
    expect(batches.unawaited).toBeGreaterThan(10)
    expect(ingested).toBeGreaterThan(500)
    expect(reads).toBeGreaterThan(12)
    if (isLong) expect(refused).toBeGreaterThan(0)
  },
  120_000 + seconds * 2000,
)
