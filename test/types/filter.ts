/**
 * What compiles as a filter and what does not. Checked with the rest of the sources and as a consumer's program (consumer.test.ts);
 * holds with and without `exactOptionalPropertyTypes`.
 */
import type { JsonObject, JsonValue } from '../../src/codec/json.ts'
import type { Filter, Path, PathValue } from '../../src/search/filter-types.ts'

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false
function holds<_T extends true>(): void {}

/** Takes a filter as a collection does. */
declare function find<P extends object = JsonObject>(filter: Filter<P>): void

interface Author {
  name: string
  born?: number
}

interface Book {
  title: string
  year: number
  rating: number | null
  status: 'draft' | 'published'
  isbn?: string
  lent: boolean
  code: string | number
  tags: string[]
  flags: readonly ('new' | 'used')[]
  grid: number[][]
  author: Author
  editor?: Author | null
  reviews: { by: Author; stars: number; words?: string[] }[]
  place: { shelf: { row: { slot: { side: { label: string } } } } }
  extra: JsonObject
  counts: Record<string, number>
  anything: unknown
  whatever: JsonValue
  open(): void
}

export function bareValues(): void {
  find<Book>({})
  find<Book>({ title: 'a', year: 2020, lent: true, code: 1, status: 'draft' })
  find<Book>({ rating: null })
  find<Book>({ isbn: 'x' })
  find<Book>({ code: 'x' })
  find<Book>({ tags: 'a', flags: 'new' })
  // @ts-expect-error a number field is no string
  find<Book>({ year: '2020' })
  // @ts-expect-error no such state
  find<Book>({ status: 'drafft' })
  // @ts-expect-error never null
  find<Book>({ year: null })
  // @ts-expect-error no such field
  find<Book>({ yaer: 2020 })
  // @ts-expect-error an object is no operand
  find<Book>({ author: { name: 'Ada' } })
  // @ts-expect-error a list is no operand
  find<Book>({ tags: ['a'] })
  // @ts-expect-error lists in lists have no values
  find<Book>({ grid: 1 })
  // @ts-expect-error methods are no fields
  find<Book>({ open: true })
  // @ts-expect-error nor is a date an operand
  find<Book>({ whatever: new Date() })
}

export function operators(): void {
  find<Book>({ year: { $eq: 1, $ne: 2, $gt: 3, $gte: 4, $lt: 5, $lte: 6, $in: [7], $nin: [8], $exists: true } })
  find<Book>({ title: { $startsWith: 'a', $gt: 'b' } })
  find<Book>({ status: { $startsWith: 'pub', $in: ['draft'], $lt: 'e' } })
  find<Book>({ lent: { $gte: false } })
  find<Book>({ code: { $startsWith: 'a', $gt: 1, $lt: 'z', $in: [1, 'a'] } })
  find<Book>({ rating: { $in: [1, null], $gt: 1 } })
  find<Book>({ tags: { $in: ['a', 'b'], $startsWith: 'a', $not: { $eq: 'c' } } })
  find<Book>({ year: { $not: { $gt: 3, $not: { $lt: 1 } } } })
  find<Book>({ author: { $exists: true }, grid: { $exists: false }, reviews: { $not: { $exists: true } } })
  find<Book>({ editor: null })
  // @ts-expect-error strings in a list for a number field
  find<Book>({ year: { $in: ['x'] } })
  // @ts-expect-error a list is needed
  find<Book>({ year: { $in: 1 } })
  // @ts-expect-error numbers have no beginning
  find<Book>({ year: { $startsWith: '2' } })
  // @ts-expect-error neither have booleans
  find<Book>({ lent: { $startsWith: 't' } })
  // @ts-expect-error a beginning is a string
  find<Book>({ title: { $startsWith: 2 } })
  // @ts-expect-error nothing is above null
  find<Book>({ rating: { $gt: null } })
  // @ts-expect-error not a flag
  find<Book>({ year: { $exists: 1 } })
  // @ts-expect-error no such operator
  find<Book>({ year: { $regex: 'x' } })
  // @ts-expect-error an object is compared with nothing
  find<Book>({ author: { $gt: 1 } })
  // @ts-expect-error the value under $not is checked too
  find<Book>({ year: { $not: { $gt: 'x' } } })
  // @ts-expect-error $not on a field takes operators
  find<Book>({ year: { $not: 3 } })
  // @ts-expect-error a list under $eq
  find<Book>({ tags: { $eq: ['a'] } })
}

