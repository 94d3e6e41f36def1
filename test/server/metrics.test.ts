import { expect, test } from 'vitest'
import { createApp } from '../../src/server/app.ts'
import { FakeEngine } from '../support/fake-engine.ts'
import { SOON, post } from '../support/http.ts'

async function valuesOf(app: ReturnType<typeof createApp>): Promise<Record<string, number>> {
  const text = await (await app.request('/metrics')).text()
  const lines = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'))
  return Object.fromEntries(
    lines.map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ')))]),
  )
}

test('metrics count tokens, requests by reason, and prompts that did not fit', async () => {
  const app = createApp({ engine: new FakeEngine({ script: () => 'abc<end>', nCtx: 100 }) })
  await post(app, '/v1/completions', { prompt: 'hello' })
  await post(app, '/v1/completions', { prompt: 'hello', max_tokens: 2 })
  await post(app, '/v1/completions', { prompt: 'x'.repeat(200) })
  expect(await valuesOf(app)).toMatchObject({
    kvasir_prompt_tokens_total: 10,
    kvasir_generation_tokens_total: 6,
    'kvasir_request_success_total{finished_reason="stop"}': 1,
    'kvasir_request_success_total{finished_reason="length"}': 1,
    'kvasir_request_success_total{finished_reason="abort"}': 0,
    'kvasir_context_overflow_total{policy="error"}': 1,
    kvasir_num_requests_running: 0,
    kvasir_num_requests_waiting: 0,
    'kvasir_kv_cache_bytes{tier="memory"}': 0,
    'kvasir_kv_tokens_evicted_total{method="dense"}': 0,
    kvasir_time_to_first_token_seconds_count: 2,
    kvasir_inter_token_latency_seconds_count: 3,
    kvasir_e2e_request_latency_seconds_count: 2,
    kvasir_request_queue_time_seconds_count: 2,
    kvasir_request_prefill_time_seconds_sum: expect.closeTo(0.02),
    kvasir_request_decode_time_seconds_sum: expect.closeTo(0.04),
    'kvasir_attention_density_bucket{le="0.9"}': 0,
    'kvasir_attention_density_bucket{le="1"}': 2,
    process_resident_memory_bytes: expect.any(Number),
  })
})

test('requests that run and wait are seen while they do, and their caches', async () => {
  const app = createApp({ engine: new FakeEngine({ nParallel: 2, stepMs: 5 }) })
  const left = new AbortController()
  const init = { method: 'POST', body: '{"prompt":"hello"}', signal: left.signal }
  const requests = [1, 2, 3].map(async () => app.request(new Request('http://localhost/v1/completions', init)))
  await expect
    .poll(() => valuesOf(app), SOON)
    .toMatchObject({
      kvasir_num_requests_running: 2,
      kvasir_num_requests_waiting: 1,
      'kvasir_kv_cache_bytes{tier="memory"}': 128,
    })
  left.abort()
  await Promise.all(requests)
  expect(await valuesOf(app)).toMatchObject({
    kvasir_num_requests_running: 0,
    kvasir_num_requests_waiting: 0,
    'kvasir_request_success_total{finished_reason="abort"}': 3,
    kvasir_e2e_request_latency_seconds_count: 0,
  })
})

test('each app counts for itself', async () => {
  const [one, other] = [createApp({ engine: new FakeEngine() }), createApp({ engine: new FakeEngine() })]
  await post(one, '/v1/completions', { prompt: 'hello', max_tokens: 1 })
  expect((await valuesOf(other))['kvasir_prompt_tokens_total']).toBe(0)
})
