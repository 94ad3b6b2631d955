import { readFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { nodeBackend } from '../../src/directory/node.ts'
import { openDatabase } from '../../src/index.ts'
import { bundleForChild } from '../support/bundle.ts'
import { Child } from '../support/child.ts'
import { expectFailure } from '../support/failure.ts'
import { temporaryFolder } from '../support/folder.ts'

type Report = {
  ready?: true
  open?: true
  code?: string
  pid?: number
  closed?: true
  turns?: number
  met?: number
  written?: number
}

const racerCount = 8
/** Each is one opening of every racer. */
const roundCount = Number(process.env.ISOVEC_RACE_ROUNDS ?? 25)
const turnCount = 5

let script: string

beforeAll(async () => {
  script = await bundleForChild(new URL('./lock-child.ts', import.meta.url), { keep: true })
})

afterAll(() => rm(join(script, '..'), { recursive: true }))

async function newPath(): Promise<string> {
  return join(await temporaryFolder(), 'data')
}

/** Processes that have started and wait to be told what to do. */
async function startRacers(path: string, count = racerCount): Promise<Child<Report>[]> {
  const racers = Array.from({ length: count }, () => new Child<Report>(script, path))
  for (const racer of racers) expect(await racer.report()).toEqual({ ready: true })
  return racers
}

function tellAll(racers: readonly Child<Report>[], command: string, rest = ''): void {
  const time = Date.now() + 25
  for (const racer of racers) racer.tell(`${command} ${time} ${rest}`)
}

async function countOf(path: string): Promise<number> {
  const database = await openDatabase(nodeBackend(path))
  try {
    return await (await database.openCollection('c')).count()
  } finally {
    await database.close()
  }
}

describe('processes that ask for one database at the same moment', () => {
  test(
    'have one winner, and all others are refused',
    async () => {
      const path = await newPath()
      const racers = await startRacers(path)
      const winners = new Set<Child<Report>>()
      for (let round = 0; round < roundCount; round++) {
        tellAll(racers, 'open')
        const reports = await Promise.all(racers.map((racer) => racer.report()))
        const winner = racers[reports.findIndex(({ open }) => open)]
        expect(winner, JSON.stringify(reports)).toBeDefined()
        const others = reports.filter(({ open }) => !open)
        expect(others).toHaveLength(racerCount - 1)
        for (const { code, pid } of others) {
          expect(code).toBe('LOCKED')
          // Whoever was refused before the winner had put its number there is told of none, or of the holder before.
          if (pid !== undefined) expect(racers.map((racer) => racer.pid)).toContain(pid)
        }
        winners.add(winner!)
        // Nor is it to be had later, by whoever asks while it is held.
        await expectFailure(openDatabase(nodeBackend(path)), 'LOCKED', { pid: winner!.pid })
        winner!.tell('close')
        expect(await winner!.report()).toEqual({ closed: true })
      }
      console.log(
        `lock: ${roundCount * racerCount} racing openings, ${roundCount} winners (${winners.size} processes), never two`,
      )
    },
    60_000 + roundCount * 5_000,
  )

  test('have it one after the other, never two at once, where they wait for it', async () => {
    const path = await newPath()
    const racers = await startRacers(path)
    tellAll(racers, 'turns', `${turnCount}`)
    for (const racer of racers) expect(await racer.report()).toEqual({ turns: turnCount, met: 0 })
    expect(await countOf(path)).toBe(racerCount * turnCount)
  }, 180_000)

  test('have one winner right after the holder was killed', async () => {
    const path = await newPath()
    for (let round = 0; round < 3; round++) {
      const [holder, ...racers] = await startRacers(path, 5)
      holder!.tell('write')
      await holder!.report()
      await holder!.kill()
      tellAll(racers, 'open')
      const reports = await Promise.all(racers.map((racer) => racer.report()))
      expect(reports.filter(({ open }) => open)).toHaveLength(1)
      expect(reports.filter(({ code }) => code === 'LOCKED')).toHaveLength(racers.length - 1)
      await Promise.all(racers.map((racer) => racer.kill()))
    }
  }, 180_000)
})

/** Waits until the system says that a process is stopped, where it says such things. */
async function expectStopped(pid: number): Promise<void> {
  if (process.platform !== 'linux') return
  const state = (): string => readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1]![0]!
  await expect.poll(state, { timeout: 10_000, interval: 5 }).toBe('T')
}

test('a holder that is stopped keeps the lock, goes on writing when it is continued, and leaves it when it is killed', async () => {
  const path = await newPath()
  const [holder, racer] = await startRacers(path, 2)
  holder!.tell('write')
  let written = 0
  const hear = async (): Promise<void> => {
    written = (await holder!.report()).written!
  }
  for (let i = 0; i < 20; i++) await hear()

  holder!.signal('SIGSTOP')
  await expectStopped(holder!.pid)
  for (let i = 0; i < 5; i++) {
    tellAll([racer!], 'open')
    expect(await racer!.report()).toEqual({ code: 'LOCKED', pid: holder!.pid })
  }
  // By now all has arrived that it had reported before.
  while (holder!.hasMessage) await hear()
  const before = written
  // Longer than any lease that a lock of another kind would have to renew.
  await expectFailure(openDatabase(nodeBackend(path), { lockTimeout: 1500 }), 'LOCKED', { pid: holder!.pid })
  expect(holder!.hasMessage).toBe(false)

  holder!.signal('SIGCONT')
  while (written < before + 20) await hear()
  await expectFailure(openDatabase(nodeBackend(path)), 'LOCKED', { pid: holder!.pid })

  await holder!.kill()
  while (holder!.hasMessage) await hear()
  // What was issued last may be there without having been acknowledged.
  const count = await countOf(path)
  expect([written, written + 1]).toContain(count)
})
