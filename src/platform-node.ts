/** The backend of a path or URL where there is a file system: Node, Deno and Bun. */
export { nodeBackend as platformBackend } from './directory/node.ts'
