/**
 * The C functions we call, one per line, in the order of the headers they come from
 * (ggml.h, ggml-alloc.h, ggml-backend.h, gguf.h). `[result, ...parameters]` in the short names of {@link CTypes};
 * the TypeScript signatures are derived from the same lines.
 */
/**
 * Short names of C types → what koffi is told. `ptr` is an address, as a result never null; `maybe` one that may be;
 * `buf` lends a typed array for the time of the call.
 */
export const C_TYPES = {
  void: 'void',
  bool: 'bool',
  i32: 'int32_t',
  u32: 'uint32_t',
  i64: 'int64_t',
  size: 'size_t',
  f32: 'float',
  f64: 'double',
  str: 'const char *',
  strs: 'const char **',
  ptr: 'void *',
  maybe: 'void *',
  buf: 'void *',
} as const

export type Pointer = bigint

/** TypeScript's side of {@link C_TYPES}. int64 values beyond 2^53 do not occur in what we call. */
export interface CTypes {
  void: void
  bool: boolean
  i32: number
  u32: number
  i64: number
  size: number
  f32: number
  f64: number
  str: string
  strs: readonly string[]
  ptr: Pointer | null
  maybe: Pointer | null
  buf: NodeJS.ArrayBufferView | Pointer | null
}

export type Declaration = readonly [result: keyof CTypes, ...parameters: (keyof CTypes)[]]
type Parameters<D extends readonly (keyof CTypes)[]> = { [I in keyof D]: CTypes[D[I]] }
type Signature<D extends Declaration> = D extends readonly [infer R extends keyof CTypes, ...infer P extends (keyof CTypes)[]]
  ? (...args: Parameters<P>) => R extends 'ptr' ? Pointer : CTypes[R]
  : never

/** The functions of a declaration table. */
export type Api<T extends Record<string, Declaration>> = { [K in keyof T]: Signature<T[K]> }

