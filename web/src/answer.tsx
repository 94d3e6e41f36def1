/** One answer: waiting, reading the prompt, being written, done; and the line that says what it cost. */
import { blocksOf } from './blocks.ts'
import { bytes, count, duration, perSecond, tokens } from './numbers.ts'
import type { Cost, Exchange, Phase } from './state.ts'

interface AnswerProps {
  readonly exchange: Exchange
  /** Makes it once more; only for the last answer. */
  readonly onAgain: (() => void) | undefined
}

export function Answer({ exchange, onAgain }: AnswerProps) {
  const phase = exchange.phase.value
  const text = exchange.answer.value
  const isOver = phase.kind === 'done' || phase.kind === 'failed'
  return (
    <article class="turn answer" aria-busy={!isOver}>
      <h2>Kvasir</h2>
      <div class="said">
        {phase.kind === 'waiting' && <p class="pending">{phase.note ?? 'Waiting for its turn'}</p>}
        {phase.kind === 'reading' && <Reading phase={phase} />}
        <Prose text={text} isGrowing={phase.kind === 'writing'} />
        {phase.kind === 'failed' && (
          <div class="notice" role="alert">
            <p>{phase.failure.text}</p>
          </div>
        )}
        {(text !== '' || isOver) && (
          <footer>
            <CostLine cost={exchange.cost.value} phase={phase} />
            {isOver && <Actions text={text} onAgain={onAgain} />}
          </footer>
        )}
      </div>
    </article>
  )
}

function Prose({ text, isGrowing }: { text: string; isGrowing: boolean }) {
  const blocks = blocksOf(text)
  return (
    <>
      {blocks.map(({ kind, text, language }, index) => {
        const growing = isGrowing && index === blocks.length - 1 ? ' growing' : ''
        return kind === 'code' ? (
          <pre key={index} class={`code${growing}`} tabIndex={0} aria-label={language ? `Code, ${language}` : 'Code'}>
            <code>{text}</code>
          </pre>
        ) : (
          <p key={index} class={`text${growing}`}>
            {text.replace(/^\n+|\n+$/g, '')}
          </p>
        )
      })}
    </>
  )
}

function Reading({ phase: { processed, total, ms } }: { phase: Extract<Phase, { kind: 'reading' }> }) {
  const rate = ms > 0 ? (processed / ms) * 1000 : 0
  const left = rate > 0 ? ((total - processed) / rate) * 1000 : 0
  return (
    <div class="reading">
      <label>
        Reading the prompt: {count(processed)} of {tokens(total)}
        <progress max={total} value={processed} />
      </label>
      {rate > 0 && (
        <span class="figures">
          {perSecond(rate)} · {duration(left)} left
        </span>
      )}
    </div>
  )
}

function CostLine({ cost, phase }: { cost: Cost; phase: Phase }) {
  const parts: string[] = []
  if (cost.answerTokens > 0) parts.push(tokens(cost.answerTokens))
  if (cost.tokensPerSecond !== null) parts.push(perSecond(cost.tokensPerSecond))
  if (phase.kind !== 'writing' && cost.promptTokens !== null) {
    const cached = cost.cachedTokens > 0 ? ` (${count(cost.cachedTokens)} cached)` : ''
    parts.push(`prompt ${tokens(cost.promptTokens)}${cached}${cost.promptMs === null ? '' : ` in ${duration(cost.promptMs)}`}`)
  }
  if (cost.attention) parts.push(`cache ${bytes(cost.attention.kv_bytes)}`, cost.attention.method)
  if (phase.kind === 'done' && phase.reason === 'stopped') parts.push('stopped')
  if (phase.kind === 'done' && phase.reason === 'length') parts.push('cut off: no more tokens allowed')
  // The dots stay with what is before them when the line breaks.
  return <p class="figures">{parts.join('\u00a0· ')}</p>
}

function Actions({ text, onAgain }: { text: string; onAgain: (() => void) | undefined }) {
  return (
    <p class="actions">
      {text !== '' && 'clipboard' in navigator && (
        <button type="button" class="plain" onClick={() => void navigator.clipboard.writeText(text)}>
          Copy
        </button>
      )}
      {onAgain && (
        <button type="button" class="plain" onClick={onAgain}>
          Try again
        </button>
      )}
    </p>
  )
}
