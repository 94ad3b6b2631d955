/**
 * A small embedder that needs no model, no network and no dependency, so that the demo runs anywhere.
 *
 * It is a *lexical stand-in*: it hashes words, word pairs and character n-grams, weighs them and projects them at
 * random to 384 dimensions. Texts come out close when they share words or spellings, not when they share a meaning:
 * "car" and "automobile" are strangers to it. For search by meaning put a real model into {@link createEmbedder}.
 *
 * @typedef {object} Embedder
 * @property {number} dimension  length of every vector
 * @property {string} model      name to store with the collection, so that vectors of two models never mix
 * @property {(texts: readonly string[]) => Promise<Float32Array[]>} embed  one vector of length 1 a text, in order
 */

const dimension = 384
/** Non-zero components a feature is spread over: enough for the projection to keep angles, few enough to be quick. */
const spread = 16
/** Document frequencies are counted in this many buckets (a power of two); rare collisions only blur a weight. */
const frequencyBuckets = 1 << 18
/** How much a feature of each kind counts beside a whole word. */
const familyWeight = { word: 1, pair: 0.5, gram: 0.3 }
/** Longest run of letters whose n-grams are taken; what is longer is not a word. */
const wordLengthMax = 64

const stopWords = new Set(
  (
    'a about also an and any are as at be been but by can could do does for from had has have how i if in into is it ' +
    'its may me more my no not of on one or our should so some such than that the their them then there these they ' +
    'this those to up us was we were what when where which who why will with would you your'
  ).split(' '),
)

/**
 * **The one place to plug in a real model.** Return the same three fields and the rest of the demo follows, e.g. with
 * `@huggingface/transformers`:
 *
 * ```js
 * const extract = await pipeline('feature-extraction', 'Xenova/all-MiniLM-L6-v2')
 * return {
 *   dimension: 384,
 *   model: 'all-MiniLM-L6-v2',
 *   async embed(texts) {
 *     const output = await extract([...texts], { pooling: 'mean', normalize: true })
 *     return output.tolist().map((vector) => Float32Array.from(vector))
 *   },
 * }
 * ```
 *
 * @param {{ sample?: Iterable<string> }} [options]  `sample`: texts typical of what will be stored. Features that are
 *   common among them weigh less (inverse document frequency). Without it only a list of English stop words weighs less.
 * @returns {Promise<Embedder>}
 */
export async function createEmbedder(options = {}) {
  const frequencies = options.sample ? countFrequencies(options.sample) : undefined
  const fit = frequencies && frequencies.texts > 0 ? `-${frequencies.fingerprint}` : ''
  return {
    dimension,
    model: `hashed-ngrams-${dimension}${fit}`,
    async embed(texts) {
      return texts.map((text) => embedText(text, frequencies))
    },
  }
}

/**
 * How many texts of a sample hold each feature.
 * @typedef {{ texts: number, counts: Uint32Array, fingerprint: string }} Frequencies
 */

/**
 * @param {Iterable<string>} sample
 * @returns {Frequencies}
 */
function countFrequencies(sample) {
  const counts = new Uint32Array(frequencyBuckets)
  let texts = 0
  for (const text of sample) {
    texts++
    for (const hash of extractFeatures(text).keys()) {
      const bucket = hash % frequencyBuckets
      counts[bucket] = (counts[bucket] ?? 0) + 1
    }
  }
  let fingerprint = texts
  for (const [bucket, count] of counts.entries()) {
    if (count !== 0) fingerprint = mix(fingerprint ^ mix(bucket) ^ count)
  }
  return { texts, counts, fingerprint: fingerprint.toString(16).padStart(8, '0') }
}

/**
 * @param {string} text
 * @param {Frequencies | undefined} frequencies
 * @returns {Float32Array}
 */
function embedText(text, frequencies) {
  const sums = new Float64Array(dimension)
  for (const [hash, feature] of extractFeatures(text)) {
    const rarity = frequencies ? inverseFrequency(frequencies, hash) : feature.common ? 0.15 : 1
    project(hash, familyWeight[feature.family] * (1 + Math.log(feature.count)) * rarity, sums)
  }
  let norm = Math.hypot(...sums)
  if (norm < 1e-9) {
    // No feature at all, or features that cancel out: the text as a whole is the feature.
    project(hashString(text, 0), 1, sums.fill(0))
    norm = Math.hypot(...sums)
  }
  return Float32Array.from(sums, (sum) => sum / norm)
}

