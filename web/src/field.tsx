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

interface FieldProps<T> {
  readonly label: string
  readonly hint: string
  readonly value: T
  readonly onChange: (value: T) => void
}

/** A switch of a form; its label stands beside it. */
export function SwitchField({ label, hint, value, onChange }: FieldProps<boolean>) {
  const id = useId()
  return (
    <div class="field">
      <label class="switch">
        <input
          type="checkbox"
          checked={value}
          aria-describedby={`${id}-hint`}
          onChange={({ currentTarget }) => onChange(currentTarget.checked)}
        />
        {label}
      </label>
      <p id={`${id}-hint`} class="hint">
        {hint}
      </p>
    </div>
  )
}

export function ChoiceField({
  label,
  hint,
  value,
  values,
  onChange,
}: FieldProps<string> & { readonly values: readonly string[] }) {
  const id = useId()
  return (
    <div class="field">
      <label for={id}>{label}</label>
      <select
        id={id}
        value={value}
        aria-describedby={`${id}-hint`}
        onChange={({ currentTarget }) => onChange(currentTarget.value)}
      >
        {values.map((one) => (
          <option key={one} value={one}>
            {one}
          </option>
        ))}
      </select>
      <p id={`${id}-hint`} class="hint">
        {hint}
      </p>
    </div>
  )
}

/** `otherwise` is what an empty field means. */
export function TextField({ label, hint, value, otherwise, onChange }: FieldProps<string> & { readonly otherwise: string }) {
  const id = useId()
  return (
    <div class="field">
      <label for={id}>{label}</label>
      <input
        id={id}
        type="text"
        value={value}
        placeholder={otherwise}
        aria-describedby={`${id}-hint`}
        onChange={({ currentTarget }) => onChange(currentTarget.value)}
      />
      <p id={`${id}-hint`} class="hint">
        {hint}
      </p>
    </div>
  )
}
