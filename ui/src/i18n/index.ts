/** Words and numbers in the user's language. A template that reads them changes when the language does. */
import { preferences } from '../stores/preferences.svelte'
import { overwriteGetLocale } from './compiled/runtime'

overwriteGetLocale(() => preferences.locale)

export { m } from './compiled/messages'
export * from './format'
