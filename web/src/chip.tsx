/** A text that goes with a question: its name, how large it is, and its first lines on demand. */
import { bytes, tokens } from './numbers.ts'
import type { Attachment } from './state.ts'

const CHARS_SHOWN = 2000

export function Chip({ attachment, onRemove }: { attachment: Attachment; onRemove?: () => void }) {
  const { name, text } = attachment
  const nTokens = attachment.tokens.value
  return (
    <li class="chip">
      <details>
        <summary>
          <span class="name">{name}</span>
          <span class="figures">
            {bytes(attachment.bytes)}
            {nTokens !== null && ` · ${tokens(nTokens)}`}
          </span>
        </summary>
        <pre tabIndex={0} aria-label={`Text of ${name}`}>
          {text.slice(0, CHARS_SHOWN)}
          {text.length > CHARS_SHOWN && ' …'}
        </pre>
      </details>
      {onRemove && (
        <button type="button" class="remove" aria-label={`Remove ${name}`} title="Remove" onClick={onRemove}>
          ×
        </button>
      )}
    </li>
  )
}
