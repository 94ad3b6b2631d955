/**
 * Work behind the writes: sealed memtables become segments, segments get graphs, small segments become large ones.
 *
 * Flushes run one after the other, and so do builds and compactions; the two kinds run side by side and meet only at commits.
 */
import { IsovecError, throwIfAborted } from './errors.ts'
import { codeStride, vectorStride } from './kernel/index.ts'
import { heldOutRows, measureBeams } from './search/beams.ts'
import { Slice } from './slice.ts'
import type { CollectionState, SealedMemtable } from './state.ts'
import type { CollectionBody, HnswOptions, SegmentState } from './storage/collection-manifest.ts'
import { ChangeTransfer, rowsVisibleAt } from './storage/copied-rows.ts'
import { fileName } from './storage/file-names.ts'
import { type GraphFile, writeGraph } from './storage/graph-file.ts'
import { isFull, lacksRoom } from './storage/reserve.ts'
import type { Segment } from './storage/segment.ts'
import { type RowRun, segmentDataSizeMax, writeSegment } from './storage/segment-writer.ts'
import { memtableRowsFor } from './writer.ts'

/** Rows from which on a segment gets a graph: below, a scan is as quick as a walk. */
export const graphRowsMin = 1024
/** Segments of one size class that are merged into one of the next; classes grow by this factor too. */
const fanIn = 4
/** A segment this many times the size of a memtable gets its graph even while writes go on: it won't be merged again soon. */
const settledFactor = 16
/** Smaller ones get theirs when nothing was flushed for this long. */
const quietMs = 300
/** The seed of every graph's levels: the same rows give the same graph. */
const graphSeed = 0x69736f76
/** Share of dead and patched rows from which on a segment is rewritten by itself. */
const wornRatioMax = 0.5
/** Patched payloads of one segment from which on it is rewritten: they are kept in memory, and written anew with each flush. */
const overlaySizeMax = 32 * 1024 * 1024

/** Progress of long work: `done` of `total` rows in the named part of it. */
export type Progress = { readonly phase: string; readonly done: number; readonly total: number }
/** Options of long work. */
export type WorkOptions = {
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((progress: Progress) => void) | undefined
}

/** What a compaction did. */
export type CompactionResult = {
  readonly docsBefore: number
  readonly docsAfter: number
  readonly segmentsMerged: number
  readonly indexRebuilt: boolean
  readonly bytesBefore: number
  readonly bytesAfter: number
  readonly elapsedMs: number
}

/** How one piece of work runs: for somebody who waits, or in the background. */
type Run = WorkOptions & { readonly background: boolean }

/** Maintenance of one collection. */
export class Maintenance {
  /** Memory that one segment's image may take: an instance holds 4 GiB, and merging needs room beside it. */
  imageBytesMax = 1.5 * 1024 ** 3
  /** The last failure of work that nobody waited for. */
  lastBackgroundError: IsovecError | undefined
  readonly #state: CollectionState
  readonly #report: (error: IsovecError) => void
  readonly #durable: () => number
  #flushing: Promise<void> | undefined
  #flushingOldest: Promise<void> | undefined
  #jobs: Promise<unknown> = Promise.resolve()
  #background: AbortController | undefined
  #timer: unknown
  #lastFlush = Number.NEGATIVE_INFINITY
  #isClosed = false
  /** Compactions that somebody waits for. */
  #compactions = 0

  /**
   * @param report is told failures of background work
   * @param durable the sequence up to which everything survives power loss
   */
  constructor(state: CollectionState, report: (error: IsovecError) => void, durable: () => number) {
    this.#state = state
    this.#report = report
    this.#durable = durable
  }

  /** Flushes every sealed memtable; joins a flush that runs. */
  flush(): Promise<void> {
    return this.#flushAll(false)
  }

  /** @param isNeeded whether the reserve may be given up for new segments: only where that leads to room being given back */
  #flushAll(isNeeded: boolean): Promise<void> {
    if (this.#flushing === undefined && this.#state.sealed.length > 0) this.#flushing = this.#flushSealed(isNeeded)
    return this.#flushing ?? Promise.resolve()
  }

