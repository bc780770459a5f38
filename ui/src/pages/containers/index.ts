import Box from '@lucide/svelte/icons/box'
import { m } from '../../i18n'
import { containers } from '../../stores/containers.svelte'
import type { Page } from '..'
import ContainersPage from './ContainersPage.svelte'

export const containersPage: Page = {
  name: 'containers',
  title: m.page_containers,
  icon: Box,
  view: ContainersPage,
  count: () => containers.running,
}
