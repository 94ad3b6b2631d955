declare module 'isovec-worker-source' {
  /** The worker's script: minified, in one piece, for a classic worker. */
  const text: string
  export default text
}
