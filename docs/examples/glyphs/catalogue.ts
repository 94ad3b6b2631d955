/**
 * Which characters are drawn, in which order, and what is known of them: browsers have no table of names or blocks, but regular
 * expressions that know categories.
 */

/** What is stored beside the vector of a glyph. */
export type Glyph = {
  codePoint: number
  character: string
  /** Only where a rule makes the name. */
  name?: string
  block: string
  group: string
  /** Two letters, such as `Lu`. */
  category: string
  /** Set by the visitor. */
  pinned?: boolean
}

/** First and last code point and name of each block by group. What people draw comes first, the large scripts last. */
const table: Record<string, string> = {
  Arrows: `2190 21FF Arrows|27F0 27FF Supplemental Arrows-A|2900 297F Supplemental Arrows-B|2B00 2BFF Miscellaneous Symbols and Arrows|
1F800 1F8FF Supplemental Arrows-C`,
  Maths: `2200 22FF Mathematical Operators|27C0 27EF Miscellaneous Mathematical Symbols-A|2100 214F Letterlike Symbols|
2150 218F Number Forms|2070 209F Superscripts and Subscripts|2980 29FF Miscellaneous Mathematical Symbols-B|
2A00 2AFF Supplemental Mathematical Operators`,
  Shapes: `25A0 25FF Geometric Shapes|2500 257F Box Drawing|2580 259F Block Elements|1F780 1F7FF Geometric Shapes Extended|
2800 28FF Braille Patterns|1FB00 1FBFF Symbols for Legacy Computing`,
  Symbols: `2600 26FF Miscellaneous Symbols|2700 27BF Dingbats|2000 206F General Punctuation|20A0 20CF Currency Symbols|
2300 23FF Miscellaneous Technical|2400 243F Control Pictures|2440 245F Optical Character Recognition|2460 24FF Enclosed Alphanumerics|
2E00 2E7F Supplemental Punctuation|4DC0 4DFF Yijing Hexagram Symbols|1D100 1D1FF Musical Symbols|1D300 1D35F Tai Xuan Jing Symbols|
1F650 1F67F Ornamental Dingbats|1F700 1F77F Alchemical Symbols|1F100 1F1FF Enclosed Alphanumeric Supplement`,
  Latin: `0021 007F Basic Latin|0080 00FF Latin-1 Supplement|0100 017F Latin Extended-A|0180 024F Latin Extended-B|
0250 02AF IPA Extensions|02B0 02FF Spacing Modifier Letters|1D00 1D7F Phonetic Extensions|1D80 1DBF Phonetic Extensions Supplement|
1E00 1EFF Latin Extended Additional|2C60 2C7F Latin Extended-C|A720 A7FF Latin Extended-D|AB30 AB6F Latin Extended-E|
FB00 FB4F Alphabetic Presentation Forms`,
  'Greek & Cyrillic': `0370 03FF Greek and Coptic|0400 04FF Cyrillic|0500 052F Cyrillic Supplement|1F00 1FFF Greek Extended|
A640 A69F Cyrillic Extended-B|2C00 2C5F Glagolitic|2C80 2CFF Coptic`,
  Pictographs: `1F300 1F5FF Miscellaneous Symbols and Pictographs|1F600 1F64F Emoticons|1F680 1F6FF Transport and Map Symbols|
1F900 1F9FF Supplemental Symbols and Pictographs|1FA70 1FAFF Symbols and Pictographs Extended-A|1FA00 1FA6F Chess Symbols|
1F000 1F02F Mahjong Tiles|1F030 1F09F Domino Tiles|1F0A0 1F0FF Playing Cards`,
  Alphanumerics: '1D400 1D7FF Mathematical Alphanumeric Symbols',
  Scripts: `0530 058F Armenian|0590 05FF Hebrew|0600 06FF Arabic|0700 074F Syriac|0750 077F Arabic Supplement|0780 07BF Thaana|
07C0 07FF NKo|0900 097F Devanagari|0980 09FF Bengali|0A00 0A7F Gurmukhi|0A80 0AFF Gujarati|0B00 0B7F Oriya|0B80 0BFF Tamil|
0C00 0C7F Telugu|0C80 0CFF Kannada|0D00 0D7F Malayalam|0D80 0DFF Sinhala|0E00 0E7F Thai|0E80 0EFF Lao|0F00 0FFF Tibetan|
1000 109F Myanmar|10A0 10FF Georgian|1C90 1CBF Georgian Extended|2D00 2D2F Georgian Supplement|1200 137F Ethiopic|13A0 13FF Cherokee|
1400 167F Unified Canadian Aboriginal Syllabics|1680 169F Ogham|16A0 16FF Runic|1780 17FF Khmer|1800 18AF Mongolian|1950 197F Tai Le|
1C50 1C7F Ol Chiki|2D30 2D7F Tifinagh|2D80 2DDF Ethiopic Extended|A4D0 A4FF Lisu|A500 A63F Vai|A6A0 A6FF Bamum|
FB50 FDFF Arabic Presentation Forms-A|FE70 FEFF Arabic Presentation Forms-B`,
  Historic: `10000 1007F Linear B Syllabary|10080 100FF Linear B Ideograms|10280 1029F Lycian|102A0 102DF Carian|10300 1032F Old Italic|
10330 1034F Gothic|10380 1039F Ugaritic|103A0 103DF Old Persian|10400 1044F Deseret|10450 1047F Shavian|10600 1077F Linear A|
10800 1083F Cypriot Syllabary|10900 1091F Phoenician|12000 123FF Cuneiform|12400 1247F Cuneiform Numbers and Punctuation|
13000 1342F Egyptian Hieroglyphs`,
  'East Asian': `3000 303F CJK Symbols and Punctuation|3040 309F Hiragana|30A0 30FF Katakana|3100 312F Bopomofo|
3130 318F Hangul Compatibility Jamo|31C0 31EF CJK Strokes|2E80 2EFF CJK Radicals Supplement|2F00 2FDF Kangxi Radicals|
3200 32FF Enclosed CJK Letters and Months|3300 33FF CJK Compatibility|FF00 FFEF Halfwidth and Fullwidth Forms|
4E00 9FFF CJK Unified Ideographs|A000 A48F Yi Syllables|A490 A4CF Yi Radicals|AC00 D7AF Hangul Syllables|
3400 4DBF CJK Unified Ideographs Extension A`,
}

