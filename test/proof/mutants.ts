/** Ways to break the protocol of storage, each by one change of the sources that takes a rule away. */
import type { HarnessName } from './harness.ts'

/** One rule taken away. */
export type Mutant = {
  readonly name: string
  /** The rule that it breaks, as the design of storage words it. */
  readonly rule: string
  /** A source below `src/`. */
  readonly file: string
  /** Occurs exactly once in the file. */
  readonly find: string
  readonly replace: string
  /** What is to catch it. */
  readonly harness: HarnessName
}

const acknowledgement: readonly Mutant[] = [
  {
    name: 'no sync before a strict acknowledgement',
    rule: 'append -> sync if strict -> ... -> acknowledge',
    file: 'writer.ts',
    find: 'if (isStrict || this.#unsyncedSize',
    replace: 'if (this.#unsyncedSize',
    harness: 'crashes',
  },
  {
    name: 'acknowledged before the append',
    rule: 'append -> ... -> acknowledge',
    file: 'writer.ts',
    find: 'const wal = await this.#append(live)',
    replace:
      'for (const item of live) item.resolve({ deleted: 0, patched: 0 })\n      const wal = await this.#append(live)',
    harness: 'crashes',
  },
  {
    name: 'acknowledged between append and sync',
    rule: 'sync if strict -> apply -> publish -> acknowledge',
    file: 'writer.ts',
    find: 'const wal = await this.#append(live)',
    replace:
      'const wal = await this.#append(live)\n    for (const item of live) item.resolve({ deleted: 0, patched: 0 })',
    harness: 'crashes',
  },
  {
    name: 'no mark behind a synced batch',
    rule: 'After a synced batch an un-synced mark follows',
    file: 'writer.ts',
    find: 'await wal.mark()',
    replace: '',
    harness: 'bits',
  },
  {
    name: 'records claim a durability that they have not',
    rule: 'durableSequence: all up to here was synced when I was written',
    file: 'storage/wal.ts',
    find: 'recordBatch, ++sequence, this.#durableSequence, batch)',
    replace: 'recordBatch, ++sequence, this.#lastSequence, batch)',
    harness: 'buffered',
  },
  {
    name: 'closing does not sync',
    rule: 'close: wait for writes, close record, sync',
    file: 'storage/wal.ts',
    find: 'await this.sync()\n    await this.#control(recordClose)\n    await syncFile(this.#file)',
    replace: 'await this.#control(recordClose)',
    harness: 'buffered',
  },
]

