/** What the kernel says is resident, of this process (Linux). */
import { readFileSync } from 'node:fs'

/** Resident bytes of the mapping that `address` lies in. */
export function mappedResidentBytes(address: bigint): number {
  const maps = readFileSync('/proc/self/smaps', 'utf8').split(/\n(?=[0-9a-f]+-[0-9a-f]+ )/)
  const found = maps.find((map) => {
    const [, from, to] = /^([0-9a-f]+)-([0-9a-f]+) /.exec(map) ?? []
    return from !== undefined && BigInt(`0x${from}`) <= address && address < BigInt(`0x${to}`)
  })
  return Number(/^Rss:\s+(\d+) kB/m.exec(found!)![1]) * 1024
}
