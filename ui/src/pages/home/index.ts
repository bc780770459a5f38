import House from '@lucide/svelte/icons/house'
import { m } from '../../i18n'
import type { Page } from '..'
import HomePage from './HomePage.svelte'

export const homePage: Page = { name: 'home', title: m.page_home, icon: House, view: HomePage }