/** The rarity of BM25 (Robertson and Zaragoza, 2009), above 0 always. @param {Frequencies} frequencies @param {number} hash */
function inverseFrequency({ texts, counts }, hash) {
  const count = Math.min(texts, counts[hash % frequencyBuckets] ?? 0)
  return Math.log(1 + (texts - count + 0.5) / (count + 0.5))
}

/**
 * Adds a feature to the projection: {@link spread} components with pseudo-random places and signs, a sparse
 * Johnson-Lindenstrauss transform (Kane and Nelson, 2014) that needs no stored matrix. Each component has its own
 * block of the vector, so that no two of a feature meet.
 * @param {number} hash
 * @param {number} weight
 * @param {Float64Array} sums
 */
function project(hash, weight, sums) {
  const block = dimension / spread
  for (let i = 0; i < spread; i++) {
    const random = mix(hash + Math.imul(i + 1, 0x9e3779b9))
    const place = i * block + ((random >>> 1) % block)
    sums[place] = (sums[place] ?? 0) + (random & 1 ? weight : -weight)
  }
}

/**
 * @typedef {{ family: keyof typeof familyWeight, count: number, common: boolean }} Feature
 */

/**
 * The features of a text by hash: stemmed words (of `readFileSync` the whole and its parts), pairs of neighbours that
 * are not both stop words, and n-grams of the characters of each word.
 * @param {string} text
 * @returns {Map<number, Feature>}
 */
function extractFeatures(text) {
  /** @type {Map<number, Feature>} */
  const features = new Map()
  /** @param {keyof typeof familyWeight} family @param {number} hash @param {boolean} common */
  const add = (family, hash, common) => {
    const feature = features.get(hash)
    if (feature) feature.count++
    else features.set(hash, { family, count: 1, common })
  }
  let before = ''
  for (const word of splitWords(text)) {
    const common = stopWords.has(word)
    const stem = stemWord(word)
    add('word', hashString(stem, 1), common)
    if (before !== '' && !(common && stopWords.has(before))) add('pair', hashString(`${before} ${stem}`, 2), common)
    if (!common) for (const gram of hashGrams(word)) add('gram', gram, false)
    before = stem
  }
  return features
}

/**
 * Lower-case words: runs of letters, marks and digits, and the parts of camelCase and snake_case names after the name.
 * @param {string} text
 * @returns {Generator<string>}
 */
function* splitWords(text) {
  for (const [run] of text.normalize('NFKC').matchAll(/[\p{L}\p{M}\p{N}]+/gu)) {
    const word = run.toLowerCase()
    yield word
    if (run === word) continue
    const parts = run.match(/\p{Lu}+(?!\p{Ll})|\p{Lu}?[^\p{Lu}\p{N}]+|\p{N}+/gu)
    if (parts && parts.length > 1) for (const part of parts) yield part.toLowerCase()
  }
}

/**
 * Takes the commonest English endings off, so that "streams", "streaming" and "streamed" count as "stream".
 * @param {string} word
 * @returns {string}
 */
export function stemWord(word) {
  if (word.length < 4 || !/^[a-z]+$/.test(word)) return word
  let stem = word
  if (/[^s]s$/.test(stem) && !/(?:us|is)$/.test(stem)) stem = stem.replace(/ies$/, 'y').replace(/s$/, '')
  if (/[aeiouy].*(?:ing|ed)$/.test(stem) && stem.length > 5) {
    stem = stem.replace(/(?:ing|ed)$/, '').replace(/([bdgmnprt])\1$/, '$1')
  }
  return stem.length > 3 ? stem.replace(/e$/, '') : stem
}

/**
 * Hashes of the trigrams of `^word$`; of pairs where letters are whole syllables or words (Chinese, Japanese, Korean).
 * @param {string} word
 * @returns {Generator<number>}
 */
function* hashGrams(word) {
  const padded = `^${word.slice(0, wordLengthMax)}$`
  const length = /[\u2e80-\uffff]/.test(padded) ? 2 : 3
  for (let start = 0; start + length <= padded.length; start++) yield hashString(padded, 3, start, start + length)
}

/**
 * FNV-1a over UTF-16 code units, then mixed.
 * @param {string} text
 * @param {number} seed
 * @param {number} [start]
 * @param {number} [end]
 * @returns {number} 32 bits, unsigned
 */
function hashString(text, seed, start = 0, end = text.length) {
  let hash = 0x811c9dc5 ^ Math.imul(seed, 0x85ebca6b)
  for (let i = start; i < end; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
  return mix(hash)
}

/** The finaliser of MurmurHash3. @param {number} value @returns {number} 32 bits, unsigned */
function mix(value) {
  let bits = value
  bits = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b)
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35)
  return (bits ^ (bits >>> 16)) >>> 0
}
