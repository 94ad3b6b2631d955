/**
 * Filters as TypeScript sees them: which paths a payload type has, and which operands stand there.
 */
import type { JsonObject } from '../codec/json.ts'

/** What operands are. */
type Scalar = string | number | boolean | null

/** Levels of a payload type that paths are known in. */
type Levels = [1, 2, 3, 4, 5]

/** Neither `any` nor `unknown` says what is inside. */
type IsOpen<T> = unknown extends T ? true : false

/** What a path sees of a value: the elements of an array, one level; anything else as it is. */
type Seen<T> = T extends readonly (infer E)[] ? Exclude<E, readonly unknown[]> : T

/** What isn't gone into. */
type Opaque = Scalar | undefined | symbol | bigint | readonly unknown[] | ((...args: never[]) => unknown)

/** Keys that can be addressed: not empty, no dot, no `$` in front. */
type Addressable<K> = K extends '' | `$${string}` | `${string}.${string}`
  ? never
  : K extends string | number
    ? K
    : never

/** Declared keys, without index signatures. */
type KeyOf<T> = keyof { [K in keyof T as Record<never, never> extends Record<K, 1> ? never : Addressable<K>]: 1 }

/** Whether any key may be there. */
type HasIndex<T> = { [K in keyof T]-?: Record<never, never> extends Record<K, 1> ? true : never }[keyof T] extends never
  ? false
  : true

/**
 * `known`: paths of which the type says what stands there; `open`: patterns for those of which it does not; `deep`: one pattern for all
 * that lie below the last level. A pattern for each place there would make recursive types take minutes.
 */
type Kind = 'known' | 'open' | 'deep'

/** Six keys or more. */
type Deep = `${string}.${string}.${string}.${string}.${string}.${string}`

type PathIn<T, L extends readonly unknown[], Q extends Kind> =
  IsOpen<T> extends true
    ? Q extends 'open'
      ? string
      : never
    : T extends Opaque
      ? never
      : { [K in KeyOf<T>]-?: PathAt<K & keyof T & (string | number), T[K & keyof T], L, Q> }[KeyOf<T>] | IndexPath<T, Q>

type IndexPath<T, Q extends Kind> = Q extends 'open' ? (true extends HasIndex<T> ? string : never) : never

type PathAt<K extends string | number, V, L extends readonly unknown[], Q extends Kind> =
  | (Q extends 'known' ? (V extends (...args: never[]) => unknown ? never : `${K}`) : never)
  | (L extends readonly [unknown, ...infer Rest extends readonly [unknown, ...unknown[]]]
      ? Below<K, PathIn<Seen<V>, Rest, Q>, Q>
      : Q extends 'deep'
        ? DeepPath<Seen<V>>
        : never)

type DeepPath<V> = IsOpen<V> extends true ? Deep : V extends Opaque ? never : Deep

type Below<K extends string | number, R, Q extends Kind> = Q extends 'deep' ? R : R extends string ? `${K}.${R}` : never

type KnownPath<P> = PathIn<P, Levels, 'known'>
type OpenPath<P> = PathIn<P, Levels, 'open'> | PathIn<P, Levels, 'deep'>

/**
 * The paths of a payload type: dotted, into objects and into the objects of arrays, to a depth of 5 keys. Beyond that, and under index
 * signatures, any string goes.
 */
export type Path<P> = KnownPath<P> | OpenPath<P>

/** What stands at a path: the elements, where that is an array. Of what the type leaves open, any of a filter's operands. */
export type PathValue<P, K extends string> =
  IsOpen<P> extends true
    ? Scalar
    : P extends Opaque
      ? never
      : K extends `${KeyOf<P> & (string | number)}`
        ? Exclude<ValueOf<P, K>, undefined>
        : K extends `${infer Head}.${infer Rest}`
          ? Head extends `${KeyOf<P> & (string | number)}`
            ? PathValue<ValueOf<P, Head>, Rest>
            : OpenValue<P>
          : OpenValue<P>

type OpenValue<P> = true extends HasIndex<P> ? Scalar : never

/** A key that is a number is written as a string in a path. */
type ValueOf<P, K extends string> = K extends keyof P
  ? Seen<P[K]>
  : K extends `${infer N extends number}`
    ? N extends keyof P
      ? Seen<P[N]>
      : never
    : never

/** The type of which a value is, for comparisons that literals would be too narrow for. */
type Ordered<V> =
  | (V extends string ? string : never)
  | (V extends number ? number : never)
  | (V extends boolean ? boolean : never)

/** Operators on a field with values `V`. All that stand in one object must hold, on an array maybe for different elements. */
export type FieldOperators<V> = {
  /** Whether anything is there, `null` and an empty list included. */
  $exists?: boolean
  /** Whether the operators don't hold, as for a document without the field. */
  $not?: FieldOperators<V>
} & ([V] extends [never]
  ? unknown
  : {
      $eq?: V
      /** Something is there, and not this. */
      $ne?: V
      $in?: readonly V[]
      /** Something is there, and none of these. */
      $nin?: readonly V[]
    }) &
  ([Ordered<V>] extends [never]
    ? unknown
    : {
        $gt?: Ordered<V>
        $gte?: Ordered<V>
        $lt?: Ordered<V>
        $lte?: Ordered<V>
      }) &
  (string extends Ordered<V> ? { $startsWith?: string } : unknown)

/** A value, which is meant as `$eq`, or operators. */
type FieldFilter<V> = V | FieldOperators<V>

/** What a path admits in a filter; `unknown` of a value, which `any` gives, is any of them. */
type Operand<V> = IsOpen<V> extends true ? Scalar : Extract<V, Scalar>

type KnownFields<P> = {
  [K in KnownPath<P>]?: FieldFilter<Operand<PathValue<P, K>>>
}

/** Where any key goes, the type cannot keep paths and logical operators apart. */
type OpenFields<P extends object> = {
  [K in OpenPath<P>]: FieldFilter<Scalar> | (string extends K ? Filter<P> | readonly Filter<P>[] : never)
}

type FilterOf<P extends object> = KnownFields<P> &
  OpenFields<P> & {
    $and?: readonly Filter<P>[]
    $or?: readonly Filter<P>[]
    $nor?: readonly Filter<P>[]
    $not?: Filter<P>
    /** The document's id. */
    $id?: FieldFilter<string>
  }

/**
 * Which documents are meant: MongoDB's words in plain JSON, all of which must hold; `{}` means all documents.
 *
 * Values compare within their type. A condition on an array holds if it holds for an element, and on a path through an array of objects
 * if it holds in one of them. Unlike in MongoDB, a field that is missing fails every operator but `$exists: false`, `$ne` and `$nin`
 * included; `$not` and `$nor` are plain negation.
 */
export type Filter<P extends object = JsonObject> =
  // Stays shut while P is a type parameter: comparing all paths of two of them, as any generic use of a collection does, takes seconds.
  [P] extends [infer Q extends object] ? FilterOf<Q> : never
