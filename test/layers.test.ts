import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, normalize, relative } from 'node:path'
import { expect, test } from 'vitest'

const root = join(import.meta.dirname, '../src')

/** From the top down: a place imports only from places below it, and from its own folder. */
const rows: readonly (readonly string[])[] = [
  ['index.ts', 'testing.ts', 'platform-node.ts', 'platform-default.ts'],
  ['worker/'],
  ['elsewhere.ts', 'engine.ts'],
  ['salvage.ts'],
  ['tools.ts'],
  ['open.ts'],
  ['database.ts', 'local-database.ts'],
  ['collection.ts', 'local-collection.ts'],
  ['recall.ts'],
  ['reading.ts', 'stats.ts'],
  ['copy.ts', 'verify.ts'],
  ['core.ts', 'calls.ts'],
  ['recovery.ts', 'maintenance.ts', 'ingest.ts', 'root.ts'],
  ['request.ts', 'open-options.ts'],
  ['writer.ts', 'options.ts'],
  ['patch.ts'],
  ['state.ts'],
  ['storage/', 'search/'],
  ['snapshot.ts'],
  ['directory/', 'kernel/'],
  ['codec/', 'slice.ts', 'condition.ts'],
  ['errors.ts'],
]

/** The public types name what the layers below them are made of; nothing of it is there at run time. */
const typesOnly = 'api.ts'

function placeOf(file: string): string {
  const slash = file.indexOf('/')
  return slash < 0 ? file : file.slice(0, slash + 1)
}

function rowOf(place: string): number {
  return rows.findIndex((row) => row.includes(place))
}

type Import = { readonly target: string; readonly isType: boolean }

function importsOf(file: string): Import[] {
  const text = readFileSync(join(root, file), 'utf8')
  const found = text.matchAll(/^(?:import|export)\s+(type\s)?[^'"]*?from\s+'(\.[^']+)'/gm)
  return [...found].map((match) => ({
    target: relative(root, normalize(join(root, dirname(file), match[2]!))),
    isType: match[1] !== undefined,
  }))
}

const files = (readdirSync(root, { recursive: true }) as string[]).filter((name) => name.endsWith('.ts'))

test('every source file has its place', () => {
  expect(files.length).toBeGreaterThan(20)
  for (const file of files) if (file !== typesOnly) expect(rowOf(placeOf(file)), file).toBeGreaterThanOrEqual(0)
})

test('imports point downwards', () => {
  const wrong: string[] = []
  for (const file of files) {
    for (const { target, isType } of importsOf(file)) {
      if (target === typesOnly || file === typesOnly) {
        if (!isType) wrong.push(`${file} -> ${target} at run time`)
        continue
      }
      const from = placeOf(file)
      const to = placeOf(target)
      if (from !== to && rowOf(to) <= rowOf(from)) wrong.push(`${file} -> ${target}`)
    }
  }
  expect(wrong).toEqual([])
})

test('only the kernel speaks of WebAssembly', () => {
  const speakers = files.filter((file) => /\bWebAssembly\b/.test(readFileSync(join(root, file), 'utf8')))
  expect(speakers.filter((file) => placeOf(file) !== 'kernel/' && file !== typesOnly)).toEqual([])
})