export function logic(): void {
  find<Book>({ $and: [{ year: 1 }, { $or: [{ title: 'a' }, { $nor: [{ lent: true }] }] }], $not: { year: { $gt: 3 } } })
  // @ts-expect-error a wrong operand deep inside
  find<Book>({ $and: [{ year: 1 }, { $or: [{ title: 'a' }, { $nor: [{ lent: 1 }] }] }] })
  // @ts-expect-error no list
  find<Book>({ $and: { year: 1 } })
  // @ts-expect-error $not around a filter takes one
  find<Book>({ $not: [{ year: 1 }] })
  // @ts-expect-error not on filters
  find<Book>({ $gt: 3 })
  find<Book>({ $id: 'a' })
  find<Book>({ $id: { $ne: 'a', $in: ['b'], $startsWith: 'c', $gte: 'd', $exists: true, $not: { $lt: 'e' } } })
  // @ts-expect-error ids are strings
  find<Book>({ $id: 1 })
  // @ts-expect-error ids are strings in lists too
  find<Book>({ $id: { $in: [1] } })
}

export function paths(): void {
  find<Book>({ 'author.name': 'Ada', 'author.born': { $lt: 1900 } })
  find<Book>({ 'editor.name': { $startsWith: 'A' } })
  find<Book>({ 'reviews.stars': { $gte: 4 }, 'reviews.by.name': 'Ada', 'reviews.words': 'fine' })
  find<Book>({ 'place.shelf.row.slot.side': { $exists: true } })
  // @ts-expect-error a typed path has a typed operand
  find<Book>({ 'author.born': '1815' })
  // @ts-expect-error through lists too
  find<Book>({ 'reviews.stars': 'five' })
  // @ts-expect-error no such path
  find<Book>({ 'author.nmae': 'Ada' })
  // @ts-expect-error lists in lists are not entered
  find<Book>({ 'grid.length': 1 })
  // @ts-expect-error nor are strings
  find<Book>({ 'title.length': 1 })
  // Beyond five levels, any string.
  find<Book>({ 'place.shelf.row.slot.side.label': 'x' })
  find<Book>({ 'place.shelf.row.slot.side.lable.x': 3 })
  find<Book>({ 'any.six.keys.that.you.like': null })
  // @ts-expect-error five, not
  find<Book>({ 'place.shelf.row.slot.sied': { $exists: true } })
  // @ts-expect-error nor six, where the type ends before
  find<Author>({ 'a.b.c.d.e.f': 1 })
  // Under index signatures, any string.
  find<Book>({ 'extra.a': 1, 'extra.b.c': { $in: ['x', null] }, 'counts.a': { $gt: 1 } })
  find<Book>({ anything: 1, 'anything.at.all': 'x', 'whatever.b': true })
  // @ts-expect-error no scalar
  find<Book>({ 'extra.a': [1] })
  // @ts-expect-error no such operator there either
  find<Book>({ 'extra.a': { $regex: 1 } })
  holds<Same<Path<Author>, 'name' | 'born'>>()
  holds<Same<Path<{ a: { b: 1; 'c.d': 2; $e: 3; '': 4; 0: 5 }[] }>, 'a' | 'a.b' | 'a.0'>>()
  holds<Same<Path<{ a: { [key: string]: number } }>, 'a' | `a.${string}`>>()
  holds<Same<Path<JsonObject>, string>>()
  holds<Same<PathValue<Book, 'author.born'>, number>>()
  holds<Same<PathValue<Book, 'reviews.by.name'>, string>>()
  holds<Same<PathValue<Book, 'rating'>, number | null>>()
  holds<Same<PathValue<Book, 'tags'>, string>>()
  holds<Same<PathValue<Book, 'author'>, Author>>()
  holds<Same<PathValue<Book, 'no.such'>, never>>()
  holds<Same<PathValue<{ a: { 0: 'x' } }, 'a.0'>, 'x'>>()
}

