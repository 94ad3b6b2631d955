/** What `scripts/fuzz.js` runs: bundled, so that plain Node can. */
export { Meter } from './meter.ts'
export { fuzz, keepFixture } from './runner.ts'
export { targetNames, targetOf } from './targets.ts'
