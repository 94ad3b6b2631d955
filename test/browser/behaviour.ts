import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { JsonObject } from '../../src/api.ts'
import { seededChoice } from '../../src/directory/crash-image.ts'
import { nodeBackend } from '../../src/directory/node.ts'
import { openDatabase } from '../../src/index.ts'
import type { TestBrowser, TestPage } from '../support/browser.ts'
import { temporaryFolder } from '../support/folder.ts'
import { readDatabase } from '../support/recovered.ts'
import { seed } from '../support/seed.ts'
import type { CrashReport } from './crash.ts'
import type { BackendKind, Files } from './methods.ts'

const kinds: readonly BackendKind[] = ['opfs', 'indexeddb']

/** What databases and stores in a browser do beyond the conformance suite. */
export function describeBehaviour(browser: () => TestBrowser): void {
  let page: TestPage
  beforeEach(async () => {
    page = await browser().page('page')
  })
  afterEach(() => page.close())

  describe.each(kinds)('%s', (kind) => {
    test('loses nothing when workers are ended while they write', async () => {
      console.log(`seed ${seed}`)
      const report = (await page.call('crashRounds', kind, seed, 24)) as CrashReport
      console.log(browser().kind, kind, JSON.stringify(report))
      expect(report.acknowledged).toBeGreaterThan(50)
      expect(report.issued).toBeGreaterThan(report.acknowledged)
    }, 180_000)

    test('the lock is free when the worker that had it has ended', async () => {
      const [first, second] = [await page.worker('worker'), await page.worker('worker')]
      expect(await first.call('lock', kind, 'lock', 0)).toBe('web-lock')
      await expect(second.call('lock', kind, 'lock', 0)).rejects.toMatchObject({ code: 'LOCKED' })
      await expect(second.call('lock', kind, 'lock', 50)).rejects.toMatchObject({ code: 'LOCKED' })
      const waiting = second.call('lock', kind, 'lock', 20_000)
      await first.terminate()
      expect(await waiting).toBe('web-lock')
      await second.call('release')
    })

    test('a writer whose lock was taken over acknowledges nothing any more', async () => {
      const [first, second] = [await page.worker('worker'), await page.worker('worker')]
      await first.call('beginWriting', kind, 'steal')
      expect(await first.call('writeAfter', 2_500)).toBe('resolved')
      const blocked = first.call('writeBlocked', 6_000)
      await new Promise((resolve) => setTimeout(resolve, 1_000))
      const size = await second.call('steal', kind, 'steal')
      const { codes, state } = (await blocked) as { codes: string[]; state: string }
      expect(codes.slice(0, 6)).toEqual(Array.from({ length: 6 }, () => 'IO'))
      expect(state).toBe('lost')
      expect(size).toBe(7)
      const left = (await second.call('takeFiles', kind, 'steal')) as Files
      expect(Object.keys(left)).toEqual(['1.a', '2.a'])
    })

    test('a database whose lock was taken over acknowledges nothing any more', async () => {
      const [first, second] = [await page.worker('worker'), await page.worker('worker')]
      await first.call('open', kind, 'robbed', {})
      await first.call('create', 'alpha', { dimension: 2 })
      await first.call('write', 'alpha', [{ upsert: { id: 'a', vector: [1, 2] } }], {})
      const blocked = first.call('upsertBlocked', 'alpha', 6_000)
      await new Promise((resolve) => setTimeout(resolve, 1_000))
      expect(await second.call('openStealing', kind, 'robbed')).toEqual(['alpha'])
      await second.call('write', 'alpha', [{ upsert: { id: 'b', vector: [1, 2] } }], {})
      expect(await blocked).toEqual(['IO', 'READ_ONLY'])
      await second.call('close')
      await second.call('open', kind, 'robbed', {})
      const [[, contents]] = (await second.call('read', 1)) as [[string, [string, string][]]]
      expect(contents.map(([id]) => id).sort()).toEqual(['a', 'b'])
      await second.call('close')
    })

    test('the files are those of a folder, there and back', async () => {
      const worker = await page.worker('worker')
      const folder = await temporaryFolder()
      const db = await openDatabase(nodeBackend(folder))
      const alpha = await db.createCollection<JsonObject>('alpha', { dimension: 8 })
      const choose = seededChoice(seed)
      const documents = Array.from({ length: 1_200 }, (_, i) => ({
        id: `d${i}`,
        vector: Array.from({ length: 8 }, () => choose(1000) + 1),
        payload: { n: i },
      }))
      await alpha.upsert(documents)
      await alpha.compact()
      await alpha.patch('d7', { m: 1 })
      await alpha.delete('d8')
      const expected = [...(await readDatabase(db, choose, 2))].map(([name, contents]) => [name, [...contents]])
      await db.close()

      await worker.call('putFiles', kind, 'copy', await takeFolder(folder))
      expect(await worker.call('open', kind, 'copy', { mustExist: true })).toEqual(['alpha'])
      expect(sorted(await worker.call('read', 1))).toEqual(sorted(expected))
      await worker.call('write', 'alpha', [{ delete: 'd9' }, { patch: { id: 'd7', payload: { m: 2 } } }], {})
      await worker.call('flush', 'alpha')
      const changed = await worker.call('read', 1)
      await worker.call('close')

      const back = await temporaryFolder()
      await putFolder(back, (await worker.call('takeFiles', kind, 'copy')) as Files)
      const again = await openDatabase(nodeBackend(back), { mustExist: true })
      const found = [...(await readDatabase(again, choose, 2))].map(([name, contents]) => [name, [...contents]])
      await again.close()
      expect(sorted(found)).toEqual(sorted(changed))
      expect(sorted(found)).not.toEqual(sorted(expected))
    })

    test('more files are open than there are handles for', async () => {
      const worker = await page.worker('worker')
      const most = await worker.call('useManyFiles', kind, 'many', 50)
      expect(most).toBe(kind === 'opfs' ? 32 : 0)
    })

    test('is told apart from what is not there', async () => {
      const worker = await page.worker('worker')
      const held = (name: string) => worker.call('holds', name)
      expect(await held(`held ${kind}`)).toEqual([false, false])
      expect(await worker.call('exists', kind, `held ${kind}`)).toBe(false)
      await worker.call('createRoot', kind, `held ${kind}`)
      expect(await held(`held ${kind}`)).toEqual([false, false])
      expect(await worker.call('exists', kind, `held ${kind}`)).toBe(true)
      await worker.call('beginWriting', kind, `held ${kind}`)
      expect(await held(`held ${kind}`)).toEqual([kind === 'opfs', kind === 'indexeddb'])
    })

    test('names that are paths are refused', async () => {
      const worker = await page.worker('worker')
      for (const name of ['', 'a/b', 'a\\b', '.a', '..', 'a.', 'a ', 'e\u0301', 'a\0', 'a:b', 'x'.repeat(129)]) {
        await expect(worker.call('exists', kind, name), name).rejects.toMatchObject({
          code: 'INVALID_ARGUMENT',
          field: 'location',
        })
      }
      for (const name of ['a', 'é 水.2-b_c', 'x'.repeat(128), 'नमस्ते']) {
        expect(await worker.call('exists', kind, name)).toBe(false)
      }
    })
  })

  test('access handles are asked for where they are', async () => {
    await expect(page.call('exists', 'opfs', 'a')).rejects.toMatchObject({ code: 'UNSUPPORTED' })
    expect(await page.call('hasOpfs')).toBe(true)
    expect(await (await page.worker('worker')).call('hasOpfs')).toBe(true)
  })

  test('a dropped connection to IndexedDB costs nothing', async () => {
    const worker = await page.worker('worker')
    const found = (await worker.call('appendThroughLosses', 'losses')) as {
      losses: number
      thousands: number[]
      size: number
    }
    expect(found).toEqual({ losses: 9, thousands: [1, 2, 3, 4], size: 4000 })
  })

  test('a database of IndexedDB can be deleted while it is open', async () => {
    const worker = await page.worker('worker')
    await worker.call('beginWriting', 'indexeddb', 'deleted')
    await page.call('deleteIndexedDb', 'isovec:deleted')
    expect(await worker.call('writeAfter', 0)).toBe('IO')
    expect(await worker.call('exists', 'indexeddb', 'deleted')).toBe(false)
  })
}

function sorted(found: unknown): unknown {
  return (found as [string, [string, string][]][]).map(([name, contents]) => [name, contents.toSorted()])
}

async function takeFolder(folder: string): Promise<Files> {
  const backend = nodeBackend(folder)
  const files: { [path: string]: string } = {}
  for (const number of [undefined, ...(await backend.directories())]) {
    const directory =
      number === undefined ? await backend.open({ create: false }) : await backend.directory(number, { create: false })
    for (const name of await directory.list()) {
      const file = await directory.open(name)
      const bytes = Buffer.alloc(file.size)
      await file.read(0, bytes)
      await file.close()
      files[number === undefined ? name : `${number}/${name}`] = bytes.toString('base64')
    }
  }
  return files
}

async function putFolder(folder: string, files: Files): Promise<void> {
  const backend = nodeBackend(folder)
  const root = await backend.open({ create: true })
  for (const [path, text] of Object.entries(files)) {
    const [number, name] = path.includes('/') ? path.split('/') : [undefined, path]
    const directory = number === undefined ? root : await backend.directory(Number(number), { create: true })
    const file = await directory.create(name!)
    await file.append(Buffer.from(text, 'base64'))
    await file.close()
  }
}
