/**
 * The crash part of the demo: a writer in a process of its own is killed in the middle, and what the database then holds
 * is compared with what it had acknowledged.
 *
 * @typedef {import('isovec').Collection<import('./corpus.js').Payload>} Passages
 * @typedef {Map<string, string>} Digests  by id
 * @typedef {{ issued: Digests, acknowledged: Digests, batches: number }} WriterReport
 * @typedef {{ issued?: [id: string, digest: string][], acknowledged?: string[] }} WriterMessage  a line of JSON before and after each write
 * @typedef {object} Comparison
 * @property {number} recovered   documents in the collection
 * @property {string[]} lost      acknowledged, but not there
 * @property {string[]} changed   there, but with another vector or payload than was written
 * @property {string[]} foreign   there, but never written
 */
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

export const crashCollection = 'interrupted'
const writer = fileURLToPath(new URL('./crash-writer.js', import.meta.url))

/**
 * Starts the writer and kills it with SIGKILL while it is at work: after a random number of acknowledged batches and at
 * a random moment within the next ones.
 * @param {{ location: string, folder: string, anyText: boolean, signal: AbortSignal, onBatch: (ids: number) => void }} options
 * @returns {Promise<WriterReport>}
 */
export async function interruptWriter({ location, folder, anyText, signal, onBatch }) {
  /** @type {WriterReport} */
  const report = { issued: new Map(), acknowledged: new Map(), batches: 0 }
  const killAfter = 40 + Math.floor(Math.random() * 40)
  const child = spawn(process.execPath, [writer, location, folder, String(anyText)], {
    stdio: ['ignore', 'pipe', 'pipe'],
    signal,
    killSignal: 'SIGKILL',
  })
  let complaint = ''
  let killed = false
  child.stderr.on('data', (chunk) => {
    complaint += chunk
  })
  // Also after an abort the writer has to be gone before its folder can be removed.
  const ended = new Promise((resolve, reject) => {
    /** @type {Error | undefined} */
    let failure
    child.on('error', (error) => {
      failure = error
      if (child.pid === undefined) reject(error)
    })
    child.on('close', () => (failure ? reject(failure) : resolve(undefined)))
  })
  let unfinished = ''
  child.stdout.setEncoding('utf8').on('data', (chunk) => {
    // The kill can come in the middle of a line: what has no end was not reported.
    const lines = `${unfinished}${chunk}`.split('\n')
    unfinished = lines.pop() ?? ''
    for (const line of lines) noteMessage(report, JSON.parse(line))
    onBatch(report.acknowledged.size)
    if (report.batches < killAfter || killed) return
    killed = true
    void sleep(Math.random() * 10).then(() => child.kill('SIGKILL'))
  })
  await ended
  if (child.signalCode !== 'SIGKILL') {
    throw new Error(`the writer ended by itself (exit code ${child.exitCode}):\n${complaint.trim()}`)
  }
  return report
}

/**
 * @param {WriterReport} report
 * @param {WriterMessage} message
 */
function noteMessage(report, message) {
  for (const [id, digest] of message.issued ?? []) report.issued.set(id, digest)
  if (!message.acknowledged) return
  for (const id of message.acknowledged) report.acknowledged.set(id, report.issued.get(id) ?? '')
  report.batches++
}

/**
 * Reads back every document and compares it by content.
 * @param {Passages} collection
 * @param {WriterReport} report
 * @returns {Promise<Comparison>}
 */
export async function compareRecovered(collection, { issued, acknowledged }) {
  /** @type {Comparison} */
  const comparison = { recovered: 0, lost: [], changed: [], foreign: [] }
  const missing = new Set(acknowledged.keys())
  for await (const document of collection.iterate()) {
    comparison.recovered++
    missing.delete(document.id)
    const digest = issued.get(document.id)
    if (digest === undefined) comparison.foreign.push(document.id)
    else if (digest !== digestDocument(document)) comparison.changed.push(document.id)
  }
  for (const id of missing) comparison.lost.push(id)
  return comparison
}

/**
 * @param {{ vector?: Float32Array | undefined, payload?: object | undefined }} document
 * @returns {string} of the bytes of the vector and the fields of the payload in the order of their names
 */
export function digestDocument({ vector = new Float32Array(), payload = {} }) {
  const fields = Object.entries(payload).sort(([a], [b]) => (a < b ? -1 : 1))
  const bytes = new Uint8Array(vector.buffer, vector.byteOffset, vector.byteLength)
  return createHash('sha256').update(bytes).update(JSON.stringify(fields)).digest('base64url')
}
