import { expect, test } from 'vitest'
import type { ContainerState, ContainerSummary } from '../../host'
import { containerRow, containerRows, matches, reorder, rowAfterKey, type Wanted } from './view'

function container(name: string, over: Partial<ContainerSummary> = {}): ContainerSummary {
  return {
    id: name.padEnd(64, '0'),
    name,
    image: 'busybox:latest',
    command: 'sh',
    created: 1_000,
    state: 'running',
    status: 'Up',
    ports: [],
    ...over,
  }
}

const all: Wanted = { filter: '', onlyRunning: false, order: { by: 'name', descending: false } }
const names = (list: ContainerSummary[], wanted: Partial<Wanted>) =>
  containerRows(list, new Map(), { ...all, ...wanted }).map((row) => row.name)

test.each<[ContainerState, boolean, boolean, boolean]>([
  ['created', true, false, true],
  ['running', false, true, true],
  ['paused', false, true, true],
  ['restarting', false, true, true],
  ['exited', true, false, true],
  ['removing', false, false, false],
  ['dead', false, false, true],
])('%s: start %s, stop %s, remove %s', (state, canStart, canStop, canRemove) => {
  expect(containerRow(container('a', { state }), undefined)).toMatchObject({ canStart, canStop, canRemove })
})

test('while something is asked of a container, it shows that and takes no more', () => {
  const row = containerRow(container('a'), 'stopping')
  expect(row).toMatchObject({
    state: 'stopping',
    tone: 'starting',
    canStart: false,
    canStop: false,
    canRemove: false,
  })
})

test('a nameless image is shown by the beginning of its digest', () => {
  const image = `sha256:${'0123456789ab'.repeat(5)}0123`
  expect(containerRow(container('a', { image }), undefined).image).toBe('0123456789ab')
})

test('an image is cut where its registry and folders end', () => {
  const parts = (image: string) => containerRow(container('a', { image }), undefined).imageParts
  expect(parts('localhost:5000/team/api:2')).toEqual(['localhost:5000/team/', 'api:2'])
  expect(parts('busybox')).toEqual(['', 'busybox'])
})

test('filters by every word, in name, image, id and port', () => {
  const web = container('web', {
    image: 'nginx:1',
    ports: [{ container_port: 80, host_port: 8080, host_ip: '0.0.0.0', protocol: 'tcp' }],
  })
  const row = containerRow(web, undefined)
  expect(matches(row, '')).toBe(true)
  expect(matches(row, 'NGINX web')).toBe(true)
  expect(matches(row, '8080')).toBe(true)
  expect(matches(row, 'web postgres')).toBe(false)
})

test('only running keeps what has a process', () => {
  const list = [container('a', { state: 'exited' }), container('b', { state: 'paused' }), container('c')]
  expect(names(list, { onlyRunning: true })).toEqual(['b', 'c'])
})

test('sorts by each column both ways, and names break ties by their numbers', () => {
  const list = [
    container('web-10', { created: 3 }),
    container('web-2', { created: 3, state: 'exited', image: 'alpine' }),
    container('db', { created: 9, image: 'postgres' }),
  ]
  expect(names(list, { order: { by: 'name', descending: false } })).toEqual(['db', 'web-2', 'web-10'])
  expect(names(list, { order: { by: 'created', descending: true } })).toEqual(['db', 'web-2', 'web-10'])
  expect(names(list, { order: { by: 'state', descending: false } })).toEqual(['db', 'web-10', 'web-2'])
  expect(names(list, { order: { by: 'image', descending: true } })).toEqual(['db', 'web-10', 'web-2'])
})

test('a column clicked again turns round; created begins with the newest', () => {
  expect(reorder({ by: 'name', descending: false }, 'name')).toEqual({ by: 'name', descending: true })
  expect(reorder({ by: 'name', descending: true }, 'created')).toEqual({ by: 'created', descending: true })
  expect(reorder({ by: 'created', descending: true }, 'image')).toEqual({ by: 'image', descending: false })
})

test('arrow keys move and stop at the ends', () => {
  const rows = containerRows([container('a'), container('b'), container('c')], new Map(), all)
  const [a, b, c] = rows.map((row) => row.id)
  expect(rowAfterKey('ArrowDown', rows, null)).toBe(a)
  expect(rowAfterKey('ArrowUp', rows, null)).toBe(c)
  expect(rowAfterKey('ArrowDown', rows, a!)).toBe(b)
  expect(rowAfterKey('ArrowDown', rows, c!)).toBe(c)
  expect(rowAfterKey('Home', rows, c!)).toBe(a)
  expect(rowAfterKey('End', rows, a!)).toBe(c)
  expect(rowAfterKey('x', rows, a!)).toBeNull()
  expect(rowAfterKey('ArrowDown', [], null)).toBeNull()
})
