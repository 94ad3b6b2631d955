/** The browser's own functions, watched or made to fail. */

type Handle = { close(): void }
type FilePrototype = { createSyncAccessHandle(options?: object): Promise<Handle> }

/** Begins to count access handles. Returns what gives the most that were open at once. */
export function handlesAtOnce(): () => number {
  let [open, most] = [0, 0]
  const prototype = FileSystemFileHandle.prototype as unknown as FilePrototype
  const create = prototype.createSyncAccessHandle
  prototype.createSyncAccessHandle = async function (this: FilePrototype, options) {
    const handle = await create.call(this, options)
    most = Math.max(most, ++open)
    const close = handle.close.bind(handle)
    handle.close = () => {
      open--
      close()
    }
    return handle
  }
  return () => most
}

/**
 * Makes the next transaction that writes one of a connection that the browser has dropped, when it begins or when it was committed.
 * Returns what gives how many there were.
 */
export function loseConnections(moment: 'begin' | 'commit'): () => number {
  let count = 0
  const { prototype } = IDBDatabase
  const begin = prototype.transaction
  prototype.transaction = function (this: IDBDatabase, stores, mode, options) {
    if (mode !== 'readwrite') return begin.call(this, stores, mode, options)
    prototype.transaction = begin
    count++
    if (moment === 'begin') this.close()
    const transaction = begin.call(this, stores, mode, options)
    transaction.addEventListener('complete', (event) => {
      event.stopImmediatePropagation()
      transaction.dispatchEvent(new Event('abort'))
    })
    return transaction
  }
  return () => {
    prototype.transaction = begin
    return count
  }
}
