import { execFile } from 'node:child_process'
import { rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe } from 'vitest'
import { bundleForChild } from '../support/bundle.ts'
import { seed } from '../support/seed.ts'
import { campaign, type Outcome } from './campaign.ts'
import type { TargetName } from './targets.ts'

let bundle: string

beforeAll(async () => {
  bundle = await bundleForChild(new URL('./child.ts', import.meta.url), { keep: true })
})

afterAll(() => rm(dirname(bundle), { recursive: true }))

/** In a process of its own: measured coverage makes loops like these many times slower, and says nothing that the others don't. */
async function runInChild(name: TargetName, runs: number): Promise<Outcome> {
  const args = [bundle, name, String(seed), String(runs)]
  const { stdout } = await promisify(execFile)(process.execPath, args, { maxBuffer: 2 ** 26 })
  return JSON.parse(stdout) as Outcome
}

describe('no reader is led to anything but an answer or a refusal', () => {
  campaign(
    {
      'read-wal': 40_000,
      'read-manifest': 34_000,
      'read-segment': 16_000,
      'read-columns': 40_000,
      'read-payload': 5_000,
      'read-graph': 12_000,
      'read-tombstones': 24_000,
      'read-patches': 24_000,
      'parse-filter': 10_000,
    },
    200_000,
    runInChild,
  )
})
