/**
 * Writes passages in small batches until it is killed, and says on stdout what it is about to write and what has been
 * acknowledged. Run by the demo as `node crash-writer.js <database> <folder of text> <any text: true or false>`.
 */
import { openDatabase } from 'isovec'
import { embedPassages, openCorpus } from './corpus.js'
import { crashCollection, digestDocument } from './crash.js'
import { createEmbedder } from './embedder.js'

const batchLength = 16
const [location = '', folder = '', anyText = 'false'] = process.argv.slice(2)

const corpus = await openCorpus(folder, { anyText: anyText === 'true' })
const embedder = await createEmbedder()
const database = await openDatabase(location, { mustExist: true })
/** @type {import('isovec').Collection<import('./corpus.js').Payload>} */
const collection = await database.createCollection(crashCollection, {
  dimension: embedder.dimension,
  model: embedder.model,
  durability: 'strict',
})

/**
 * A small folder is read again and again under other ids: the end must come from outside.
 * @returns {AsyncGenerator<import('./corpus.js').PassageDocument>}
 */
async function* endlessPassages() {
  for (let round = 0; ; round++) {
    let count = 0
    for await (const { id, payload } of corpus.passages()) {
      count++
      yield { id: round === 0 ? id : `${id}@${round}`, payload }
    }
    if (count === 0) throw new Error(`no text in ${folder}`)
  }
}

/** @param {import('./crash.js').WriterMessage} message @returns {Promise<void>} when the system has it */
function say(message) {
  return new Promise((resolve, reject) => {
    process.stdout.write(`${JSON.stringify(message)}\n`, (error) => (error ? reject(error) : resolve()))
  })
}

/** @param {readonly import('./corpus.js').PassageDocument[]} passages */
async function writeBatch(passages) {
  const documents = await embedPassages(embedder, passages)
  await say({ issued: documents.map((document) => [document.id, digestDocument(document)]) })
  await collection.upsert(documents)
  await say({ acknowledged: documents.map(({ id }) => id) })
}

/** @type {import('./corpus.js').PassageDocument[]} */
let batch = []
for await (const passage of endlessPassages()) {
  batch.push(passage)
  if (batch.length < batchLength) continue
  await writeBatch(batch)
  batch = []
}
