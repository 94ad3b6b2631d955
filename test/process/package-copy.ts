/** A whole copy of the package, to be bundled more than once. */

export { nodeBackend } from '../../src/directory/node.ts'
export { IsovecError, isIsovecError, openDatabase } from '../../src/index.ts'
