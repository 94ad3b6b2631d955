import { describe, expect, it } from 'vitest'
import type { VectorImage } from '../../src/kernel/index.ts'
import { buildWhole, clusters, exactTop, imageOf, kernelOf, metrics, recallOf } from './support.ts'

const sections = ['levels', 'links', 'upperIndex', 'upperLinks'] as const

function graphOf(image: VectorImage): unknown {
  return [image.graphHeader(), ...sections.map((kind) => image.checksumSection(kind))]
}

describe('graph', async () => {
  const kernel = await kernelOf('simd')
  const all = clusters(4100, 48, 21)
  const rows = all.slice(0, 4000)
  const questions = all.slice(4000)

  for (const metric of metrics) {
    for (const codes of [true, false]) {
      it(`finds the nearest by ${metric} on ${codes ? 'codes' : 'f32'} with few visits`, () => {
        const image = imageOf(kernel, metric, rows, { codes })
        buildWhole(image)
        const { recall, visited } = recallOf(image, questions, 10, 60)
        expect(recall).toBeGreaterThan(0.95)
        expect(visited).toBeLessThan(rows.length / 3)
        expect(recallOf(image, questions, 10, 300).recall).toBeGreaterThan(0.995)
        image.release()
      })
    }
  }

  it('has the same bytes twice and however the building is sliced, another with another seed', () => {
    const graphs = [1, 7, 333, 10_000].map((slice) => {
      const image = imageOf(kernel, 'cosine', rows.slice(0, 1000), { codes: true })
      buildWhole(image, slice)
      return graphOf(image)
    })
    for (const graph of graphs) expect(graph).toEqual(graphs[0])
    const other = imageOf(kernel, 'cosine', rows.slice(0, 1000), { codes: true })
    buildWhole(other, 500, { M: 16, efConstruction: 100, seed: 8 })
    expect(other.checksumSection('levels')).not.toEqual((graphs[0] as unknown[])[1])
  })

  it('takes searches, builds and images in between without harm', () => {
    const pool = kernel.createPool()
    const make = () => {
      const image = pool.createImage({ dimension: 48, metric: 'euclidean', capacity: 0 })
      for (const row of rows.slice(0, 600)) image.append(new Uint8Array(row.buffer))
      return image
    }
    const alone = make()
    buildWhole(alone)
    const [first, second] = [make(), make()]
    const out = { rows: new Uint32Array(20), distances: new Float32Array(20) }
    first.beginGraph({ M: 16, efConstruction: 100, seed: 7 })
    second.beginGraph({ M: 12, efConstruction: 300, seed: 9 })
    alone.prepare(questions[0]!)
    const before = { ...alone.search(20, out), rows: [...out.rows] }
    while (!first.buildGraph(37)) {
      second.buildGraph(11)
      expect({ ...alone.search(20, out), rows: [...out.rows] }).toEqual(before)
    }
    expect(graphOf(first)).toEqual(graphOf(alone))
    expect(pool.instances).toBe(1)
    pool.close()
    expect(pool.instances).toBe(0)
  })

  it('comes back from its sections', () => {
    const image = imageOf(kernel, 'dot', rows.slice(0, 800), { codes: true })
    buildWhole(image)
    const copy = imageOf(kernel, 'dot', rows.slice(0, 800), { codes: true })
    copy.loadGraph(image.graphHeader())
    expect(copy.hasGraph).toBe(false)
    for (const kind of sections) {
      const bytes = new Uint8Array(image.section(kind).byteLength)
      image.readSection(kind, 0, bytes)
      copy.writeSection(kind, 0, bytes)
    }
    expect(copy.validateGraph()).toBeNull()
    expect(copy.hasGraph).toBe(true)
    expect(graphOf(copy)).toEqual(graphOf(image))
    const found = [image, copy].map((each) => {
      const out = { rows: new Uint32Array(50), distances: new Float32Array(50) }
      each.prepare(questions[1]!)
      return [each.search(50, out), out]
    })
    expect(found[1]).toEqual(found[0])
  })

  for (const metric of metrics) {
    it(`returns distances by ${metric} in order and as scans have them`, () => {
      for (const dimension of [16, 20, 36, 48]) {
        for (const codes of [true, false]) {
          const cut = rows.slice(0, 900).map((row) => row.slice(0, dimension))
          const image = imageOf(kernel, metric, cut, { codes })
          buildWhole(image, 500, { M: 8, efConstruction: 40, seed: 7 })
          image.prepare(questions[2]!.slice(0, dimension))
          const out = { rows: new Uint32Array(100), distances: new Float32Array(100) }
          const { count } = image.search(100, out)
          expect(count).toBe(100)
          const scan = new Float32Array(900)
          if (codes) image.scanCodes(0, 900, scan)
          else image.scan(0, 900, scan)
          expect(out.distances).toEqual(Float32Array.from(out.rows, (row) => scan[row]!))
          expect(out.distances).toEqual(out.distances.slice().sort())
          expect(new Set(out.rows).size).toBe(100)
          image.release()
        }
      }
    })
  }

  for (const share of [0.1, 0.5, 0.9, 0.99]) {
    it(`returns only live rows, as many as asked, with ${share * 100} % dead`, () => {
      const image = imageOf(kernel, 'cosine', rows, { codes: true })
      buildWhole(image)
      for (let row = 0; row < rows.length; row++) if ((row * 7919) % 1000 < share * 1000) image.setDead(row)
      const live = rows.length - image.deadCount
      const ef = Math.min(60, live)
      const out = { rows: new Uint32Array(ef), distances: new Float32Array(ef) }
      for (const question of questions.slice(0, 20)) {
        image.prepare(question)
        const { count } = image.search(ef, out)
        expect(count).toBe(ef)
        for (const row of out.rows) expect(image.isDead(row)).toBe(false)
      }
      expect(recallOf(image, questions, 10, ef).recall).toBeGreaterThan(0.95)
    })
  }

  for (const share of [0.5, 0.2, 0.05, 0.01]) {
    it(`returns only rows that are open, ${share * 100} %`, () => {
      for (const metric of metrics) {
        const image = imageOf(kernel, metric, rows, { codes: true })
        buildWhole(image)
        const open = new Uint32Array(Math.ceil(rows.length / 32))
        const openRows: number[] = []
        for (let row = 0; row < rows.length; row++) {
          if ((row * 7919) % 1000 >= share * 1000) continue
          open[row >>> 5]! |= 1 << (row & 31)
          openRows.push(row)
          // Who says which rows are open has a past moment in mind: what has died since is still to be found.
          if (row % 11 === 0) image.setDead(row)
        }
        const ef = 60
        const out = { rows: new Uint32Array(ef), distances: new Float32Array(ef) }
        const distances = new Float32Array(openRows.length)
        let found = 0
        let wanted = 0
        for (const question of questions.slice(0, 20)) {
          image.prepare(question)
          const { count } = image.search(ef, out, { open, reach: rows.length })
          const given = [...out.rows.subarray(0, count)]
          expect(new Set(given).size).toBe(count)
          for (const row of given) expect(openRows).toContain(row)
          expect(out.distances.subarray(0, count)).toEqual(out.distances.slice(0, count).sort())
          image.scanRows(Uint32Array.from(openRows), openRows.length, distances, true)
          const order = openRows.map((row, i) => [distances[i]!, row] as const).sort(([a], [b]) => a - b)
          const best = order.slice(0, 10).map(([, row]) => row)
          wanted += best.length
          found += best.filter((row) => given.includes(row)).length
        }
        expect(found / wanted, metric).toBeGreaterThan(0.9)
        image.release()
      }
    })
  }

  it('gives up where more rows lie before the open ones than it is to bear in mind', () => {
    const image = imageOf(kernel, 'cosine', rows, { codes: true })
    buildWhole(image)
    const out = { rows: new Uint32Array(60), distances: new Float32Array(60) }
    const far = new Uint32Array(Math.ceil(rows.length / 32))
    const ask = (open: Uint32Array, reach: number) => {
      image.prepare(questions[0]!)
      return image.search(60, out, { open, reach })
    }
    image.prepare(questions[0]!)
    for (const row of exactTop(image, rows.length).slice(-1000)) far[row >>> 5]! |= 1 << (row & 31)
    const short = ask(far, 200)
    const long = ask(far, rows.length)
    expect(short.count).toBeLessThan(10)
    expect(short.visited).toBeLessThan(rows.length / 2)
    expect(long.count).toBe(60)
    expect(ask(far.fill(0), 200).count).toBe(0)
    expect(ask(far.fill(0xffffffff), 200).count).toBe(60)
    // A reach below the beam is the beam.
    expect(ask(far, 0).count).toBe(60)
  })

  for (const metric of metrics) {
    it(`measures named rows by ${metric} as scans do`, () => {
      const image = imageOf(kernel, metric, rows, { codes: true })
      image.prepare(questions[1]!)
      const named = Uint32Array.from({ length: 997 }, (_, i) => (i * 31) % rows.length)
      const out = new Float32Array(named.length)
      const all = new Float32Array(rows.length)
      for (const isCoded of [true, false]) {
        if (isCoded) image.scanCodes(0, rows.length, all)
        else image.scan(0, rows.length, all)
        for (const count of [0, 1, 2, 3, 5, 8, 997]) {
          out.fill(7)
          image.scanRows(named, count, out, isCoded)
          expect(out.subarray(0, count)).toEqual(Float32Array.from(named.subarray(0, count), (row) => all[row]!))
          expect(out.subarray(count).every((value) => value === 7)).toBe(true)
        }
      }
    })
  }

  it('finds nothing but does not fail when all is dead, empty or unfinished', () => {
    const out = { rows: new Uint32Array(10), distances: new Float32Array(10) }
    const image = imageOf(kernel, 'cosine', rows.slice(0, 100))
    buildWhole(image)
    for (let row = 0; row < 100; row++) image.setDead(row)
    image.prepare(questions[0]!)
    expect(image.search(10, out).count).toBe(0)
    const empty = kernel.createPool().createImage({ dimension: 48, metric: 'dot', capacity: 0 })
    buildWhole(empty)
    expect(empty.hasGraph).toBe(true)
    expect(empty.validateGraph()).toBeNull()
    empty.prepare(questions[0]!)
    expect(empty.search(10, out)).toEqual({ count: 0, visited: 0 })
  })

  it('stays connected among many equal rows', () => {
    const equal = Array.from({ length: 700 }, () => new Float32Array(48).fill(1))
    for (const codes of [true, false]) {
      const image = imageOf(kernel, 'euclidean', [...rows.slice(0, 300), ...equal, ...rows.slice(300, 600)], { codes })
      buildWhole(image)
      const { recall } = recallOf(image, questions, 10, 60)
      expect(recall).toBeGreaterThan(0.95)
      image.prepare(equal[0]!)
      const out = { rows: new Uint32Array(60), distances: new Float32Array(60) }
      image.search(60, out)
      for (const row of out.rows) expect(row >= 300 && row < 1000).toBe(true)
    }
  })

  it('serves zero vectors and components of any size', () => {
    for (const scale of [1e-30, 1e30]) {
      const scaled = [new Float32Array(48), ...rows.slice(0, 800)].map((row) =>
        row.map((component) => component * scale),
      )
      for (const metric of metrics) {
        const image = imageOf(kernel, metric, scaled, { codes: true })
        buildWhole(image)
        const asked = questions.slice(0, 20).map((question) => question.map((component) => component * scale))
        expect(recallOf(image, asked, 10, 100).recall, `${metric} ${scale}`).toBeGreaterThan(0.9)
        image.prepare(new Float32Array(48))
        const out = { rows: new Uint32Array(10), distances: new Float32Array(10) }
        expect(image.search(10, out).count).toBe(10)
        if (metric === 'cosine') {
          const scores = new Float64Array(10)
          image.score(out.rows, 10, scores)
          expect(scores).toEqual(new Float64Array(10))
        }
        image.release()
      }
    }
  })

  it('answers with the widest beam', () => {
    const image = imageOf(kernel, 'cosine', rows, { codes: true })
    buildWhole(image)
    image.prepare(questions[3]!)
    const out = { rows: new Uint32Array(20_000), distances: new Float32Array(20_000) }
    const { count } = image.search(20_000, out)
    expect(count).toBe(rows.length)
    expect(new Set(out.rows.subarray(0, count)).size).toBe(count)
    expect([...out.rows.subarray(0, 50)]).toContain(exactTop(image, 1)[0])
  })

  it('refuses senseless options', () => {
    const image = imageOf(kernel, 'cosine', rows.slice(0, 10))
    for (const options of [
      { M: 1, efConstruction: 100, seed: 1 },
      { M: 129, efConstruction: 100, seed: 1 },
      { M: 16.5, efConstruction: 100, seed: 1 },
      { M: 16, efConstruction: 0, seed: 1 },
      { M: 16, efConstruction: 20_001, seed: 1 },
      { M: 16, efConstruction: 100, seed: 0.5 },
    ]) {
      expect(() => image.beginGraph(options)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }))
    }
    expect(image.hasGraph).toBe(false)
  })
})
