import { expect, test } from 'vitest'
import { checkDatabaseName } from '../../src/directory/place-name.ts'

test('names of databases in browsers are letters and digits of any script, and no paths', () => {
  for (const name of ['a', '7', '_', 'é 水.2-b_c', 'नमस्ते', ' a', '𝒳', '𝒳'.repeat(128)]) checkDatabaseName(name)
  const refused = [
    '',
    'a/b',
    'a\\b',
    '/',
    '.a',
    '..',
    'a.',
    'a ',
    ' ',
    'e\u0301',
    'a\0',
    'a:b',
    'a\n',
    '\ud800',
    'x'.repeat(129),
  ]
  for (const name of [...refused, undefined as unknown as string]) {
    expect(() => checkDatabaseName(name), JSON.stringify(name)).toThrow(
      expect.objectContaining({ code: 'INVALID_ARGUMENT', field: 'location' }),
    )
  }
})