const commits: readonly Mutant[] = [
  {
    name: 'no sync of the old log before the new one',
    rule: 'flush: sync the old WAL -> create the new WAL with the seal',
    file: 'writer.ts',
    find: 'await old.sync()',
    replace: '',
    harness: 'crashes',
  },
  {
    name: 'no sync of a new log',
    rule: 'create the new WAL with the seal, sync, then its first record',
    file: 'storage/wal.ts',
    find: 'baseSequence, predecessor))\n      await syncFile(file)',
    replace: 'baseSequence, predecessor))',
    harness: 'crashes',
  },
  {
    name: 'no sync of a segment',
    rule: 'write the segment, sync -> write manifest',
    file: 'storage/segment-writer.ts',
    find: 'await syncFile(file)',
    replace: '',
    harness: 'buffered',
  },
  {
    name: 'no sync of tombstones and patches',
    rule: 'graph build, compaction: the same last three steps; every file is synced before a manifest names it',
    file: 'storage/companion-file.ts',
    find: 'await syncFile(file)',
    replace: '',
    harness: 'buffered',
  },
  {
    name: 'no sync of a graph',
    rule: 'graph build: the same last three steps',
    file: 'storage/graph-file.ts',
    find: 'await syncFile(file)',
    replace: '',
    harness: 'graphs',
  },
  {
    name: 'no sync of a manifest',
    rule: 'write manifest g+1, sync = the commit point',
    file: 'storage/manifest.ts',
    find: 'await syncFile(file)',
    replace: '',
    harness: 'crashes',
  },
  {
    name: 'tombstones of later writes kept with a manifest',
    rule: "N.del: only those up to the manifest's last sequence",
    file: 'storage/tombstones.ts',
    find: 'tombstones.encode(sequence, new Slice())',
    replace: 'tombstones.encode(Number.MAX_SAFE_INTEGER, new Slice())',
    harness: 'buffered',
  },
  {
    name: 'patches of later writes kept with a manifest',
    rule: "what a manifest names holds writes up to the manifest's last sequence",
    file: 'state.ts',
    find: 'overlay.versionsAt(lastSequence, new Slice())',
    replace: 'overlay.versionsAt(Number.MAX_SAFE_INTEGER, new Slice())',
    harness: 'buffered',
  },
  {
    name: 'deaths during a compaction not mapped',
    rule: 'Tombstones that arrive on an input meanwhile are mapped to the output rows before the commit',
    file: 'storage/copied-rows.ts',
    find: 'if (index >= 0) piece.output.kill(piece.base + index, sequence)',
    replace: '',
    harness: 'merge',
  },
  {
    name: 'patches during a compaction not mapped',
    rule: 'Patches that arrive on an input meanwhile are mapped to the output rows before the commit',
    file: 'storage/copied-rows.ts',
    find: 'if (index >= 0) taken.push({ output, row: base + index, sequence, payload })',
    replace: '',
    harness: 'merge',
  },
  {
    name: 'changes after the last look of a compaction not mapped',
    rule: 'mapped to the output rows before the commit',
    file: 'storage/copied-rows.ts',
    find: '    this.#transfer(Number.POSITIVE_INFINITY)\n    for (const patch of this.#takePatches()) lay(patch)',
    replace: '',
    harness: 'merge',
  },
  {
    name: 'patches during a compaction mapped in another order',
    rule: 'Patches that arrive on an input meanwhile are mapped in the order of their sequences, whichever input they came to',
    file: 'storage/copied-rows.ts',
    find: 'return taken.sort((a, b) => a.sequence - b.sequence)',
    replace: 'return taken',
    harness: 'patches',
  },
  {
    name: 'a root manifest names a collection that is not there',
    rule: 'Creating a collection: directory and its first two manifests, then the root manifest',
    file: 'local-database.ts',
    find: `      const recovered = await createCollectionFiles(this.#shared, directory, options)
      core = new CollectionCore(name, recovered, this.#report)
      await this.#commit({
        nextDirectory: number + 1,
        collections: [...body.collections, { name, directory: number }],
      })`,
    replace: `      await this.#commit({
        nextDirectory: number + 1,
        collections: [...body.collections, { name, directory: number }],
      })
      const recovered = await createCollectionFiles(this.#shared, directory, options)
      core = new CollectionCore(name, recovered, this.#report)`,
    harness: 'names',
  },
  {
    name: 'files go before the root manifest lets go of them',
    rule: 'Dropping: root manifest first, then the files',
    file: 'local-database.ts',
    find: `      await this.#commit({ ...body, collections: body.collections.filter((other) => other !== place) })
      await this.#discard(place.directory)`,
    replace: `      await this.#discard(place.directory)
      await this.#commit({ ...body, collections: body.collections.filter((other) => other !== place) })`,
    harness: 'names',
  },
]

