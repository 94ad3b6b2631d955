import { execFileSync } from 'node:child_process'
import { createReadStream } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { Readable } from 'node:stream'
import { packTar } from 'modern-tar'
import { describe, expect, test } from 'vitest'
import { imageKey } from '../../src/directory/crash-image.ts'
import { faultyBackend } from '../../src/directory/faulty.ts'
import { type MemoryBackend, memoryBackend, type StoreImage } from '../../src/directory/memory.ts'
import type { Collection, CollectionOptions, StorageBackend, ToolOptions } from '../../src/index.ts'
import { mergeDatabases, openDatabase, restore, salvage } from '../../src/index.ts'
import { changed, flipped, ofKind } from '../support/damage.ts'
import { temporaryFolder } from '../support/folder.ts'
import { digestOf } from '../support/history.ts'
import { hookedBackend } from '../support/hooked-backend.ts'
import { readContents } from '../support/recovered.ts'

const options: CollectionOptions = { dimension: 3, metric: 'euclidean', index: 'manual', compaction: 'manual' }

async function built(place: StorageBackend | string): Promise<Map<string, string>> {
  const db = await openDatabase(place)
  const docs = await db.createCollection('docs', options)
  await docs.upsert(Array.from({ length: 1100 }, (_, n) => ({ id: `a${n}`, vector: [n, 1, 2], payload: { n } })))
  await docs.buildIndex()
  await docs.patch('a3', { n: -1 })
  await docs.delete('a4')
  await docs.flush()
  await docs.upsert({ id: 'late', vector: [1, 2, 3] })
  const other = await db.createCollection('other', { ...options, dimension: 1 })
  await other.upsert({ id: 'x', vector: [1] })
  const contents = await readContents(docs)
  await db.close()
  return contents
}

async function contentsAt(place: StorageBackend | string, name = 'docs'): Promise<Map<string, string>> {
  const db = await openDatabase(place, { readOnly: true })
  const contents = await readContents(await db.openCollection(name))
  await db.close()
  return contents
}

async function archiveOf({ root, directories }: StoreImage, prefix = ''): Promise<Uint8Array<ArrayBuffer>> {
  const files = [
    ...[...root!].map(([name, bytes]) => [name, bytes] as const),
    ...[...directories].flatMap(([number, all]) =>
      [...all].map(([name, bytes]) => [`${number}/${name}`, bytes] as const),
    ),
  ]
  return packTar(
    files.map(([name, bytes]) => ({
      header: { name: prefix + name, size: bytes.length, type: 'file' as const },
      body: bytes as Uint8Array<ArrayBuffer>,
    })),
  )
}

function streamOf(bytes: Uint8Array, pieceSize: number): ReadableStream<Uint8Array> {
  let at = 0
  return new ReadableStream({
    pull(controller) {
      if (at >= bytes.length) controller.close()
      else controller.enqueue(bytes.slice(at, at + pieceSize))
      at += pieceSize
    },
  })
}

function isEmpty(place: MemoryBackend): boolean {
  const { root, directories } = place.image()
  return (root?.size ?? 0) === 0 && directories.size === 0
}

