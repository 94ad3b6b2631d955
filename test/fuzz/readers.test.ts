import { describe } from 'vitest'
import { campaign, prepare } from './campaign.ts'

prepare()

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
  )
})
