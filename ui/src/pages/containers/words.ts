import { m } from '../../i18n'
import type { ShownState } from './view'

const words: Record<ShownState, () => string> = {
  created: m.state_created,
  running: m.state_running,
  paused: m.state_paused,
  restarting: m.state_restarting,
  removing: m.state_removing,
  exited: m.state_exited,
  dead: m.state_dead,
  starting: m.state_starting,
  stopping: m.state_stopping,
}

export const stateWord = (state: ShownState): string => words[state]()
