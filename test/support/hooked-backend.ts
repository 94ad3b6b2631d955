import type { Directory, StorageBackend, WritableFile } from '../../src/index.ts'

/** A call that changes something. */
export type HookedCall = { readonly kind: 'create' | 'append' | 'sync' | 'close' | 'remove'; readonly name: string }

/** Is given each call before it takes effect; whatever it does in place of `run` happens to the caller. */
export type Hook = <T>(call: HookedCall, run: () => Promise<T>) => Promise<T>

/** A backend whose calls pass through a hook, which may delay them or fail. */
export function hookedBackend(inner: StorageBackend, hook: Hook): StorageBackend {
  const file = (name: string, of: WritableFile): WritableFile => ({
    get size() {
      return of.size
    },
    append: (bytes) => hook({ kind: 'append', name }, () => of.append(bytes)),
    sync: () => hook({ kind: 'sync', name }, () => of.sync()),
    close: () => hook({ kind: 'close', name }, () => of.close()),
  })
  const directory = (of: Directory): Directory => ({
    list: () => of.list(),
    open: (name) => of.open(name),
    sync: (name) => of.sync(name),
    remove: (name) => hook({ kind: 'remove', name }, () => of.remove(name)),
    create: (name) => hook({ kind: 'create', name }, async () => file(name, await of.create(name))),
  })
  return {
    kind: inner.kind,
    location: inner.location,
    exists: () => inner.exists(),
    open: async (options) => directory(await inner.open(options)),
    directories: () => inner.directories(),
    directory: async (number, options) => directory(await inner.directory(number, options)),
    removeDirectory: (number) => inner.removeDirectory(number),
    lock: (options) => inner.lock(options),
  }
}

/** A promise to be resolved from outside. */
export function gate(): { readonly opened: Promise<void>; open(): void } {
  let open = (): void => {}
  const opened = new Promise<void>((resolve) => {
    open = resolve
  })
  return { opened, open }
}
