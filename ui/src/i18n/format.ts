/** Times, durations and counts by the language's own rules. */

const SECOND = 1_000
const MINUTE = 60 * SECOND
const HOUR = 60 * MINUTE
const DAY = 24 * HOUR

const UNITS: readonly [Intl.RelativeTimeFormatUnit, number][] = [
  ['year', 365 * DAY],
  ['month', 30 * DAY],
  ['week', 7 * DAY],
  ['day', DAY],
  ['hour', HOUR],
  ['minute', MINUTE],
]

/** "2 minutes ago". Under a minute it is "now": a second's truth is not worth a moving list. */
export function relativeTime(at: number, now: number, locale: string): string {
  const format = new Intl.RelativeTimeFormat(locale, { numeric: 'auto' })
  const past = Math.max(0, now - at)
  for (const [unit, length] of UNITS) {
    if (past >= length) return format.format(-Math.floor(past / length), unit)
  }
  return format.format(0, 'second')
}

/** The whole date and time, for whoever hovers. */
export function exactTime(at: number, locale: string): string {
  return new Intl.DateTimeFormat(locale, { dateStyle: 'medium', timeStyle: 'medium' }).format(at)
}

/** "14:03:07.120", this computer's time: the same in every language, and quick enough for thousands of lines. */
export function clockTime(iso: string): string {
  const at = new Date(iso)
  const digits = (value: number, count: number) => String(value).padStart(count, '0')
  const [hours, minutes, seconds] = [at.getHours(), at.getMinutes(), at.getSeconds()]
  return `${digits(hours, 2)}:${digits(minutes, 2)}:${digits(seconds, 2)}.${digits(at.getMilliseconds(), 3)}`
}

/** "820 ms", "4.2 s", "1 min 5 s", each in the language's own unit words. */
export function duration(ms: number, locale: string): string {
  const unit = (unit: string, value: number, digits = 0) =>
    new Intl.NumberFormat(locale, {
      style: 'unit',
      unit,
      unitDisplay: 'short',
      minimumFractionDigits: digits,
      maximumFractionDigits: digits,
    }).format(value)
  if (ms < 1_000) return unit('millisecond', Math.round(ms))
  if (ms < MINUTE) return unit('second', ms / 1_000, 1)
  return `${unit('minute', Math.floor(ms / MINUTE))} ${unit('second', Math.floor((ms % MINUTE) / 1_000))}`
}