describe('restoring', () => {
  test('makes a database of a folder, of a backend, and of another runtime', async () => {
    const folder = join(await temporaryFolder(), 'snapshot')
    const contents = await built(folder)
    const copy = memoryBackend()
    expect(await restore(folder, copy)).toMatchObject({ collections: 2, docs: contents.size + 1 })
    expect(digestOf(await contentsAt(copy))).toBe(digestOf(contents))
    const back = join(await temporaryFolder(), 'back')
    await restore(copy, back)
    expect(digestOf(await contentsAt(back))).toBe(digestOf(contents))
    const db = await openDatabase(back)
    expect(await (await db.openCollection('docs')).hasIndex()).toBe(true)
    await db.close()
  })

  test.each([
    ['as it is', '', false],
    ['below a folder', 'backups/of-7/', false],
    ['below a folder whose name is a number', 'backups/20261124/', false],
    ['below a number alone', '7/', false],
    ['with ./ before each name', './', false],
    ['gzipped', '', true],
  ])('makes one of an archive, %s', async (_, prefix, isZipped) => {
    const source = memoryBackend()
    const contents = await built(source)
    const archive = await archiveOf(source.image(), prefix)
    for (const pieceSize of [511, 100_000, archive.length]) {
      const stream = streamOf(archive, pieceSize)
      const copy = memoryBackend()
      const report = await restore(isZipped ? stream.pipeThrough(new CompressionStream('gzip') as never) : stream, copy)
      expect(report).toMatchObject({ collections: 2, docs: contents.size + 1 })
      expect(digestOf(await contentsAt(copy))).toBe(digestOf(contents))
    }
  })

  test('takes what tar makes of a folder, with the lock and the folders in it', async () => {
    const folder = join(await temporaryFolder(), 'snapshot')
    const contents = await built(folder)
    expect(await readdir(folder)).toContain('lock')
    const file = join(dirname(folder), 'snapshot.tar.gz')
    execFileSync('tar', ['-czf', file, '-C', dirname(folder), 'snapshot'])
    const copy = memoryBackend()
    await restore(Readable.toWeb(createReadStream(file)) as ReadableStream<Uint8Array>, copy)
    expect(digestOf(await contentsAt(copy))).toBe(digestOf(contents))
  })

  test('leaves nothing of an archive that is cut, damaged, or none', { timeout: 60_000 }, async () => {
    const source = memoryBackend()
    await built(source)
    const image = source.image()
    const archive = await archiveOf(image)
    const bad: [string, Uint8Array][] = [
      ['empty', new Uint8Array(0)],
      ['text', new TextEncoder().encode('no archive at all'.repeat(100))],
      ['zip of nothing', Uint8Array.of(0x1f, 0x8b, 1, 2, 3)],
      ['other files', await packTar([{ header: { name: 'a.txt', size: 2, type: 'file' }, body: 'hi' }])],
    ]
    for (const share of [0.05, 0.3, 0.6, 0.9]) bad.push(['cut', archive.slice(0, Math.floor(archive.length * share))])
    for (const kind of ['seg', 'graph', 'del', 'patch', 'manifest']) {
      const { name, bytes } = ofKind(image, kind)[0]!
      const at = kind === 'seg' || kind === 'graph' ? 5000 : bytes.length - 5
      bad.push([name, await archiveOf(changed(image, 1, name, flipped(bytes, at * 8 + 1)))])
    }
    bad.push(['no segment', await archiveOf(changed(image, 1, ofKind(image, 'seg')[0]!.name, undefined))])
    for (const [what, bytes] of bad) {
      const copy = memoryBackend()
      await expect(restore(streamOf(bytes, 4096), copy), what).rejects.toMatchObject({ code: 'CORRUPTION' })
      expect(isEmpty(copy), what).toBe(true)
    }
  })

  test('takes no more of an archive than it may, and writes nothing of a file that is larger than what is left', async () => {
    const source = memoryBackend()
    await built(source)
    const archive = await archiveOf(source.image())
    const copy = memoryBackend()
    const { bytes } = await restore(streamOf(archive, 4096), copy)
    expect(await restore(streamOf(archive, 4096), memoryBackend(), { maxBytes: bytes })).toMatchObject({ bytes })
    const small = memoryBackend()
    const short = restore(streamOf(archive, 4096), small, { maxBytes: bytes - 1 })
    await expect(short).rejects.toMatchObject({ code: 'QUOTA_EXCEEDED' })
    expect(isEmpty(small)).toBe(true)
    for (const maxBytes of [-1, 1.5, Number.NaN, '7']) {
      const refused = restore(streamOf(archive, 4096), memoryBackend(), { maxBytes: maxBytes as number })
      await expect(refused).rejects.toMatchObject({ code: 'INVALID_ARGUMENT', field: 'options.maxBytes' })
    }

    const zeros = new Uint8Array(8 * 1024 * 1024)
    const bomb = await packTar([{ header: { name: '1/9.seg', size: zeros.length, type: 'file' }, body: zeros }])
    let written = 0
    const watched = hookedBackend(memoryBackend(), async ({ kind }, run) => {
      if (kind === 'append') written++
      return run()
    })
    const zipped = streamOf(bomb, 65_536).pipeThrough(new CompressionStream('gzip') as never)
    const exploding = restore(zipped as ReadableStream<Uint8Array>, watched, { maxBytes: 1_000_000 })
    await expect(exploding).rejects.toMatchObject({ code: 'QUOTA_EXCEEDED' })
    expect(written).toBe(0)
  })

  test('keeps nothing of an archive that no manifest names', async () => {
    const source = memoryBackend()
    const contents = await built(source)
    const image = source.image()
    const [segment, log] = [ofKind(image, 'seg')[0]!, ofKind(image, 'wal')[0]!]
    let stray = image
    for (const kind of ['seg', 'graph', 'del', 'patch']) stray = changed(stray, 1, `99.${kind}`, segment.bytes)
    stray = { ...stray, directories: new Map(stray.directories).set(7, new Map([['1.seg', segment.bytes]])) }
    const [whole, copy] = [memoryBackend(), memoryBackend()]
    const { bytes } = await restore(streamOf(await archiveOf(image), 4096), whole)
    expect(await restore(streamOf(await archiveOf(stray), 4096), copy)).toMatchObject({ bytes })
    expect(imageKey(copy.image())).toBe(imageKey(whole.image()))
    expect(digestOf(await contentsAt(copy))).toBe(digestOf(contents))
    expect([...copy.image().directories.get(1)!.keys()]).toContain(log.name)
  })

  test('tells streams that break off, stand still or hold too much, and lets go of them', async () => {
    const source = memoryBackend()
    await built(source)
    const archive = await archiveOf(source.image())
    for (const at of [0, 10_000]) {
      let sent = 0
      const broken = new ReadableStream<Uint8Array>({
        pull(controller) {
          if (sent >= at) controller.error(new TypeError('network'))
          else controller.enqueue(archive.slice(sent, sent + 1000))
          sent += 1000
        },
      })
      const copy = memoryBackend()
      await expect(restore(broken, copy)).rejects.toMatchObject({ code: 'IO', cause: { message: 'network' } })
      expect(isEmpty(copy)).toBe(true)
    }
    let isCancelled = false
    const still = new ReadableStream<Uint8Array>({
      cancel() {
        isCancelled = true
      },
    })
    const abort = new AbortController()
    setTimeout(() => abort.abort('enough'), 20)
    const waiting = restore(still, memoryBackend(), { signal: abort.signal })
    await expect(waiting).rejects.toMatchObject({ code: 'ABORTED', cause: 'enough' })
    expect(isCancelled).toBe(true)
    const refused = streamOf(archive, 4096)
    await expect(restore(refused, source)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT', field: 'destination' })
    expect((await refused.getReader().read()).done).toBe(true)
    const locked = streamOf(archive, 4096)
    locked.getReader()
    await expect(restore(locked, memoryBackend())).rejects.toMatchObject({ code: 'INVALID_ARGUMENT', field: 'source' })
    const manifest = new Uint8Array(1024 * 1024)
    const files = Array.from({ length: 70 }, (_, n) => ({
      header: { name: `${n + 1}.manifest`, size: manifest.length, type: 'file' as const },
      body: manifest,
    }))
    const flood = restore(streamOf(await packTar(files), 1 << 20), memoryBackend())
    await expect(flood).rejects.toMatchObject({ code: 'CORRUPTION' })
    const two = [...ofKind(source.image(), 'seg')].flatMap(({ name, bytes }) =>
      ['one', 'two'].map((folder) => ({
        header: { name: `${folder}/1/${name}`, size: bytes.length, type: 'file' as const },
        body: bytes as Uint8Array<ArrayBuffer>,
      })),
    )
    const copy = memoryBackend()
    await expect(restore(streamOf(await packTar(two), 4096), copy)).rejects.toMatchObject({ code: 'CORRUPTION' })
    expect(isEmpty(copy)).toBe(true)
  })

  test('can be aborted and fails cleanly where there is no room', async () => {
    const source = memoryBackend()
    await built(source)
    const archive = await archiveOf(source.image())
    const abort = new AbortController()
    const copy = memoryBackend()
    const restoring = restore(streamOf(archive, 4096), copy, {
      signal: abort.signal,
      onProgress: () => abort.abort('no'),
    })
    await expect(restoring).rejects.toMatchObject({ code: 'ABORTED', cause: 'no' })
    expect(isEmpty(copy)).toBe(true)
    const full = faultyBackend({ fault: { at: 9, error: 'ENOSPC', lasting: true } })
    await expect(restore(streamOf(archive, 4096), full)).rejects.toMatchObject({ code: 'QUOTA_EXCEEDED' })
    await expect(restore(source, source)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT', field: 'destination' })
    await expect(restore(memoryBackend(), memoryBackend())).rejects.toMatchObject({ code: 'NOT_FOUND' })
    await expect(restore(7 as never, memoryBackend())).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
      field: 'source',
    })
  })
})