export const GGML = {
  ggml_version: ['str'],
  ggml_blck_size: ['i64', 'i32'],
  ggml_type_size: ['size', 'i32'],
  ggml_type_name: ['str', 'i32'],
  ggml_tensor_overhead: ['size'],
  ggml_graph_overhead_custom: ['size', 'size', 'bool'],
  ggml_free: ['void', 'ptr'],
  ggml_new_tensor_4d: ['ptr', 'ptr', 'i32', 'i64', 'i64', 'i64', 'i64'],
  ggml_set_name: ['ptr', 'ptr', 'str'],
  ggml_set_input: ['void', 'ptr'],
  ggml_set_output: ['void', 'ptr'],
  ggml_set_param: ['void', 'ptr'],
  ggml_set_loss: ['void', 'ptr'],
  ggml_get_data: ['maybe', 'ptr'],
  ggml_add: ['ptr', 'ptr', 'ptr', 'ptr'],
  ggml_sub: ['ptr', 'ptr', 'ptr', 'ptr'],
  ggml_add_inplace: ['ptr', 'ptr', 'ptr', 'ptr'],
  ggml_mul: ['ptr', 'ptr', 'ptr', 'ptr'],
  ggml_div: ['ptr', 'ptr', 'ptr', 'ptr'],
  ggml_sqrt: ['ptr', 'ptr', 'ptr'],
  ggml_sqr: ['ptr', 'ptr', 'ptr'],
  ggml_log: ['ptr', 'ptr', 'ptr'],
  ggml_sum: ['ptr', 'ptr', 'ptr'],
  ggml_sum_rows: ['ptr', 'ptr', 'ptr'],
  ggml_repeat_4d: ['ptr', 'ptr', 'ptr', 'i64', 'i64', 'i64', 'i64'],
  ggml_concat: ['ptr', 'ptr', 'ptr', 'ptr', 'i32'],
  ggml_abs: ['ptr', 'ptr', 'ptr'],
  ggml_step: ['ptr', 'ptr', 'ptr'],
  ggml_relu: ['ptr', 'ptr', 'ptr'],
  ggml_silu: ['ptr', 'ptr', 'ptr'],
  ggml_tanh: ['ptr', 'ptr', 'ptr'],
  ggml_gelu: ['ptr', 'ptr', 'ptr'],
  ggml_norm: ['ptr', 'ptr', 'ptr', 'f32'],
  ggml_floor: ['ptr', 'ptr', 'ptr'],
  ggml_rms_norm: ['ptr', 'ptr', 'ptr', 'f32'],
  ggml_mul_mat: ['ptr', 'ptr', 'ptr', 'ptr'],
  ggml_out_prod: ['ptr', 'ptr', 'ptr', 'ptr'],
  ggml_scale: ['ptr', 'ptr', 'ptr', 'f32'],
  ggml_scale_bias: ['ptr', 'ptr', 'ptr', 'f32', 'f32'],
  ggml_cpy: ['ptr', 'ptr', 'ptr', 'ptr'],
  ggml_cast: ['ptr', 'ptr', 'ptr', 'i32'],
  ggml_cont: ['ptr', 'ptr', 'ptr'],
  ggml_reshape_4d: ['ptr', 'ptr', 'ptr', 'i64', 'i64', 'i64', 'i64'],
  ggml_view_4d: ['ptr', 'ptr', 'ptr', 'i64', 'i64', 'i64', 'i64', 'size', 'size', 'size', 'size'],
  ggml_permute: ['ptr', 'ptr', 'ptr', 'i32', 'i32', 'i32', 'i32'],
  ggml_get_rows: ['ptr', 'ptr', 'ptr', 'ptr'],
  ggml_set_rows: ['ptr', 'ptr', 'ptr', 'ptr', 'ptr'],
  ggml_diag_mask_inf_inplace: ['ptr', 'ptr', 'ptr', 'i32'],
  ggml_soft_max_ext: ['ptr', 'ptr', 'ptr', 'ptr', 'f32', 'f32'],
  ggml_soft_max_add_sinks: ['void', 'ptr', 'ptr'],
  ggml_rope_ext: ['ptr', 'ptr', 'ptr', 'ptr', 'ptr', 'i32', 'i32', 'i32', 'f32', 'f32', 'f32', 'f32', 'f32', 'f32'],
  ggml_pool_1d: ['ptr', 'ptr', 'ptr', 'i32', 'i32', 'i32', 'i32'],
  ggml_argsort: ['ptr', 'ptr', 'ptr', 'i32'],
  ggml_top_k: ['ptr', 'ptr', 'ptr', 'i32'],
  ggml_swiglu_split: ['ptr', 'ptr', 'ptr', 'ptr'],
  ggml_geglu_split: ['ptr', 'ptr', 'ptr', 'ptr'],
  ggml_flash_attn_ext: ['ptr', 'ptr', 'ptr', 'ptr', 'ptr', 'ptr', 'f32', 'f32', 'f32'],
  ggml_flash_attn_ext_add_sinks: ['void', 'ptr', 'ptr'],
  ggml_cross_entropy_loss: ['ptr', 'ptr', 'ptr', 'ptr'],
  ggml_opt_step_adamw: ['ptr', 'ptr', 'ptr', 'ptr', 'ptr', 'ptr', 'ptr'],
  ggml_op_desc: ['str', 'ptr'],
  ggml_new_graph_custom: ['ptr', 'ptr', 'size', 'bool'],
  ggml_build_forward_expand: ['void', 'ptr', 'ptr'],
  ggml_build_backward_expand: ['void', 'ptr', 'ptr', 'buf'],
  ggml_graph_n_nodes: ['i32', 'ptr'],
  ggml_graph_node: ['ptr', 'ptr', 'i32'],
  ggml_graph_nodes: ['ptr', 'ptr'],
  ggml_quantize_chunk: ['size', 'i32', 'buf', 'buf', 'i64', 'i64', 'i64', 'buf'],
  ggml_quantize_requires_imatrix: ['bool', 'i32'],
  ggml_fp16_to_fp32_row: ['void', 'buf', 'buf', 'i64'],
  ggml_fp32_to_fp16_row: ['void', 'buf', 'buf', 'i64'],
  ggml_bf16_to_fp32_row: ['void', 'buf', 'buf', 'i64'],

  ggml_gallocr_new: ['maybe', 'ptr'],
  ggml_gallocr_free: ['void', 'ptr'],
  ggml_gallocr_alloc_graph: ['bool', 'ptr', 'ptr'],
  ggml_gallocr_get_buffer_size: ['size', 'ptr', 'i32'],

  ggml_backend_buft_alloc_buffer: ['maybe', 'ptr', 'size'],
  ggml_backend_buft_get_alignment: ['size', 'ptr'],
  ggml_backend_buft_get_alloc_size: ['size', 'ptr', 'ptr'],
  ggml_backend_buffer_free: ['void', 'ptr'],
  ggml_backend_buffer_get_base: ['ptr', 'ptr'],
  ggml_backend_buffer_set_usage: ['void', 'ptr', 'i32'],
  ggml_backend_free: ['void', 'ptr'],
  ggml_backend_tensor_set: ['void', 'ptr', 'buf', 'size', 'size'],
  ggml_backend_tensor_get: ['void', 'ptr', 'buf', 'size', 'size'],
  ggml_backend_graph_compute: ['i32', 'ptr', 'buf'],
  ggml_backend_dev_backend_reg: ['ptr', 'ptr'],
  ggml_backend_dev_init: ['maybe', 'ptr', 'ptr'],
  ggml_backend_dev_buffer_type: ['ptr', 'ptr'],
  ggml_backend_dev_supports_op: ['bool', 'ptr', 'ptr'],
  ggml_backend_tensor_alloc: ['i32', 'ptr', 'ptr', 'ptr'],
  ggml_backend_cpu_buffer_from_ptr: ['maybe', 'ptr', 'size'],

  gguf_init_empty: ['ptr'],
  gguf_free: ['void', 'ptr'],
  gguf_get_data_offset: ['size', 'ptr'],
  gguf_get_n_kv: ['i64', 'ptr'],
  gguf_get_key: ['str', 'ptr', 'i64'],
  gguf_get_kv_type: ['i32', 'ptr', 'i64'],
  gguf_get_arr_type: ['i32', 'ptr', 'i64'],
  gguf_get_val_data: ['maybe', 'ptr', 'i64'],
  gguf_get_val_str: ['str', 'ptr', 'i64'],
  gguf_get_arr_n: ['size', 'ptr', 'i64'],
  gguf_get_arr_data: ['maybe', 'ptr', 'i64'],
  gguf_get_arr_str: ['str', 'ptr', 'i64', 'size'],
  gguf_get_n_tensors: ['i64', 'ptr'],
  gguf_get_tensor_offset: ['size', 'ptr', 'i64'],
  gguf_get_tensor_name: ['str', 'ptr', 'i64'],
  gguf_get_tensor_ne: ['ptr', 'ptr', 'i64'],
  gguf_get_tensor_type: ['i32', 'ptr', 'i64'],
  gguf_get_tensor_size: ['size', 'ptr', 'i64'],
  gguf_set_val_u32: ['void', 'ptr', 'str', 'u32'],
  gguf_set_val_bool: ['void', 'ptr', 'str', 'bool'],
  gguf_set_val_str: ['void', 'ptr', 'str', 'str'],
  gguf_set_arr_data: ['void', 'ptr', 'str', 'i32', 'buf', 'size'],
  gguf_set_arr_str: ['void', 'ptr', 'str', 'strs', 'size'],
} as const satisfies Record<string, Declaration>

/** From libggml: the registry of backends. */
export const GGML_REGISTRY = {
  ggml_backend_load_all_from_path: ['void', 'str'],
  ggml_backend_dev_by_type: ['maybe', 'i32'],
  ggml_backend_reg_get_proc_address: ['maybe', 'ptr', 'str'],
} as const satisfies Record<string, Declaration>
