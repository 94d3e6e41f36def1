/**
 * How keys and values are kept and read: a method or none for each axis, with the method's options as a form made from its
 * schema, and what it came to in the last answer.
 */
import { useId } from 'preact/hooks'
import type { AttentionUsage, MethodSetting } from '../../src/core/request.ts'
import { ChoiceField, NumberField, SwitchField, TextField } from './field.tsx'
import { axesOf, choose, obstacle, onAxis, optionSpec, textValue, withOption } from './method.ts'
import type { MethodInfo, OptionSchema, OptionValue } from './method.ts'
import { bytes, count } from './numbers.ts'
import { attention, exchanges, methods, storedAttention } from './state.ts'
import { remember } from './storage.ts'

export function AttentionSection() {
  const { all, byDefault } = methods.value
  const setting = attention.value ?? byDefault
  const cost = exchanges.value.map((exchange) => exchange.cost.value.attention).findLast((found) => found !== null)
  return (
    <section aria-labelledby="attention">
      <h2 id="attention">Attention</h2>
      {axesOf(all).map(({ axis, methods: offered }) => (
        <Axis
          key={axis}
          axis={axis}
          offered={offered}
          setting={setting}
          onChange={(method) => setAttention(choose(setting, { axis, method }, all))}
        />
      ))}
      {setting.length === 0 && <p class="hint">Every query reads every key; nothing is dropped.</p>}
      {attention.value !== null && (
        <p class="hint">
          <button type="button" class="plain" onClick={() => setAttention(null)}>
            Leave it to the server
          </button>
        </p>
      )}
      {cost && <LastAnswer cost={cost} />}
    </section>
  )
}

interface AxisProps {
  readonly axis: string
  readonly offered: readonly MethodInfo[]
  readonly setting: readonly MethodSetting[]
  readonly onChange: (method: MethodSetting | null) => void
}

function Axis({ axis, offered, setting, onChange }: AxisProps) {
  const id = useId()
  const { all, questions } = methods.value
  const chosen = onAxis(setting, axis, all)
  const info = offered.find(({ name }) => name === chosen?.method)
  return (
    <div class="axis">
      <div class="field">
        <label for={id}>{axis.charAt(0).toUpperCase() + axis.slice(1)}</label>
        <select
          id={id}
          aria-describedby={`${id}-hint`}
          value={info?.name ?? ''}
          onChange={({ currentTarget: { value } }) => onChange(value === '' ? null : { method: value })}
        >
          <option value="">none</option>
          {offered.map((method) => {
            const why = obstacle(setting, method, all)
            return (
              <option key={method.name} value={method.name} disabled={why !== null} title={why ?? method.summary}>
                {method.name}
              </option>
            )
          })}
        </select>
        <p id={`${id}-hint`} class="hint">
          {info?.summary ?? questions[axis] ?? ''}
        </p>
      </div>
      {info && chosen && <Form key={info.name} info={info} chosen={chosen} onChange={onChange} />}
    </div>
  )
}

interface FormProps {
  readonly info: MethodInfo
  readonly chosen: MethodSetting
  readonly onChange: (method: MethodSetting) => void
}

/** More than a few options are folded away. */
const MOST_OPEN = 4

function Form({ info, chosen, onChange }: FormProps) {
  const options = Object.entries(info.options.properties)
  if (options.length === 0) return null
  return (
    <details class="options" open={options.length <= MOST_OPEN}>
      <summary>Options of {info.name}</summary>
      <div class="fields">
        {options.map(([name, schema]) => (
          <Option
            key={name}
            name={name}
            schema={schema}
            value={chosen[name] as OptionValue | undefined}
            onChange={(value) => onChange(withOption(chosen, name, value))}
          />
        ))}
      </div>
    </details>
  )
}

interface OptionProps {
  readonly name: string
  readonly schema: OptionSchema
  readonly value: OptionValue | undefined
  /** Undefined leaves the option to the server. */
  readonly onChange: (value: OptionValue | undefined) => void
}

function Option({ name, schema, value, onChange }: OptionProps) {
  const option = optionSpec(name, schema)
  const otherwise = schema.default as OptionValue | undefined
  if (option.kind === 'number') {
    const number = typeof value === 'number' ? value : undefined
    return <NumberField spec={option.spec} value={number} otherwise={option.spec.otherwise} onChange={onChange} />
  }
  const common = { label: name, hint: option.hint }
  if (option.kind === 'switch') return <SwitchField {...common} value={(value ?? otherwise) === true} onChange={onChange} />
  if (option.kind === 'choice') {
    const take = (text: string): void => onChange(option.values.find((one) => String(one) === text))
    return <ChoiceField {...common} values={option.values.map(String)} value={String(value ?? otherwise ?? '')} onChange={take} />
  }
  const take = (text: string): void => onChange(textValue(text))
  return <TextField {...common} value={String(value ?? '')} otherwise={String(otherwise ?? '')} onChange={take} />
}

function LastAnswer({ cost }: { cost: AttentionUsage }) {
  return (
    <>
      <p class="method">{cost.method}</p>
      <dl class="figures">
        <dt>keys read</dt>
        <dd>{count(cost.keys_read)}</dd>
        <dt>share of all keys</dt>
        <dd>{(100 * cost.density).toFixed(1)} %</dd>
        <dt>tokens kept</dt>
        <dd>{count(cost.kept_tokens)}</dd>
        <dt>tokens dropped</dt>
        <dd>{count(cost.evicted_tokens)}</dd>
        <dt>cache</dt>
        <dd>{bytes(cost.kv_bytes)}</dd>
        <dt>cache if dense</dt>
        <dd>{bytes(cost.kv_bytes_dense)}</dd>
      </dl>
    </>
  )
}

function setAttention(setting: readonly MethodSetting[] | null): void {
  storedAttention.value = setting
  remember('attention', setting)
}
