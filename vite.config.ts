import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'
import { buildKernel } from './scripts/build-kernel.js'
import { workerPlugin } from './scripts/build-worker.js'

const at = (path: string): string => fileURLToPath(new URL(path, import.meta.url))

export default defineConfig({
  plugins: [
    {
      // Whatever is built or tested is built or tested with the kernel of the present sources.
      name: 'isovec-kernel',
      async buildStart() {
        await buildKernel()
      },
    },
    workerPlugin(),
  ],
  build: {
    target: 'es2022',
    minify: false,
    lib: {
      entry: {
        index: at('src/index.ts'),
        memory: at('src/directory/memory.ts'),
        node: at('src/directory/node.ts'),
        opfs: at('src/directory/opfs.ts'),
        indexeddb: at('src/directory/indexeddb.ts'),
        testing: at('src/testing.ts'),
        'platform-node': at('src/platform-node.ts'),
        'platform-default': at('src/platform-default.ts'),
      },
      formats: ['es'],
    },
    rolldownOptions: {
      // The conditions of package.json pick the platform in the user's bundler or runtime.
      external: ['#platform', /^node:/],
      output: { chunkFileNames: 'chunks/[name].js' },
    },
  },
  test: {
    alias: { '#platform': at('src/platform-node.ts') },
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/kernel/setup.ts'],
    reporters: ['default', at('test/support/summary.ts')],
    coverage: {
      provider: 'v8',
      include: ['src/**/*.ts'],
      // These run in browsers only, where V8's coverage of Node sees nothing; test/browser holds them to the same conformance suite.
      exclude: [
        'src/directory/opfs.ts',
        'src/directory/access-handles.ts',
        'src/directory/indexeddb.ts',
        'src/directory/idb-connection.ts',
        'src/directory/web-lock.ts',
        'src/directory/dom-error.ts',
        'src/directory/part-reader.ts',
        'src/directory/named.ts',
        'src/worker/client.ts',
        'src/worker/follower.ts',
        'src/worker/host.ts',
        'src/worker/script.ts',
        'src/worker/source.ts',
        'src/worker/tab.ts',
        'src/platform-default.ts',
      ],
      reporter: ['text-summary', 'json-summary'],
      reportOnFailure: true,
      thresholds: { statements: 90, 'src/storage/**': { lines: 95, branches: 95 } },
    },
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
})
