/**
 * Draw a symbol, find the nearest glyphs.
 */
import { type DatabaseEvent, isIsovecError } from 'isovec'
import type { Glyph } from './catalogue.ts'
import { Pad } from './pad.ts'
import { embed } from './picture.ts'
import { idOf, indexGlyphs, openStore, readProgress, type Store } from './store.ts'
import {
  type Answer,
  element,
  filterOf,
  hideError,
  makeChips,
  showAbilities,
  showDetails,
  showError,
  showFigures,
  showHits,
  showPinned,
  showProgress,
  showStorage,
  showSummary,
} from './view.ts'

/** Hits shown. */
const k = 24
/** Beams of the slider; the first leaves the choice to the database. */
const beams = [undefined, 24, 32, 64, 128, 256, 512, 1024, 2048]
/** Milliseconds between two looks at what other tabs, or the index, have changed. */
const refreshInterval = 400
/** And between two searches while a line is being drawn. */
const drawingInterval = 40

let store: Store | undefined
/** Whether the store's worker has ended. */
let isLost = false
let ending = new AbortController()
/** Id of the glyph whose own vector is the question, instead of a drawing. */
let near: string | undefined
let chosen: Glyph | undefined
const chosenGroups = new Set<string>()
const chosenKinds = new Set<string>()

const pause = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds))

/** Runs a task once at a time; what is asked for meanwhile is done once, after it. */
function oneAtATime(task: () => Promise<void>): () => void {
  let isRunning = false
  let isWanted = false
  const run = async (): Promise<void> => {
    isWanted = true
    if (isRunning) return
    isRunning = true
    try {
      while (isWanted) {
        isWanted = false
        await task()
      }
    } catch (error) {
      report(error)
    } finally {
      isRunning = false
    }
  }
  return () => void run()
}

let isFinal = true
const search = oneAtATime(async () => {
  element('pad-hint').hidden = !pad.isEmpty
  await attempt(searchIn)
})

async function searchIn({ glyphs }: Store): Promise<void> {
  const begin = performance.now()
  const picture = near === undefined ? pad.picture() : undefined
  const vector = picture && embed(picture)
  const embedMs = picture === undefined ? 0 : performance.now() - begin
  if (near === undefined && vector === undefined) return showNothing()
  const filter = filterOf({ groups: chosenGroups, kinds: chosenKinds })
  const ef = beams[element<HTMLInputElement>('beam').valueAsNumber]
  const question = { ...(near === undefined ? { vector: vector! } : { near }), k, filter }
  const asked = performance.now()
  const result = await glyphs.search({ ...question, ...(ef === undefined ? {} : { ef }) })
  const found = performance.now()
  const isCompared = element<HTMLInputElement>('compare').checked
  const exact = isCompared ? await glyphs.search({ ...question, mode: 'exact' }) : undefined
  const answer: Answer = {
    result,
    exact,
    embedMs,
    searchMs: found - asked,
    exactMs: performance.now() - found,
    docs: await glyphs.count(),
  }
  showHits(answer, (glyph) => void choose(glyph))
  showFigures(answer)
  // Screen readers would read every step of a stroke.
  if (isFinal) showSummary(answer)
  else await pause(drawingInterval)
}

const pad = new Pad(element<HTMLCanvasElement>('pad'), (final) => {
  near = undefined
  isFinal = final
  search()
})

function showNothing(): void {
  element('hits').replaceChildren()
  element('figures').hidden = true
  element('summary').textContent = 'Draw something, or type a character.'
}

/** Looks at what may have changed: by the index, or by another tab. */
const refresh = oneAtATime(async () => {
  await attempt(refreshFrom)
  await pause(refreshInterval)
})

async function refreshFrom(store: Store): Promise<void> {
  const pinned: Glyph[] = []
  for await (const { payload } of store.glyphs.iterate({ filter: { pinned: true }, include: { vector: false } })) {
    if (payload !== undefined) pinned.push(payload)
  }
  pinned.sort((a, b) => a.codePoint - b.codePoint)
  showPinned(pinned, (glyph) => void choose(glyph))
  showProgress(await readProgress(store), await store.glyphs.count())
  const info = await store.database.info()
  showStorage(info)
  showAbilities(info)
}

function onEvent(event: DatabaseEvent): void {
  if (event.type === 'background-error') report(event.error)
  refresh()
}

async function choose(glyph: Glyph): Promise<void> {
  const copied = await navigator.clipboard.writeText(glyph.character).then(
    () => true,
    () => false,
  )
  await attempt(async ({ glyphs }) => {
    const stored = await glyphs.get(idOf(glyph.codePoint), { include: { vector: false } })
    chosen = stored?.payload ?? glyph
    showChosen(copied)
  })
}

