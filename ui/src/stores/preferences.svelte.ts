/** What the user chose for this window: its language and its theme. Kept by the webview. */
import { systemLocale, type Locale } from './locale'

export type Theme = 'system' | 'light' | 'dark'
export type Language = 'system' | 'en' | 'ko'

const THEMES: readonly Theme[] = ['system', 'light', 'dark']
const LANGUAGES: readonly Language[] = ['system', 'en', 'ko']

function kept<T extends string>(key: string, allowed: readonly T[]): T | undefined {
  const value = localStorage.getItem(key)
  return allowed.find((one) => one === value)
}

class Preferences {
  #theme = $state<Theme>(kept('theme', THEMES) ?? 'system')
  #language = $state<Language>(kept('language', LANGUAGES) ?? 'system')

  get theme(): Theme {
    return this.#theme
  }

  set theme(theme: Theme) {
    this.#theme = theme
    localStorage.setItem('theme', theme)
  }

  get language(): Language {
    return this.#language
  }

  set language(language: Language) {
    this.#language = language
    localStorage.setItem('language', language)
  }

  get locale(): Locale {
    return this.#language === 'system' ? systemLocale(navigator.languages) : this.#language
  }
}

export const preferences = new Preferences()
