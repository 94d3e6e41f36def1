/** The panel beside the conversation: what is asked of the model beyond the words. An empty field leaves the choice to the server. */
import { AttentionSection } from './attention.tsx'
import { NumberField } from './field.tsx'
import { SAMPLING } from './sampling.ts'
import { connect } from './server.ts'
import { apiKey, nCtx, sampling, server, systemPrompt } from './state.ts'
import { remember } from './storage.ts'
import { count } from './numbers.ts'

export function Settings({ onClose }: { onClose: () => void }) {
  return (
    <aside id="settings" class="panel" tabIndex={-1} aria-label="Settings">
      <button type="button" class="remove" aria-label="Close the settings" title="Close" onClick={onClose}>
        ×
      </button>
      <AttentionSection />
      <section aria-labelledby="sampling">
        <h2 id="sampling">Sampling</h2>
        <div class="fields">
          {SAMPLING.map((spec) => (
            <NumberField
              key={spec.name}
              spec={spec}
              value={sampling.value[spec.name]}
              otherwise={defaultOf(spec.name) ?? spec.otherwise}
              onChange={(value) => setSampling(spec.name, value)}
            />
          ))}
        </div>
      </section>
      <section>
        <h2>
          <label for="system">System prompt</label>
        </h2>
        <textarea
          id="system"
          rows={3}
          placeholder="None"
          value={systemPrompt.value}
          onInput={({ currentTarget }) => {
            systemPrompt.value = currentTarget.value
            remember('system', systemPrompt.value)
          }}
        />
      </section>
      {(server.value.kind === 'locked' || apiKey.value !== '') && <KeySection />}
    </aside>
  )
}

function KeySection() {
  return (
    <section>
      <h2>
        <label for="key">API key</label>
      </h2>
      <input
        id="key"
        type="password"
        autocomplete="off"
        placeholder="The key the server was started with"
        value={apiKey.value}
        onChange={({ currentTarget }) => {
          apiKey.value = currentTarget.value.trim()
          remember('key', apiKey.value)
          void connect()
        }}
      />
      <p class="hint">{server.value.kind === 'locked' ? 'The server does not accept it yet.' : 'Kept in this browser.'}</p>
    </section>
  )
}

function setSampling(name: (typeof SAMPLING)[number]['name'], value: number | undefined): void {
  const { [name]: _, ...others } = sampling.value
  sampling.value = value === undefined ? others : { ...others, [name]: value }
  remember('sampling', sampling.value)
}

/** The server's own choice; its unset values (-1) have words of ours. */
function defaultOf(name: string): string | null {
  const value = server.value.kind === 'ready' ? server.value.defaults[name] : undefined
  if (typeof value !== 'number' || value < 0 || value >= 2 ** 32 - 1)
    return name === 'max_tokens' && nCtx.value ? `${count(nCtx.value)} − prompt` : null
  return String(Number(value.toPrecision(6)))
}
