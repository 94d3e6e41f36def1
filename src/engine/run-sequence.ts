/** A sequence as the runner sees it: a cache, and the attention that fills and reads it. */
import type { Attention, ChunkFacts } from '../attention/attention.ts'
import type { KvCache } from '../kv/cache.ts'
import type { Sink, Source } from '../kv/saved.ts'

export class RunSequence implements Disposable {
  readonly cache: KvCache
  readonly attention: Attention
  /** Keys read so far and what dense attention would have read, summed over layers and KV heads. */
  keysRead = 0
  keysDense = 0

  constructor(attention: Attention, cache: KvCache) {
    this.attention = attention
    this.cache = cache
  }

  /** Notes what a step of these facts has stored. */
  advance(facts: ChunkFacts, endsPrompt: boolean): void {
    const { read, dense } = this.attention.cost(this.cache, facts)
    this.keysRead += read
    this.keysDense += dense
    this.cache.append(facts.nTokens)
    this.attention.commit(this.cache, facts, endsPrompt)
  }

  /** Goes on from here by itself, exactly as this one would. Errors: `out_of_memory`. */
  fork(): RunSequence {
    return new RunSequence(this.attention, this.cache.fork())
  }

  /** Forgets all but the first `nTokens`; false, and then it goes on as before, if its setting cannot. */
  truncate(nTokens: number): boolean {
    return this.attention.truncate(this.cache, nTokens)
  }

  async save(to: Sink): Promise<void> {
    await this.cache.save(to)
  }

  /** One that goes on as the saved one would; with this one's setting and room. Errors: `cache_invalid`, `out_of_memory`. */
  async restore(from: Source): Promise<RunSequence> {
    return new RunSequence(this.attention, await this.cache.restore(from))
  }

  [Symbol.dispose](): void {
    this.cache[Symbol.dispose]()
  }
}
