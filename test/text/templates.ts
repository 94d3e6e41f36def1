/** Chat templates in the manner of well-known families, and what they make of a conversation. */
import type { ChatMessage } from '../../src/text/chat-template.ts'

export const CONVERSATION: readonly ChatMessage[] = [
  { role: 'system', content: 'Be brief.' },
  { role: 'user', content: ' Hi! \n' },
  { role: 'assistant', content: 'Hello.' },
  { role: 'user', content: "What's {{ 1 + 1 }}?" },
]
export const WITHOUT_SYSTEM = CONVERSATION.slice(1)

const CHATML = `{% for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' -}}
{% endfor %}
{% if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' -}}
{% endif %}
`

const LLAMA_3 = `{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\\n" }}
{%- endif %}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
`

const MISTRAL = `{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('After the optional system message, conversation roles must alternate user/assistant') }}
    {%- endif %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"] + eos_token }}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported") }}
    {%- endif %}
{%- endfor %}
`

const GEMMA = `{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\\n'}}{% endif %}`

const ZEPHYR = `{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}`

interface Case {
  readonly name: string
  readonly source: string
  readonly messages: readonly ChatMessage[]
  readonly expected: string
  /** What `addGenerationPrompt` adds at the end. */
  readonly prompt: string
}

const QUESTION = "What's {{ 1 + 1 }}?"

export const CASES: readonly Case[] = [
  {
    name: 'ChatML',
    source: CHATML,
    messages: CONVERSATION,
    expected:
      '<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n Hi! \n<|im_end|>\n' +
      `<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\n${QUESTION}<|im_end|>\n`,
    prompt: '<|im_start|>assistant\n',
  },
  {
    name: 'Llama 3',
    source: LLAMA_3,
    messages: CONVERSATION,
    expected:
      '<s><|start_header_id|>system<|end_header_id|>\n\nToday Date: 05 Mar 2024\n\nBe brief.<|eot_id|>' +
      '<|start_header_id|>user<|end_header_id|>\n\nHi!<|eot_id|>' +
      '<|start_header_id|>assistant<|end_header_id|>\n\nHello.<|eot_id|>' +
      `<|start_header_id|>user<|end_header_id|>\n\n${QUESTION}<|eot_id|>`,
    prompt: '<|start_header_id|>assistant<|end_header_id|>\n\n',
  },
  {
    name: 'Mistral',
    source: MISTRAL,
    messages: CONVERSATION,
    expected: `<s>[INST]  Hi! \n[/INST] Hello.</s>[INST] Be brief.\n\n${QUESTION}[/INST]`,
    prompt: '',
  },
  {
    name: 'Gemma',
    source: GEMMA,
    messages: WITHOUT_SYSTEM,
    expected:
      '<s><start_of_turn>user\nHi!<end_of_turn>\n<start_of_turn>model\nHello.<end_of_turn>\n' +
      `<start_of_turn>user\n${QUESTION}<end_of_turn>\n`,
    prompt: '<start_of_turn>model\n',
  },
  {
    name: 'Zephyr',
    source: ZEPHYR,
    messages: CONVERSATION,
    expected: `<|system|>\nBe brief.</s>\n<|user|>\n Hi! \n</s>\n<|assistant|>\nHello.</s>\n<|user|>\n${QUESTION}</s>\n`,
    prompt: '<|assistant|>\n',
  },
]

interface Refusal {
  readonly name: string
  readonly source: string
  readonly messages: readonly ChatMessage[]
  readonly reason: string
}

export const REFUSALS: readonly Refusal[] = [
  { name: 'a system message to Gemma', source: GEMMA, messages: CONVERSATION, reason: 'System role not supported' },
  {
    name: 'two answers in a row to Mistral',
    source: MISTRAL,
    messages: [...WITHOUT_SYSTEM, { role: 'user', content: 'again' }],
    reason: 'After the optional system message, conversation roles must alternate user/assistant',
  },
  { name: 'a filter that does not exist', source: '{{ messages | magic }}', messages: [], reason: 'Unknown' },
  {
    name: 'a huge range',
    source: '{% for i in range(10000000000) %}a{% endfor %}',
    messages: [],
    reason: 'range() of 10000000000 numbers',
  },
  {
    name: 'a range without end',
    source: '{% for i in range(0, 5, 0) %}a{% endfor %}',
    messages: [],
    reason: 'range() of Infinity numbers',
  },
]
