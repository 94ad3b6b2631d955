/**
 * Samples of segments, through everything that is read of one.
 */

import type { Bitmap } from '../../src/codec/bitmap.ts'
import { Slice } from '../../src/slice.ts'
import { idKey } from '../../src/storage/id-table.ts'
import { Segment, type SegmentFile } from '../../src/storage/segment.ts'
import { Tombstones } from '../../src/storage/tombstones.ts'
import { demand } from './input.ts'
import { view } from './layout.ts'
import { contextWith, directoryWith, type Place, placesOf, questions, textOfBytes } from './places.ts'
import type { Reading, Sample } from './reader-target.ts'

const rowsIn = (rows: Bitmap): string => rows.rows().join()

/** The segments of some bases. */
export async function segmentSamples(): Promise<Sample[]> {
  const samples: Sample[] = []
  for (const place of await placesOf(['closed', 'smallGraph'])) {
    for (const { file } of place.body.segments) {
      const name = `${file.number}.seg`
      samples.push({
        name: `${place.name}/${name}`,
        kind: 'seg',
        bytes: place.files.get(name)!,
        isGuarded: true,
        read: (bytes, reading) => readSegment(place, file, bytes, reading),
      })
    }
  }
  return samples
}

/** What a manifest that was repaired as well says of a segment. */
function entryFor(file: SegmentFile, bytes: Uint8Array, { repair }: Reading): SegmentFile {
  if (repair === 'none' || bytes.length < 4096) return file
  const numbers = view(bytes)
  const checksum = { low: numbers.getUint32(4088, true), high: numbers.getUint32(4092, true) }
  if (repair === 'checksums') return { ...file, checksum }
  return { ...file, checksum, length: bytes.length, rowCount: Math.max(1, numbers.getUint32(40, true)) }
}

async function readSegment(place: Place, file: SegmentFile, bytes: Uint8Array, reading: Reading): Promise<void> {
  const context = contextWith(place.context, await directoryWith(`${file.number}.seg`, bytes))
  const entry = entryFor(file, bytes, reading)
  const segment = await reading.attempt('open', () => Segment.open(context, entry, new Tombstones()))
  if (segment === undefined) return
  try {
    demand(segment.rowCount === entry.rowCount, 'a segment has other rows than its manifest says')
    await readRows(segment, context.hashSeed, reading)
    await readImage(segment, reading)
    await readColumns(segment, reading)
    const isWhole = await reading.attempt('verify', async () => {
      await segment.verify()
      return true
    })
    demand(isWhole === true || reading.codes.size > 0, 'a segment is verified and is not')
  } finally {
    segment.release()
    await segment.closeFile()
  }
}

async function readRows(segment: Segment, hashSeed: number, reading: Reading): Promise<void> {
  const { rowCount } = segment
  const all = Array.from({ length: rowCount }, (_, row) => row)
  const areLoaded = await reading.attempt('loadIds', async () => {
    await segment.loadIds()
    return true
  })
  if (areLoaded === undefined) return
  const ids: string[] = []
  for (const row of all) {
    const id = await reading.attempt('idAt', () => segment.idAt(row))
    // What is no text can only come of a repaired file, and is refused where it is read.
    if (id === undefined) break
    ids.push(id)
    const found = segment.find(idKey(id, hashSeed))
    demand(found < rowCount && (found < 0 || segment.idAt(found) === id), 'an id is found in the row of another')
  }
  reading.answer('ids', `${ids.join('\n')} ${ids.map((id) => segment.find(idKey(id, hashSeed))).join()}`)
  const payloads: string[] = []
  for (const row of all) {
    const payload = await reading.attempt('payloadAt', async () => textOfBytes(await segment.payloadAt(row, 1e9)))
    if (payload === undefined) break
    payloads.push(payload)
  }
  if (payloads.length === rowCount) reading.answer('payloads', payloads.join('\n'))
  const sequences = await reading.attempt('loadRows', async () => {
    await segment.loadRows()
    return all.map((row) => segment.sequenceAt(row))
  })
  if (sequences === undefined) return
  demand(sequences.every(Number.isSafeInteger), 'a sequence is impossible')
  reading.answer('sequences', sequences.join())
}

async function readImage(segment: Segment, reading: Reading): Promise<void> {
  const isLoaded = await reading.attempt('loadImage', async () => {
    await segment.loadImage()
    return true
  })
  if (isLoaded === undefined) return
  const { image, rowCount } = segment
  demand(image.rows === rowCount, 'an image has other rows than its segment')
  const query = Float32Array.from({ length: image.dimension }, (_, i) => i - 0.5)
  const distances = new Float32Array(rowCount)
  const scores = new Float64Array(rowCount)
  image.prepare(query)
  image.scan(0, rowCount, distances)
  image.score(
    Uint32Array.from({ length: rowCount }, (_, row) => row),
    rowCount,
    scores,
  )
  const vectors = Array.from({ length: rowCount }, (_, row) => image.vectorAt(row).join())
  reading.answer('image', `${vectors.join('\n')} ${distances.join()} ${scores.join()}`)
  if (!image.hasCodes) return
  const lower = new Float32Array(rowCount)
  const upper = new Float32Array(rowCount)
  image.scanBounds(undefined, 0, rowCount, lower, upper)
  reading.answer('bounds', `${lower.join()} ${upper.join()}`)
}

async function readColumns(segment: Segment, reading: Reading): Promise<void> {
  const areLoaded = await reading.attempt('loadColumns', async () => {
    await segment.loadColumns()
    return true
  })
  if (areLoaded === undefined) return
  const answers: string[] = []
  for (const [path, condition] of questions) {
    const rows = await reading.attempt('matchPayloads', () =>
      segment.matchPayloads(path, condition, 1e9, segment.rowCount, new Slice()),
    )
    if (rows === undefined) return
    answers.push(rowsIn(rows))
  }
  reading.answer('columns', answers.join('\n'))
}
