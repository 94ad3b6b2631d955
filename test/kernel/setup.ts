import { buildKernel } from '../../scripts/build-kernel.js'

/** Compiles the kernel before any test runs, so that none meets a stale one. */
export async function setup(): Promise<void> {
  await buildKernel()
}
