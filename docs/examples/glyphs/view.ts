/**
 * What the page shows: hits, figures, badges and messages.
 */
import { type DatabaseInfo, type Filter, isIsovecError, type SearchResult } from 'isovec'
import { codeOf, type Glyph, groups, kinds } from './catalogue.ts'
import type { Progress } from './store.ts'

/** An element of the page; those that are asked for are in index.html. */
export function element<T extends HTMLElement = HTMLElement>(id: string): T {
  return document.getElementById(id) as T
}

/** Makes an element of some text or others. */
export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  className: string,
  ...content: (string | Node)[]
): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag)
  if (className !== '') made.className = className
  made.append(...content)
  return made
}

export function makeButton(text: string, onClick: () => void, className = ''): HTMLButtonElement {
  const button = make('button', className, text)
  button.type = 'button'
  button.addEventListener('click', onClick)
  return button
}

const count = new Intl.NumberFormat('en')
const milliseconds = (value: number): string => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`
const bytes = (value: number): string =>
  value < 1e9 ? `${(value / 1e6).toFixed(value < 1e7 ? 1 : 0)} MB` : `${(value / 1e9).toFixed(1)} GB`

export type Answer = {
  readonly result: SearchResult<Glyph>
  readonly exact: SearchResult<Glyph> | undefined
  /** Zero if no picture was embedded. */
  readonly embedMs: number
  /** As the page sees them: with the way to the worker and back. */
  readonly searchMs: number
  readonly exactMs: number
  readonly docs: number
}

/** Shows hits; the focus stays at its place in the grid. */
export function showHits({ result }: Answer, onChoose: (glyph: Glyph) => void): void {
  const list = element('hits')
  const focused = [...list.querySelectorAll('button')].indexOf(document.activeElement as HTMLButtonElement)
  const items = result.hits.flatMap(({ payload, score }) =>
    payload === undefined ? [] : [hitItem(payload, score, onChoose)],
  )
  list.replaceChildren(...items)
  if (focused >= 0) list.querySelectorAll('button')[focused]?.focus()
}

function hitItem(glyph: Glyph, score: number, onChoose: (glyph: Glyph) => void): HTMLLIElement {
  const button = makeButton('', () => onChoose(glyph), 'hit')
  const character = make('span', 'glyph', glyph.character)
  const bar = make('span', 'bar')
  bar.style.setProperty('--score', String(Math.max(0, score)))
  button.append(character, make('span', 'score', score.toFixed(3)), bar)
  button.setAttribute('aria-label', `${glyph.character} ${codeOf(glyph.codePoint)}, score ${score.toFixed(3)}`)
  button.title = `${codeOf(glyph.codePoint)} · ${glyph.block}`
  return make('li', '', button)
}

/** Says in a sentence what was found, for the eye and for screen readers. */
export function showSummary({ result, exact, embedMs, searchMs }: Answer): void {
  const [best] = result.hits
  const time = `${milliseconds(embedMs + searchMs)}${embedMs > 0 ? ' with embedding' : ''}`
  const recall = exact && result.plan !== 'scan' ? `, recall ${Math.round(recallOf(result, exact) * 100)} %` : ''
  element('summary').textContent =
    best?.payload === undefined
      ? 'Nothing passes the filter.'
      : `Nearest: ${best.payload.character} ${codeOf(best.payload.codePoint)} at ${best.score.toFixed(3)}, found in ${time}${recall}.`
}

/** Share of the true nearest that were found. */
function recallOf(result: SearchResult<Glyph>, exact: SearchResult<Glyph>): number {
  if (exact.hits.length === 0) return 1
  const found = new Set(result.hits.map(({ id }) => id))
  return exact.hits.filter(({ id }) => found.has(id)).length / exact.hits.length
}

export function showFigures({ result, exact, embedMs, searchMs, exactMs, docs }: Answer): void {
  const visited = (one: SearchResult<Glyph>): string =>
    `${count.format(one.visited)} (${Math.round((one.visited / Math.max(1, docs)) * 100)} %)`
  const rows: [string, string, string][] = [
    ['Embedding', embedMs > 0 ? milliseconds(embedMs) : '–', ''],
    ['Search, seen from the page', milliseconds(searchMs), exact ? milliseconds(exactMs) : '–'],
    ['Search, in the engine', milliseconds(result.elapsedMs), exact ? milliseconds(exact.elapsedMs) : '–'],
    ['Vectors visited', visited(result), exact ? visited(exact) : '–'],
    ['Plan', result.plan, exact?.plan ?? '–'],
    [
      `Recall at ${result.hits.length}`,
      exact ? `${(recallOf(result, exact) * 100).toFixed(1)} %` : '–',
      exact ? '100 %' : '–',
    ],
  ]
  const table = element<HTMLTableElement>('figures')
  table.hidden = false
  table.tBodies[0]!.replaceChildren(
    ...rows.map(([label, asked, other]) => {
      const head = make('th', '', label)
      head.scope = 'row'
      return make('tr', '', head, make('td', '', asked), make('td', '', other))
    }),
  )
}

export type DetailActions = {
  readonly copied: boolean
  readonly onSimilar: () => void
  readonly onPin: () => void
}

export function showDetails(glyph: Glyph, { copied, onSimilar, onPin }: DetailActions): void {
  const kind = Object.keys(kinds).find((each) => kinds[each]!.includes(glyph.category))
  const facts: [string, string][] = [
    ['Code point', codeOf(glyph.codePoint)],
    ...(glyph.name === undefined ? [] : [['Name', glyph.name] as [string, string]]),
    ['Block', glyph.block],
    ['Category', `${glyph.category}, ${kind?.toLowerCase()}`],
    ['In HTML', `&#x${glyph.codePoint.toString(16).toUpperCase()};`],
  ]
  const list = make('dl', '', ...facts.flatMap(([term, fact]) => [make('dt', '', term), make('dd', '', fact)]))
  const pin = makeButton(glyph.pinned ? 'Unpin' : 'Pin', onPin)
  const actions = make('div', 'row', makeButton('Find glyphs like this', onSimilar), pin)
  const told = make(
    'p',
    'copied',
    copied ? 'Copied.' : 'Your browser did not let the page copy; select the glyph instead.',
  )
  told.setAttribute('role', 'status')
  const panel = element('details')
  panel.replaceChildren(make('span', 'large', glyph.character), make('div', '', told, list, actions))
  panel.hidden = false
  panel.scrollIntoView({ block: 'nearest' })
}

