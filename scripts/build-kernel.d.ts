/** See build-kernel.js. */
export function buildKernel(options?: { force?: boolean }): Promise<boolean>
