/**
 * How keys and values are read and kept, and what that came to in the last answer. One method so far; a chooser with a
 * form per method has its place here.
 */
import { bytes, count } from './numbers.ts'
import { exchanges } from './state.ts'

export function AttentionSection() {
  const attention = exchanges.value.map((exchange) => exchange.cost.value.attention).findLast((cost) => cost !== null)
  return (
    <section aria-labelledby="attention">
      <h2 id="attention">Attention</h2>
      <p class="method">{attention?.method ?? 'dense'}</p>
      <p class="hint">Every query reads every key; nothing is dropped.</p>
      {attention && (
        <dl class="figures">
          <dt>keys read</dt>
          <dd>{count(attention.keys_read)}</dd>
          <dt>share of all keys</dt>
          <dd>{(100 * attention.density).toFixed(1)} %</dd>
          <dt>tokens kept</dt>
          <dd>{count(attention.kept_tokens)}</dd>
          <dt>tokens dropped</dt>
          <dd>{count(attention.evicted_tokens)}</dd>
          <dt>cache</dt>
          <dd>{bytes(attention.kv_bytes)}</dd>
          <dt>cache if dense</dt>
          <dd>{bytes(attention.kv_bytes_dense)}</dd>
        </dl>
      )}
    </section>
  )
}
