/**
 * libllama, which the ggml packages also contain: its tokenizers (all GGUF vocabularies), its quantiser, and its engine as
 * the reference that tests and benchmarks compare with. Opened only when one of these is needed. Structs follow llama.h.
 */
import koffi, { type KoffiFunc, type TypeObject } from 'koffi'
import type { Api, Declaration, Pointer } from './bindings.ts'
import { declare, libraryFile, libraryFolder, routeLog } from './library.ts'

const LLAMA = {
  llama_backend_init: ['void'],
  llama_model_free: ['void', 'ptr'],
  llama_free: ['void', 'ptr'],
  llama_model_get_vocab: ['ptr', 'ptr'],
  llama_get_memory: ['ptr', 'ptr'],
  llama_memory_clear: ['void', 'ptr', 'bool'],
  llama_memory_seq_rm: ['bool', 'ptr', 'i32', 'i32', 'i32'],
  llama_attach_threadpool: ['void', 'ptr', 'ptr', 'maybe'],
  llama_n_ctx: ['u32', 'ptr'],
  llama_synchronize: ['void', 'ptr'],
  llama_get_logits_ith: ['maybe', 'ptr', 'i32'],
  llama_vocab_n_tokens: ['i32', 'ptr'],
  llama_vocab_get_text: ['str', 'ptr', 'i32'],
  llama_vocab_get_attr: ['i32', 'ptr', 'i32'],
  llama_vocab_is_eog: ['bool', 'ptr', 'i32'],
  llama_vocab_is_control: ['bool', 'ptr', 'i32'],
  llama_vocab_bos: ['i32', 'ptr'],
  llama_vocab_eos: ['i32', 'ptr'],
  llama_vocab_get_add_bos: ['bool', 'ptr'],
  llama_vocab_get_add_eos: ['bool', 'ptr'],
  llama_tokenize: ['i32', 'ptr', 'buf', 'i32', 'buf', 'i32', 'bool', 'bool'],
  llama_token_to_piece: ['i32', 'ptr', 'i32', 'buf', 'i32', 'i32', 'bool'],
} as const satisfies Record<string, Declaration>

const modelParams = koffi.struct({
  devices: 'void *',
  tensor_buft_overrides: 'void *',
  n_gpu_layers: 'int32_t',
  split_mode: 'int32_t',
  load_mode: 'int32_t',
  lazy_mode: 'int32_t',
  main_gpu: 'int32_t',
  tensor_split: 'void *',
  progress_callback: 'void *',
  progress_callback_user_data: 'void *',
  kv_overrides: 'void *',
  vocab_only: 'bool',
  check_tensors: 'bool',
  use_extra_bufts: 'bool',
  no_host: 'bool',
  no_alloc: 'bool',
  load_mtp: 'bool',
})

const contextParams = koffi.struct({
  n_ctx: 'uint32_t',
  n_batch: 'uint32_t',
  n_ubatch: 'uint32_t',
  n_seq_max: 'uint32_t',
  n_rs_seq: 'uint32_t',
  n_outputs_max: 'uint32_t',
  n_outputs_max_per_seq: 'uint32_t',
  n_threads: 'int32_t',
  n_threads_batch: 'int32_t',
  ctx_type: 'int32_t',
  rope_scaling_type: 'int32_t',
  pooling_type: 'int32_t',
  attention_type: 'int32_t',
  flash_attn_type: 'int32_t',
  rope_freq_base: 'float',
  rope_freq_scale: 'float',
  yarn_ext_factor: 'float',
  yarn_attn_factor: 'float',
  yarn_beta_fast: 'float',
  yarn_beta_slow: 'float',
  yarn_orig_ctx: 'uint32_t',
  defrag_thold: 'float',
  cb_eval: 'void *',
  cb_eval_user_data: 'void *',
  type_k: 'int32_t',
  type_v: 'int32_t',
  abort_callback: 'void *',
  abort_callback_data: 'void *',
  embeddings: 'bool',
  offload_kqv: 'bool',
  no_perf: 'bool',
  op_offload: 'bool',
  swa_full: 'bool',
  kv_unified: 'bool',
  samplers: 'void *',
  n_samplers: 'size_t',
  ctx_other: 'void *',
})

const batch = koffi.struct({
  n_tokens: 'int32_t',
  token: 'void *',
  embd: 'void *',
  pos: 'void *',
  n_seq_id: 'void *',
  seq_id: 'void *',
  logits: 'void *',
})

const quantizeParams = koffi.struct({
  nthread: 'int32_t',
  ftype: 'int32_t',
  output_tensor_type: 'int32_t',
  token_embedding_type: 'int32_t',
  allow_requantize: 'bool',
  quantize_output_tensor: 'bool',
  only_copy: 'bool',
  pure: 'bool',
  keep_split: 'bool',
  dry_run: 'bool',
  imatrix: 'void *',
  kv_overrides: 'void *',
  tt_overrides: 'void *',
  prune_layers: 'void *',
  max_buf_size: 'size_t',
})

/** Fields of `llama_model_params`, `llama_context_params`, `llama_model_quantize_params` by their names in llama.h. */
export type LlamaParams = Record<string, number | boolean | Pointer | null>

/** `llama_batch`; its arrays must stay alive until the decode has ended. */
export interface LlamaBatch {
  n_tokens: number
  token: Int32Array
  embd: null
  pos: Int32Array | null
  n_seq_id: Int32Array | null
  seq_id: BigInt64Array | null
  logits: Int8Array | null
}

type LlamaApi = Api<typeof LLAMA> & {
  llama_model_default_params(): LlamaParams
  llama_context_default_params(): LlamaParams
  llama_model_quantize_default_params(): LlamaParams
  llama_model_load_from_file(path: string, params: LlamaParams): Pointer | null
  llama_model_init_from_user(metadata: Pointer, setTensor: null, userData: null, params: LlamaParams): Pointer | null
  llama_init_from_model(model: Pointer, params: LlamaParams): Pointer | null
  llama_decode: KoffiFunc<(context: Pointer, batch: LlamaBatch) => number>
  llama_model_quantize(from: string, to: string, params: LlamaParams): number
}

let opened: LlamaApi | undefined

/** The functions of libllama; opens it at the first call. */
export function llama(): LlamaApi {
  if (opened) return opened
  const library = koffi.load(libraryFile(libraryFolder(), 'llama'))
  const func = (name: string, result: string | TypeObject, parameters: (string | TypeObject)[]) =>
    library.func(name, result, parameters)
  routeLog(library, 'llama_log_set')
  opened = {
    ...declare(library, LLAMA),
    llama_model_default_params: func('llama_model_default_params', modelParams, []),
    llama_context_default_params: func('llama_context_default_params', contextParams, []),
    llama_model_quantize_default_params: func('llama_model_quantize_default_params', quantizeParams, []),
    llama_model_load_from_file: func('llama_model_load_from_file', 'void *', ['const char *', modelParams]),
    llama_model_init_from_user: func('llama_model_init_from_user', 'void *', ['void *', 'void *', 'void *', modelParams]),
    llama_init_from_model: func('llama_init_from_model', 'void *', ['void *', contextParams]),
    llama_decode: func('llama_decode', 'int32_t', ['void *', batch]) as LlamaApi['llama_decode'],
    llama_model_quantize: func('llama_model_quantize', 'uint32_t', [
      'const char *',
      'const char *',
      koffi.pointer(quantizeParams),
    ]),
  }
  opened.llama_backend_init()
  return opened
}
