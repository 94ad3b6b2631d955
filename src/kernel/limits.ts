/** What graphs and searches may ask of the kernel, for those who check it before the kernel is there. */

/** Widest beam. */
export const efMax = 20_000
/** Most neighbours of a row in a layer above the lowest. */
export const mMax = 128
