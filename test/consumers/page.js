import { openDatabase } from 'isovec'

async function use() {
  // Under a policy that forbids blob workers.
  const isStrict = location.pathname.includes('strict')
  const options = isStrict ? { worker: new URL('/strict/worker-script.js', location.href) } : {}
  const database = await openDatabase('consumer', options)
  const docs = await database.createCollection('docs', { dimension: 2, ifExists: 'open' })
  await docs.upsert({ id: 'a', vector: [1, 2], payload: { n: 1 } })
  const { hits } = await docs.search({ vector: [1, 2], filter: { n: { $gte: 1 } } })
  const { backend, role } = await database.info()
  await database.close()
  return `${hits.map(({ id }) => id)} ${backend} ${role}`
}

Object.assign(window, { result: use().catch(({ code, message }) => `${code} ${message}`) })
