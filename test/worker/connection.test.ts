import * as fc from 'fast-check'
import { expect, test } from 'vitest'
import { IsovecError, isIsovecError } from '../../src/errors.ts'
import { Connection } from '../../src/worker/connection.ts'
import { type CallMessage, decodeError, encodeError, type Request } from '../../src/worker/protocol.ts'
import { RemoteDatabase } from '../../src/worker/remote.ts'
import { streamFrom, streamTo } from '../../src/worker/stream.ts'
import { failureOf } from '../support/failure.ts'
import { runs } from '../support/property.ts'

const database = { kind: 'database' } as const

/** A connection and what arrives at its other end. */
function connected(): { connection: Connection; arrived: Request[]; answer: (message: object) => void } {
  const { port1, port2 } = new MessageChannel()
  const arrived: Request[] = []
  port2.onmessage = ({ data }: { data: Request }) => void arrived.push(data)
  const connection = new Connection(port1, () => {})
  return { connection, arrived, answer: (message) => port2.postMessage(message) }
}

test('errors keep their code, fields and causes over messages', async () => {
  const fields = fc.record(
    {
      expected: fc.oneof(fc.integer(), fc.string()),
      actual: fc.oneof(fc.integer(), fc.string()),
      id: fc.string(),
      collection: fc.string(),
      file: fc.string(),
      offset: fc.nat(),
      field: fc.string(),
      outcome: fc.constantFrom('none' as const, 'unknown' as const),
      pid: fc.nat(),
    },
    { requiredKeys: [] },
  )
  const error = fc.record({
    code: fc.constantFrom('IO' as const, 'CORRUPTION' as const, 'LOCKED' as const, 'READ_ONLY' as const),
    message: fc.string(),
    fields,
    causes: fc.array(fc.string(), { maxLength: 3 }),
  })
  await fc.assert(
    fc.asyncProperty(error, async ({ code, message, fields: given, causes }) => {
      const cause = causes.reduce<unknown>((inner, text) => new IsovecError('IO', text, { cause: inner }), undefined)
      const sent = new IsovecError(code, message, { ...given, ...(cause === undefined ? {} : { cause }) })
      const received = decodeError(structuredClone(encodeError(sent)))
      expect(isIsovecError(received)).toBe(true)
      expect({ ...received }).toEqual({ ...sent })
      expect(received.message).toBe(message)
      expect(received.stack).toBe(sent.stack)
      let [a, b]: [unknown, unknown] = [sent.cause, received.cause]
      for (; a instanceof Error && b instanceof Error; [a, b] = [a.cause, b.cause]) expect(b.message).toBe(a.message)
      expect([a, b]).toEqual([undefined, undefined])
    }),
    runs(100),
  )
})

test('whatever is thrown becomes an error', () => {
  expect(decodeError(encodeError('a text'))).toMatchObject({ message: 'a text' })
  expect(decodeError(encodeError(new RangeError('far')))).toMatchObject({ name: 'RangeError', message: 'far' })
  expect(decodeError(encodeError(Object.create(null))).message).toContain('no text')
  const ring = new Error('ring')
  ring.cause = ring
  expect(decodeError(structuredClone(encodeError(ring))).message).toBe('ring')
})

test('a connection that ends tells what became of each call', async () => {
  const { connection } = connected()
  const search = failureOf(connection.call(database, 'search', []))
  const write = failureOf(connection.call(database, 'write', []))
  connection.end()
  expect(await search).toMatchObject({ code: 'DISCONNECTED' })
  expect(await search).not.toHaveProperty('outcome')
  expect(await write).toMatchObject({ code: 'DISCONNECTED', outcome: 'unknown' })
  expect(await failureOf(connection.call(database, 'write', []))).toMatchObject({ code: 'DISCONNECTED' })
})

