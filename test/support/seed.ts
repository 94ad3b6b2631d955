import { seededChoice } from '../../src/directory/crash-image.ts'

/** Seeds every random decision of the storage tests; printed by whatever uses it. */
export const seed = Number(process.env.ISOVEC_SEED ?? 20_240_229)

/** Makes uuids and salts follow from a seed too, so that a run can be repeated byte for byte. Returns what undoes it. */
export function seedCrypto(value: number): () => void {
  const choose = seededChoice(value)
  const fill = <T extends ArrayBufferView | null>(target: T): T => {
    const view = target as ArrayBufferView
    const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength)
    for (let i = 0; i < bytes.length; i++) bytes[i] = choose(256)
    return target
  }
  const own = Object.getOwnPropertyDescriptor(crypto, 'getRandomValues')
  Object.defineProperty(crypto, 'getRandomValues', { value: fill, configurable: true, writable: true })
  return () => {
    if (own !== undefined) Object.defineProperty(crypto, 'getRandomValues', own)
    else Reflect.deleteProperty(crypto, 'getRandomValues')
  }
}
