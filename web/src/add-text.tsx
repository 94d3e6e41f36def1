/** The dialog to paste a text into, or to choose a file. */
import { useLayoutEffect, useRef } from 'preact/hooks'
import { attachFiles, attachText } from './attach.ts'

export function AddText({ onClose }: { onClose: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null)
  const text = useRef<HTMLTextAreaElement>(null)
  const file = useRef<HTMLInputElement>(null)
  useLayoutEffect(() => dialog.current!.showModal(), [])
  const close = (): void => dialog.current!.close()
  const add = (): void => {
    const pasted = text.current!.value
    if (pasted.trim() !== '') attachText(nameOf(pasted), pasted)
    close()
  }
  const choose = (): void => {
    void attachFiles(file.current!.files ?? [])
    close()
  }
  return (
    <dialog ref={dialog} aria-labelledby="add-text" onClose={onClose}>
      <h2 id="add-text">A text to read before the question</h2>
      <textarea ref={text} aria-label="Text" placeholder="Paste it here" rows={10} spellcheck={false} />
      <div class="row">
        <button type="button" onClick={() => file.current!.click()}>
          Choose a file
        </button>
        <input ref={file} type="file" accept="text/*,.md,.json,.csv,.log,.ts,.py" multiple hidden onChange={choose} />
        <span class="keys" />
        <button type="button" onClick={close}>
          Cancel
        </button>
        <button type="button" class="main" onClick={add}>
          Add
        </button>
      </div>
    </dialog>
  )
}

/** A pasted text is called by its first words. */
function nameOf(text: string): string {
  const line = text.trim().split('\n')[0]!
  return line.length > 32 ? `${line.slice(0, 30).trimEnd()} …` : line
}
