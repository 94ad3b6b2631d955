/**
 * Opens a database at the path it is given, leaves background work due and under way, and comes to the end of its program without
 * closing anything. The process must end by itself.
 */
import { openDatabase } from '../../src/index.ts'

process.on('unhandledRejection', (reason) => {
  console.log(`unhandled rejection: ${String(reason)}`)
  process.exit(3)
})

const database = await openDatabase(process.argv[2]!)
const collection = await database.createCollection('c', { dimension: 64, durability: 'buffered' })
for (let part = 0; part < 4; part++) {
  await collection.upsert(
    Array.from({ length: 2000 }, (_, i) => ({
      id: `${part}-${i}`,
      vector: Float32Array.from({ length: 64 }, (_, j) => Math.sin(i * (j + 1) + part + 1)),
    })),
  )
  await collection.flush()
}
// The pause of writes after which graphs are built; what begins then takes longer than the rest of this program.
await new Promise((resolve) => setTimeout(resolve, 350))
await collection.upsert({ id: 'last', vector: new Float32Array(64).fill(1) })
console.log(JSON.stringify({ count: await collection.count(), hasIndex: await collection.hasIndex() }))
