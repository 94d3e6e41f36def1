import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { setLogSink } from '../../src/core/log.ts'
import { defaultThreads, threadsFor } from '../../src/engine/threads.ts'
import { TemporaryFolder } from '../support/reference.ts'

let folder: TemporaryFolder
beforeEach(() => {
  folder = new TemporaryFolder()
})
afterEach(() => folder[Symbol.dispose]())

/** The files of a machine with 8 processors; `pairs`: processors 2i and 2i + 1 are one core. Gives its root. */
function machine(files: Record<string, string>, { pairs = false, allowed = '0-7' } = {}): string {
  const all = { 'proc/self/status': `Name:\tnode\nCpus_allowed:\tff\nCpus_allowed_list:\t${allowed}\n`, ...files }
  for (let cpu = 0; cpu < 8; cpu++) {
    const siblings = pairs ? `${cpu - (cpu % 2)}-${cpu - (cpu % 2) + 1}` : `${cpu}`
    Object.assign(all, { [`sys/devices/system/cpu/cpu${cpu}/topology/thread_siblings_list`]: `${siblings}\n` })
  }
  for (const [path, text] of Object.entries(all)) {
    mkdirSync(dirname(folder.file(path)), { recursive: true })
    writeFileSync(folder.file(path), text)
  }
  return folder.file('')
}

describe('threads by default', () => {
  test('one per core, not per processor', () => {
    expect(defaultThreads(machine({}, { pairs: true }))).toBe(4)
  })

  test.each([
    ['4-5', 2],
    ['0,2-3,7', 4],
    ['6', 1],
  ])('of the processors %s', (allowed, expected) => {
    expect(defaultThreads(machine({}, { allowed }))).toBe(expected)
  })

  test('cores are counted among the allowed processors', () => {
    expect(defaultThreads(machine({}, { pairs: true, allowed: '4-5,7' }))).toBe(2)
  })

  test.each([
    ['300000 100000', 3],
    ['260000 100000', 3],
    ['240000 100000', 2],
    ['20000 100000', 1],
    ['max 100000', 8],
  ])('version 2 of control groups, cpu.max %s', (max, expected) => {
    const files = { 'proc/self/cgroup': '0::/\n', 'sys/fs/cgroup/cpu.max': `${max}\n` }
    expect(defaultThreads(machine(files))).toBe(expected)
  })

  test('the least of all groups up to the root', () => {
    const files = {
      'proc/self/cgroup': '0::/system.slice/kvasir.service/worker\n',
      'sys/fs/cgroup/system.slice/cpu.max': '500000 100000\n',
      'sys/fs/cgroup/system.slice/kvasir.service/cpu.max': '200000 50000\n',
      'sys/fs/cgroup/system.slice/kvasir.service/worker/cpu.max': 'max 100000\n',
    }
    expect(defaultThreads(machine(files))).toBe(4)
  })

  test.each([
    ['200000', 2],
    ['-1', 8],
  ])('version 1, cpu.cfs_quota_us %s of a container that knows the path of its host', (quota, expected) => {
    const files = {
      'proc/self/cgroup': '5:memory:/docker/4f1c\n4:cpu,cpuacct:/docker/4f1c\n1:name=systemd:/docker/4f1c\n0::/\n',
      'sys/fs/cgroup/cpu/cpu.cfs_quota_us': `${quota}\n`,
      'sys/fs/cgroup/cpu/cpu.cfs_period_us': '100000\n',
    }
    expect(defaultThreads(machine(files))).toBe(expected)
  })

  test('a group outside what the container sees', () => {
    const files = { 'proc/self/cgroup': '0::/../../other\n', 'sys/fs/cgroup/cpu.max': '100000 100000\n' }
    expect(defaultThreads(machine(files))).toBe(1)
  })
})

describe('threads that are asked for', () => {
  const lines: string[] = []
  let before: (line: string) => void
  beforeEach(() => {
    lines.length = 0
    before = setLogSink((line) => lines.push(line))
  })
  afterEach(() => void setLogSink(before))

  test('as many as there are processors, whatever the cores', () => {
    expect(threadsFor(8, machine({}, { pairs: true }))).toBe(8)
    expect(lines).toEqual([])
  })

  test('no more than there are, and a word about it', () => {
    expect(threadsFor(4, machine({}, { allowed: '0-1' }))).toBe(2)
    expect(lines).toEqual(['warn: of 4 threads only 2 will compute: there are no more processors we may use'])
  })

  test('no more than the quota has time for', () => {
    const files = { 'proc/self/cgroup': '0::/\n', 'sys/fs/cgroup/cpu.max': '150000 100000\n' }
    expect(threadsFor(4, machine(files))).toBe(2)
    expect(lines).toHaveLength(1)
  })
})
