export type Locale = 'en' | 'ko'

/** The system's first language that we speak. */
export function systemLocale(languages: readonly string[]): Locale {
  for (const language of languages) {
    const short = language.toLowerCase().split('-')[0]
    if (short === 'ko' || short === 'en') return short
  }
  return 'en'
}
