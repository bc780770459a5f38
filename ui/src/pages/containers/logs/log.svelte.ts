/** One container's log, being read. */
import type { HangUp, HostError, LogChunk } from '../../../host'
import { host } from '../../../stores/host'
import { LogBuffer, type Block } from './buffer'

/** As much of the past as is kept of the present. */
const TAIL_LINES = 10_000

/** A log that has said nothing for so long is shown as empty. */
const SILENCE_MS = 300

export class Log {
  blocks = $state.raw<readonly Block[]>([])
  capped = $state(false)
  ended = $state(false)
  /** Whether anything is known yet. */
  begun = $state(false)
  error = $state.raw<HostError | null>(null)

  #buffer = new LogBuffer()
  #waiting: LogChunk[] = []
  #frame: number | undefined
  #silence: ReturnType<typeof setTimeout> | undefined
  #hangUp: HangUp | undefined

  /** Begins to read from the start; call the result to stop. */
  read(id: string, timestamps: boolean): () => void {
    this.#stop()
    this.#buffer = new LogBuffer(timestamps)
    this.ended = false
    this.error = null
    this.#hangUp = host().subscribe(
      'container_logs',
      { id, tail: TAIL_LINES, follow: true, timestamps },
      { item: (chunk) => this.#take(chunk), end: (error) => this.#end(error) },
    )
    // What was shown stays until there is something new to show, or plainly nothing.
    this.#silence = setTimeout(() => this.#schedule(), SILENCE_MS)
    return () => this.#stop()
  }

  text(): string {
    return this.#buffer.text()
  }

  #take(chunk: LogChunk): void {
    this.#waiting.push(chunk)
    this.#schedule()
  }

  /** Draws once a frame, however many pieces come. */
  #schedule(): void {
    this.#frame ??= requestAnimationFrame(() => this.#draw())
  }

  #draw(): void {
    this.#frame = undefined
    this.#buffer.append(this.#waiting.splice(0))
    this.blocks = this.#buffer.blocks
    this.capped = this.#buffer.capped
    this.begun = true
  }

  #end(error: HostError | null): void {
    this.ended = true
    this.error = error
    this.#schedule()
  }

  #stop(): void {
    this.#hangUp?.()
    clearTimeout(this.#silence)
    if (this.#frame !== undefined) cancelAnimationFrame(this.#frame)
    this.#frame = undefined
    this.#waiting = []
  }
}
