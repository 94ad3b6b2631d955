/**
 * What `src/index.ts` exports, with databases at the other end of a port: every call crosses it as a message, as those to a worker do.
 */
import type { Database, OpenOptions } from '../../src/api.ts'
import { DatabaseHandle } from '../../src/database.ts'
import type { StorageBackend } from '../../src/directory/directory.ts'
import * as engine from '../../src/engine.ts'
import { openLocal } from '../../src/open.ts'
import { checkOpen } from '../../src/open-options.ts'
import { platformBackend } from '../../src/platform-node.ts'
import type { Request } from '../../src/worker/protocol.ts'
import { RemoteDatabase } from '../../src/worker/remote.ts'
import { Server } from '../../src/worker/server.ts'

export { IsovecError, isIsovecError } from '../../src/errors.ts'

export async function openDatabase(location: string | URL | StorageBackend, options?: OpenOptions): Promise<Database> {
  const checked = checkOpen(options)
  let server: Server | undefined
  const onEvent: typeof checked.onEvent = checked.onEvent && ((event) => server?.tell(event))
  const database = await openLocal(location, { ...checked, onEvent }, platformBackend)
  server = new Server(database)
  const { port1, port2 } = new MessageChannel()
  const session = server.connect(
    (response, transfer = []) => port2.postMessage(response, transfer),
    async (info) => info,
  )
  port2.onmessage = ({ data }: { data: Request }) => {
    if (data.type !== 'call' || data.name !== 'close') return session.take(data)
    const { id } = data
    database.close().then(
      () => port2.postMessage({ type: 'result', id, value: undefined }),
      () => session.take({ ...data, name: 'close' }),
    )
  }
  return new DatabaseHandle(
    new RemoteDatabase(port1, { location: database.location, onEvent: checked.onEvent, onClose: () => port2.close() }),
  )
}

export const restore: typeof import('../../src/index.ts').restore = (source, destination, options) =>
  engine.restore(source, destination, options, platformBackend)
export const salvage: typeof import('../../src/index.ts').salvage = (source, destination, options) =>
  engine.salvage(source, destination, options, platformBackend)
export const mergeDatabases: typeof import('../../src/index.ts').mergeDatabases = (base, other, destination, options) =>
  engine.mergeDatabases(base, other, destination, options, platformBackend)
