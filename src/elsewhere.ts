/**
 * What a platform does elsewhere than in the calling thread.
 */
import type { Database, MergeReport, RestoreOptions, SalvageReport, SnapshotReport, ToolOptions } from './api.ts'
import type { CheckedOpen } from './open-options.ts'

/** Databases of a name, and tools for them, in a worker. Failures are those of the functions of `index.ts`. */
export type Elsewhere = {
  open(name: string, options: CheckedOpen): Promise<Database>
  restore(
    source: string | ReadableStream<Uint8Array>,
    destination: string,
    options: RestoreOptions | undefined,
  ): Promise<SnapshotReport>
  salvage(source: string, destination: string, options: ToolOptions | undefined): Promise<SalvageReport>
  mergeDatabases(
    base: string,
    other: string,
    destination: string,
    options: ToolOptions | undefined,
  ): Promise<MergeReport>
}
