/** The fake's containers and what they write. */
import type { ContainerPort, ContainerState, ContainerSummary } from '../generated'

const HOUR_S = 3_600

interface Made {
  name: string
  image: string
  command?: string
  ageS: number
  state?: ContainerState
  status?: string
  ports?: ContainerPort[]
}

function published(host_port: number, container_port: number, host_ip = '0.0.0.0'): ContainerPort {
  return { container_port, protocol: 'tcp', host_ip, host_port }
}

/** 64 hex digits that stay the same for the same name. */
export function idOf(name: string): string {
  let seed = 0x811c9dc5
  for (const char of name) seed = Math.imul(seed ^ char.charCodeAt(0), 0x01000193)
  let id = ''
  while (id.length < 64) {
    seed = Math.imul(seed ^ (seed >>> 15), 0x2c1b3c6d) + 1
    id += (seed >>> 0).toString(16).padStart(8, '0')
  }
  return id.slice(0, 64)
}

export function summary(made: Made, nowS: number): ContainerSummary {
  return {
    id: idOf(made.name),
    name: made.name,
    image: made.image,
    command: made.command ?? 'sh',
    created: Math.round(nowS - made.ageS),
    state: made.state ?? 'running',
    status: made.status ?? 'Up',
    ports: made.ports ?? [],
  }
}

export const SOME: readonly Made[] = [
  {
    name: 'web',
    image: 'nginx:1.29',
    command: "/docker-entrypoint.sh nginx -g 'daemon off;'",
    ageS: 130,
    status: 'Up',
    ports: [published(8080, 80), published(8080, 80, '::'), published(8443, 443)],
  },
  {
    name: 'api',
    image: 'ghcr.io/acme/orders-api:2026.8.1',
    command: 'node server.js',
    ageS: 2 * HOUR_S,
    ports: [published(3000, 3000, '127.0.0.1')],
  },
  {
    name: 'db',
    image: 'postgres:18',
    command: 'docker-entrypoint.sh postgres',
    ageS: 26 * HOUR_S,
    status: 'Up',
    ports: [{ container_port: 5432, protocol: 'tcp', host_ip: null, host_port: null }],
  },
  {
    name: 'cache',
    image: 'redis:8-alpine',
    ageS: 26 * HOUR_S,
    state: 'paused',
    status: 'Up (Paused)',
  },
  {
    name: 'worker',
    image: 'ghcr.io/acme/orders-worker:2026.8.1',
    ageS: 2 * HOUR_S,
    state: 'restarting',
    status: 'Restarting (1) 4 seconds ago',
  },
  {
    name: 'migrate',
    image: 'ghcr.io/acme/orders-api:2026.8.1',
    ageS: 3 * HOUR_S,
    state: 'exited',
    status: 'Exited (0)',
  },
  {
    name: 'dns',
    image: 'coredns:1.12',
    ageS: 9 * 24 * HOUR_S,
    ports: [{ container_port: 53, protocol: 'udp', host_ip: '0.0.0.0', host_port: 5353 }],
  },
  {
    name: 'hopeful_hopper',
    image: 'busybox:latest',
    ageS: 15 * 24 * HOUR_S,
    state: 'exited',
    status: 'Exited (137)',
  },
  { name: 'draft', image: 'debian:13-slim', ageS: 40 * 24 * HOUR_S, state: 'created', status: 'Created' },
]

/** A list that does not fit on a screen. */
export const MANY: readonly Made[] = Array.from({ length: 120 }, (_, i) => ({
  name: `job-${i + 1}`,
  image: `registry.example.com/team/batch/very-long-image-name-${i % 7}:2026.08.${i % 28}`,
  ageS: i * 977,
  state: i % 3 === 0 ? 'running' : 'exited',
  status: i % 3 === 0 ? 'Up' : 'Exited (0)',
}))

const PATHS = ['/', '/assets/app.js', '/assets/app.css', '/api/orders?page=2', '/favicon.ico', '/api/health']

/** What `web` wrote until now. */
export function webLog(lines: number): { stream: 'stdout' | 'stderr'; text: string }[] {
  return Array.from({ length: lines }, (_, i) => logLine(i))
}

export function logLine(i: number): { stream: 'stdout' | 'stderr'; text: string } {
  const time = new Date(Date.UTC(2026, 7, 20, 9, 0, i)).toISOString()
  if (i % 17 === 9) {
    return {
      stream: 'stderr',
      text: `${time} [\x1b[31merror\x1b[0m] 31#31: open() "/usr/share/nginx/html/missing.png" failed (2: No such file or directory)\n`,
    }
  }
  const path = PATHS[i % PATHS.length]
  return {
    stream: 'stdout',
    text: `${time} 172.17.0.1 "GET ${path} HTTP/1.1" \x1b[32m200\x1b[0m ${400 + ((i * 131) % 9000)}\n`,
  }
}