type Shape =
  | { kind: 'circle'; radius: number; at: { x: number } }
  | { kind: 'label'; text: string; at?: { name: string } }

export function unions(): void {
  find<Shape>({ kind: 'circle', radius: { $gt: 1 }, 'at.x': 1, 'at.name': 'a' })
  find<Shape>({ $or: [{ text: 'a' }, { radius: 1 }] })
  // @ts-expect-error of no member
  find<Shape>({ kind: 'square' })
  // @ts-expect-error a number in each member that has it
  find<Shape>({ radius: 'a' })
  find<{ v: number } | { v: string }>({ v: { $in: [1, 'a'] } })
}

export function openPayloads(): void {
  find({ a: 1, 'b.c': { $gte: 'x' }, $id: 'x', $or: [{ d: null }, { $not: { e: true } }] })
  find<Record<string, unknown>>({ a: 1, $and: [{ b: { $in: [1] } }] })
  // biome-ignore lint/suspicious/noExplicitAny: a payload of type any is what is tested
  find<any>({ a: 1, $and: [{ b: { $in: [1] } }] })
  // @ts-expect-error a date is no operand
  find({ a: new Date() })
  // @ts-expect-error a list is none either
  find({ a: [1] })
  // @ts-expect-error no list
  find({ $and: 1 })
  // @ts-expect-error ids are strings
  find({ $id: 1 })
  // Declared keys keep their types beside an index signature.
  find<{ title: string; [key: string]: JsonValue }>({ title: 'a', other: 1 })
  // @ts-expect-error so this is wrong
  find<{ title: string; [key: string]: JsonValue }>({ title: 1 })
}

/** Ways back into itself, which make thousands of paths. */
interface Person {
  name: string
  age?: number
  parent?: Person
  children: Person[]
  friends: readonly Person[]
  boss: Person | null
  home: { street: string; owner: Person }
}

type Tree = { value: number; left?: Tree; right?: Tree }
type Nested = { value: number } | { inner: Nested[] }
interface Loop {
  again: Loop
}

export function recursion(): void {
  find<Person>({ 'parent.parent.parent.parent.name': 'a', 'home.owner.home.owner.age': { $gt: 3 } })
  find<Person>({ 'parent.parent.parent.parent.parent.parent.name': 'a' })
  // @ts-expect-error typed to the fifth level
  find<Person>({ 'parent.children.boss.friends.age': 'a' })
  find<Tree>({ 'left.right.left.value': 3, $and: [{ 'right.value': { $lt: 1 } }] })
  find<Nested>({ 'inner.inner.value': 1 })
  find<Loop>({ 'again.again': { $exists: true } })
}

/** As a collection is used: generic code, and a typed one where any will do. */
interface Store<P extends object = JsonObject> {
  count(filter?: Filter<P>): number
  all(): P[]
}

export function stores(books: Store<Book>, people: Store<Person>): void {
  const stores: Pick<Store, 'count'>[] = [books, people]
  for (const store of stores) store.count({ a: 1 })
  books.count({ year: 1 })
  // @ts-expect-error as everywhere
  books.count({ year: 'x' })
  forward(books, { year: 1 })
}

function forward<P extends object>(store: Store<P>, filter: Filter<P>): number {
  return store.count(filter)
}

/** Operands that a program computes. */
export function computed(year: number, tags: readonly string[], filters: Filter<Book>[]): Filter<Book> {
  const filter: Filter<Book> = { year: { $gte: year }, tags: { $in: tags } }
  filter.title = 'x'
  return { $and: [filter, ...filters] }
}
