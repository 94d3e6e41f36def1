/** The one piece of Markdown the page knows: code between ``` fences. Everything else is text, shown as it stands. */
export interface Block {
  readonly kind: 'text' | 'code'
  readonly text: string
  /** What stands behind the opening fence. */
  readonly language: string
}

const OPEN = /^ {0,3}(`{3,})([^`]*)$/

/** A fence that is still open when the text ends (an answer being written) counts as code up to there. */
export function blocksOf(text: string): Block[] {
  const blocks: Block[] = []
  let lines: string[] = []
  let fence: string | null = null
  let language = ''
  const close = (kind: Block['kind']): void => {
    const joined = lines.join('\n')
    if (kind === 'code' || joined.trim() !== '') blocks.push({ kind, text: joined, language })
    lines = []
    language = ''
  }
  for (const line of text.split('\n')) {
    const open: RegExpExecArray | null = fence === null ? OPEN.exec(line) : null
    if (open) {
      close('text')
      fence = open[1]!
      language = open[2]!.trim()
    } else if (fence !== null && line.trim().startsWith(fence) && /^`+$/.test(line.trim())) {
      close('code')
      fence = null
    } else lines.push(line)
  }
  close(fence === null ? 'text' : 'code')
  return blocks
}
