/** Where there is no file system: a name is a database of the browser, which a worker holds. */
import { namedBackend } from './directory/named.ts'
import type { Elsewhere } from './elsewhere.ts'
import { openInWorker, toolsInWorker } from './worker/client.ts'

export { namedBackend as platformBackend }

export const elsewhere: Elsewhere | undefined = { open: openInWorker, ...toolsInWorker }
