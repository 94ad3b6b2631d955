/** How two vectors are compared. */
export type Metric = 'cosine' | 'dot' | 'euclidean'

/** All metrics, in the order of the numbers that stand for them in files. */
export const metrics: readonly Metric[] = ['cosine', 'dot', 'euclidean']

/** The numbers that the kernel knows metrics by. */
export const METRIC_NUMBERS: Readonly<Record<Metric, number>> = { cosine: 0, dot: 1, euclidean: 2 }

/** Bytes from one f32 row to the next: a multiple of 16 below 256 bytes, of 64 from there on. */
export function vectorStride(dimension: number): number {
  const bytes = dimension * 4
  const unit = bytes < 256 ? 16 : 64
  return Math.ceil(bytes / unit) * unit
}

/** Bytes from one row of codes to the next: a multiple of 16 up to 32, of 64 above. */
export function codeStride(dimension: number): number {
  const unit = dimension <= 32 ? 16 : 64
  return Math.ceil(dimension / unit) * unit
}

/** Bytes beside each row of codes: two sums and a bound of what the codes leave out. */
export const termSize = 12
