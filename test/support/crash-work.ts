import type { Scenario } from './scenario.ts'

/** Writes, flushes, merges, renames, drops, closes and crashes in an order that the seed decides. */
export async function mixedWork(scenario: Scenario, steps: number): Promise<void> {
  const { choose } = scenario
  await scenario.open()
  await scenario.create('alpha', { dimension: 3, metric: 'euclidean' })
  await scenario.create('beta', { dimension: 2, durability: 'buffered', compaction: 'manual' })
  for (let step = 0; step < steps; step++) {
    const name = choose(2) === 0 ? 'alpha' : 'beta'
    const action = choose(21)
    if (action < 5) await scenario.write(name, 1 + choose(4))
    else if (action < 7) await scenario.write(name, 1 + choose(4), choose(2) === 0 ? 'strict' : 'buffered')
    else if (action < 9)
      for (let i = 0; i < 4; i++) void scenario.write(choose(2) === 0 ? 'alpha' : 'beta', 1 + choose(3))
    else if (action < 12) await scenario.barrier(name, (collection) => collection.flush())
    else if (action === 12) void scenario.barrier(name, (collection) => collection.flush())
    else if (action === 13) await scenario.barrier(name, (collection) => collection.compact())
    else if (action === 14) await scenario.barrier(name, (collection) => collection.sync())
    else if (action === 15) await changeCollections(scenario)
    else if (action < 18) await scenario.reopen()
    else if (action === 18) void scenario.deleteWhere(name)
    else {
      for (let i = 0; i < 3; i++) void scenario.write(choose(2) === 0 ? 'alpha' : 'beta', 1 + choose(3))
      if (choose(2) === 0) void scenario.barrier(name, (collection) => collection.compact())
      await scenario.crash(choose(16))
    }
  }
  await scenario.settle()
  await scenario.close()
}

/** Few documents that are patched over and over, while they are flushed and merged. */
export async function patchedWork(scenario: Scenario, steps: number): Promise<void> {
  const { choose } = scenario
  await scenario.open()
  await scenario.create('alpha', { dimension: 2, metric: 'euclidean', compaction: 'manual', index: 'manual' })
  await scenario.write('alpha', 6)
  for (let step = 0; step < steps; step++) {
    const action = choose(16)
    const ids = scenario.idsOf('alpha').slice(0, 6)
    let done: Promise<void> | undefined
    if (action < 7 && ids.length > 0) {
      const patches = Array.from({ length: 1 + choose(3) }, () => ({ patch: scenario.patch(ids[choose(ids.length)]!) }))
      const deletes = choose(4) === 0 ? [{ delete: ids[choose(ids.length)]! }] : []
      done = scenario.writeOperations('alpha', [...patches, ...deletes])
    } else if (action < 9) done = scenario.write('alpha', 1 + choose(3))
    else if (action < 12) done = scenario.barrier('alpha', (collection) => collection.flush())
    else if (action < 14) done = scenario.barrier('alpha', (collection) => collection.compact())
    else if (action === 14) await scenario.reopen()
    else await scenario.crash(choose(20))
    if (choose(3) === 0) await done
  }
  await scenario.settle()
  await scenario.close()
}

async function changeCollections(scenario: Scenario): Promise<void> {
  await scenario.settle()
  if (!scenario.names.has('gamma')) {
    await scenario.create('gamma', { dimension: 1, metric: 'dot' })
    await scenario.write('gamma', 2)
  } else if (scenario.choose(2) === 0) {
    await scenario.rename('gamma', 'delta')
  } else {
    await scenario.drop('gamma')
  }
}