const generations: readonly Mutant[] = [
  {
    name: 'one generation kept',
    rule: 'The two newest valid generations are kept, with everything they name',
    file: 'storage/generations.ts',
    find: 'const dropped = this.#kept[1]\n    this.#kept = [manifest, ...this.#kept.slice(0, 1)]',
    replace: 'const dropped = this.#kept[0]\n    this.#kept = [manifest]',
    harness: 'spares',
  },
  {
    name: 'the generation before goes ahead of a commit',
    rule: 'the commit point -> publish -> remove what neither kept generation names',
    file: 'state.ts',
    find: 'const { body, dropped } = await this.context.reserve.spend(() => this.#write(wanted))',
    replace: `this.#retire(this.generations.kept[1])
      await this.removeObsolete()
      const { body, dropped } = await this.context.reserve.spend(() => this.#write(wanted))`,
    harness: 'spares',
  },
  {
    name: 'files of the generation before are not kept',
    rule: 'The two newest valid generations are kept, with everything they name, WAL included',
    file: 'state.ts',
    find: 'const needed = new Set(kept.flatMap(({ body }) => filesOf(body)))\n    for (const name of filesOf(dropped.body))',
    replace:
      'const needed = new Set(filesOf(this.body))\n    for (const name of kept.flatMap(({ body }) => filesOf(body)))',
    harness: 'late spares',
  },
  {
    name: 'logs of the generation before are not kept',
    rule: 'The two newest valid generations are kept, with everything they name, WAL included',
    file: 'state.ts',
    find: 'const firstWal = Math.min(...kept.map(({ body }) => body.firstWal))',
    replace: 'const { firstWal } = this.body',
    harness: 'spares',
  },
  {
    name: 'a creation writes one generation',
    rule: 'A creation writes two, so that this holds from the start',
    file: 'storage/generations.ts',
    find: 'await generations.commit(body)\n    await generations.commit(body)',
    replace: 'await generations.commit(body)',
    harness: 'spares',
  },
  {
    name: 'a change of the root is committed once',
    rule: 'The two newest valid generations are kept: damage to what the newest one introduced costs nothing',
    file: 'local-database.ts',
    find: 'time < 2',
    replace: 'time < 1',
    harness: 'spares',
  },
  {
    name: 'a damaged manifest ends the opening',
    rule: 'The newest manifest whose checksum holds wins',
    file: 'storage/manifest.ts',
    find: 'damaged.push(error)',
    replace: 'throw error',
    harness: 'bits',
  },
  {
    name: 'no fall-back at the opening',
    rule: 'damage to what the newest one introduced falls back to the one before',
    file: 'recovery.ts',
    find: 'if (previous === undefined) throw asCorruption(error)',
    replace: 'throw asCorruption(error)',
    harness: 'spares',
  },
  {
    name: 'no fall-back after the opening',
    rule: 'damage to what the newest one introduced falls back to the one before and its WAL',
    file: 'state.ts',
    find: 'if (!isDamage || !isSpared || openSpare === undefined) throw error',
    replace: 'throw error',
    harness: 'proving',
  },
  {
    name: 'a fall-back forgets which generation it came from',
    rule: 'After a fall-back, the two valid ones are those to keep',
    file: 'storage/generations.ts',
    find: '...(this.#hasFallenBack ? { spare: this.current.generation } : {}),',
    replace: '',
    harness: 'proving',
  },
  {
    name: 'a fall-back takes the patches of a batch backwards',
    rule: 'what came since the newest generation is brought over to the one before, in order',
    file: 'state.ts',
    find: 'segment.overlay.since(lastSequence).map(',
    replace: 'segment.overlay.since(lastSequence).reverse().map(',
    harness: 'patches',
  },
  {
    name: 'a fall-back finds no document that a patch has moved',
    rule: 'damage to what the newest one introduced costs nothing: nor what a patch had moved there while it was flushed',
    file: 'storage/apply.ts',
    find: 'if (moved !== undefined) {',
    replace: 'if (moved === null) {',
    harness: 'patches',
  },
  {
    name: 'no proof before a commit',
    rule: 'damage to what the newest one introduced costs nothing: it is found while there is one to fall back to',
    file: 'state.ts',
    find: 'await this.prove()\n    const wanted = change(this.body)',
    replace: 'const wanted = change(this.body)',
    harness: 'proving',
  },
  {
    name: 'the sweep spares one generation',
    rule: 'Sweep stray files last: what no kept generation names',
    file: 'recovery.ts',
    find: 'const { kept } = state.generations',
    replace: 'const kept = state.generations.kept.slice(0, 1)',
    harness: 'late spares',
  },
  {
    name: 'a root that cannot be read is begun anew',
    rule: 'never re-initialise over something unreadable',
    file: 'storage/generations.ts',
    find: 'if (highest <= 1) return undefined\n      throw damaged[0]',
    replace: 'return undefined',
    harness: 'lost roots',
  },
  {
    name: 'collections without a root are begun anew',
    rule: 'none valid: CORRUPTION, unless nothing was ever created',
    file: 'root.ts',
    find: 'if (found === undefined && (await backend.directories()).length > 0) {',
    replace: 'if (found === undefined && (await backend.directories()).length < 0) {',
    harness: 'lost roots',
  },
  {
    name: 'no fence before a manifest',
    rule: 'Fence anyway: the generation is checked again before each manifest',
    file: 'storage/generations.ts',
    find: 'await this.#fence()\n',
    replace: '\n',
    harness: 'two writers',
  },
]

