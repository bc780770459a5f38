/** A container's ports as a person reads and uses them. */
import type { ContainerPort } from '../host'

export interface PortLabel {
  /** "8080 → 80", or "80" if it is not published. */
  text: string
  /** What a browser opens; none for what a browser does not speak. */
  url: string | null
  published: boolean
  /** For sorting and as a key. */
  order: number
}

const HTTPS_PORTS = new Set([443, 8443])
const THIS_COMPUTER = new Set(['', '0.0.0.0', '::', '127.0.0.1', '::1'])

/** Published ports first, each once: the same port on IPv4 and IPv6 is one port to its user. */
export function portLabels(ports: readonly ContainerPort[]): PortLabel[] {
  const labels = new Map<string, PortLabel>()
  const published = new Set(ports.filter((port) => port.host_port !== null).map(inside))
  for (const port of ports) {
    if (port.host_port === null && published.has(inside(port))) continue
    const label = portLabel(port)
    labels.set(label.text, labels.get(label.text) ?? label)
  }
  return [...labels.values()].sort((a, b) => Number(b.published) - Number(a.published) || a.order - b.order)
}

function inside(port: ContainerPort): string {
  return `${port.container_port}/${port.protocol}`
}

function portLabel(port: ContainerPort): PortLabel {
  const container = port.protocol === 'tcp' ? String(port.container_port) : inside(port)
  if (port.host_port === null) {
    return { text: container, url: null, published: false, order: port.container_port }
  }
  const ip = port.host_ip ?? ''
  const everywhere = THIS_COMPUTER.has(ip)
  const at = everywhere ? String(port.host_port) : `${bracketed(ip)}:${port.host_port}`
  const host = everywhere ? `localhost:${port.host_port}` : at
  const scheme = HTTPS_PORTS.has(port.container_port) ? 'https' : 'http'
  return {
    text: `${at} → ${container}`,
    url: port.protocol === 'tcp' ? `${scheme}://${host}` : null,
    published: true,
    order: port.host_port,
  }
}

function bracketed(ip: string): string {
  return ip.includes(':') ? `[${ip}]` : ip
}