  /** Begins to flush, and resolves when the memtable that has waited longest is a segment. */
  flushOldest(): Promise<void> {
    const all = this.flush()
    // Whoever waits for all of them is told of a failure; here only the first one counts.
    all.catch(() => {})
    return this.#flushingOldest ?? all
  }

  async #flushSealed(isNeeded: boolean): Promise<void> {
    try {
      while (this.#state.sealed.length > 0) {
        this.#flushingOldest = this.#flushOne(this.#state.sealed[0]!, isNeeded)
        await this.#flushingOldest
      }
    } catch (error) {
      this.noteFailure(error)
      throw error
    } finally {
      // In the turn in which none was left: a memtable that is sealed later begins another flush.
      this.#flushing = undefined
      this.#flushingOldest = undefined
      this.#lastFlush = performance.now()
      this.schedule()
    }
  }

  async #flushOne(sealed: SealedMemtable, isNeeded: boolean): Promise<void> {
    const state = this.#state
    state.assertWritable()
    const slice = new Slice()
    const all = await rowsVisibleAt(sealed.memtable, sealed.lastSequence, slice)
    const { memtable } = sealed
    // Where room is short, what was deleted since takes none, if its deletion can't be lost any more. What a patch has moved does, since
    // the log has no more of it than the patch.
    const durable = isNeeded ? this.#durable() : 0
    const isGone = (row: number): boolean => memtable.tombstones.isDead(row, durable) && !memtable.hasMoved(row)
    const rows = isNeeded ? all.filter((row) => !isGone(row)) : all
    const runs: RowRun[] = [{ source: memtable, rows, sequence: sealed.lastSequence }]
    const outputs: Segment[] = []
    try {
      if (rows.length > 0) outputs.push(await this.#write(runs, slice, isNeeded))
      const changes = new ChangeTransfer(runs, outputs)
      await changes.advance(slice)
      await state.commit(
        (body) => {
          changes.finish()
          return {
            ...body,
            lastSequence: sealed.lastSequence,
            firstWal: sealed.nextWal,
            segments: [...body.segments, ...outputs.map(stateOf)],
          }
        },
        () => {
          changes.finish()
          state.segments = [...state.segments, ...outputs]
          state.sealed = state.sealed.filter((other) => other !== sealed)
          memtable.release()
        },
      )
    } catch (error) {
      await this.#discard(outputs)
      throw error
    }
  }

  /**
   * Merges all segments into as few as memory allows, each with its graph, and drops dead rows for good. Searches go on on the old
   * segments; an abort leaves everything as it was.
   */
  async compact(options: WorkOptions): Promise<CompactionResult> {
    const compact = (): Promise<CompactionResult> =>
      this.#job({ ...options, background: false }, (run) => this.#compact(run))
    // Background work would take the room of a reserve that is given up for this.
    this.#compactions++
    try {
      this.#background?.abort()
      await this.#jobs
      return await this.#flushAndCompact(compact)
    } finally {
      this.#compactions--
      this.schedule()
    }
  }

  async #flushAndCompact(compact: () => Promise<CompactionResult>): Promise<CompactionResult> {
    try {
      await this.flush()
    } catch (error) {
      if (!lacksRoom(error)) throw error
      try {
        await this.#flushAll(true)
      } catch (second) {
        if (!lacksRoom(second)) throw second
        // Merging may give what is lacking.
        await compact()
        await this.#flushAll(true)
      }
    }
    return compact()
  }

  async #compact(run: Run): Promise<CompactionResult> {
    const started = performance.now()
    const { reserve } = this.#state.context
    const isShort = reserve.isShort
    if (isShort) await this.#commitAgain()
    const { segments } = this.#state
    const before = { docs: liveRows(segments), bytes: fileBytes(segments) }
    const hasGraphs = this.#state.options.index === 'auto' || segments.some(({ graphFile }) => graphFile !== undefined)
    const isNeeded = segments.length > 1 || segments.some(({ tombstones }) => tombstones.count > 0)
    // Not what was flushed meanwhile: that was not here to be merged.
    const after = isNeeded ? await this.#merge(segments, hasGraphs, run) : segments
    if (isShort || reserve.isShort) await this.#commitAgain()
    reserve.relieve()
    const bare = hasGraphs ? after.filter((segment) => this.#lacksGraph(segment)) : []
    for (const segment of bare) await this.#buildGraph(segment, run)
    return {
      docsBefore: before.docs,
      docsAfter: liveRows(after),
      segmentsMerged: isNeeded ? segments.length : 0,
      indexRebuilt: bare.length > 0 || (isNeeded && after.some(({ graphFile }) => graphFile !== undefined)),
      bytesBefore: before.bytes,
      bytesAfter: fileBytes(after),
      elapsedMs: performance.now() - started,
    }
  }

  /** On a full disk: lets go of the generation before, since what was replaced goes only when no kept one names it. */
  async #commitAgain(): Promise<void> {
    await this.#state.commit(
      (body) => body,
      () => {},
    )
  }

  /** Builds the graphs that are missing or were built with other parameters; the parameters stay, also through compaction. */
  buildIndex(hnsw: HnswOptions, options: WorkOptions): Promise<void> {
    return this.#job({ ...options, background: false }, async (run) => {
      const state = this.#state
      const isSame =
        hnsw.M === state.options.hnsw.M &&
        hnsw.efConstruction === state.options.hnsw.efConstruction &&
        !state.body.isIndexDropped
      if (!isSame) {
        await state.commit(
          (body) => ({ ...body, isIndexDropped: false, options: { ...body.options, hnsw } }),
          () => {},
          { twice: true },
        )
      }
      for (const segment of state.segments) {
        if (this.#lacksGraph(segment)) await this.#buildGraph(segment, run)
      }
    })
  }

  /** Drops all graphs; none is built again until {@link buildIndex}. */
  dropIndex(): Promise<void> {
    return this.#job({ background: false }, async () => {
      const state = this.#state
      await state.commit(
        (body) => ({
          ...body,
          isIndexDropped: true,
          segments: body.segments.map(({ graph: _, ...segment }) => segment),
        }),
        () => {
          for (const segment of state.segments) {
            segment.graphFile = undefined
            if (segment.isImageLoaded) segment.image.dropGraph()
          }
        },
        { twice: true },
      )
    })
  }

  /** Whether every segment that is large enough for a graph has one. */
  get hasIndex(): boolean {
    const { segments, body } = this.#state
    if (body.isIndexDropped) return false
    return segments.every((segment) => segment.rowCount < graphRowsMin || segment.graphFile !== undefined)
  }

  /** Does what is due of automatic work, now or when writes have paused. */
  schedule(): void {
    if (this.#isClosed || this.#background !== undefined || this.#compactions > 0 || !this.#state.isWritable) return
    const step = this.#nextStep()
    if (step === undefined) return
    if (typeof step === 'number') {
      this.#wakeIn(step)
      return
    }
    const controller = new AbortController()
    this.#background = controller
    const work = this.#job({ background: true, signal: controller.signal }, async (run) => {
      // What was due when this was queued may be done by now.
      const due = this.#nextStep()
      if (typeof due === 'function') await due(run)
    })
    work
      .then(
        () => true,
        (error: unknown) => this.noteFailure(error),
      )
      .then((isDone) => {
        if (this.#background === controller) this.#background = undefined
        if (isDone) this.schedule()
      })
  }

  /** Ends background work and waits for what is under way. */
  async close(): Promise<void> {
    this.#isClosed = true
    if (this.#timer !== undefined) clearTimeout(this.#timer as Parameters<typeof clearTimeout>[0])
    this.#background?.abort()
    // Whoever asked for this work is told of its failure.
    await Promise.allSettled([this.#flushing, this.#jobs])
  }

  /**
   * Keeps and reports the failure of something that nobody waits for.
   * @returns whether to go on: work that was aborted makes way, a full disk or damage waits for the next flush
   */
  noteFailure(error: unknown): boolean {
    if (error instanceof IsovecError && error.code === 'ABORTED') return true
    const failure =
      error instanceof IsovecError ? error : new IsovecError('IO', 'background work failed', { cause: error })
    this.lastBackgroundError = failure
    this.#report(failure)
    return false
  }

  /** What automatic work is due: something to do now, a time to wait, or nothing. */
  #nextStep(): ((run: Run) => Promise<unknown>) | number | undefined {
    const { options, body, segments } = this.#state
    if (options.compaction === 'auto') {
      const due = this.#dueForMerge(segments)
      if (due !== undefined) return (run) => this.#merge(due, false, run)
    }
    if (options.index !== 'auto' || body.isIndexDropped) return undefined
    const bare = segments.filter((segment) => this.#wantsGraph(segment.rowCount) && segment.graphFile === undefined)
    if (bare.length === 0) return undefined
    const quietIn = this.#lastFlush + quietMs - performance.now()
    const settledRows = settledFactor * memtableRowsFor(options.dimension)
    const next = quietIn <= 0 ? bare[0] : bare.find((segment) => segment.rowCount >= settledRows)
    if (next === undefined) return quietIn
    return (run) => this.#buildGraph(next, run)
  }

  /** Segments of one size class once there are enough of them, or one that is mostly dead. */
  #dueForMerge(segments: readonly Segment[]): Segment[] | undefined {
    const unit = memtableRowsFor(this.#state.options.dimension)
    const classes = new Map<number, Segment[]>()
    for (const segment of segments) {
      const { tombstones, overlay, rowCount } = segment
      const isWorn = tombstones.count + overlay.count > rowCount * wornRatioMax || overlay.size > overlaySizeMax
      if (isWorn) return [segment]
      // Four of these may not fit into fewer than four: merging them would never end.
      if (segment.liveCount * 2 > this.#rowsMax || segment.file.length * 2 > segmentDataSizeMax) continue
      const size = Math.max(0, Math.floor(Math.log(segment.liveCount / unit) / Math.log(fanIn)))
      const members = classes.get(size) ?? []
      members.push(segment)
      if (members.length === fanIn) return members
      classes.set(size, members)
    }
    return undefined
  }

  #wantsGraph(rowCount: number): boolean {
    return !this.#state.body.isIndexDropped && rowCount >= graphRowsMin
  }

  #isGraphCurrent({ graphFile }: Segment): boolean {
    const { M, efConstruction } = this.#state.options.hnsw
    return graphFile !== undefined && graphFile.M === M && graphFile.efConstruction === efConstruction
  }

  #lacksGraph(segment: Segment): boolean {
    return this.#wantsGraph(segment.rowCount) && !this.#isGraphCurrent(segment)
  }

  /** Runs work after all work before it. What a caller waits for ends background work that is in its way. */
  #job<T>(run: Run, work: (run: Run) => Promise<T>): Promise<T> {
    if (!run.background) this.#background?.abort()
    const job = this.#jobs.then(() => {
      throwIfAborted(run.signal)
      if (this.#isClosed) throw new IsovecError('CLOSED', 'the database is closed')
      this.#state.assertWritable()
      return work(run)
    })
    this.#jobs = job.catch(() => {})
    if (!run.background) this.#jobs = this.#jobs.then(() => this.schedule())
    return job
  }

  #wakeIn(ms: number): void {
    if (this.#timer !== undefined) return
    const timer: unknown = setTimeout(() => {
      this.#timer = undefined
      this.schedule()
    }, ms)
    if (typeof timer === 'object' && timer !== null && 'unref' in timer) (timer as { unref(): void }).unref()
    this.#timer = timer
  }

  async #buildGraph(segment: Segment, run: Run): Promise<void> {
    const state = this.#state
    // What is given up meanwhile for being damaged stays until the work on it has ended.
    segment.retain()
    let written: GraphFile | undefined
    try {
      await segment.loadImage()
      await this.#grow(segment, run)
      throwIfAborted(run.signal)
      const graph = await this.#writeGraph(segment)
      written = graph
      await state.commit(
        (body) => ({
          ...body,
          segments: body.segments.map((other) => (other.file.number === segment.number ? { ...other, graph } : other)),
        }),
        () => {
          segment.graphFile = graph
        },
      )
    } catch (error) {
      if (written !== undefined) await state.discard([fileName(written.number, 'graph')])
      if (segment.isImageLoaded) await segment.reloadGraph()
      throw error
    } finally {
      segment.release()
    }
  }

  /** Builds a segment's graph in memory, a few rows at a time. */
  async #grow(segment: Segment, run: Run): Promise<void> {
    const { image, rowCount } = segment
    const { M, efConstruction } = this.#state.options.hnsw
    const slice = new Slice(run)
    const grow = async (rows: number): Promise<void> => {
      while (image.graphRows < rows) {
        // One row takes some tenths of a millisecond, so that a slice ends soon after it is over.
        image.buildGraph(Math.min(4, rows - image.graphRows))
        if (!slice.isOver) continue
        run.onProgress?.({ phase: 'graph', done: image.graphRows, total: rowCount })
        await slice.next()
      }
    }
    image.beginGraph({ M, efConstruction, seed: graphSeed })
    await grow(Math.max(0, rowCount - heldOutRows))
    segment.beams = await measureBeams(image, slice)
    await grow(rowCount)
    run.onProgress?.({ phase: 'graph', done: rowCount, total: rowCount })
  }

  /** Replaces segments by what is alive of them. */
  async #merge(inputs: readonly Segment[], withGraphs: boolean, run: Run): Promise<Segment[]> {
    const state = this.#state
    const slice = new Slice(run)
    const outputs: Segment[] = []
    const graphNames: string[] = []
    const runs: RowRun[] = []
    // Payloads as of where the merge began are needed to its end, whatever is patched meanwhile.
    for (const input of inputs) input.retain()
    try {
      for (const input of inputs) await input.prepareMerge()
      const { lastSequence } = state.body
      for (const source of inputs) {
        runs.push({ source, rows: await rowsVisibleAt(source, lastSequence, slice), sequence: lastSequence })
      }
      const total = runs.reduce((sum, { rows }) => sum + rows.length, 0)
      let done = 0
      for (const part of await this.#partition(runs, slice)) {
        const rowCount = part.reduce((sum, { rows }) => sum + rows.length, 0)
        const base = done
        outputs.push(
          await this.#write(part, slice, !run.background, (rows) =>
            run.onProgress?.({ phase: 'merge', done: base + rows, total }),
          ),
        )
        done += rowCount
      }
      if (withGraphs) {
        for (const output of outputs) {
          if (!this.#wantsGraph(output.rowCount)) continue
          await this.#grow(output, run)
          output.graphFile = await this.#writeGraphIfFits(output)
          if (output.graphFile !== undefined) graphNames.push(fileName(output.graphFile.number, 'graph'))
        }
      }
      throwIfAborted(run.signal)
      const changes = new ChangeTransfer(runs, outputs)
      await changes.advance(slice)
      await this.#replace(inputs, outputs, changes)
      return outputs
    } catch (error) {
      await this.#discard(outputs)
      await state.discard(graphNames)
      throw error
    } finally {
      for (const input of inputs) {
        input.endMerge()
        input.release()
      }
    }
  }

  async #replace(inputs: readonly Segment[], outputs: readonly Segment[], changes: ChangeTransfer): Promise<void> {
    const state = this.#state
    const numbers = new Set(inputs.map(({ number }) => number))
    await state.commit(
      (body: CollectionBody) => {
        changes.finish()
        const kept = body.segments.filter(({ file }) => !numbers.has(file.number))
        return { ...body, segments: [...outputs.map(stateOf), ...kept] }
      },
      () => {
        changes.finish()
        state.segments = [...outputs, ...state.segments.filter((segment) => !numbers.has(segment.number))]
        for (const input of inputs) input.release()
      },
    )
  }

  /** Rows that one segment may have. */
  get #rowsMax(): number {
    const { dimension, hnsw } = this.#state.options
    const rowBytes = vectorStride(dimension) + codeStride(dimension) + (hnsw.M * 2 + 8) * 4
    return Math.floor(this.imageBytesMax / rowBytes)
  }

  /** Cuts rows into as few segments as the limits of memory and offsets allow. */
  async #partition(runs: readonly RowRun[], slice: Slice): Promise<RowRun[][]> {
    const rowsMax = this.#rowsMax
    const parts: RowRun[][] = []
    let part: RowRun[] = []
    let rowCount = 0
    let dataSize = 0
    for (const { source, rows, sequence } of runs) {
      let start = 0
      for (let i = 0; i < rows.length; i++) {
        const size = source.payloadSizeAt(rows[i]!, sequence)
        if (rowCount === rowsMax || dataSize + size > segmentDataSizeMax) {
          part.push({ source, rows: rows.subarray(start, i), sequence })
          parts.push(part)
          part = []
          start = i
          rowCount = 0
          dataSize = 0
        }
        rowCount++
        dataSize += size
        if (rowCount % 1024 === 0 && slice.isOver) await slice.next()
      }
      if (start < rows.length) part.push({ source, rows: rows.subarray(start), sequence })
    }
    if (part.length > 0) parts.push(part)
    return parts
  }

  /** @param isNeeded whether the reserve may be given up for it where the disk is full */
  async #write(
    runs: readonly RowRun[],
    slice: Slice,
    isNeeded: boolean,
    onProgress?: (rows: number) => void,
  ): Promise<Segment> {
    const state = this.#state
    const write = async (): Promise<Segment> => {
      const number = state.takeFileNumber()
      try {
        return await writeSegment(state.context, number, runs, state.options.quantization, slice, onProgress)
      } catch (error) {
        await this.#giveUp(fileName(number, 'seg'), error)
        throw error
      }
    }
    const segment = isNeeded ? await state.context.reserve.spend(write) : await write()
    state.register(segment)
    return segment
  }

  /** Rows can be merged without their graph, and then give back the room that it lacked. */
  async #writeGraphIfFits(segment: Segment): Promise<GraphFile | undefined> {
    try {
      return await this.#writeGraph(segment)
    } catch (error) {
      if (!isFull(error)) throw error
      this.#state.context.reserve.noteShortage()
      segment.image.dropGraph()
      return undefined
    }
  }

  async #writeGraph(segment: Segment): Promise<GraphFile> {
    const state = this.#state
    const number = state.takeFileNumber()
    try {
      return await writeGraph(state.context, number, segment.file, segment.image, segment.beams)
    } catch (error) {
      await this.#giveUp(fileName(number, 'graph'), error)
      throw error
    }
  }

  /** Gives up a file that could not be written. A failure of I/O stops the writer. */
  async #giveUp(name: string, error: unknown): Promise<void> {
    const isOurs =
      error instanceof IsovecError && ['ABORTED', 'QUOTA_EXCEEDED', 'OUT_OF_MEMORY', 'CORRUPTION'].includes(error.code)
    if (isOurs) await this.#state.discard([name])
    else if (error instanceof IsovecError) this.#state.poisonWith(error)
  }

  /** Gives up segments that never became part of a generation. */
  async #discard(segments: readonly Segment[]): Promise<void> {
    for (const segment of segments) segment.release()
    await this.#state.discard(segments.map(({ name }) => name))
  }
}

function stateOf(segment: Segment): SegmentState {
  return { file: segment.file, ...(segment.graphFile === undefined ? {} : { graph: segment.graphFile }) }
}

function liveRows(segments: readonly Segment[]): number {
  return segments.reduce((sum, { liveCount }) => sum + liveCount, 0)
}

/** Bytes of the files of segments. */
export function fileBytes(segments: readonly Segment[]): number {
  return segments.reduce(
    (sum, { file, graphFile, tombstoneFile, patchFile }) =>
      sum + file.length + (graphFile?.length ?? 0) + (tombstoneFile?.length ?? 0) + (patchFile?.length ?? 0),
    0,
  )
}
