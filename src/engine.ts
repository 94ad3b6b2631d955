/**
 * The engine as it is loaded by whoever opens a database in this thread; where it lies in a worker, it is never loaded here.
 */
export { openChecked } from './open.ts'
export { salvage } from './salvage.ts'
export { mergeDatabases, restore } from './tools.ts'
