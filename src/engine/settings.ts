/** Settings of attention, bound to a loaded model: those of its owner, and those of strangers, who may not name paths. */
import type { Attention } from '../attention/attention.ts'
import { attentionFor } from '../attention/spec.ts'
import { KvasirError } from '../core/errors.ts'
import type { AttentionSetting } from '../core/request.ts'
import type { BaseModel, ModelShape } from '../core/shape.ts'

/** Who wrote a setting. */
export type SettingFrom = 'owner' | 'stranger'

/** Settings that are remembered; requests may bring any number of them. */
const MOST_KNOWN = 64

export class Settings {
  readonly #shape: ModelShape
  readonly #strangersShape: ModelShape
  readonly #known = new Map<string, Attention>()

  constructor(shape: ModelShape & { readonly base: BaseModel }) {
    this.#shape = shape
    this.#strangersShape = { ...shape, base: strangersBase(shape.base) }
  }

  /** Errors: `attention_invalid`. */
  bind(setting: AttentionSetting, from: SettingFrom): Attention {
    const key = `${from} ${JSON.stringify(setting)}`
    const known = this.#known.get(key)
    if (known) return known
    const made = from === 'owner' ? attentionFor(setting, this.#shape) : this.#forStranger(setting)
    if (this.#known.size === MOST_KNOWN) this.#known.clear()
    this.#known.set(key, made)
    return made
  }

  /** What is wrong with a file is told by its name: paths are none of a stranger's business. */
  #forStranger(setting: AttentionSetting): Attention {
    try {
      return attentionFor(setting, this.#strangersShape)
    } catch (error) {
      if (!(error instanceof KvasirError) || error.code !== 'attention_invalid') throw error
      const { resources, path } = this.#strangersShape.base!
      let reason = String(error.fields['reason'])
      for (const [name, file] of Object.entries(resources)) reason = reason.replaceAll(file, name)
      reason = reason.replaceAll(path, 'the model')
      throw new KvasirError('attention_invalid', { ...error.fields, reason }, { cause: error })
    }
  }
}

/** As strangers see it; the fingerprint is still read when it is first asked for. */
function strangersBase(base: BaseModel): BaseModel {
  const takesPaths = { value: false, enumerable: true }
  return Object.defineProperties({} as BaseModel, { ...Object.getOwnPropertyDescriptors(base), takesPaths })
}