test('a read is given up at once, a write when it is known what it came to', async () => {
  const { connection, arrived, answer } = connected()
  const reason = new Error('enough')
  const controller = new AbortController()
  const { signal } = controller
  const read = failureOf(connection.call(database, 'search', [], { signal }))
  const write = failureOf(connection.call(database, 'write', [], { signal }))
  controller.abort(reason)
  expect(await read).toMatchObject({ code: 'ABORTED', cause: reason })
  await expect.poll(() => arrived.map(({ type }) => type)).toEqual(['call', 'call', 'abort', 'abort'])
  const { id } = arrived[1] as CallMessage
  answer({ type: 'error', id, error: encodeError(new IsovecError('ABORTED', 'aborted', { outcome: 'unknown' })) })
  expect(await write).toMatchObject({ code: 'ABORTED', outcome: 'unknown', cause: reason })
  expect(await failureOf(connection.call(database, 'write', [], { signal }))).toMatchObject({
    code: 'ABORTED',
    outcome: 'none',
    cause: reason,
  })
  connection.end()
})

test('writes that nobody awaits are refused beyond a bound', async () => {
  const { port1, port2 } = new MessageChannel()
  port2.onmessage = ({ data }: { data: CallMessage }) => {
    if (data.name !== 'openCollection') return
    const value = { number: 1, name: 'docs', options: { dimension: 1 }, isReadOnly: false }
    port2.postMessage({ type: 'result', id: data.id, value })
  }
  const remote = new RemoteDatabase(port1, { location: 'x', onEvent: undefined, onClose: () => port2.close() })
  const docs = await remote.openCollection('docs', undefined)
  const write = (): Promise<unknown> =>
    docs.write(
      { bytes: new Uint8Array(100 * 1024 * 1024), changes: [], count: 1, size: 1 },
      { durability: undefined, signal: undefined },
    )
  const waiting = [write(), write()].map(failureOf)
  expect(await failureOf(write())).toMatchObject({ code: 'OUT_OF_MEMORY', outcome: 'none' })
  remote.disconnect()
  for (const each of waiting) expect(await each).toMatchObject({ code: 'DISCONNECTED', outcome: 'unknown' })
})

test('a stream crosses a port piece by piece, as it is asked for', async () => {
  const pieces = Array.from({ length: 20 }, (_, i) => Uint8Array.of(i, i + 1))
  let pulled = 0
  const source = new ReadableStream<Uint8Array>(
    {
      pull(controller) {
        const piece = pieces[pulled++]
        if (piece === undefined) controller.close()
        else controller.enqueue(piece)
      },
    },
    { highWaterMark: 0 },
  )
  const { port1, port2 } = new MessageChannel()
  streamTo(port1 as unknown as MessagePort, source)
  const reader = streamFrom(port2 as unknown as MessagePort).getReader()
  const found: number[] = [...(await reader.read()).value!]
  expect(pulled).toBe(1)
  for (let step = await reader.read(); !step.done; step = await reader.read()) found.push(...step.value)
  expect(found).toEqual(pieces.flatMap((piece) => [...piece]))
})

test('a stream that fails or is left tells the other end', async () => {
  const failing = new MessageChannel()
  const broken = new ReadableStream<Uint8Array>({ pull: () => Promise.reject(new Error('broken')) })
  streamTo(failing.port1 as unknown as MessagePort, broken)
  await expect(
    streamFrom(failing.port2 as unknown as MessagePort)
      .getReader()
      .read(),
  ).rejects.toThrow('broken')
  const left = new MessageChannel()
  let isCancelled = false
  const endless = new ReadableStream<Uint8Array>({
    pull: (controller) => controller.enqueue(Uint8Array.of(1)),
    cancel() {
      isCancelled = true
    },
  })
  streamTo(left.port1 as unknown as MessagePort, endless)
  const reader = streamFrom(left.port2 as unknown as MessagePort).getReader()
  await reader.read()
  await reader.cancel()
  await expect.poll(() => isCancelled).toBe(true)
})
