/**
 * How long does opening large collections with graphs take, and how much memory?
 *
 * Every opening is a process of its own, so that nothing is compiled or in its memory yet; the files are in the page cache.
 */
import { mkdtemp, readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { readArguments } from './support/arguments.js'
import { inTemporaryFolder } from './support/database.js'
import { measureOpening, middle, run } from './support/opening.js'
import { fixed, Report, whole } from './support/report.js'
import { median } from './support/statistics.js'

const given = readArguments({ rounds: 5, quickRounds: 1, base: 100_000, quickBase: 5000 })
const collectionRows = given.base ?? 100_000

/** @param {string} folder */
async function measureCollections(folder) {
  const path = await mkdtemp(join(folder, 'collections-'))
  const collectionCount = 2
  console.error(`${collectionCount} collections of ${collectionRows} documents …`)
  const filled = await run({ kind: 'build', path, collectionCount, rowCount: collectionRows })
  await filled.close()
  let diskSize = 0
  for (const entry of await readdir(path, { recursive: true, withFileTypes: true })) {
    if (entry.isFile()) diskSize += (await stat(join(entry.parentPath, entry.name))).size
  }
  const rounds = []
  for (let round = 0; round < given.rounds; round++) {
    rounds.push(await measureOpening(path, collectionCount * collectionRows, false))
  }
  return [
    [
      `${collectionCount} x ${whole(collectionRows)} x 384`,
      `${fixed(diskSize / 2 ** 20, 0)} MiB`,
      middle(rounds, ({ openMs }) => openMs),
      middle(rounds, ({ collectionsMs }) => collectionsMs),
      middle(rounds, ({ firstMs }) => firstMs),
      middle(rounds, ({ laterMs }) => laterMs, 2),
      whole(median(rounds.map(({ bytesPerDoc }) => bytesPerDoc))),
      whole(median(rounds.map(({ residentBytesPerDoc }) => residentBytesPerDoc))),
    ],
  ]
}

const report = new Report('open', given.write)
await report.begin()
await inTemporaryFolder(given.folder, async (folder) => {
  report.table(
    'Milliseconds to open large collections with graphs; bytes of memory for each document after a search in each',
    [
      'collections',
      'on disk',
      'database',
      'collections',
      'first searches',
      'later search',
      'bytes/doc',
      'resident bytes/doc',
    ],
    await measureCollections(folder),
  )
})
report.end()
