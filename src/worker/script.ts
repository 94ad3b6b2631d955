/**
 * The script of a worker in a browser.
 */
import { namedBackend } from '../directory/named.ts'
import { IsovecError } from '../errors.ts'
import { type StartMessage, start } from './host.ts'
import { encodeError, protocolVersion } from './protocol.ts'

globalThis.addEventListener(
  'message',
  ({ data }: MessageEvent<StartMessage>) => {
    if (data.version === protocolVersion) {
      void start(data, { platformBackend: namedBackend, isShared: true })
      return
    }
    const message = `the worker's script knows messages of version ${protocolVersion}, not ${data.version}: they are of different releases`
    data.port.postMessage({ type: 'failed', error: encodeError(new IsovecError('UNSUPPORTED_VERSION', message)) })
  },
  { once: true },
)
