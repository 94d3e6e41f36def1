/**
 * The processors this process may use: those of its affinity mask, which cpusets narrow too, the share of their time that
 * control groups (containers, services) leave it, and how busy they are. Linux says so in files under `root`; of other systems
 * we know what Node does.
 */
import { readFileSync } from 'node:fs'
import { availableParallelism, cpus } from 'node:os'
import { join } from 'node:path'

const TICKS_PER_SECOND = 100 // Linux's USER_HZ

/** Numbers of the processors we may run on. */
export function allowedProcessors(root = '/'): number[] {
  const list = /^Cpus_allowed_list:\s*(\S+)$/m.exec(read(root, 'proc/self/status') ?? '')?.[1]
  return list === undefined ? [...Array(availableParallelism()).keys()] : parseList(list)
}

/** `0-2,5` → 0, 1, 2, 5. */
function parseList(list: string): number[] {
  return list.split(',').flatMap((range) => {
    const [first, last = first] = range.split('-').map(Number) as [number, number?]
    return Array.from({ length: last! - first + 1 }, (_, i) => first + i)
  })
}

/** How many processors' time our control groups leave us: the least of any group from ours up to the root. */
export function quota(root = '/'): number {
  const groups = (read(root, 'proc/self/cgroup') ?? '').trim().split('\n')
  return Math.min(Infinity, ...groups.map((line) => groupQuota(root, line)))
}

/** `hierarchy:controllers:path`, a line of /proc/self/cgroup; version 2 names no controllers. */
function groupQuota(root: string, line: string): number {
  const [, controllers, path] = /^\d+:([^:]*):(.*)$/.exec(line) ?? []
  if (path === undefined) return Infinity
  if (controllers === '') return leastOf(path, (group) => quotaOf(read(root, 'sys/fs/cgroup', group, 'cpu.max')?.split(' ')))
  if (!controllers!.split(',').includes('cpu')) return Infinity
  return leastOf(path, (group) => {
    const folder = ['sys/fs/cgroup/cpu', group]
    return quotaOf([read(root, ...folder, 'cpu.cfs_quota_us'), read(root, ...folder, 'cpu.cfs_period_us')])
  })
}

/** A container may see the paths of its host but only the files of its own group, as the root: so groups may be missing. */
function leastOf(path: string, quotaAt: (group: string) => number): number {
  const names = path.split('/').filter((name) => name !== '' && name !== '..')
  return Math.min(...Array.from({ length: names.length + 1 }, (_, depth) => quotaAt(names.slice(0, depth).join('/'))))
}

/** Microseconds of computing per period; `max` or -1 is without limit. */
function quotaOf([limit, period]: readonly (string | undefined)[] = []): number {
  const share = Number(limit) / Number(period)
  return share > 0 ? share : Infinity
}

/** Seconds that `processors` have computed, for whomever, since the system started. */
export function busySeconds(processors: readonly number[], root = '/'): number {
  const stat = read(root, 'proc/stat')
  if (stat === undefined) {
    const all = cpus()
    return processors.reduce((sum, cpu) => sum + (all[cpu] === undefined ? 0 : busyMs(all[cpu].times)), 0) / 1000
  }
  let ticks = 0
  for (const [, cpu, times] of stat.matchAll(/^cpu(\d+) (.*)$/gm)) {
    if (!processors.includes(Number(cpu))) continue
    const [user, nice, system, _idle, _iowait, irq, softirq, steal] = times!.split(' ').map(Number) as number[]
    ticks += user! + nice! + system! + irq! + softirq! + (steal ?? 0)
  }
  return ticks / TICKS_PER_SECOND
}

function busyMs({ user, nice, sys, irq }: ReturnType<typeof cpus>[number]['times']): number {
  return user + nice + sys + irq
}

function read(root: string, ...path: string[]): string | undefined {
  try {
    return readFileSync(join(root, ...path), 'latin1')
  } catch {
    return undefined
  }
}
