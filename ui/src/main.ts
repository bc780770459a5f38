import { mount } from 'svelte'
import './app.css'
import { openHost } from './host'
import { speak } from './i18n'
import App from './shell/App.svelte'
import { useHost } from './stores/host'
import { preferences } from './stores/preferences.svelte'
import { session } from './stores/session.svelte'

speak(() => preferences.locale)
useHost(await openHost())
mount(App, { target: document.body })
session.open()