function showChosen(copied: boolean): void {
  if (chosen === undefined) return
  const glyph = chosen
  showDetails(glyph, {
    copied,
    onSimilar() {
      near = idOf(glyph.codePoint)
      isFinal = true
      search()
    },
    onPin: () =>
      void attempt(async ({ glyphs }) => {
        chosen = { ...glyph, pinned: !glyph.pinned }
        await glyphs.patch(idOf(glyph.codePoint), { pinned: chosen.pinned! })
        showChosen(copied)
        refresh()
      }),
  })
}

/** Does something with the database that may be done twice, and says what went wrong. */
async function attempt(task: (store: Store) => Promise<void>): Promise<void> {
  const open = store
  if (open === undefined || isLost) return
  try {
    await task(open).catch(async (error: unknown) => {
      if (!isIsovecError(error) || error.code !== 'DISCONNECTED') throw error
      // If it answers, only the tab that led is gone, and another one leads by now.
      await open.database.info()
      await task(open)
    })
  } catch (error) {
    if (open !== store) return
    isLost = isIsovecError(error) && error.code === 'DISCONNECTED'
    report(error)
  }
}

function report(error: unknown): void {
  const code = isIsovecError(error) ? error.code : undefined
  // What was under way when the page closed the database itself is no news.
  const isEnded = error instanceof DOMException && error.name === 'AbortError'
  if (code === 'CLOSED' || code === 'ABORTED' || isEnded || ending.signal.aborted) return
  console.error(error)
  showError(error, code === undefined || code === 'UNSUPPORTED' || !isSecureContext ? undefined : () => void reopen())
}

async function index(isAnew = false): Promise<void> {
  const { signal } = ending
  await attempt((open) => indexGlyphs(open, { signal, isAnew, onProgress: refresh }))
  refresh()
}

async function open(): Promise<void> {
  try {
    ending = new AbortController()
    store = await openStore(onEvent)
    isLost = false
    hideError()
    refresh()
    search()
    await index()
  } catch (error) {
    element('indexing').hidden = true
    report(error)
  }
}

async function reopen(): Promise<void> {
  const old = store
  store = undefined
  ending.abort()
  // A database whose worker is gone has nothing left to close.
  await old?.database.close().catch((error: unknown) => console.warn(error))
  element('indexing').hidden = false
  await open()
}

function listen(): void {
  element('undo').addEventListener('click', () => pad.undo())
  element('clear').addEventListener('click', () => {
    element<HTMLInputElement>('typed').value = ''
    pad.clear()
  })
  element<HTMLInputElement>('typed').addEventListener('input', ({ target }) => {
    const characters = [...new Intl.Segmenter().segment((target as HTMLInputElement).value.trim())]
    pad.show(characters.at(-1)?.segment ?? '')
  })
  element<HTMLInputElement>('beam').addEventListener('input', () => {
    const beam = beams[element<HTMLInputElement>('beam').valueAsNumber]
    const text = beam === undefined ? 'chosen for 95 % recall' : String(beam)
    element('beam-value').textContent = text
    element('beam').setAttribute('aria-valuetext', text)
    search()
  })
  element('compare').addEventListener('change', search)
  element('keep').addEventListener('click', () => {
    navigator.storage.persist().then(refresh, report)
  })
  element('again').addEventListener('click', () => {
    ending.abort()
    ending = new AbortController()
    void index(true)
  })
  makeChips(chosenGroups, chosenKinds, () => {
    showFilter()
    search()
  })
  showFilter()
}

function showFilter(): void {
  const filter = filterOf({ groups: chosenGroups, kinds: chosenKinds })
  element('filter').textContent = filter === undefined ? 'none: all glyphs' : JSON.stringify(filter)
}

/** Keeps a copy of the page, so that it opens without a network too. */
async function keepPage(): Promise<void> {
  if (!('serviceWorker' in navigator)) return
  await navigator.serviceWorker.register('./sw.js')
  const { active } = await navigator.serviceWorker.ready
  const loaded = performance.getEntriesByType('resource').map(({ name }) => name)
  active?.postMessage([location.href, ...loaded].filter((url) => url.startsWith(location.origin)))
}

showAbilities(undefined)
listen()
void open()
addEventListener('load', () => {
  setTimeout(
    () => keepPage().catch((error: unknown) => console.warn('the page is not kept for offline use', error)),
    3000,
  )
})
