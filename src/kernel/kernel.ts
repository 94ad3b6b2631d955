/**
 * Loading of the WASM kernel.
 */
import { IsovecError } from '../errors.ts'
import { relaxed, simd } from './binary.ts'
import { type Checksum, checksumOf, createHasher, type Hasher } from './checksum.ts'
import { Instance, InstanceSupply } from './instance.ts'
import { ImagePool } from './pool.ts'

/** The compiled kernel. */
export interface Kernel {
  /** Which of the two builds is in use. Results are the same bit for bit. */
  readonly variant: 'simd128' | 'relaxed-simd'
  /** The compiled module, to be sent to workers. */
  readonly module: WebAssembly.Module
  /** A new pool of memory for vectors. */
  createPool(): ImagePool
  /** xxh64 of `bytes`; the seed is 0 unless given. */
  checksum64(bytes: Uint8Array, seedLow?: number, seedHigh?: number): Checksum
  /** xxh64 piece by piece. */
  hasher(seedLow?: number, seedHigh?: number): Hasher
}

/** Where the kernel is taken from. */
export type KernelSource = WebAssembly.Module | BufferSource | URL

let inlined: Promise<Kernel> | undefined
const given = new Map<KernelSource | string, Promise<Kernel>>()

/**
 * Compiles the kernel; each source once a realm. Without `wasm` it is the inlined one, for relaxed SIMD where the
 * platform has that.
 *
 * @throws {IsovecError} `UNSUPPORTED` where there is no WebAssembly or no SIMD, or `wasm` is no kernel of this version; `IO` if
 * a URL can't be read; `INVALID_ARGUMENT` if `wasm` is nothing of the kind
 */
export function loadKernel(options: { wasm?: KernelSource | undefined } = {}): Promise<Kernel> {
  if (typeof WebAssembly === 'undefined') {
    return Promise.reject(new IsovecError('UNSUPPORTED', 'this platform has no WebAssembly'))
  }
  const { wasm } = options
  if (!isSource(wasm)) {
    const field = 'options.wasm'
    return Promise.reject(new IsovecError('INVALID_ARGUMENT', `${field}: is no module, bytes or URL`, { field }))
  }
  if (wasm === undefined) {
    inlined ??= compileInlined()
    return inlined
  }
  const key = wasm instanceof URL ? wasm.href : wasm
  let kernel = given.get(key)
  if (kernel === undefined) {
    kernel = compile(wasm)
    given.set(key, kernel)
    kernel.catch(() => given.delete(key))
  }
  return kernel
}

function isSource(value: unknown): value is KernelSource | undefined {
  if (value === undefined || value instanceof WebAssembly.Module || value instanceof URL || ArrayBuffer.isView(value)) {
    return true
  }
  return ['[object ArrayBuffer]', '[object SharedArrayBuffer]'].includes(Object.prototype.toString.call(value))
}

async function compileInlined(): Promise<Kernel> {
  const fast = decode(relaxed)
  return compile(WebAssembly.validate(fast) ? fast : decode(simd))
}

function decode(base64: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0))
}

async function compile(source: KernelSource): Promise<Kernel> {
  let module: WebAssembly.Module
  if (source instanceof WebAssembly.Module) {
    module = source
  } else {
    const bytes = source instanceof URL ? await fetchBytes(source) : source
    try {
      module = await WebAssembly.compile(bytes)
    } catch (cause) {
      throw new IsovecError('UNSUPPORTED', 'the WASM kernel does not compile here; it needs 128-bit SIMD', { cause })
    }
  }
  return createKernel(module)
}

async function fetchBytes(url: URL): Promise<BufferSource> {
  try {
    if (url.protocol === 'file:') {
      const files = globalThis.process?.getBuiltinModule?.('node:fs/promises')
      if (files !== undefined) return new Uint8Array(await files.readFile(url))
    }
    const response = await fetch(url)
    if (!response.ok) throw new IsovecError('IO', `${url.href}: status ${response.status}`)
    return await response.arrayBuffer()
  } catch (cause) {
    throw new IsovecError('IO', `the WASM kernel can't be read from ${url.href}`, { cause })
  }
}

function createKernel(module: WebAssembly.Module): Kernel {
  const names = new Set(WebAssembly.Module.exports(module).map((entry) => entry.name))
  for (const name of ['usesRelaxedSimd', 'layoutScratch', 'collect', 'hash']) {
    if (!names.has(name))
      throw new IsovecError('UNSUPPORTED', `the given WASM is no kernel of this version: no ${name}`)
  }
  const supply = new InstanceSupply(module)
  const sums = new Instance(module)
  return {
    variant: sums.exports.usesRelaxedSimd() ? 'relaxed-simd' : 'simd128',
    module,
    createPool: () => new ImagePool(supply),
    checksum64: (bytes, seedLow = 0, seedHigh = 0) => checksumOf(sums, bytes, seedLow, seedHigh),
    hasher: (seedLow = 0, seedHigh = 0) => createHasher(sums, seedLow, seedHigh),
  }
}
