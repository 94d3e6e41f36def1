import { spawnSync } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { afterAll, describe, expect, it } from 'vitest'
import { GgufWriter, tensorBytes } from '../../src/weights/gguf-writer.ts'
import { openGguf } from '../../src/weights/gguf.ts'
import { TemporaryFolder } from '../support/reference.ts'
import { readByGgml, tensorsOf } from './by-ggml.ts'
import { SMALL, VALUES } from './small-gguf.ts'

const folder = new TemporaryFolder()
afterAll(() => folder[Symbol.dispose]())

const dataOf = (i: number) => new Uint8Array(tensorBytes(SMALL.tensors[i]!)).fill(i + 1)

async function writeAll(path: string): Promise<void> {
  await using writer = await GgufWriter.create(path, SMALL)
  for (const i of SMALL.tensors.keys()) await writer.write(dataOf(i))
  await writer.finish()
}

describe('writing a GGUF file', () => {
  it("gives one that our reader and ggml's read the same, with the data where they say", async () => {
    const path = folder.file('whole.gguf')
    await writeAll(path)
    const reference = readByGgml(path)!
    expect([...reference.values]).toEqual(VALUES)
    using source = openGguf(path)
    expect(tensorsOf(source)).toEqual(reference.tensors)
    const bytes = readFileSync(path)
    const data = [...source.tensors.values()].map(({ offset, nBytes }) => new Uint8Array(bytes.subarray(offset, offset + nBytes)))
    expect(data).toEqual(SMALL.tensors.map((_, i) => dataOf(i)))
  })

  it('takes the data of a tensor in pieces and shows the file only when it is finished', async () => {
    mkdirSync(folder.file('pieces'))
    const path = folder.file('pieces/p.gguf')
    const writer = await GgufWriter.create(path, SMALL)
    for (const i of SMALL.tensors.keys())
      for (let at = 0; at < dataOf(i).length; at += 100) await writer.write(dataOf(i).subarray(at, at + 100))
    expect(readdirSync(folder.file('pieces'))).not.toContain('p.gguf')
    await writer.finish()
    expect(readdirSync(folder.file('pieces'))).toEqual(['p.gguf'])
    expect(readFileSync(path).length).toBe(writer.nBytes)
    expect(readFileSync(path)).toEqual(readFileSync(folder.file('whole.gguf')))
  })

  it('that is left half-way leaves nothing, and the old file as it was', async () => {
    mkdirSync(folder.file('left'))
    const path = folder.file('left/m.gguf')
    writeFileSync(path, 'old')
    const writer = await GgufWriter.create(path, SMALL)
    await writer.write(dataOf(0))
    await writer[Symbol.asyncDispose]()
    expect(readdirSync(folder.file('left'))).toEqual(['m.gguf'])
    expect(readFileSync(path, 'utf8')).toBe('old')
  })

  it('refuses more data than declared, and an end before all of it', async () => {
    await using writer = await GgufWriter.create(folder.file('short.gguf'), SMALL)
    await expect(writer.write(new Uint8Array(257))).rejects.toThrow(/257 bytes of data where 256 are missing/)
    await expect(writer.finish()).rejects.toThrow(/no data for tensor 'a'/)
  })

  it.each([
    ['no-such-folder/m.gguf', /ENOENT/],
    ['', /it is a folder/],
  ])("to '%s' is a file_error", async (name, reason) => {
    await expect(GgufWriter.create(folder.file(name), SMALL)).rejects.toMatchObject({
      code: 'file_error',
      fields: { reason: expect.stringMatching(reason) },
    })
  })

  it('for which the disk has no room is refused before it begins', async () => {
    mkdirSync(folder.file('huge'))
    const tensors = [{ name: 't', type: 0, ne: [2 ** 30, 2 ** 20] }]
    await expect(GgufWriter.create(folder.file('huge/m.gguf'), { metadata: [], tensors })).rejects.toThrow(
      /of the 4096.0 TiB needed/,
    )
    expect(readdirSync(folder.file('huge'))).toEqual([])
  })

  it('that meets a full disk half-way removes what it wrote', () => {
    mkdirSync(folder.file('full'))
    const program = folder.file('full.mts')
    writeFileSync(
      program,
      `import { GgufWriter } from '${process.cwd()}/src/weights/gguf-writer.ts'
      const content = { metadata: [], tensors: [{ name: 't', type: 0, ne: [1 << 20] }] }
      await using writer = await GgufWriter.create('${folder.file('full/m.gguf')}', content)
      try { await writer.write(new Uint8Array(4 << 20)) } catch (error) { console.log(error.code, error.fields.reason) }`,
    )
    // A limit on the size of files, 512 blocks of at most 1 KiB, stands in for the end of the disk.
    const { stdout } = spawnSync('sh', ['-c', `ulimit -f 512; exec node --import tsx '${program}'`], { encoding: 'utf8' })
    expect(stdout).toMatch(/^file_error EFBIG/)
    expect(readdirSync(folder.file('full'))).toEqual([])
  })
})
