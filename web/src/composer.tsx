/** Where the question is written. Enter sends, Shift+Enter breaks the line, Escape stops the answer. */
import type { TargetedKeyboardEvent } from 'preact'
import { useLayoutEffect, useRef, useState } from 'preact/hooks'
import { AddText } from './add-text.tsx'
import { detach } from './attach.ts'
import { Chip } from './chip.tsx'
import { ask, stop } from './conversation.ts'
import { attachments, draft, exchanges, running } from './state.ts'
import { Ruler } from './status.tsx'

export function Composer() {
  const [isAdding, setAdding] = useState(false)
  const input = useRef<HTMLTextAreaElement>(null)
  useLayoutEffect(() => grow(input.current!), [draft.value])
  // The page opens ready to type in; on a touch screen that would raise the keyboard.
  useLayoutEffect(() => {
    if (matchMedia('(hover: hover)').matches) input.current!.focus()
  }, [exchanges.value.length])
  const submit = (event: Event): void => {
    event.preventDefault()
    ask()
  }
  return (
    <>
      <form class="composer" onSubmit={submit}>
        <Ruler />
        {attachments.value.length > 0 && (
          <ul class="chips">
            {attachments.value.map((attachment) => (
              <Chip key={attachment.id} attachment={attachment} onRemove={() => detach(attachment)} />
            ))}
          </ul>
        )}
        <textarea
          ref={input}
          rows={1}
          aria-label="Your question"
          placeholder={attachments.value.length > 0 ? 'Ask about the text' : 'Ask something'}
          value={draft.value}
          onInput={(event) => (draft.value = event.currentTarget.value)}
          onKeyDown={sendOnEnter}
        />
        <div class="row">
          <button type="button" onClick={() => setAdding(true)}>
            Add text
          </button>
          <span class="keys">Enter sends · Shift+Enter breaks the line · Esc stops</span>
          {running.value ? (
            <button type="button" class="main" onClick={(event) => isFirst(event) && stop()}>
              Stop
            </button>
          ) : (
            <button
              type="submit"
              class="main"
              disabled={draft.value.trim() === ''}
              onClick={(event) => isFirst(event) || event.preventDefault()}
            >
              Send
            </button>
          )}
        </div>
      </form>
      {isAdding && <AddText onClose={() => setAdding(false)} />}
    </>
  )
}

/** Send and Stop stand in one place: the second click of a double click is not for the other. */
function isFirst(click: MouseEvent): boolean {
  return click.detail < 2
}

function sendOnEnter(event: TargetedKeyboardEvent<HTMLTextAreaElement>): void {
  // While a character is being composed (Japanese, Chinese, accents), Enter belongs to that.
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return
  event.preventDefault()
  ask()
}

function grow(input: HTMLTextAreaElement): void {
  input.style.height = 'auto'
  input.style.height = `${input.scrollHeight}px`
}
