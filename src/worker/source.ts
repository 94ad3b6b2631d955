/**
 * The worker's script as text, put here by the build: a worker made of it needs no file that a bundler would have to find.
 */
import text from 'isovec-worker-source'

export const source: string = text
