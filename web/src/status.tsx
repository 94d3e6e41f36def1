/** The instruments: how full the context is, and what the last answer cost. */
import { bytes, count, duration, perSecond } from './numbers.ts'
import { exchanges, liveBytes, nCtx, running, server, usedTokens, waitingTokens } from './state.ts'

/** Sixteenths, so that the length can be read without a number. */
const TICKS = Array.from({ length: 15 }, (_, index) => (index + 1) * 6.25)

/** The context as a ruler: what the model has read, then what waits in the composer. */
export function Ruler() {
  const length = nCtx.value
  if (!length) return <div class="ruler" aria-hidden="true" />
  const used = usedTokens.value
  const waiting = running.value ? 0 : waitingTokens.value
  const over = used + waiting - length
  const share = (tokens: number): string => `${Math.min(100, (100 * tokens) / length)}%`
  return (
    <div
      class={over > 0 ? 'ruler over' : 'ruler'}
      role="meter"
      aria-label="Context"
      aria-valuemin={0}
      aria-valuemax={length}
      aria-valuenow={Math.min(used, length)}
      aria-valuetext={`${count(used)} of ${count(length)} tokens used${waiting ? `, ${count(waiting)} more in the question` : ''}`}
      title={`${count(used)} of ${count(length)} tokens used`}
    >
      <span class="used" style={{ width: share(used) }} />
      <span class="waiting" style={{ width: share(Math.min(waiting, Math.max(0, length - used))) }} />
      {TICKS.map((left) => (
        <i key={left} style={{ left: `${left}%` }} />
      ))}
      {over > 0 && <p class="warning">About {count(over)} tokens more than the context holds</p>}
    </div>
  )
}

const WORDS = {
  connecting: 'Connecting',
  loading: 'The model is loading',
  unreachable: 'The server does not answer',
  locked: 'The server asks for an API key',
} as const

export function Status() {
  const at = server.value
  if (at.kind !== 'ready')
    return (
      <footer class="status">
        <span role="status" class={at.kind === 'loading' || at.kind === 'connecting' ? 'busy' : 'alarm'}>
          {WORDS[at.kind]}
        </span>
      </footer>
    )
  const cost = exchanges.value.at(-1)?.cost.value
  const cache = liveBytes.value ?? cost?.attention?.kv_bytes ?? null
  return (
    <footer class="status" aria-label="Status">
      <span class="figure" title="Model">
        {at.model}
      </span>
      <Figure name="context" value={`${count(usedTokens.value)} / ${at.nCtx ? count(at.nCtx) : '?'}`} />
      <Figure name="cache" value={cache === null ? null : bytes(cache)} />
      <Figure name="in" value={cost?.promptTokens == null ? null : count(cost.promptTokens)} />
      <Figure name="out" value={cost?.answerTokens ? count(cost.answerTokens) : null} />
      <Figure name="first token" value={cost?.firstTextMs == null ? null : duration(cost.firstTextMs)} />
      <Figure name="rate" value={cost?.tokensPerSecond == null ? null : perSecond(cost.tokensPerSecond)} />
    </footer>
  )
}

function Figure({ name, value }: { name: string; value: string | null }) {
  if (value === null) return null
  return (
    <span class="figure">
      <span class="label">{name}</span> {value}
    </span>
  )
}
