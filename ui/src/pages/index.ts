/** The pages, in the sidebar's order. A new page is a folder here and a line in this list. */
import type { Component } from 'svelte'
import { containersPage } from './containers'
import { homePage } from './home'

export interface Page {
  /** Its address. */
  name: string
  title: () => string
  icon: Component
  view: Component
  /** How many of its things run now; nothing is shown for none. */
  count?: () => number
}

export const pages: readonly Page[] = [homePage, containersPage]

/** The page with that name, or the first. */
export function pageNamed(name: string): Page {
  return pages.find((page) => page.name === name) ?? homePage
}
