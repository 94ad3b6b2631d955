/** Serves the page when there is no network: what the network gives is kept, and given when it does not. */

type Lasting = { waitUntil(promise: Promise<unknown>): void }
type Fetching = { readonly request: Request; respondWith(response: Promise<Response>): void }
type Scope = {
  addEventListener(type: 'install' | 'activate', listener: (event: Lasting) => void): void
  addEventListener(type: 'message', listener: (event: Lasting & { readonly data: string[] }) => void): void
  addEventListener(type: 'fetch', listener: (event: Fetching) => void): void
  skipWaiting(): Promise<void>
  readonly clients: { claim(): Promise<void> }
}

const scope = globalThis as unknown as Scope
const cacheName = 'isovec-glyphs-page'

scope.addEventListener('install', (event) => event.waitUntil(scope.skipWaiting()))
scope.addEventListener('activate', (event) => event.waitUntil(scope.clients.claim()))
scope.addEventListener('message', (event) =>
  event.waitUntil(caches.open(cacheName).then((cache) => cache.addAll(event.data))),
)
scope.addEventListener('fetch', (event) => {
  if (event.request.method === 'GET') event.respondWith(answer(event.request))
})

async function answer(request: Request): Promise<Response> {
  const cache = await caches.open(cacheName)
  try {
    const response = await fetch(request)
    if (response.ok) await cache.put(request, response.clone())
    return response
  } catch (error) {
    const kept = await cache.match(request, { ignoreSearch: true })
    if (kept === undefined) throw error
    return kept
  }
}
