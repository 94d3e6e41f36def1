/** Form fields made from a description, so that a form can come from a schema. */
import { useId, useState } from 'preact/hooks'
import { isAllowed, type NumberSpec } from './sampling.ts'

interface NumberFieldProps {
  readonly spec: NumberSpec
  readonly value: number | undefined
  /** What happens when the field is empty. */
  readonly otherwise: string
  readonly onChange: (value: number | undefined) => void
}

/** What is not allowed stays in the field, marked, and is not passed on. */
export function NumberField({ spec, value, otherwise, onChange }: NumberFieldProps) {
  const id = useId()
  const [wrong, setWrong] = useState<string | null>(null)
  const read = (typed: string, isBad: boolean): void => {
    const next = typed === '' && !isBad ? undefined : Number(typed || Number.NaN)
    const allowed = next === undefined || isAllowed(spec, next)
    setWrong(allowed ? null : typed)
    if (allowed) onChange(next)
  }
  return (
    <div class="field">
      <label for={id}>{spec.label}</label>
      <input
        id={id}
        type="number"
        inputMode={spec.step === 1 ? 'numeric' : 'decimal'}
        min={spec.min}
        max={spec.max}
        step="any"
        value={wrong ?? value ?? ''}
        placeholder={otherwise}
        aria-describedby={`${id}-hint`}
        aria-invalid={wrong !== null}
        onInput={({ currentTarget }) => read(currentTarget.value, currentTarget.validity.badInput)}
      />
      <p id={`${id}-hint`} class="hint">
        {wrong === null ? spec.hint : `${spec.step === 1 ? 'a whole number' : 'a number'} from ${spec.min} to ${spec.max}`}
      </p>
    </div>
  )
}
