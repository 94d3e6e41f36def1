/** What the kernel says is resident, of this process (Linux). */
import { readFileSync } from 'node:fs'

/** Address space, which may lie in several mappings: the kernel divides what has pages of different kinds. */
interface Stretch {
  readonly address: bigint
  readonly addressBytes: number
}

/** Resident bytes of the mappings that begin in a stretch. */
export function mappedResidentBytes(stretch: Stretch): number {
  return sumOver(stretch, 'Rss')
}

/** Bytes of a stretch in pages of 2 MiB. */
export function hugePageBytes(stretch: Stretch): number {
  return sumOver(stretch, 'AnonHugePages')
}

function sumOver({ address, addressBytes }: Stretch, field: string): number {
  const maps = readFileSync('/proc/self/smaps', 'utf8').split(/\n(?=[0-9a-f]+-[0-9a-f]+ )/)
  const inside = maps.filter((map) => {
    const [, from, to] = /^([0-9a-f]+)-([0-9a-f]+) /.exec(map) ?? []
    const [start, end] = [BigInt(`0x${from}`), BigInt(`0x${to}`)]
    return start < address + BigInt(addressBytes) && address < end
  })
  return inside.reduce((sum, map) => sum + Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(map)![1]) * 1024, 0)
}