export function showPinned(glyphs: readonly Glyph[], onChoose: (glyph: Glyph) => void): void {
  element('pinned-section').hidden = glyphs.length === 0
  const items = glyphs.map((glyph) => {
    const button = makeButton(glyph.character, () => onChoose(glyph), 'pin')
    button.setAttribute('aria-label', `${glyph.character} ${codeOf(glyph.codePoint)}, pinned`)
    return make('li', '', button)
  })
  element('pinned').replaceChildren(...items)
}

export function showProgress(progress: Progress | undefined, docs: number): void {
  const bar = element<HTMLProgressElement>('indexing-bar')
  const isDone = progress?.isDone === true
  // The bar stays when it is full, so that nothing moves under a pen.
  if (isDone) bar.value = 1
  else if (progress === undefined || progress.total === 0) bar.removeAttribute('value')
  else bar.value = progress.next / progress.total
  const share = progress && progress.total > 0 ? `, ${Math.floor((progress.next / progress.total) * 100)} %` : ''
  element('indexing-text').textContent = isDone
    ? `${count.format(docs)} glyphs of your fonts are indexed.`
    : `Drawing and indexing your glyphs: ${count.format(docs)} so far${share}. You can search already; a later visit goes on from here.`
  element('indexing').classList.toggle('done', isDone)
}

export type Chosen = { readonly groups: ReadonlySet<string>; readonly kinds: ReadonlySet<string> }

/** Chips that are pressed or not. */
export function makeChips(chosenGroups: Set<string>, chosenKinds: Set<string>, onChange: () => void): void {
  for (const [id, names, chosen] of [
    ['groups', groups, chosenGroups],
    ['kinds', Object.keys(kinds), chosenKinds],
  ] as const) {
    const chips = names.map((name) => {
      const chip = makeButton(name, () => {
        const isPressed = !chosen.has(name)
        if (isPressed) chosen.add(name)
        else chosen.delete(name)
        chip.setAttribute('aria-pressed', String(isPressed))
        onChange()
      })
      chip.className = 'chip'
      chip.setAttribute('aria-pressed', 'false')
      return chip
    })
    element(id).replaceChildren(...chips)
  }
}

