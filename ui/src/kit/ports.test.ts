import { expect, test } from 'vitest'
import type { ContainerPort } from '../host'
import { portLabels } from './ports'

const port = (over: Partial<ContainerPort>): ContainerPort => ({
  container_port: 80,
  protocol: 'tcp',
  host_ip: null,
  host_port: null,
  ...over,
})

test('a port on IPv4 and IPv6 is shown once and opens on localhost', () => {
  const both = [port({ host_ip: '0.0.0.0', host_port: 8080 }), port({ host_ip: '::', host_port: 8080 })]
  expect(portLabels(both)).toEqual([
    { text: '8080 → 80', url: 'http://localhost:8080', published: true, order: 8080 },
  ])
})

test('a port on one address names it', () => {
  const [v4] = portLabels([port({ host_ip: '192.168.1.5', host_port: 8080 })])
  expect(v4).toMatchObject({ text: '192.168.1.5:8080 → 80', url: 'http://192.168.1.5:8080' })
  const [v6] = portLabels([port({ host_ip: 'fd00::5', host_port: 8080 })])
  expect(v6).toMatchObject({ text: '[fd00::5]:8080 → 80', url: 'http://[fd00::5]:8080' })
})

test('443 is https, and what a browser does not speak is no link', () => {
  expect(portLabels([port({ container_port: 443, host_port: 9443 })])[0]?.url).toBe('https://localhost:9443')
  const dns = portLabels([port({ container_port: 53, protocol: 'udp', host_port: 5353 })])[0]
  expect(dns).toMatchObject({ text: '5353 → 53/udp', url: null, published: true })
})

test('published ports come first, and an exposed port that is also published is not repeated', () => {
  const labels = portLabels([
    port({ container_port: 22 }),
    port({ container_port: 80 }),
    port({ container_port: 443, host_port: 8443 }),
    port({ container_port: 80, host_port: 8080 }),
  ])
  expect(labels.map((label) => label.text)).toEqual(['8080 → 80', '8443 → 443', '22'])
})
