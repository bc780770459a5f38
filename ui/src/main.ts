import { mount } from 'svelte'
import './app.css'
import { openHost } from './host'
import App from './shell/App.svelte'
import { useHost } from './stores/host'
import { session } from './stores/session.svelte'

useHost(await openHost())
mount(App, { target: document.body })
session.open()
