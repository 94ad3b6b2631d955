/** Choice of the quantiser from a sample of rows: least squared error of rounding and clamping together. */
import { Image, vectorOf } from './memory'
import { rowScale } from './quantize'

/** Bins of the histogram of distances from the origin. */
const BINS: u32 = 4096
/** Codes reach this far from the origin, in units of delta. */
const REACH: f64 = 63.5

/** Bytes that {@link calibrate} works in: bins, the factor of each row, means and a second origin. */
export function calibrationSize(dimension: u32, count: u32): u32 {
  return (BINS << 2) + (count << 3) + (dimension << 3) + (dimension << 2)
}

/**
 * Chooses origin and delta from `count` evenly spread rows. Writes the origin (f32 per dimension) and returns delta, 0 if
 * the sample has no extent. The origin is the middle between smallest and largest, or the mean where that errs less.
 * `work` is {@link calibrationSize} bytes of room.
 */
export function calibrate(image: Image, count: u32, origin: usize, work: usize): f64 {
  const scales = work + (BINS << 2)
  const sums = scales + (<usize>count << 3)
  const mean = sums + (<usize>image.dimension << 3)
  for (let i: u32 = 0; i < count; i++) store<f64>(scales + (<usize>i << 3), rowScale(image, sampleOf(image, i, count)))
  findOrigins(image, count, scales, sums, origin, mean)
  let extent = fillBins(image, count, scales, origin, work)
  const middleDelta = bestDelta(work, extent)
  const middleError = errorOf(work, extent, middleDelta)
  extent = fillBins(image, count, scales, mean, work)
  const meanDelta = bestDelta(work, extent)
  if (errorOf(work, extent, meanDelta) >= middleError) return middleDelta
  memory.copy(origin, mean, image.dimension << 2)
  return meanDelta
}

/** Vector `i` of the sample. */
@inline
function sampleOf(image: Image, i: u32, count: u32): usize {
  return vectorOf(image, <u32>((<u64>i * image.rows) / count))
}

/** Writes the middle between smallest and largest, and the mean, of each dimension. */
function findOrigins(image: Image, count: u32, scales: usize, sums: usize, middle: usize, mean: usize): void {
  const end = <usize>image.dimension << 2
  memory.fill(sums, 0, end << 1)
  for (let d: usize = 0; d < end; d += 4) {
    store<f32>(middle + d, Infinity)
    store<f32>(mean + d, -Infinity)
  }
  for (let i: u32 = 0; i < count; i++) {
    const vector = sampleOf(image, i, count)
    const scale = load<f64>(scales + (<usize>i << 3))
    for (let d: usize = 0; d < end; d += 4) {
      const value = <f64>load<f32>(vector + d) * scale
      store<f64>(sums + (d << 1), load<f64>(sums + (d << 1)) + value)
      store<f32>(middle + d, min<f32>(load<f32>(middle + d), <f32>value))
      store<f32>(mean + d, max<f32>(load<f32>(mean + d), <f32>value))
    }
  }
  for (let d: usize = 0; d < end; d += 4) {
    const sum = <f64>load<f32>(middle + d) + <f64>load<f32>(mean + d)
    store<f32>(middle + d, <f32>(sum / 2))
    store<f32>(mean + d, <f32>(load<f64>(sums + (d << 1)) / count))
  }
}

/** Counts how far components lie from the origin; returns the farthest. */
function fillBins(image: Image, count: u32, scales: usize, origin: usize, bins: usize): f64 {
  let extent: f64 = 0
  const end = <usize>image.dimension << 2
  for (let i: u32 = 0; i < count; i++) {
    const vector = sampleOf(image, i, count)
    const scale = load<f64>(scales + (<usize>i << 3))
    for (let d: usize = 0; d < end; d += 4) extent = max<f64>(extent, distanceOf(vector + d, scale, origin + d))
  }
  memory.fill(bins, 0, BINS << 2)
  const inverse = extent == 0 ? 0 : <f64>(BINS - 1) / extent
  for (let i: u32 = 0; i < count; i++) {
    const vector = sampleOf(image, i, count)
    const scale = load<f64>(scales + (<usize>i << 3))
    for (let d: usize = 0; d < end; d += 4) {
      const bin = bins + (<usize>(distanceOf(vector + d, scale, origin + d) * inverse) << 2)
      store<u32>(bin, load<u32>(bin) + 1)
    }
  }
  return extent
}

@inline
function distanceOf(component: usize, scale: f64, origin: usize): f64 {
  return Math.abs(<f64>load<f32>(component) * scale - <f64>load<f32>(origin))
}

/** Sum of squared errors at `delta`. */
function errorOf(bins: usize, extent: f64, delta: f64): f64 {
  const rounding = (delta * delta) / 12
  const width = extent / <f64>(BINS - 1)
  let error: f64 = 0
  for (let i: u32 = 0; i < BINS; i++) {
    const beyond = <f64>i * width - REACH * delta
    error += <f64>load<u32>(bins + (<usize>i << 2)) * (beyond > 0 ? rounding + beyond * beyond : rounding)
  }
  return error
}

function bestDelta(bins: usize, extent: f64): f64 {
  let best = extent / REACH
  let least = errorOf(bins, extent, best)
  let delta = best
  for (let i = 0; i < 64; i++) {
    delta *= 0.96
    const error = errorOf(bins, extent, delta)
    if (error < least) {
      least = error
      best = delta
    }
  }
  return best
}
