/** Words and numbers in the user's language. A template that reads them changes when the language does. */
export { m } from './compiled/messages'
export { overwriteGetLocale as speak } from './compiled/runtime'
export * from './format'
