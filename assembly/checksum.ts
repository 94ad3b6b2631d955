/** xxHash, 64 bits (Yann Collet, https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md). */

const PRIME1: u64 = 0x9e3779b185ebca87
const PRIME2: u64 = 0xc2b2ae3d27d4eb4f
const PRIME3: u64 = 0x165667b19e3779f9
const PRIME4: u64 = 0x85ebca77c2b2ae63
const PRIME5: u64 = 0x27d4eb2f165667c5

/** A sum in progress. */
@unmanaged
class State {
  a: u64
  b: u64
  c: u64
  d: u64
  /** Bytes taken in so far. */
  length: u64
  seed: u64
  /** Up to 32 bytes that wait for a whole stripe, at {@link waitingAt}. */
  waiting0: u64
  waiting1: u64
  waiting2: u64
  waiting3: u64
}

/** Bytes of a sum in progress. */
export function hashSize(): u32 {
  return offsetof<State>()
}

@inline
function waitingAt(state: State): usize {
  return changetype<usize>(state) + offsetof<State>('waiting0')
}

export function hashInit(state: State, seedLow: u32, seedHigh: u32): void {
  const seed = (<u64>seedHigh << 32) | <u64>seedLow
  state.a = seed + PRIME1 + PRIME2
  state.b = seed + PRIME2
  state.c = seed
  state.d = seed - PRIME1
  state.length = 0
  state.seed = seed
}

@inline
function round(accumulator: u64, lane: u64): u64 {
  return rotl(accumulator + lane * PRIME2, 31) * PRIME1
}

@inline
function merge(hash: u64, accumulator: u64): u64 {
  return (hash ^ round(0, accumulator)) * PRIME1 + PRIME4
}

/** Takes in `count` whole stripes of 32 bytes. */
function stripes(state: State, at: usize, count: u32): void {
  let a = state.a
  let b = state.b
  let c = state.c
  let d = state.d
  for (const end = at + (<usize>count << 5); at < end; at += 32) {
    a = round(a, load<u64>(at))
    b = round(b, load<u64>(at, 8))
    c = round(c, load<u64>(at, 16))
    d = round(d, load<u64>(at, 24))
  }
  state.a = a
  state.b = b
  state.c = c
  state.d = d
}

export function hashUpdate(state: State, at: usize, length: u32): void {
  const waiting = <u32>state.length & 31
  state.length += length
  if (waiting != 0) {
    const part = min<u32>(32 - waiting, length)
    memory.copy(waitingAt(state) + waiting, at, part)
    if (waiting + part < 32) return
    stripes(state, waitingAt(state), 1)
    at += part
    length -= part
  }
  stripes(state, at, length >> 5)
  memory.copy(waitingAt(state), at + (length & ~31), length & 31)
}

/** The sum's lower half; its upper half is left at `high`. The state may go on being updated. */
export function hashDigest(state: State, high: usize): u32 {
  let hash = state.seed + PRIME5
  if (state.length >= 32) {
    hash = rotl(state.a, 1) + rotl(state.b, 7) + rotl(state.c, 12) + rotl(state.d, 18)
    hash = merge(merge(merge(merge(hash, state.a), state.b), state.c), state.d)
  }
  hash = finish(hash + state.length, waitingAt(state), <u32>state.length & 31)
  store<u32>(high, <u32>(hash >> 32))
  return <u32>hash
}

/** Takes in the last bytes and mixes. */
function finish(hash: u64, at: usize, length: u32): u64 {
  const end = at + length
  for (; at + 8 <= end; at += 8) hash = rotl(hash ^ round(0, load<u64>(at)), 27) * PRIME1 + PRIME4
  if (at + 4 <= end) {
    hash = rotl(hash ^ (<u64>load<u32>(at) * PRIME1), 23) * PRIME2 + PRIME3
    at += 4
  }
  for (; at < end; at++) hash = rotl(hash ^ (<u64>load<u8>(at) * PRIME5), 11) * PRIME1
  hash = (hash ^ (hash >> 33)) * PRIME2
  hash = (hash ^ (hash >> 29)) * PRIME3
  return hash ^ (hash >> 32)
}

/** The sum of `length` bytes in one call; returns and leaves at `high` what {@link hashDigest} does. */
export function hash(state: State, at: usize, length: u32, seedLow: u32, seedHigh: u32, high: usize): u32 {
  hashInit(state, seedLow, seedHigh)
  hashUpdate(state, at, length)
  return hashDigest(state, high)
}
