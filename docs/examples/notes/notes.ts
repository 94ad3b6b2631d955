/** Notes that are found by likeness, shared by all tabs. */
import { type Collection, type Filter, isIsovecError, openDatabase } from 'isovec'

type Note = { text: string; done: boolean; changed: number }

const dimension = 256
const get = <T extends HTMLElement>(id: string): T => document.getElementById(id) as T
const list = get<HTMLUListElement>('list')
const query = get<HTMLInputElement>('query')
const state = get<HTMLSelectElement>('state')
let notes: Collection<Note> | undefined

/** A stand-in for a real model: counts groups of three letters by their hash. It knows spelling, not meaning. */
function embed(text: string): Float32Array {
  const vector = new Float32Array(dimension)
  const letters = ` ${text.toLowerCase().replace(/\s+/g, ' ').trim()} `
  for (let at = 0; at + 3 <= letters.length; at++) {
    let hash = 7
    for (const unit of letters.slice(at, at + 3)) hash = Math.imul(hash ^ unit.codePointAt(0)!, 0x01000193)
    vector[(hash >>> 8) % dimension]! += 1
  }
  // Under cosine no vector may be all zero.
  if (letters.trim() === '') vector[0] = 1
  return vector
}

async function show(): Promise<void> {
  if (notes === undefined) return
  const filter: Filter<Note> = state.value === '' ? {} : { done: state.value === 'done' }
  const found: { id: string; note: Note; score?: number }[] = []
  if (query.value.trim() !== '') {
    const { hits } = await notes.search({ vector: embed(query.value), filter, k: 20 })
    for (const { id, score, payload } of hits) found.push({ id, note: payload!, score })
  } else {
    for await (const { id, payload } of notes.iterate({ filter, include: { vector: false } }))
      found.push({ id, note: payload! })
    found.sort((a, b) => b.note.changed - a.note.changed)
  }
  // Nobody's half-written edit is taken away.
  if (document.activeElement instanceof HTMLTextAreaElement && list.contains(document.activeElement)) return
  list.replaceChildren(...found.map(({ id, note, score }) => item(id, note, score)))
  get('status').textContent = `${found.length} of ${await notes.count()} notes`
}

function item(id: string, note: Note, score?: number): HTMLLIElement {
  const line = document.createElement('li')
  const done = Object.assign(document.createElement('input'), {
    type: 'checkbox',
    checked: note.done,
    ariaLabel: 'Done',
  })
  const text = Object.assign(document.createElement('textarea'), { value: note.text, rows: 1, ariaLabel: 'Note' })
  const remove = Object.assign(document.createElement('button'), { textContent: 'Delete', type: 'button' })
  // A patch leaves the vector alone; a new text needs a new one.
  done.onchange = () => attempt((open) => open.patch(id, { done: done.checked }))
  text.onchange = () =>
    attempt((open) => open.upsert(documentOf(id, { ...note, text: text.value, changed: Date.now() })))
  remove.onclick = () => attempt((open) => open.delete(id))
  line.append(done, text, score === undefined ? '' : score.toFixed(2), remove)
  return line
}

const documentOf = (id: string, note: Note) => ({ id, vector: embed(note.text), payload: note })

async function attempt(task: (open: Collection<Note>) => Promise<unknown>): Promise<void> {
  try {
    if (notes !== undefined) await task(notes)
    await show()
  } catch (error) {
    tell(error)
  }
}

function tell(error: unknown): void {
  const isGone = isIsovecError(error) && error.code === 'DISCONNECTED'
  get('status').textContent = isGone ? 'The database is gone: reload the page.' : String(error)
}

get<HTMLFormElement>('add').onsubmit = (event) => {
  event.preventDefault()
  const text = get<HTMLTextAreaElement>('text')
  const note = { text: text.value, done: false, changed: Date.now() }
  text.value = ''
  void attempt((open) => open.upsert(documentOf(crypto.randomUUID(), note)))
}
get<HTMLFormElement>('find').onsubmit = (event) => event.preventDefault()
query.oninput = () => attempt(async () => {})
state.onchange = () => attempt(async () => {})

try {
  // Every tab hears of what any tab writes.
  const database = await openDatabase('isovec-notes', { onEvent: () => void attempt(async () => {}) })
  notes = await database.createCollection<Note>('notes', { dimension, model: 'letter-trigrams-1', ifExists: 'open' })
  // Before, a note would have no place to go.
  get<HTMLButtonElement>('submit').disabled = false
  await show()
} catch (error) {
  tell(error)
}
