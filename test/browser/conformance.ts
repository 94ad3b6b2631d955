import { beforeAll, describe, test } from 'vitest'
import { conformanceCases } from '../../src/directory/conformance.ts'
import type { PageWorker, TestBrowser, TestPage } from '../support/browser.ts'
import type { BackendKind } from './methods.ts'

const names = conformanceCases.map(({ name }) => name)

/** The conformance suite in a dedicated worker, for IndexedDB also on the main thread of a page. */
export function describeConformance(browser: () => TestBrowser): void {
  describe.each<BackendKind>(['opfs', 'indexeddb'])('%s in a worker', (kind) => {
    let worker: PageWorker
    beforeAll(async () => {
      worker = await (await browser().page('page')).worker('worker')
    })
    test.each(names)('%s', async (name) => {
      await worker.call('conformance', kind, name)
    })
  })

  describe('indexeddb on the main thread', () => {
    let page: TestPage
    beforeAll(async () => {
      page = await browser().page('page')
    })
    test.each(names)('%s', async (name) => {
      await page.call('conformance', 'indexeddb', name)
    })
  })
}
