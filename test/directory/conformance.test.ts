import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createFsFromVolume, Volume } from 'memfs'
import { describe, test } from 'vitest'
import { type ConformanceFactory, conformanceCases } from '../../src/directory/conformance.ts'
import { faultyBackend } from '../../src/directory/faulty.ts'
import { memoryBackend } from '../../src/directory/memory.ts'
import { nodeBackend } from '../../src/directory/node.ts'

const factories: Record<string, ConformanceFactory> = {
  'faulty without faults': async () => ({ backend: faultyBackend() }),
  memory: async () => ({ backend: memoryBackend() }),
  'node on disk': async () => {
    const folder = await mkdtemp(join(tmpdir(), 'isovec-'))
    const path = join(folder, 'deep', 'database')
    return {
      backend: nodeBackend(path),
      again: () => nodeBackend(new URL(`file://${path}`)),
      dispose: () => rm(folder, { recursive: true }),
    }
  },
  'node on memfs': async () => {
    const fs = createFsFromVolume(Volume.fromJSON({ '/tmp/x': '' }))
    return { backend: nodeBackend('/tmp/db', { fs }), again: () => nodeBackend('/tmp/../tmp/db', { fs }) }
  },
}

describe.each(Object.entries(factories))('%s', (_kind, factory) => {
  test.each(conformanceCases.map(({ name, run }) => [name, run] as const))('%s', (_name, run) => run(factory))
})
