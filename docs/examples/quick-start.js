import { openDatabase } from 'isovec'

const database = await openDatabase('./my-data')
const colours = await database.createCollection('colours', { dimension: 3, ifExists: 'open' })
await colours.upsert([
  { id: 'red', vector: [1, 0, 0], payload: { warm: true } },
  { id: 'orange', vector: [1, 0.5, 0], payload: { warm: true } },
  { id: 'blue', vector: [0, 0, 1], payload: { warm: false } },
])
const { hits } = await colours.search({ vector: [1, 0.1, 0], k: 2 })
for (const { id, score, payload } of hits) console.log(id, score.toFixed(3), payload)
await database.close()
