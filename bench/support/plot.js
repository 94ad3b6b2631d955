/**
 * Line plots as SVG, readable on light and dark pages.
 */

/**
 * @typedef {object} Line
 * @property {string} name
 * @property {readonly (readonly [x: number, y: number])[]} points
 */

/**
 * @typedef {object} Panel
 * @property {string} title
 * @property {readonly Line[]} lines
 * @property {readonly number[]} ticks of the y axis, from the bottom up
 * @property {boolean} isLog whether the y axis is logarithmic
 */

const width = 360
const height = 260
const margin = { left: 48, right: 12, top: 30, bottom: 40 }
const colours = ['#2f6fdb', '#d9722e', '#2a9d6f', '#a04fc4']

/**
 * Panels side by side over one logarithmic x axis.
 *
 * @param {readonly Panel[]} panels
 * @param {{ label: string, ticks: readonly number[] }} x rising from left to right
 * @returns {string}
 */
export function plot(panels, x) {
  const names = [...new Set(panels.flatMap(({ lines }) => lines.map(({ name }) => name)))]
  const colourOf = (/** @type {string} */ name) => colours[names.indexOf(name) % colours.length]
  const [total, tall] = [panels.length * width, height + 24]
  const parts = panels.map(
    (panel, i) => `<g transform="translate(${i * width} 0)">\n${panelOf(panel, x, colourOf)}\n</g>`,
  )
  const legend = names.map(
    (name, i) =>
      `<g transform="translate(${margin.left + i * 190} ${height + 8})"><line x2="18" y1="4" y2="4" stroke="${colourOf(name)}" stroke-width="2"/><text x="24" y="8">${name}</text></g>`,
  )
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${total} ${tall}" width="${total}" height="${tall}" font-family="system-ui, sans-serif" font-size="11">
<title>${panels.map(({ title }) => title).join(' and ')} over ${x.label}</title>
<style>text { fill: #333 } .axis { stroke: #9994 } @media (prefers-color-scheme: dark) { text { fill: #ccc } }</style>
${parts.join('\n')}
${legend.join('\n')}
</svg>
`
}

/**
 * @param {Panel} panel
 * @param {{ label: string, ticks: readonly number[] }} x
 * @param {(name: string) => string | undefined} colourOf
 */
function panelOf({ title, lines, ticks, isLog }, x, colourOf) {
  const across = scale(x.ticks, margin.left, width - margin.right, true)
  const up = scale(ticks, height - margin.bottom, margin.top, isLog)
  const parts = [`<text x="${margin.left}" y="16" font-weight="600">${title}</text>`]
  for (const tick of ticks) {
    const y = up(tick).toFixed(1)
    parts.push(`<line class="axis" x1="${margin.left}" x2="${width - margin.right}" y1="${y}" y2="${y}"/>`)
    parts.push(`<text x="${margin.left - 6}" y="${Number(y) + 4}" text-anchor="end">${tick}</text>`)
  }
  for (const tick of x.ticks) {
    parts.push(
      `<text x="${across(tick).toFixed(1)}" y="${height - margin.bottom + 16}" text-anchor="middle">${tick}</text>`,
    )
  }
  parts.push(`<text x="${width / 2}" y="${height - 8}" text-anchor="middle">${x.label}</text>`)
  for (const { name, points } of lines) {
    const at = points.map(([px, py]) => `${across(px).toFixed(1)},${up(py).toFixed(1)}`)
    parts.push(`<polyline fill="none" stroke="${colourOf(name)}" stroke-width="2" points="${at.join(' ')}"/>`)
    for (const place of at) {
      const [cx, cy] = place.split(',')
      parts.push(`<circle cx="${cx}" cy="${cy}" r="2.5" fill="${colourOf(name)}"/>`)
    }
  }
  return parts.join('\n')
}

/**
 * @param {readonly number[]} ticks the first and the last are the ends
 * @param {number} from
 * @param {number} to
 * @param {boolean} isLog
 */
function scale(ticks, from, to, isLog) {
  const value = (/** @type {number} */ each) => (isLog ? Math.log(each) : each)
  const [low, high] = [value(ticks[0] ?? 1), value(ticks.at(-1) ?? 1)]
  return (/** @type {number} */ each) => {
    const place = from + ((value(each) - low) / (high - low)) * (to - from)
    return Math.min(Math.max(place, Math.min(from, to)), Math.max(from, to))
  }
}
