import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { bundleForChild } from '../support/bundle.ts'
import { temporaryFolder } from '../support/folder.ts'
import { allRuntimes, fetchingTimeout, type Runtime, type RuntimeName, startIn } from './runtimes.ts'

type State = { ok: boolean; digest: string; answers: string[]; tail: number }
type Report = State | { written: number }

let runtimes: Record<RuntimeName, Runtime>
let script: string

beforeAll(async () => {
  runtimes = await allRuntimes()
  script = await bundleForChild(new URL('./passing-child.ts', import.meta.url), { keep: true })
}, fetchingTimeout)

afterAll(() => rm(join(script, '..'), { recursive: true }))

/** Documents that are acknowledged before a kill. */
const writtenMin = 15

test('one folder goes from runtime to runtime and is the same in each, after clean ends and kills', async () => {
  const path = join(await temporaryFolder(), 'data')
  const steps: [RuntimeName, 'close' | 'kill'][] = [
    ['node', 'close'],
    ['deno', 'close'],
    ['bun', 'close'],
    ['node', 'kill'],
    ['deno', 'kill'],
    ['bun', 'kill'],
    ['node', 'close'],
    ['bun', 'kill'],
    ['deno', 'close'],
  ]
  let last: State | undefined
  let written = 0
  const plans = new Set<string>()
  for (const [step, [name, ending]] of steps.entries()) {
    const child = startIn<Report>(runtimes[name], script, path, `${step}`, ending)
    const found = (await child.report()) as State
    const what = `step ${step}: ${name} after ${steps[step - 1]?.join(' ')}`
    if (last !== undefined) {
      expect(found.answers, what).toEqual(last.answers)
      expect(found.digest, what).toBe(last.digest)
    }
    // What was issued last may be there without having been acknowledged.
    expect([written, written + (steps[step - 1]?.[1] === 'kill' ? 1 : 0)], what).toContain(found.tail)
    expect(found.ok, what).toBe(true)
    last = (await child.report()) as State
    expect(last.ok, what).toBe(true)
    expect(last.digest).not.toBe(found.digest)
    for (const answer of last.answers) plans.add(answer.split(' ', 1)[0]!)
    written = last.tail
    const note = (report: Report): void => {
      written = (report as { written: number }).written
    }
    if (ending === 'kill') {
      for (let i = 0; i < writtenMin; i++) note(await child.report())
      expect(await child.kill()).toMatchObject({ signal: 'SIGKILL' })
      while (child.hasMessage) note((await child.next())!)
    } else expect(await child.ended).toEqual({ code: 0, signal: null })
  }
  // The same bits of walks and of scans, or the walk was never asked.
  expect([...plans]).toEqual(expect.arrayContaining(['scan', 'mixed']))
}, 180_000)