describe('the kernel that a tool is given', () => {
  test('is the one that it works with', async () => {
    const source = memoryBackend()
    await built(source)
    const tools: [string, (options: ToolOptions) => Promise<unknown>][] = [
      ['restore', (options) => restore(source, memoryBackend(), options)],
      [
        'restore of an archive',
        async (options) => restore(streamOf(await archiveOf(source.image()), 4096), memoryBackend(), options),
      ],
      ['merge', (options) => mergeDatabases(source, source, memoryBackend(), options)],
      ['salvage', (options) => salvage(source, memoryBackend(), options)],
    ]
    const wasm = await readFile(new URL('../../build/kernel.simd.wasm', import.meta.url))
    for (const [what, tool] of tools) {
      await expect(tool({ wasm: new Uint8Array(8) }), what).rejects.toMatchObject({ code: 'UNSUPPORTED' })
      await expect(tool({ wasm: 7 as never }), what).rejects.toMatchObject({
        code: 'INVALID_ARGUMENT',
        field: 'options.wasm',
      })
      await tool({ wasm: await WebAssembly.compile(wasm) })
    }
  })
})

describe('a folder in which a tool has failed', () => {
  test('is empty, as it was, and takes the next attempt', async () => {
    const source = memoryBackend()
    const contents = await built(source)
    const archive = await archiveOf(source.image())
    const folder = await temporaryFolder()
    const abort = (): ToolOptions => {
      const controller = new AbortController()
      return { signal: controller.signal, onProgress: () => controller.abort('no') }
    }
    const attempts: [string, (options: ToolOptions) => Promise<unknown>][] = [
      ['restore', (options) => restore(source, folder, options)],
      ['restore of an archive', (options) => restore(streamOf(archive, 4096), folder, options)],
      ['restore of half an archive', () => restore(streamOf(archive.slice(0, archive.length >> 1), 4096), folder)],
      ['merge', (options) => mergeDatabases(source, source, folder, options)],
      ['salvage', (options) => salvage(source, folder, options)],
    ]
    for (const [what, attempt] of attempts) {
      await expect(attempt(abort()), what).rejects.toMatchObject({ code: expect.stringMatching(/ABORTED|CORRUPTION/) })
      expect(await readdir(folder), what).toEqual([])
    }
    await restore(source, folder)
    expect(digestOf(await contentsAt(folder))).toBe(digestOf(contents))
    await expect(restore(source, folder)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT', field: 'destination' })
    expect(await readdir(folder)).toContain('lock')
  })
})

describe('merging', () => {
  const vector = [1, 2, 3]

  async function database(fill: (create: (name: string, other?: object) => Promise<Collection>) => Promise<void>) {
    const place = memoryBackend()
    const db = await openDatabase(place)
    await fill((name, other) => db.createCollection(name, { ...options, ...other }))
    await db.close()
    return place
  }

  test('joins collections; the second database wins', async () => {
    const base = await database(async (create) => {
      const docs = await create('docs', { durability: 'strict', hnsw: { M: 8 } })
      await docs.upsert([
        { id: 'a', vector, payload: { from: 'base' } },
        { id: 'b', vector, payload: { from: 'base' } },
      ])
      await docs.flush()
      await docs.delete('gone')
      await (await create('mine')).upsert({ id: 'm', vector })
    })
    const other = await database(async (create) => {
      const docs = await create('docs', { model: 'm1', durability: 'buffered' })
      await docs.upsert([
        { id: 'b', vector: [4, 5, 6], payload: { from: 'other' } },
        { id: 'c', vector },
      ])
      await (await create('theirs', { dimension: 2 })).upsert({ id: 't', vector: [0, 1] })
    })
    const merged = memoryBackend()
    expect(await mergeDatabases(base, other, merged)).toMatchObject({ collections: 3, docs: 5, replaced: 1 })
    const db = await openDatabase(merged)
    expect(await db.listCollections()).toEqual(['docs', 'mine', 'theirs'])
    const docs = await db.openCollection('docs')
    expect(docs.options).toMatchObject({ durability: 'strict', model: 'm1', hnsw: { M: 8 }, compaction: 'manual' })
    expect(await docs.getMany(['a', 'b', 'c'])).toMatchObject([
      { payload: { from: 'base' } },
      { payload: { from: 'other' }, vector: Float32Array.of(4, 5, 6) },
      { id: 'c' },
    ])
    expect(await docs.stats()).toMatchObject({ segments: 1, memtableDocs: 0, deleted: 0 })
    expect(await db.verify({ full: true })).toMatchObject({ ok: true })
    await db.close()
  })

  test('refuses what does not fit together before anything is written', async () => {
    const one = (other?: object) => database(async (create) => void (await create('docs', other)))
    const cases: [object, string, string][] = [
      [{ dimension: 4 }, 'WRONG_DIMENSION', 'dimension'],
      [{ metric: 'dot' }, 'INVALID_ARGUMENT', 'metric'],
      [{ model: 'second' }, 'MODEL_MISMATCH', 'model'],
    ]
    for (const [other, code, field] of cases) {
      const target = memoryBackend()
      const merging = mergeDatabases(await one({ model: 'first' }), await one({ model: 'first', ...other }), target)
      await expect(merging).rejects.toMatchObject({ code, field, collection: 'docs' })
      expect(isEmpty(target)).toBe(true)
    }
    await expect(mergeDatabases(await one(), memoryBackend(), memoryBackend())).rejects.toMatchObject({
      code: 'NOT_FOUND',
    })
  })

  test('leaves nothing where it is aborted or finds damage', async () => {
    const fill = () =>
      database(async (create) => {
        const docs = await create('docs')
        await docs.upsert(Array.from({ length: 500 }, (_, n) => ({ id: `${n}`, vector: [n, 0, 1], payload: { n } })))
        await docs.flush()
        await docs.upsert({ id: 'x', vector })
        await docs.flush()
      })
    const target = memoryBackend()
    const abort = new AbortController()
    const onProgress = () => abort.abort('no')
    const merging = mergeDatabases(await fill(), await fill(), target, { signal: abort.signal, onProgress })
    await expect(merging).rejects.toMatchObject({ code: 'ABORTED' })
    expect(isEmpty(target)).toBe(true)
    const image = (await fill()).image()
    const { name, bytes } = ofKind(image, 'seg')[0]!
    const hurt = memoryBackend(changed(image, 1, name, flipped(bytes, (bytes.length - 200) * 8)))
    await expect(mergeDatabases(await fill(), hurt, target)).rejects.toMatchObject({ code: 'CORRUPTION' })
    expect(isEmpty(target)).toBe(true)
  })
})
