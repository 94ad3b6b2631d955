import { execFileSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

// As its users have it: the built package under its own name, in plain Node.
const script = `
import { openDatabase } from 'isovec'
import { conformanceCases, faultyBackend, imageKey, memoryBackend, seededChoice } from 'isovec/testing'

for (const { run } of conformanceCases) await run(async () => ({ backend: memoryBackend() }))

const backend = faultyBackend()
const db = await openDatabase(backend)
const docs = await db.createCollection('docs', { dimension: 1, metric: 'dot' })
const acknowledgedAt = []
for (let n = 0; n < 5; n++) {
  await docs.upsert({ id: String(n), vector: [n] })
  acknowledgedAt.push(backend.changes.length)
}
await db.close()
const seen = new Set()
for (let at = acknowledgedAt[0]; at <= backend.changes.length; at++) {
  const image = backend.crashImage({ kind: 'power', at, choose: seededChoice(at) })
  seen.add(imageKey(image))
  const recovered = await openDatabase(memoryBackend(image))
  const count = await (await recovered.openCollection('docs')).count()
  const acknowledged = acknowledgedAt.filter((change) => change <= at).length
  if (count < acknowledged) throw new Error(count + ' documents of ' + acknowledged)
  await recovered.close()
}

// A backend that forgets what it was given does not pass.
const forgetful = (inner) => ({
  kind: 'forgetful',
  location: 'nowhere',
  exists: () => inner.exists(),
  directories: () => inner.directories(),
  directory: (number, options) => inner.directory(number, options),
  removeDirectory: (number) => inner.removeDirectory(number),
  lock: (options) => inner.lock(options),
  async open(options) {
    const directory = await inner.open(options)
    return {
      list: async () => [],
      create: (name) => directory.create(name),
      open: (name) => directory.open(name),
      sync: (name) => directory.sync(name),
      remove: (name) => directory.remove(name),
    }
  },
})
let failed = 0
for (const { run } of conformanceCases) {
  await run(async () => ({ backend: forgetful(memoryBackend()) })).catch(() => failed++)
}
console.log(JSON.stringify({ cases: conformanceCases.length, images: seen.size, failed }))
`

test('isovec/testing tries backends and shows what crashes leave', () => {
  const root = fileURLToPath(new URL('../..', import.meta.url))
  const out = execFileSync(process.execPath, ['--input-type=module', '-e', script], { cwd: root, encoding: 'utf8' })
  const { cases, images, failed } = JSON.parse(out) as { cases: number; images: number; failed: number }
  expect(cases).toBeGreaterThan(20)
  expect(images).toBeGreaterThan(8)
  expect(failed).toBeGreaterThan(3)
  expect(failed).toBeLessThan(cases)
})
