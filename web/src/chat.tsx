/** The conversation: questions, answers, what each cost, and what went wrong. */
import { useLayoutEffect, useRef } from 'preact/hooks'
import { Answer } from './answer.tsx'
import { Chip } from './chip.tsx'
import { useExample } from './example.ts'
import { askAgain } from './conversation.ts'
import { apiKey, exchanges, notice, panelOpen } from './state.ts'
import type { Exchange } from './state.ts'

/** Nearer to the end than this, the reader wants to follow what is written. */
const PX_FROM_END = 48

export function Conversation() {
  const box = useFollow()
  const last = exchanges.value.at(-1)
  return (
    <main class="conversation" ref={box} tabIndex={0} aria-label="Conversation">
      <div class="paper" role="log" aria-live="polite">
        {last === undefined && <Welcome />}
        {exchanges.value.map((exchange) => (
          <Turns key={exchange.id} exchange={exchange} isLast={exchange === last} />
        ))}
        <Notice />
      </div>
    </main>
  )
}

function Turns({ exchange, isLast }: { exchange: Exchange; isLast: boolean }) {
  return (
    <>
      <article class="turn asked">
        <h2>You</h2>
        <div class="said">
          {exchange.attachments.length > 0 && (
            <ul class="chips">
              {exchange.attachments.map((attachment) => (
                <Chip key={attachment.id} attachment={attachment} />
              ))}
            </ul>
          )}
          <p class="text">{exchange.question}</p>
        </div>
      </article>
      <Answer exchange={exchange} onAgain={isLast ? askAgain : undefined} />
    </>
  )
}

function Welcome() {
  return (
    <section class="welcome">
      <p class="lead">Ask a question, or give the model a text to read first.</p>
      <p>
        Drop a text file anywhere on this page, or paste one with <b>Add text</b>. It is put in front of your next question.
      </p>
      <button type="button" class="plain" onClick={useExample}>
        Try an example: find a fact in a text
      </button>
    </section>
  )
}

function Notice() {
  const failure = notice.value
  if (!failure) return null
  return (
    <div class="notice" role="alert">
      <p>{failure.text}</p>
      {failure.kind === 'locked' && (
        <button type="button" class="plain" onClick={() => (panelOpen.value = true)}>
          {apiKey.value ? 'Change the key' : 'Enter the key'}
        </button>
      )}
    </div>
  )
}

/** Keeps the end in sight while an answer grows, unless the reader has scrolled away from it. */
function useFollow() {
  const box = useRef<HTMLElement>(null)
  const follows = useRef(true)
  const nExchanges = exchanges.value.length
  useLayoutEffect(() => {
    follows.current = true
    box.current!.scrollTop = box.current!.scrollHeight
  }, [nExchanges])
  useLayoutEffect(() => {
    const element = box.current!
    const scrolled = (): void => {
      follows.current = element.scrollHeight - element.scrollTop - element.clientHeight < PX_FROM_END
    }
    const observer = new ResizeObserver(() => {
      if (follows.current) element.scrollTop = element.scrollHeight
    })
    observer.observe(element)
    observer.observe(element.firstElementChild!)
    element.addEventListener('scroll', scrolled, { passive: true })
    return () => {
      observer.disconnect()
      element.removeEventListener('scroll', scrolled)
    }
  }, [])
  return box
}
