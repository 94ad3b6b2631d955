/**
 * isovec's main job on real text, from an empty folder to answers, a crash and answers again.
 *
 *     npm run demo
 *     npm run demo -- <folder> "<query>"
 */
import { mkdtemp, readdir, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { openDatabase } from 'isovec'
import { embedPassages, findNodeModules, openCorpus } from './corpus.js'
import { compareRecovered, crashCollection, interruptWriter } from './crash.js'
import { createEmbedder } from './embedder.js'
import {
  createScreen,
  cutEnd,
  cutStart,
  excerptText,
  formatBytes,
  formatCount,
  formatDuration,
  formatPlural,
  printableText,
  screenWidth,
  wrapText,
} from './screen.js'

/**
 * @typedef {import('./corpus.js').Payload} Payload
 * @typedef {import('isovec').Collection<Payload>} Passages
 * @typedef {import('isovec').SearchResult<Payload>} Answer
 * @typedef {{ folder: string, anyText: boolean, queries: string[], limit: number }} Settings
 * @typedef {object} Stage  what every part of the demo works with
 * @property {Settings} settings
 * @property {string} location
 * @property {AbortSignal} signal
 * @property {import('./screen.js').Screen} screen
 * @property {import('./corpus.js').Corpus} corpus
 * @property {import('./embedder.js').Embedder} embedder
 * @property {{ name: string, ms: number }[]} times
 */

const usage = `npm run demo -- [<folder> ["<query>"]] [--limit <passages>]

  <folder>   text to index; without it, or if it is a node_modules folder, documentation and
             type declarations found there
  <query>    what to ask; without it a few queries that suit the text
  --limit    index at most this many passages (10,000)`

const defaultQueries = [
  'compile AssemblyScript to WebAssembly',
  'read a file as a stream of chunks',
  'kill a child process with a signal',
  'watch files for changes',
]
const collectionName = 'passages'
const embedBatchLength = 64
/** First hits are shown as soon as this many passages are stored, or after this time. */
const firstHitsCount = 2000
const firstHitsMs = 3000
const sampleCount = 1500
const recallQueries = 200
const recallAt = 10
/** Beams of the walk beside the default one: wider finds more and takes longer. */
const recallBeams = [200, 400]
const excerptWidth = screenWidth - 12

process.exitCode = await main()

/** @returns {Promise<number>} the exit code */
async function main() {
  const interruption = new AbortController()
  const stop = () => {
    // A second Ctrl-C finds the default again and ends the process at once.
    interruption.abort(new Error('interrupted'))
  }
  process.once('SIGINT', stop).once('SIGTERM', stop)
  // Nobody reads on, as behind `| head`: that's an interruption too.
  process.stdout.on('error', stop)
  let location = ''
  try {
    const settings = await readSettings(process.argv.slice(2))
    if (settings === undefined) return 0
    location = await mkdtemp(join(tmpdir(), 'isovec-demo-'))
    return (await runDemo(settings, location, interruption.signal)) ? 0 : 1
  } catch (error) {
    if (interruption.signal.aborted) {
      console.error('\nisovec demo: interrupted')
      return 130
    }
    console.error(`\nisovec demo: ${describeError(error)}`)
    return 1
  } finally {
    process.off('SIGINT', stop).off('SIGTERM', stop)
    if (location !== '') await rm(location, { recursive: true, force: true })
  }
}

/**
 * @param {string[]} argv
 * @returns {Promise<Settings | undefined>} undefined where help was asked for
 */
async function readSettings(argv) {
  const { values, positionals } = parseArgs({
    args: argv,
    allowPositionals: true,
    options: { limit: { type: 'string', default: '10000' }, help: { type: 'boolean', short: 'h', default: false } },
  })
  if (values.help) {
    console.log(usage)
    return undefined
  }
  const limit = Number(values.limit)
  const [folder, ...queries] = positionals
  if (!Number.isInteger(limit) || limit < 1 || queries.length > 1) {
    throw Object.assign(new Error(`expected\n${usage}`), { code: 'INVALID_ARGUMENT' })
  }
  if (folder === undefined) {
    return { folder: await findNodeModules(), anyText: false, queries: defaultQueries, limit }
  }
  return { folder, anyText: basename(resolve(folder)) !== 'node_modules', queries, limit }
}

/**
 * @param {Settings} settings
 * @param {string} location
 * @param {AbortSignal} signal
 * @returns {Promise<boolean>} whether nothing was lost
 */
async function runDemo(settings, location, signal) {
  const screen = createScreen(process.stdout)
  const startedAt = performance.now()
  screen.line(screen.strong('isovec demo: a vector database in a folder, inside this process'))
  const corpus = await openCorpus(settings.folder, { anyText: settings.anyText })
  screen.line()
  screen.field('text', `${corpus.folder}, ${formatPlural(corpus.files.length, 'file')}`)
  const embedder = await createEmbedder({ sample: await corpus.sample(sampleCount) })
  screen.field(
    'embedder',
    `${embedder.model}, ${embedder.dimension} dimensions: hashed words and letters. It is a lexical stand-in that ` +
      'finds shared words, not shared meaning. Plug a real model into createEmbedder() in docs/examples/embedder.js.',
  )
  screen.field('database', `${location} (removed at the end)`)
  const times = [{ name: 'list and sample the text', ms: performance.now() - startedAt }]
  /** @type {Stage} */
  const stage = { settings, location, signal, screen, corpus, embedder, times }

  let database = await openDatabase(location, { signal })
  try {
    /** @type {Passages} */
    const passages = await database.createCollection(collectionName, {
      dimension: embedder.dimension,
      model: embedder.model,
    })
    await timed(stage, 'embed and store', () => indexPassages(stage, passages))
    await timed(stage, 'build the graph', () => buildGraph(stage, passages))
    const queries = settings.queries.length > 0 ? settings.queries : await suggestQueries(passages)
    await answerQueries(stage, passages, queries)
    await timed(stage, 'measure recall', () => measureRecall(stage, passages))
    const before = await exactAnswers(stage, passages, queries)
    await database.close()

    const report = await timed(stage, 'write and be killed', () => crashWriter(stage))
    const reopenedAt = performance.now()
    database = await openDatabase(location, { mustExist: true, lockTimeout: 2000, signal })
    const reopenMs = performance.now() - reopenedAt
    times.push({ name: 'reopen after the kill', ms: reopenMs })
    const kept = await timed(stage, 'compare what was recovered', () =>
      showRecovered(stage, database, report, reopenMs),
    )
    const same = await askAgain(stage, database, queries, before)
    await showCosts(stage, database, performance.now() - startedAt)
    return kept && same
  } finally {
    await database.close()
  }
}

/**
 * Runs a part of the demo and keeps its time for the end.
 * @template T
 * @param {Stage} stage
 * @param {string} name
 * @param {() => Promise<T>} part
 * @returns {Promise<T>}
 */
async function timed({ times }, name, part) {
  const startedAt = performance.now()
  const result = await part()
  times.push({ name, ms: performance.now() - startedAt })
  return result
}

/**
 * Embeds passages a few at a time, as fast as the database takes them.
 * @param {Stage} stage
 * @returns {AsyncGenerator<import('isovec').Document<Payload>>}
 */
async function* readDocuments({ corpus, embedder, settings }) {
  /** @type {import('./corpus.js').PassageDocument[]} */
  let batch = []
  for await (const passage of corpus.passages(settings.limit)) {
    batch.push(passage)
    if (batch.length < embedBatchLength) continue
    yield* await embedPassages(embedder, batch)
    batch = []
  }
  yield* await embedPassages(embedder, batch)
}

/** @param {Stage} stage @param {Passages} passages */
async function indexPassages(stage, passages) {
  const { screen, signal, corpus, settings } = stage
  screen.heading('Embedding and storing')
  const startedAt = performance.now()
  const progress = screen.progress()
  /** @type {Promise<void> | undefined} */
  let firstHits
  const { count } = await passages.ingest(readDocuments(stage), {
    signal,
    onProgress({ count: stored }) {
      const ms = performance.now() - startedAt
      const rate = formatCount((stored * 1000) / ms)
      progress.update(`${formatCount(stored)} of up to ${formatCount(settings.limit)} passages, ${rate} a second`)
      if (firstHits || (stored < firstHitsCount && ms < firstHitsMs)) return
      firstHits = showFirstHits(stage, passages, startedAt)
      // Awaited below: a failure meanwhile must not count as unhandled.
      firstHits.catch(() => {})
    },
  })
  if (count === 0) throw Object.assign(new Error(`no text found in ${corpus.folder}`), { code: 'NOT_FOUND' })
  await (firstHits ?? showFirstHits(stage, passages, startedAt))
  await passages.flush()
  const ms = performance.now() - startedAt
  const { files, duplicates, unsuitable, unreadable } = corpus.report
  progress.done(
    `${formatPlural(count, 'passage')} from ${formatPlural(files, 'file')} in ${formatDuration(ms)}, ` +
      `${formatCount((count * 1000) / ms)} a second`,
  )
  const [first] = unreadable
  screen.field(
    'left out',
    `${formatPlural(duplicates, 'passage')} seen before, ${formatPlural(unsuitable, 'file')} binary, minified or huge, ` +
      `${formatCount(unreadable.length)} unreadable${first ? ` (first: ${first.path}, ${first.code})` : ''}`,
  )
}

/**
 * What has been acknowledged is found at once, while the rest is still being written.
 * @param {Stage} stage
 * @param {Passages} passages
 * @param {number} startedAt
 */
async function showFirstHits(stage, passages, startedAt) {
  const query = stage.settings.queries[0] ?? (await suggestQueries(passages))[0] ?? ''
  const answer = await ask(stage, passages, query)
  const ms = formatDuration(performance.now() - startedAt)
  stage.screen.line(
    `  first hits after ${ms}, among the ${formatPlural(await passages.count(), 'passage')} stored by then`,
  )
  showAnswer(stage, query, answer, answer.hits.length)
  stage.screen.line()
}

/** @param {Stage} stage @param {Passages} passages */
async function buildGraph({ screen, signal }, passages) {
  screen.heading('Building the HNSW graph')
  const startedAt = performance.now()
  const progress = screen.progress()
  await passages.buildIndex({
    signal,
    onProgress: ({ done, total }) => progress.update(`${formatCount(done)} of ${formatCount(total)} passages`),
  })
  const { indexBytes } = await passages.stats()
  progress.done(
    indexBytes > 0
      ? `${formatBytes(indexBytes)} in ${formatDuration(performance.now() - startedAt)}`
      : 'none: with so few passages a scan is faster',
  )
}

/**
 * @param {Stage} stage
 * @param {Passages} passages
 * @param {string} query
 * @returns {Promise<Answer>}
 */
async function ask({ embedder, signal }, passages, query) {
  const [vector = new Float32Array()] = await embedder.embed([query])
  return passages.search({ vector, k: 3, signal })
}

/**
 * @param {Stage} stage
 * @param {Passages} passages
 * @param {readonly string[]} queries
 * @returns {Promise<Answer[]>}
 */
async function answerQueries(stage, passages, queries) {
  stage.screen.heading(queries.length === 1 ? 'An answer' : 'Answers')
  const answers = []
  for (const query of queries) {
    const answer = await ask(stage, passages, query)
    showAnswer(stage, query, answer, answer.hits.length)
    answers.push(answer)
  }
  return answers
}

/**
 * @param {Stage} stage
 * @param {string} query
 * @param {Answer} answer
 * @param {number} count  hits to show
 */
function showAnswer({ screen }, query, { hits, plan, exact, visited, elapsedMs }, count) {
  const cost = `${exact ? 'exact, ' : ''}plan ${plan}, ${formatCount(visited)} visited, ${formatDuration(elapsedMs)}`
  screen.line(`\n  "${screen.strong(query)}"  ${screen.faint(cost)}`)
  for (const { id, score, payload } of hits.slice(0, count)) {
    if (!payload) continue
    const title = cutEnd(printableText(payload.title), 45)
    const place = cutStart(printableText(id), screenWidth - title.length - 13)
    screen.line(`    ${score.toFixed(3)}  ${title}  ${screen.faint(place)}`)
    for (const text of wrapText(excerptText(payload.text, query, 2 * excerptWidth - 10), excerptWidth)) {
      screen.line(`           ${text}`)
    }
  }
}

/**
 * Titles of a few passages all over the text, to ask for where no query was given.
 * @param {Passages} passages
 * @returns {Promise<string[]>}
 */
async function suggestQueries(passages) {
  const queries = new Set()
  for (const { payload } of await pickPassages(passages, 30)) {
    const words = (payload.title.match(/[\p{L}\p{N}]+/gu) ?? []).length
    if (words >= 2 && words <= 10) queries.add(payload.title)
    if (queries.size === 3) break
  }
  if (queries.size === 0) for (const { payload } of await pickPassages(passages, 3)) queries.add(payload.title)
  return [...queries]
}

/**
 * @param {Passages} passages
 * @param {number} count
 * @returns {Promise<{ payload: Payload }[]>} evenly spaced ones
 */
async function pickPassages(passages, count) {
  const step = Math.max(1, Math.floor((await passages.count()) / count))
  const picked = []
  let index = 0
  for await (const { payload } of passages.iterate({ include: { vector: false } })) {
    if (index++ % step === 0 && payload) picked.push({ payload })
    if (picked.length === count) break
  }
  return picked
}

/**
 * Compares the graph with the exact scan on queries made of a dozen words from passages all over the text.
 * @param {Stage} stage
 * @param {Passages} passages
 */
async function measureRecall({ screen, embedder, signal }, passages) {
  screen.heading('The graph against the exact scan')
  const picked = await pickPassages(passages, recallQueries)
  const vectors = await embedder.embed(
    picked.map(({ payload: { text } }) => {
      const words = text.split(/\s+/)
      const start = Math.floor(words.length / 3)
      return words.slice(start, start + 12).join(' ')
    }),
  )
  /** @type {{ name: string, request: { mode: 'exact' | 'approximate', ef?: number }, found: number, times: number[] }[]} */
  const rows = [
    { name: 'exact', request: { mode: 'exact' }, found: 0, times: [] },
    { name: 'graph', request: { mode: 'approximate' }, found: 0, times: [] },
    ...recallBeams.map((ef) => ({
      name: `graph, ef ${ef}`,
      request: { mode: /** @type {const} */ ('approximate'), ef },
      found: 0,
      times: [],
    })),
  ]
  let wanted = 0
  for (const vector of vectors) {
    /** @type {Set<string>} */
    let nearest = new Set()
    for (const row of rows) {
      const startedAt = performance.now()
      const { hits } = await passages.search({
        ...row.request,
        vector,
        k: recallAt,
        include: { payload: false },
        signal,
      })
      row.times.push(performance.now() - startedAt)
      if (row.request.mode === 'exact') nearest = new Set(hits.map(({ id }) => id))
      row.found += hits.filter(({ id }) => nearest.has(id)).length
    }
    wanted += nearest.size
  }
  screen.line(`  ${formatPlural(vectors.length, 'query', 'queries')} of a dozen words each`)
  screen.line(`\n  ${''.padEnd(16)}recall@${recallAt}   median time`)
  for (const { name, found, times } of rows) {
    screen.line(
      `  ${name.padEnd(16)}${(found / wanted).toFixed(3).padStart(9)}${formatDuration(median(times)).padStart(14)}`,
    )
  }
}

/** @param {Stage} stage @returns {Promise<import('./crash.js').WriterReport>} */
async function crashWriter({ screen, signal, location, corpus, settings }) {
  screen.heading('A crash')
  screen.line('  Another process writes small batches to the same database, each synced before it is')
  screen.line('  acknowledged, and is killed by SIGKILL in the middle.')
  const progress = screen.progress()
  const report = await interruptWriter({
    location,
    folder: corpus.folder,
    anyText: settings.anyText,
    signal,
    onBatch: (count) => progress.update(`${formatCount(count)} acknowledged`),
  })
  progress.done(`killed after ${formatPlural(report.acknowledged.size, 'passage')} were acknowledged`)
  return report
}

/**
 * @param {Stage} stage
 * @param {import('isovec').Database} database
 * @param {import('./crash.js').WriterReport} report
 * @param {number} reopenMs
 * @returns {Promise<boolean>} whether nothing was lost, changed or made up
 */
async function showRecovered({ screen }, database, report, reopenMs) {
  /** @type {Passages} */
  const collection = await database.openCollection(crashCollection)
  const { recovered, lost, changed, foreign } = await compareRecovered(collection, report)
  const acknowledged = report.acknowledged.size
  screen.line(`  reopened in ${formatDuration(reopenMs)}; every document compared by content`)
  screen.line()
  screen.field('acknowledged', formatCount(acknowledged))
  const beyond = recovered - (acknowledged - lost.length)
  screen.field(
    'recovered',
    `${formatCount(recovered)}${beyond > 0 ? ` (${beyond} of a batch that was written but not yet reported)` : ''}`,
  )
  screen.field('lost', formatCount(lost.length))
  if (changed.length + foreign.length > 0) {
    screen.line(`  damaged: ${changed.length} changed, ${foreign.length} never written`)
  }
  for (const id of [...lost, ...changed, ...foreign].slice(0, 5)) screen.line(`    ${id}`)
  return lost.length + changed.length + foreign.length === 0
}

/**
 * What must be the same before and after the crash: how many there are, and the exact answers to the last bit.
 * @param {Stage} stage
 * @param {Passages} passages
 * @param {readonly string[]} queries
 * @returns {Promise<{ count: number, hits: string }>}
 */
async function exactAnswers({ embedder, signal }, passages, queries) {
  const answers = []
  for (const vector of await embedder.embed(queries)) {
    const { hits } = await passages.search({ vector, k: recallAt, mode: 'exact', signal })
    answers.push(hits.map(({ id, score, payload }) => [id, score, payload?.text]))
  }
  return { count: await passages.count(), hits: JSON.stringify(answers) }
}

/**
 * @param {Stage} stage
 * @param {import('isovec').Database} database
 * @param {readonly string[]} queries
 * @param {{ count: number, hits: string }} before
 * @returns {Promise<boolean>} whether the first collection is as it was
 */
async function askAgain(stage, database, queries, before) {
  const { screen, embedder } = stage
  screen.heading('Asking again after the crash')
  /** @type {Passages} */
  const passages = await database.openCollection(collectionName, { model: embedder.model })
  const [query = ''] = queries
  showAnswer(stage, query, await ask(stage, passages, query), 1)
  const { count, hits } = await exactAnswers(stage, passages, queries)
  const same = count === before.count && hits === before.hits
  screen.line(
    same
      ? `\n  ${formatPlural(count, 'passage')}, and exact answers equal to those before the crash`
      : `\n  DIFFERENT from before the crash: ${count} passages, ${before.count} before; exact answers\n${hits}\n${before.hits}`,
  )
  return same
}

/**
 * @param {Stage} stage
 * @param {import('isovec').Database} database
 * @param {number} totalMs
 */
async function showCosts({ screen, times, location }, database, totalMs) {
  screen.heading('Where time and disk went')
  for (const { name, ms } of times) screen.line(`  ${name.padEnd(28)}${formatDuration(ms).padStart(10)}`)
  screen.line(`  ${'all'.padEnd(28)}${formatDuration(totalMs).padStart(10)}`)
  screen.line()
  for (const name of await database.listCollections()) {
    const stats = await (await database.openCollection(name)).stats()
    screen.field(
      name,
      `${formatPlural(stats.docs, 'passage')}, ${formatCount(stats.memtableDocs)} of them not flushed yet, segments: ${stats.segments}; ` +
        `${formatBytes(stats.bytes)} on disk, of it graph ${formatBytes(stats.indexBytes)}, log ${formatBytes(stats.walBytes)}; ` +
        `memory ${formatBytes(stats.memoryBytes)}`,
    )
  }
  screen.field('folder', `${formatBytes(await folderSize(location))} in all`)
}

/** @param {string} folder @returns {Promise<number>} bytes of all files in it */
async function folderSize(folder) {
  let size = 0
  for (const entry of await readdir(folder, { withFileTypes: true, recursive: true })) {
    if (entry.isFile()) size += (await stat(join(entry.parentPath ?? entry.path, entry.name))).size
  }
  return size
}

/** @param {readonly number[]} values @returns {number} */
function median(values) {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)] ?? 0
}

/** @param {unknown} error @returns {string} one plain line; the stack only of what nobody expected */
function describeError(error) {
  if (!(error instanceof Error)) return String(error)
  const code = 'code' in error ? String(error.code) : ''
  if (code === '') return error.stack ?? error.message
  const cause = error.cause instanceof Error ? `\n  caused by ${error.cause.message}` : ''
  return `${error.message.startsWith(code) ? '' : `${code}: `}${error.message}${cause}`
}