const replays: readonly Mutant[] = [
  {
    name: 'no restating',
    rule: 'After an unclean end: what was replayed is written to a fresh WAL and synced before the first new write',
    file: 'recovery.ts',
    find: 'isClean ? undefined : await takeUpLog(state, replayed)',
    replace: 'undefined',
    harness: 'buffered',
  },
  {
    name: 'a restated log is not synced',
    rule: 'written to a fresh WAL and synced before the first new write is acknowledged',
    file: 'recovery.ts',
    find: 'await wal.sync()\n  if (records.length > 0)',
    replace: 'if (records.length > 0)',
    harness: 'buffered',
  },
  {
    name: 'every end is taken for a clean one',
    rule: 'After a clean close: a new WAL seals the old one. After an unclean end: restated',
    file: 'recovery.ts',
    find: 'givenUp === undefined && last.closed &&',
    replace: 'givenUp === undefined &&',
    harness: 'buffered',
  },
  {
    name: 'replay does not skip what is applied',
    rule: 'replay WALs, skipping applied sequences',
    file: 'recovery.ts',
    find: 'if (record.sequence <= lastSequence) continue',
    replace: '',
    harness: 'late spares',
  },
  {
    name: 'replay takes gaps between logs',
    rule: 'replay WALs, no gaps',
    file: 'recovery.ts',
    find: 'if (record.sequence !== lastSequence + 1) {',
    replace: 'if (record.sequence < 0) {',
    harness: 'forgeries',
  },
  {
    name: 'a batch is applied half',
    rule: 'Types: batch (atomic)',
    file: 'storage/batch.ts',
    find: 'for (let i = 0; i < count; i++) operations.push(decodeOperation(reader, dimension))\n  if',
    replace: `for (let i = 0; i < count; i++) {
    try {
      operations.push(decodeOperation(reader, dimension))
    } catch {
      return operations
    }
  }
  if`,
    harness: 'forgeries',
  },
  {
    name: 'damage in the middle of a log is taken for a torn tail',
    rule: 'a torn tail only if no later valid record proves durableSequence >= x',
    file: 'storage/wal.ts',
    find: 'if (record !== undefined && record.durableSequence >= sequence) {',
    replace: 'if (record !== undefined && record.durableSequence < 0) {',
    harness: 'bits',
  },
  {
    name: 'a sealed log may end early',
    rule: 'A sealed WAL must be valid to its sealed end',
    file: 'storage/wal.ts',
    find: "if (!holds) throw this.#corrupt(seal.validEnd, 'a record of a sealed log is damaged')",
    replace: '',
    harness: 'spares',
  },
  {
    name: 'a fall-back does without a log that is missing',
    rule: 'falls back to the one before and its WAL, and costs nothing',
    file: 'recovery.ts',
    find: 'if (givenUp !== undefined && !logs.some(',
    replace: 'if (givenUp === generations.current.body && !logs.some(',
    harness: 'late spares',
  },
]

const checksums: readonly Mutant[] = [
  {
    name: 'checksums of records not compared',
    rule: 'payload, 64-bit checksum over both',
    file: 'storage/wal.ts',
    find: 'if (!sameChecksum(trailer, recordChecksum(this.#kernel, salt, header, payload))) return undefined',
    replace: '',
    harness: 'bits',
  },
  {
    name: 'checksums of headers of logs not compared',
    rule: 'every structure has a checksum',
    file: 'storage/wal.ts',
    find: 'if (!sameChecksum(checksum, readChecksum(view, headerChecksumOffset))) return undefined',
    replace: '',
    harness: 'bits',
  },
  {
    name: 'checksums of manifests not compared',
    rule: 'The newest manifest whose checksum holds wins',
    file: 'storage/manifest.ts',
    find: 'if (view.getUint32(checksumOffset, true) !== low || view.getUint32(checksumOffset + 4, true) !== high) {',
    replace: 'if (low < 0 || high < 0) {',
    harness: 'bits',
  },
  {
    name: 'checksums of sections not compared',
    rule: 'a table {id, offset, length, checksum}',
    file: 'storage/section-file.ts',
    find: 'if (low !== section.checksum.low || high !== section.checksum.high) {',
    replace: 'if (low < 0 || high < 0) {',
    harness: 'segment bits',
  },
  {
    name: 'checksums of headers of segments and graphs not compared',
    rule: 'every structure has a checksum',
    file: 'storage/section-file.ts',
    find: 'if (stored.low !== checksum.low || stored.high !== checksum.high) {',
    replace: 'if (stored.low < 0) {',
    harness: 'segment bits',
  },
  {
    name: 'checksums of payload blocks not compared',
    rule: 'Sections that are read by row carry a checksum per 4-64 KiB block',
    file: 'storage/payload-blocks.ts',
    find: 'if (view.getUint32(dataSize, true) !== low || view.getUint32(dataSize + 4, true) !== high) {',
    replace: 'if (low < 0 || high < 0) {',
    harness: 'segment bits',
  },
  {
    name: 'checksums of tombstones and patches not compared',
    rule: 'every structure has a checksum',
    file: 'storage/companion-file.ts',
    find: 'view.getUint32(checksumOffset, true) === low &&\n    view.getUint32(checksumOffset + 4, true) === high',
    replace: 'low >= 0 && high >= 0',
    harness: 'segment bits',
  },
]