type Block = { readonly first: number; readonly last: number; readonly name: string; readonly group: string }

const blocks: readonly Block[] = Object.entries(table).flatMap(([group, lines]) =>
  lines.split('|').map((line) => {
    const [first, last, ...words] = line.trim().split(' ')
    return { first: Number.parseInt(first!, 16), last: Number.parseInt(last!, 16), name: words.join(' '), group }
  }),
)

/** Groups of blocks, in the order of the table. */
export const groups: readonly string[] = Object.keys(table)

/** Kinds of characters, and the categories that each takes together. */
export const kinds: Readonly<Record<string, readonly string[]>> = {
  Capitals: ['Lu', 'Lt'],
  'Small letters': ['Ll'],
  'Other letters': ['Lo', 'Lm'],
  Numbers: ['Nd', 'Nl', 'No'],
  Punctuation: ['Pc', 'Pd', 'Ps', 'Pe', 'Pi', 'Pf', 'Po'],
  'Maths signs': ['Sm'],
  Currency: ['Sc'],
  'Other signs': ['So', 'Sk'],
}

const categories = Object.values(kinds)
  .flat()
  .map((category) => [category, new RegExp(`^\\p{${category}}$`, 'u')] as const)

/** The general category; undefined for what is not drawn by itself: marks, spaces, controls and what is not assigned. */
function categoryOf(character: string): string | undefined {
  return categories.find(([, pattern]) => pattern.test(character))?.[0]
}

/** All characters of the blocks that may have a picture, in the order in which they are drawn. */
export function catalogue(): Glyph[] {
  const glyphs: Glyph[] = []
  for (const { first, last, name: block, group } of blocks) {
    for (let codePoint = first; codePoint <= last; codePoint++) {
      const character = String.fromCodePoint(codePoint)
      const category = categoryOf(character)
      if (category === undefined) continue
      const name = nameOf(codePoint, block)
      glyphs.push({ codePoint, character, ...(name === undefined ? {} : { name }), block, group, category })
    }
  }
  return glyphs
}

/** Such as `U+2661`. */
export function codeOf(codePoint: number): string {
  return `U+${codePoint.toString(16).toUpperCase().padStart(4, '0')}`
}

const initials = 'G GG N D DD R M B BB S SS  J JJ C K T P H'.split(' ')
const vowels = 'A AE YA YAE EO E YEO YE O WA WAE OE YO U WEO WE WI YU EU YI I'.split(' ')
const finals = ' G GG GS N NJ NH D L LG LM LB LS LT LP LH M B BS S SS NG J C K T P H'.split(' ')

/** Names that are made by rule; the others would need the table of the standard. */
function nameOf(codePoint: number, block: string): string | undefined {
  if (block.startsWith('CJK Unified')) return `CJK UNIFIED IDEOGRAPH-${codePoint.toString(16).toUpperCase()}`
  if (block === 'Hangul Syllables') {
    const at = codePoint - 0xac00
    return `HANGUL SYLLABLE ${initials[Math.floor(at / 588)]}${vowels[Math.floor(at / 28) % 21]}${finals[at % 28]}`
  }
  if (block === 'Braille Patterns') {
    const dots = [...'12345678'].filter((_, bit) => (codePoint >> bit) & 1)
    return dots.length === 0 ? 'BRAILLE PATTERN BLANK' : `BRAILLE PATTERN DOTS-${dots.join('')}`
  }
  return undefined
}
