import { afterAll, beforeAll } from 'vitest'
import { installTimeout, TestBrowser } from '../support/browser.ts'
import { describeBehaviour } from './behaviour.ts'
import { describeConformance } from './conformance.ts'

const entry = (name: string): URL => new URL(`./${name}.ts`, import.meta.url)

let browser: TestBrowser

beforeAll(async () => {
  browser = await TestBrowser.launch('chromium', { page: entry('page'), worker: entry('worker') })
}, installTimeout)
afterAll(() => browser?.close())

describeConformance(() => browser)
describeBehaviour(() => browser)
