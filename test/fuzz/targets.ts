/**
 * All targets by name.
 */
import { loadKernel } from '../../src/kernel/index.ts'
import { ArchiveTarget } from './archive-target.ts'
import { makeBases } from './bases.ts'
import { columnSamples, payloadSamples } from './column-readers.ts'
import { DocumentTarget } from './document-target.ts'
import { graphSamples, logSamples, manifestSamples, patchSamples, tombstoneSamples } from './file-readers.ts'
import { FileTarget } from './file-target.ts'
import { ParsedFilterTarget } from './filter-reader.ts'
import { FilterTarget } from './filter-target.ts'
import type { Target } from './input.ts'
import type { Meter } from './meter.ts'
import { ReaderTarget, type Sample } from './reader-target.ts'
import { segmentSamples } from './segment-readers.ts'

const segmented = ['closed', 'crashed'] as const

/** Damages files of one kind and uses the whole database. */
const ofFiles =
  (
    ...[kind, bases]: readonly [
      ConstructorParameters<typeof FileTarget>[1],
      ConstructorParameters<typeof FileTarget>[2],
    ]
  ) =>
  async (name: string, meter: Meter): Promise<Target> => {
    await makeBases()
    const target = new FileTarget(name, kind, bases, meter)
    await target.prepare()
    return target
  }

/** Damages samples and reads them alone. */
const ofReader =
  (samples: () => Promise<Sample[]>) =>
  async (name: string, meter: Meter): Promise<Target> => {
    await makeBases()
    return ReaderTarget.create(name, await loadKernel(), await samples(), meter)
  }

const makers = {
  wal: ofFiles('wal', [...segmented, 'logClosed', 'logCrashed']),
  manifest: ofFiles('manifest', [...segmented, 'logClosed', 'smallGraph']),
  segment: ofFiles('seg', segmented),
  graph: ofFiles('graph', [...Array.from({ length: 30 }, () => 'smallGraph' as const), 'graph']),
  tombstones: ofFiles('del', segmented),
  patches: ofFiles('patch', segmented),
  filter: () => FilterTarget.create(),
  document: async () => new DocumentTarget(),
  'read-wal': ofReader(logSamples),
  'read-manifest': ofReader(manifestSamples),
  'read-segment': ofReader(segmentSamples),
  'read-columns': ofReader(columnSamples),
  'read-payload': ofReader(payloadSamples),
  'read-graph': ofReader(graphSamples),
  'read-tombstones': ofReader(tombstoneSamples),
  'read-patches': ofReader(patchSamples),
  'parse-filter': async () => new ParsedFilterTarget(),
  archive: (_, meter) => ArchiveTarget.create(meter),
} satisfies { readonly [name: string]: (name: string, meter: Meter) => Promise<Target> }

export type TargetName = keyof typeof makers

export const targetNames = Object.keys(makers) as TargetName[]

/** A target that is ready to run. The meter must be on wherever memory is to be watched. */
export function targetOf(name: TargetName, meter: Meter): Promise<Target> {
  return makers[name](name, meter)
}
