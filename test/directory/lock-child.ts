/**
 * A process or worker that asks for the lock of the folder argv[2] in the way of argv[3]:
 * `hold` keeps it until it is killed, with a child of its own that lives on; `race` takes it argv[4] times and looks for anyone else
 * inside. What comes of it is printed as a line of JSON.
 */
import { spawn } from 'node:child_process'
import { closeSync, openSync, unlinkSync } from 'node:fs'
import { join } from 'node:path'
import { parentPort, workerData } from 'node:worker_threads'
import { nodeBackend } from '../../src/directory/node.ts'

export { nodeBackend } from '../../src/directory/node.ts'

type Task = { path: string; way: string; count: number }

async function hold({ path }: Task): Promise<object> {
  try {
    const lock = await nodeBackend(path).lock({ timeout: 0 })
    if (parentPort !== null) return { held: lock.primitive }
    const child = spawn('sleep', ['60'], { detached: true, stdio: 'ignore' })
    child.unref()
    setInterval(() => {}, 1000)
    return { held: lock.primitive, pid: process.pid, child: child.pid }
  } catch (error) {
    const { code, pid } = error as { code?: string; pid?: number }
    return { code, pid }
  }
}

async function race({ path, count }: Task): Promise<object> {
  const marker = join(path, 'inside')
  let met = 0
  for (let i = 0; i < count; i++) {
    const lock = await nodeBackend(path).lock({ timeout: 60_000 })
    try {
      closeSync(openSync(marker, 'wx'))
      await new Promise((resolve) => setTimeout(resolve, i % 3))
      unlinkSync(marker)
    } catch {
      met++
    }
    await lock.release()
  }
  return { turns: count, met }
}

async function main(task: Task): Promise<void> {
  const result = await (task.way === 'race' ? race(task) : hold(task))
  if (parentPort === null) console.log(JSON.stringify(result))
  else parentPort.postMessage(result)
}

const [, , path, way, count] = process.argv
if (workerData?.way !== undefined) await main(workerData as Task)
else if (path !== undefined && way !== undefined) await main({ path, way, count: Number(count) })
