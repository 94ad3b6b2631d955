import { test } from 'vitest'
import {
  patchAgainBeforeDamage,
  patchBeforeFlushOnFullDisk,
  patchTwiceInOneBatch,
  patchWhileFlushing,
  patchWhileMergingAndFlushing,
} from '../support/patch-work.ts'

test('of one batch the last patch of a document counts, also where its segment is damaged then', patchTwiceInOneBatch)

test('patches that come to several segments while these are merged are kept in order', patchWhileMergingAndFlushing)

test('documents that a patch moves while they are flushed outlive damage to where they went', patchWhileFlushing)

test(
  'documents that a patch moves before they are flushed on a full disk outlive the process',
  patchBeforeFlushOnFullDisk,
)

test(
  'documents that were patched before a damaged flush and the one before it outlive commits behind the damage',
  patchAgainBeforeDamage,
)
