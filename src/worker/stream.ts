/**
 * Streams of bytes over a port, piece by piece as they are asked for: not every browser can transfer a stream.
 */
import { decodeError, type ErrorMessage, encodeError } from './protocol.ts'

type Pull = { readonly type: 'pull' } | { readonly type: 'cancel' }
type Piece =
  | { readonly type: 'piece'; readonly bytes: Uint8Array }
  | { readonly type: 'end' }
  | { readonly type: 'error'; readonly error: ErrorMessage }

/** Reads a stream for whoever has the other end of the port. */
export function streamTo(port: MessagePort, stream: ReadableStream<Uint8Array>): void {
  const reader = stream.getReader()
  const say = (piece: Piece): void => port.postMessage(piece)
  port.onmessage = ({ data }: { data: Pull }) => {
    if (data.type === 'cancel') {
      // Who has sent it needs no answer: nobody reads it any more.
      reader.cancel(new Error('nobody reads it any more')).catch(() => {})
      port.close()
      return
    }
    reader.read().then(
      ({ done, value }) => say(done ? { type: 'end' } : { type: 'piece', bytes: value }),
      (error: unknown) => say({ type: 'error', error: encodeError(error) }),
    )
  }
}

/** The stream at the other end of the port. */
export function streamFrom(port: MessagePort): ReadableStream<Uint8Array> {
  const say = (pull: Pull): void => port.postMessage(pull)
  return new ReadableStream<Uint8Array>(
    {
      pull: (controller) =>
        new Promise((resolve) => {
          port.onmessage = ({ data }: { data: Piece }) => {
            if (data.type === 'piece') controller.enqueue(data.bytes)
            else if (data.type === 'end') controller.close()
            else controller.error(decodeError(data.error))
            if (data.type !== 'piece') port.close()
            resolve()
          }
          say({ type: 'pull' })
        }),
      cancel() {
        say({ type: 'cancel' })
        port.close()
      },
    },
    { highWaterMark: 0 },
  )
}