/** The filter that the chips stand for; undefined if all glyphs are wanted. */
export function filterOf(chosen: Chosen): Filter<Glyph> | undefined {
  const filter: Filter<Glyph> = {}
  if (chosen.groups.size > 0) filter.group = { $in: [...chosen.groups] }
  if (chosen.kinds.size > 0) filter.category = { $in: [...chosen.kinds].flatMap((kind) => kinds[kind]!) }
  return Object.keys(filter).length === 0 ? undefined : filter
}

export function showStorage(info: DatabaseInfo): void {
  const place = { opfs: 'Origin private file system', indexeddb: 'IndexedDB' }[info.backend] ?? info.backend
  const used = info.usage === undefined ? 'size not told' : `${bytes(info.usage)} used`
  const quota = info.quota === undefined ? '' : ` of ${bytes(info.quota)}`
  const role = info.role === 'leader' ? 'This tab leads' : info.role === 'follower' ? 'Follows another tab' : info.role
  badges('storage', [
    [place, undefined],
    [`${used}${quota}`, undefined],
    [role, undefined],
    [info.persisted ? 'Kept by the browser' : 'May be evicted', info.persisted === true],
  ])
  element('keep').hidden = info.persisted !== false
}

/** A function that adds nothing to a vector: compiles only where there is SIMD. */
const simdModule = [
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11,
]

export function showAbilities(info: DatabaseInfo | undefined): void {
  badges('abilities', [
    ['WASM SIMD', WebAssembly.validate(new Uint8Array(simdModule))],
    ['Relaxed SIMD', info?.kernel === 'relaxed-simd'],
    ['Private file system', typeof navigator.storage?.getDirectory === 'function'],
    ['Web Locks', 'locks' in navigator],
    ['Canvas in workers', typeof OffscreenCanvas !== 'undefined'],
    [crossOriginIsolated ? 'Cross-origin isolated' : 'Cross-origin isolated (not needed)', crossOriginIsolated],
  ])
}

function badges(id: string, entries: readonly [string, boolean | undefined][]): void {
  const items = entries.map(([text, isThere]) => {
    if (isThere === undefined) return make('li', '', text)
    const mark = make('span', '', isThere ? '✓ ' : '– ')
    mark.setAttribute('aria-hidden', 'true')
    const said = make('span', 'unseen', isThere ? ': yes' : ': no')
    return make('li', isThere ? 'yes' : 'no', mark, text, said)
  })
  element(id).replaceChildren(...items)
}

const plainWords: Partial<Record<string, string>> = {
  UNSUPPORTED:
    'This browser cannot hold the database: it offers no private storage or no locks here, as in some private windows.',
  UNSUPPORTED_VERSION: 'The stored glyphs were written by a newer version of this page.',
  QUOTA_EXCEEDED:
    'The browser gives this page no more room. What is indexed can be searched; free some space to index the rest.',
  DISCONNECTED:
    'The worker that held the database has ended, perhaps for want of memory. Nothing that was stored is lost.',
  TIMEOUT: 'The tab that leads has not answered in time. Close other tabs of this page, or open the database again.',
  CORRUPTION: 'A stored file is damaged. Indexing all glyphs again replaces it.',
  READ_ONLY:
    'Storage has failed, and nothing more is written. What is indexed can be searched; open the database again to go on.',
  OUT_OF_MEMORY: 'There is not enough memory for the glyphs.',
  IO: 'The browser could not read or write its storage.',
}

/** Says what went wrong, and offers what may help. */
export function showError(error: unknown, onReopen: (() => void) | undefined): void {
  const code = isIsovecError(error) ? error.code : undefined
  const place = 'Browsers keep a database only for pages of https or of this machine itself (localhost).'
  const known = isSecureContext ? code && plainWords[code] : place
  const text = known ?? `Something went wrong: ${error instanceof Error ? error.message : String(error)}`
  const panel = element('message')
  panel.replaceChildren(make('p', '', text))
  if (code !== undefined) panel.append(make('code', '', code))
  if (onReopen) panel.append(makeButton('Open again', onReopen))
  panel.hidden = false
}

export function hideError(): void {
  element('message').hidden = true
}