const failures: readonly Mutant[] = [
  {
    name: 'a failed sync of the log is forgotten',
    rule: 'Any failed sync poisons: read-only until reopened; a failed fsync must never be retried as if nothing happened',
    file: 'writer.ts',
    find: 'const failure = asIsovecError(error)\n      this.#state.poisonWith(failure)\n      throw withOutcome(failure',
    replace: 'const failure = asIsovecError(error)\n      throw withOutcome(failure',
    harness: 'faults',
  },
  {
    name: 'a failed commit is forgotten',
    rule: 'Any failed sync, or other I/O failure of the writer, poisons it',
    file: 'state.ts',
    find: 'if (error instanceof IsovecError && !lacksRoom(error)) this.poisonWith(error)',
    replace: '',
    harness: 'faults',
  },
  {
    name: 'a failed append is forgotten',
    rule: 'other I/O failure of the writer poisons it',
    file: 'writer.ts',
    find: "if (failure.code !== 'QUOTA_EXCEEDED') {\n      this.#state.poisonWith(failure)\n",
    replace: "if (failure.code !== 'QUOTA_EXCEEDED') {\n",
    harness: 'faults',
  },
  {
    name: 'a failed sync is said to have left nothing behind',
    rule: 'Any failed sync poisons; what became of the write is unknown',
    file: 'writer.ts',
    find: "they may come back when it's read again.\n      throw withOutcome(error, 'unknown')",
    replace: "they may come back when it's read again.\n      throw withOutcome(error, 'none')",
    harness: 'faults',
  },
  {
    name: 'a sync that finds the disk full is taken for a full disk',
    rule: 'Any failed sync poisons',
    file: 'storage/sync-file.ts',
    find: "if (!(error instanceof IsovecError) || error.code !== 'QUOTA_EXCEEDED') throw error",
    replace: 'throw error',
    harness: 'faults',
  },
  {
    name: 'a full disk does not seal the log',
    rule: 'a full disk on append fails that call, seals the log before the bad record and goes on in a new one',
    file: 'writer.ts',
    find: "return withOutcome(failure, 'unknown')\n    }\n    this.#isWalBroken = true\n",
    replace: "return withOutcome(failure, 'unknown')\n    }\n",
    harness: 'faults',
  },
  {
    name: 'a full disk leaves out what a patch has moved',
    rule: 'what the log needs of a document, its vector, is in a segment before that log goes',
    file: 'maintenance.ts',
    find: ' && !memtable.hasMoved(row)',
    replace: '',
    harness: 'patches',
  },
  {
    name: 'the reserve is not used',
    rule: 'a reserve file kept for that (deletes, drops, compaction and the manifest must still fit)',
    file: 'storage/reserve.ts',
    find: 'if (!isFull(error)) throw error\n      this.#isShort = true\n      this.#spenderCount++',
    replace: 'throw error\n      this.#spenderCount++',
    harness: 'full disk',
  },
  {
    name: 'no reserve is kept',
    rule: 'a reserve file kept for that',
    file: 'storage/reserve.ts',
    find: 'if (this.#size >= wanted) return undefined\n    return this.#inTurn',
    replace: 'if (this.#size >= 0) return undefined\n    return this.#inTurn',
    harness: 'full disk',
  },
]

/** Every mutant. */
export const mutants: readonly Mutant[] = [
  ...acknowledgement,
  ...commits,
  ...generations,
  ...replays,
  ...checksums,
  ...failures,
]
