/** The public contract, seen through messages: the tests of `test/api` on databases at the other end of a port. */
import { vi } from 'vitest'

vi.mock('../../src/index.ts', () => import('../support/remote-index.ts'))

await import('../api/database.test.ts')
await import('../api/document.test.ts')
await import('../api/filter.test.ts')
await import('../api/options.test.ts')
await import('../api/reads-together.test.ts')
await import('../api/refusal-read.test.ts')
await import('../api/refusal-write.test.ts')
await import('../api/search-exact.test.ts')
await import('../api/search-graph.test.ts')
await import('../api/write.test.ts')
