/**
 * All targets by name.
 */
import { makeBases } from './bases.ts'
import { DocumentTarget } from './document-target.ts'
import { FileTarget } from './file-target.ts'
import { FilterTarget } from './filter-target.ts'
import type { Target } from './input.ts'
import type { Meter } from './meter.ts'

export const targetNames = [
  'wal',
  'manifest',
  'segment',
  'graph',
  'tombstones',
  'patches',
  'filter',
  'document',
] as const
export type TargetName = (typeof targetNames)[number]

const segmented = ['closed', 'crashed'] as const

async function fileTarget(name: TargetName, meter: Meter): Promise<FileTarget> {
  const make = (): FileTarget => {
    switch (name) {
      case 'wal':
        return new FileTarget(name, 'wal', [...segmented, 'logClosed', 'logCrashed'], meter)
      case 'manifest':
        return new FileTarget(name, 'manifest', [...segmented, 'logClosed', 'smallGraph'], meter)
      case 'segment':
        return new FileTarget(name, 'seg', segmented, meter)
      case 'graph':
        return new FileTarget(
          name,
          'graph',
          [...Array.from({ length: 30 }, () => 'smallGraph' as const), 'graph'],
          meter,
        )
      case 'tombstones':
        return new FileTarget(name, 'del', segmented, meter)
      default:
        return new FileTarget(name, 'patch', segmented, meter)
    }
  }
  await makeBases()
  const target = make()
  await target.prepare()
  return target
}

/** A target that is ready to run. The meter must be on wherever memory is to be watched. */
export async function targetOf(name: TargetName, meter: Meter): Promise<Target> {
  if (name === 'filter') return FilterTarget.create()
  if (name === 'document') return new DocumentTarget()
  return fileTarget(name, meter)
}
