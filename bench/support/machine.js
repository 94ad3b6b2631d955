/**
 * What a figure was measured on.
 */
import { readFileSync } from 'node:fs'
import { cpus, loadavg, totalmem } from 'node:os'
import { openDatabase } from 'isovec'

/**
 * One line: date, processor, cores, memory, runtime, version and build of the kernel, and how busy the machine was.
 *
 * @returns {Promise<string>}
 */
export async function describeMachine() {
  const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'))
  const database = await openDatabase(':memory:')
  const { kernel } = await database.info()
  await database.close()
  const processors = cpus()
  const model = processors[0]?.model.trim() ?? 'unknown processor'
  return [
    new Date().toISOString().slice(0, 16).replace('T', ' '),
    `${model}, ${processors.length} cores, ${Math.round(totalmem() / 2 ** 30)} GiB`,
    `${process.platform} ${process.arch}, Node ${process.versions.node}`,
    `isovec ${version} (${kernel})`,
    `load at start ${loadavg()[0]?.toFixed(1)}`,
  ].join('; ')
}
