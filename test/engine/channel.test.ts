import { describe, expect, it } from 'vitest'
import { Channel } from '../../src/engine/channel.ts'

async function collect<T>(channel: Channel<T>): Promise<T[]> {
  const items: T[] = []
  for await (const item of channel) items.push(item)
  return items
}

describe('Channel', () => {
  it('hands over what was pushed before and after reading began', async () => {
    const channel = new Channel<number>(() => {})
    channel.push(1)
    const reading = collect(channel)
    await Promise.resolve()
    channel.push(2)
    channel.push(3)
    channel.close()
    channel.push(4)
    expect(await reading).toEqual([1, 2, 3])
  })

  it('throws its error after the items', async () => {
    const channel = new Channel<number>(() => {})
    channel.push(1)
    channel.close(new Error('broken'))
    expect((await channel.next()).value).toBe(1)
    await expect(channel.next()).rejects.toThrow('broken')
    expect((await channel.next()).done).toBe(true)
  })

  it('tells when the reader leaves', async () => {
    let left = 0
    const channel = new Channel<number>(() => left++)
    channel.push(1)
    channel.push(2)
    for await (const _ of channel) break
    expect(left).toBe(1)
    expect((await channel.next()).done).toBe(true)
  })
})
