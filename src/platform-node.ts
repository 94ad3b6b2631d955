/** The backend of a path or URL where there is a file system: Node, Deno and Bun. */
import type { Elsewhere } from './elsewhere.ts'

export { nodeBackend as platformBackend } from './directory/node.ts'

/** Databases are opened in the thread that asks for them. */
export const elsewhere: Elsewhere | undefined = undefined
