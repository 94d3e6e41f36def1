/** How keys and values are read and kept. One method so far; a chooser with a form per method has its place here. */
export function AttentionSection() {
  return (
    <section aria-labelledby="attention">
      <h2 id="attention">Attention</h2>
      <p class="method">dense</p>
      <p class="hint">Every query reads every key; nothing is dropped.</p>
    </section>
  )
}