/** A collection with graphs: built, outdated by writes and deletes, merged. */
export async function indexedWork(scenario: Scenario): Promise<void> {
  const { choose } = scenario
  await scenario.open()
  await scenario.create('big', {
    dimension: 4,
    metric: 'euclidean',
    index: 'manual',
    compaction: 'manual',
    hnsw: { M: 4, efConstruction: 16 },
  })
  const documents = (count: number) =>
    Array.from({ length: count }, () => ({ upsert: scenario.document(undefined, 4) }))
  const half = documents(600)
  await scenario.writeOperations('big', half, 'buffered')
  await scenario.writeOperations('big', documents(500))
  await scenario.barrier('big', (collection) => collection.buildIndex())
  await scenario.writeOperations(
    'big',
    half.slice(0, 30).map(({ upsert }) => ({ delete: upsert.id })),
  )
  await scenario.write('big', 20)
  await scenario.barrier('big', (collection) => collection.flush())
  await scenario.write('big', 8)
  const compacting = scenario.barrier('big', (collection) => collection.compact())
  await scenario.write('big', 12)
  await compacting
  await scenario.write('big', 5)
  await scenario.reopen()
  await scenario.write('big', 5)
  await scenario.barrier('big', (collection) => collection.dropIndex())
  void scenario.barrier('big', (collection) => collection.buildIndex({ M: 5, efConstruction: 12 }))
  await scenario.write('big', 3)
  await scenario.crash(10 + choose(10))
  await scenario.write('big', 3)
  await scenario.barrier('big', (collection) => collection.flush())
  await scenario.close()
}

/** A dozen changes of one small collection, few enough for every image of every crash to be tried: two flushes, one of them of a delete. */
export async function shortWork(scenario: Scenario): Promise<void> {
  await scenario.open()
  await scenario.create('alpha', { dimension: 1, metric: 'dot', compaction: 'manual', index: 'manual' })
  await scenario.writeOperations('alpha', [{ upsert: { id: 'a', vector: [1], payload: { n: 1 } } }])
  await scenario.writeOperations(
    'alpha',
    [{ upsert: { id: 'b', vector: [2] } }, { patch: { id: 'a', payload: { m: 2 } } }],
    'buffered',
  )
  await scenario.barrier('alpha', (collection) => collection.flush())
  await scenario.writeOperations('alpha', [{ delete: 'a' }, { upsert: { id: 'c', vector: [3] } }], 'buffered')
  await scenario.barrier('alpha', (collection) => collection.flush())
  await scenario.close()
}

/** Writes that are acknowledged before they are synced, up to a close, the end of the process and flushes. */
export async function bufferedWork(scenario: Scenario): Promise<void> {
  const documents = (...ids: string[]) => ids.map((id) => ({ upsert: { id, vector: [1], payload: { n: 1 } } }))
  await scenario.open()
  await scenario.create('alpha', { dimension: 1, metric: 'dot', durability: 'buffered', compaction: 'manual' })
  for (const id of ['a', 'b', 'c']) await scenario.writeOperations('alpha', documents(id))
  await scenario.reopen()
  for (const id of ['d', 'e', 'f']) await scenario.writeOperations('alpha', documents(id))
  await scenario.crash(0)
  await scenario.writeOperations('alpha', documents('g'), 'strict')
  await scenario.barrier('alpha', (collection) => collection.flush())
  await scenario.writeOperations('alpha', [{ patch: { id: 'a', payload: { n: 2 } } }, { delete: 'b' }])
  await scenario.barrier('alpha', (collection) => collection.flush())
  await scenario.writeOperations('alpha', [
    { patch: { id: 'c', payload: { n: 3 } } },
    { delete: 'f' },
    ...documents('h'),
  ])
  const flushed = scenario.barrier('alpha', (collection) => collection.flush())
  // What comes while a segment is written belongs to the next generation, also where it concerns rows that are in segments.
  await scenario.writeOperations('alpha', [
    { delete: 'd' },
    { patch: { id: 'e', payload: { n: 4 } } },
    ...documents('i'),
  ])
  await flushed
  await scenario.writeOperations('alpha', documents('j'), 'strict')
  await scenario.close()
}

/** Collections that come, change names and go. */
export async function namedWork(scenario: Scenario): Promise<void> {
  const options = { dimension: 1, metric: 'dot' } as const
  await scenario.open()
  await scenario.create('alpha', options)
  await scenario.writeOperations('alpha', [{ upsert: { id: 'a', vector: [1] } }])
  await scenario.create('beta', options)
  await scenario.writeOperations('beta', [{ upsert: { id: 'b', vector: [2] } }])
  await scenario.rename('alpha', 'beta')
  await scenario.writeOperations('beta', [{ upsert: { id: 'c', vector: [3] } }])
  await scenario.drop('beta')
  await scenario.close()
}
