import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { nodeBackend } from '../../src/directory/node.ts'
import { openDatabase } from '../../src/index.ts'
import { bundleForChild } from '../support/bundle.ts'
import type { Child } from '../support/child.ts'
import { expectFailure } from '../support/failure.ts'
import { temporaryFolder } from '../support/folder.ts'
import { allRuntimes, fetchingTimeout, type Runtime, type RuntimeName, startIn } from './runtimes.ts'

const names: readonly RuntimeName[] = ['node', 'deno', 'bun']
const roundCount = Number(process.env.ISOVEC_RACE_ROUNDS ?? 12)
const turnCount = 3

let runtimes: Record<RuntimeName, Runtime>
/** Asks for the lock of a folder, once or in turns. */
let asking: string
/** Opens a database when it is told to. */
let opening: string

beforeAll(async () => {
  runtimes = await allRuntimes()
  asking = await bundleForChild(new URL('../directory/lock-child.ts', import.meta.url), { keep: true })
  opening = await bundleForChild(new URL('../process/lock-child.ts', import.meta.url), { keep: true })
}, fetchingTimeout)

afterAll(async () => {
  for (const script of [asking, opening]) await rm(join(script, '..'), { recursive: true })
})

type Asked = { held?: string; code?: string; pid?: number; child?: number; turns?: number; met?: number }

async function ask(name: RuntimeName, path: string): Promise<{ child: Child<Asked>; report: Asked }> {
  const child = startIn<Asked>(runtimes[name], asking, path, 'hold')
  return { child, report: await child.report() }
}

describe.each(names)('a lock that is held in %s', (holderName) => {
  test('is refused in every runtime with its pid, also while it is stopped, and is free after kill -9', async () => {
    const path = await temporaryFolder()
    const { child: holder, report } = await ask(holderName, path)
    // A child of the holder, which lives on.
    onTestFinished(() => void process.kill(report.child!, 'SIGKILL'))
    const primitive = process.platform === 'linux' ? 'flock' : expect.any(String)
    expect(report).toEqual({ held: primitive, pid: holder.pid, child: expect.any(Number) })
    const refusals = async () => (await Promise.all(names.map((name) => ask(name, path)))).map(({ report }) => report)
    const refused = { code: 'LOCKED', pid: holder.pid }
    expect(await refusals()).toEqual([refused, refused, refused])
    holder.signal('SIGSTOP')
    expect(await refusals()).toEqual([refused, refused, refused])
    await expectFailure(nodeBackend(path).lock({ timeout: 300 }), 'LOCKED', { pid: holder.pid })
    const waiting = nodeBackend(path).lock({ timeout: 30_000 })
    await holder.kill()
    const lock = await waiting
    expect(process.kill(report.child!, 0)).toBe(true)
    expect((await ask(holderName, path)).report).toEqual({ code: 'LOCKED', pid: process.pid })
    await lock.release()
  })

  test('is had by every runtime after it was given back', async () => {
    const path = await temporaryFolder()
    const turns = async (name: RuntimeName) => {
      const child = startIn<Asked>(runtimes[name], asking, path, 'race', '1')
      return { report: await child.report(), ending: await child.ended }
    }
    for (const name of [holderName, ...names]) {
      // Nothing is left of the lock that keeps its process alive.
      expect(await turns(name)).toEqual({ report: { turns: 1, met: 0 }, ending: { code: 0, signal: null } })
    }
  })
})

type Opened = { ready?: true; open?: true; code?: string; pid?: number; closed?: true; turns?: number; met?: number }

describe('processes of three runtimes that ask for one database at the same moment', () => {
  async function startRacers(path: string): Promise<{ name: RuntimeName; racer: Child<Opened> }[]> {
    const racers = [...names, ...names].map((name) => ({ name, racer: startIn<Opened>(runtimes[name], opening, path) }))
    for (const { racer } of racers) expect(await racer.report()).toEqual({ ready: true })
    return racers
  }

  function tellAll(racers: readonly { racer: Child<Opened> }[], command: string, rest = ''): void {
    const time = Date.now() + 100
    for (const { racer } of racers) racer.tell(`${command} ${time} ${rest}`)
  }

  test(
    'have one winner, also right after the holder was killed',
    async () => {
      const path = join(await temporaryFolder(), 'data')
      let racers = await startRacers(path)
      const wins: Record<string, number> = {}
      for (let round = 0; round < roundCount; round++) {
        tellAll(racers, 'open')
        const reports = await Promise.all(racers.map(({ racer }) => racer.report()))
        const winners = racers.filter((_, i) => reports[i]!.open)
        expect(winners, JSON.stringify(reports)).toHaveLength(1)
        expect(reports.filter(({ code }) => code === 'LOCKED')).toHaveLength(racers.length - 1)
        const { name, racer } = winners[0]!
        wins[name] = (wins[name] ?? 0) + 1
        await expectFailure(openDatabase(path), 'LOCKED', { pid: racer.pid })
        if (round % 4 === 3 && racers.length > 3) {
          await racer.kill()
          racers = racers.filter((other) => other.racer !== racer)
        } else {
          racer.tell('close')
          expect(await racer.report()).toEqual({ closed: true })
        }
      }
      console.log(`lock: ${roundCount} races of Node, Deno and Bun, never two winners, ${JSON.stringify(wins)}`)
    },
    60_000 + roundCount * 5_000,
  )

  test('have it one after the other where they wait for it', async () => {
    const path = join(await temporaryFolder(), 'data')
    const racers = await startRacers(path)
    tellAll(racers, 'turns', `${turnCount}`)
    for (const { racer } of racers) expect(await racer.report()).toEqual({ turns: turnCount, met: 0 })
    const database = await openDatabase(path)
    onTestFinished(() => database.close())
    expect(await (await database.openCollection('c')).count()).toBe(racers.length * turnCount)
    expect((await database.info()).lock).toBe(process.platform === 'linux' ? 'flock' : 'open-exclusive')
  }, 120_000)
})
