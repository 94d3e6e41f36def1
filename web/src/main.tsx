import { render } from 'preact'
import { attachFiles } from './attach.ts'
import { Conversation } from './chat.tsx'
import { Composer } from './composer.tsx'
import { beginAnew, stop } from './conversation.ts'
import { watch } from './server.ts'
import { Settings } from './settings.tsx'
import { exchanges, panelOpen, running } from './state.ts'
import { Status } from './status.tsx'
import { remember } from './storage.ts'

/** The keyboard goes into the panel with the reader, and back to the button that opened it. */
function togglePanel(): void {
  panelOpen.value = !panelOpen.value
  remember('panel', panelOpen.value)
  requestAnimationFrame(() => document.getElementById(panelOpen.value ? 'settings' : 'settings-button')?.focus())
}

function Header() {
  return (
    <header class="bar">
      <h1>
        <svg class="mark" viewBox="0 0 32 32" aria-hidden="true">
          <path class="rim" d="M16 3C21 9.5 26 14.6 26 19.6A10 9.9 0 0 1 6 19.6C6 14.6 11 9.5 16 3Z" />
          <path class="mead" d="M8.2 20.2h15.6A7.8 7.6 0 0 1 8.2 20.2Z" />
        </svg>
        Kvasir
      </h1>
      <nav>
        <button type="button" onClick={beginAnew} disabled={exchanges.value.length === 0}>
          New chat
        </button>
        <button id="settings-button" type="button" aria-expanded={panelOpen.value} aria-controls="settings" onClick={togglePanel}>
          Settings
        </button>
      </nav>
    </header>
  )
}

function App() {
  return (
    <div class={panelOpen.value ? 'page with-panel' : 'page'}>
      <Header />
      <div class="column">
        <Conversation />
        <Composer />
        <Status />
      </div>
      {panelOpen.value && <Settings onClose={togglePanel} />}
    </div>
  )
}

/** Escape stops the answer; a dialog that is open keeps the key for itself. */
document.addEventListener('keydown', (event) => {
  if (event.key !== 'Escape' || document.querySelector('dialog[open]')) return
  if (running.value) stop()
  else if (panelOpen.value) togglePanel()
})

/** A file may be dropped anywhere. */
document.addEventListener('dragover', (event) => {
  if (!event.dataTransfer?.types.includes('Files')) return
  event.preventDefault()
  document.body.classList.add('dropping')
})
document.addEventListener('dragleave', (event) => {
  if (event.relatedTarget === null) document.body.classList.remove('dropping')
})
document.addEventListener('drop', (event) => {
  document.body.classList.remove('dropping')
  if (!event.dataTransfer?.files.length) return
  event.preventDefault()
  void attachFiles(event.dataTransfer.files)
})

watch()
render(<App />, document.getElementById('app')!)
