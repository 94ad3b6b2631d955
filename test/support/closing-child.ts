/**
 * Opens a database at the path it is given, waits until a graph is being built in the background, and then asks for what the second
 * argument says. Nothing but that keeps the process alive, and it must end by itself.
 */
import { openDatabase } from '../../src/index.ts'

const [path, what] = process.argv.slice(2)
const database = await openDatabase(path!)
const collection = await database.createCollection('c', { dimension: 64, durability: 'buffered' })
await collection.upsert(
  Array.from({ length: 6000 }, (_, i) => ({
    id: `${i}`,
    vector: Float32Array.from({ length: 64 }, (_, j) => Math.sin((i + 1) * (j + 1))),
  })),
)
await collection.flush()
// The pause of writes after which graphs are built.
await new Promise((resolve) => setTimeout(resolve, 400))
if (await collection.hasIndex()) throw new Error('the graph is built already')
if (what === 'compact') await collection.compact()
else if (what === 'dropIndex') await collection.dropIndex()
await database.close()
console.log(JSON.stringify({ what }))
