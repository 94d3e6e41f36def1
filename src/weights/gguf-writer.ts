/**
 * Writes a GGUF file: metadata and the list of tensors first, then their data in the same order, piece by piece.
 * The file appears under its name only when it is whole.
 */
import { randomUUID } from 'node:crypto'
import { type FileHandle, open, rename, rm, stat, statfs } from 'node:fs/promises'
import { dirname } from 'node:path'
import { KvasirError, reasonOf } from '../core/errors.ts'
import { formatBytes } from '../core/sizes.ts'
import { rowBytes } from '../ggml/types.ts'
import { ARRAY_ID, type GgufValue, NUMBER_KINDS, type ScalarKind, scalarId } from './gguf-values.ts'
import type { MetadataValue } from './source.ts'

export interface GgufTensor {
  readonly name: string
  readonly type: number
  /** One to four dimensions, the fastest-varying first. */
  readonly ne: readonly number[]
}

export interface GgufContent {
  readonly metadata: Iterable<readonly [key: string, value: GgufValue]>
  readonly tensors: readonly GgufTensor[]
}

const ALIGNMENT = 32
const VERSION = 3

export function tensorBytes({ type, ne }: GgufTensor): number {
  return ne.slice(1).reduce((bytes, n) => bytes * n, rowBytes(type, ne[0]!))
}

const padding = (n: number): number => (ALIGNMENT - (n % ALIGNMENT)) % ALIGNMENT
const paddedBytes = (tensor: GgufTensor): number => tensorBytes(tensor) + padding(tensorBytes(tensor))

function scalar(kind: ScalarKind, value: MetadataValue): Buffer {
  if (kind === 'str') {
    const text = Buffer.from(String(value))
    return Buffer.concat([scalar('u64', text.length), text])
  }
  const bytes = Buffer.alloc(NUMBER_KINDS[kind].size)
  NUMBER_KINDS[kind].set(new DataView(bytes.buffer, bytes.byteOffset, bytes.length), 0, value as number | boolean)
  return bytes
}

/** The bytes before the data of the first tensor, padding included. */
export function encodeGgufHeader({ metadata, tensors }: GgufContent): Buffer {
  const pieces: Buffer[] = []
  let nValues = 0
  for (const [key, { kind, value }] of metadata) {
    nValues++
    pieces.push(scalar('str', key))
    if (Array.isArray(value)) {
      const of = kind.slice(0, -2) as ScalarKind
      pieces.push(scalar('u32', ARRAY_ID), scalar('u32', scalarId(of)), scalar('u64', value.length))
      for (const element of value as MetadataValue[]) pieces.push(scalar(of, element))
    } else pieces.push(scalar('u32', scalarId(kind as ScalarKind)), scalar(kind as ScalarKind, value))
  }
  let offset = 0
  for (const tensor of tensors) {
    pieces.push(scalar('str', tensor.name), scalar('u32', tensor.ne.length), ...tensor.ne.map((n) => scalar('u64', n)))
    pieces.push(scalar('u32', tensor.type), scalar('u64', offset))
    offset += paddedBytes(tensor)
  }
  const start = [Buffer.from('GGUF'), scalar('u32', VERSION), scalar('u64', tensors.length), scalar('u64', nValues)]
  const header = Buffer.concat([...start, ...pieces])
  return Buffer.concat([header, Buffer.alloc(padding(header.length))])
}

/** Left without {@link finish}, it removes what it has written. Errors: `file_error`. */
export class GgufWriter implements AsyncDisposable {
  readonly path: string
  /** Bytes of the whole file. */
  readonly nBytes: number
  readonly #partial: string
  readonly #tensors: readonly GgufTensor[]
  #file: FileHandle | undefined
  #tensor = 0
  /** Bytes still to come of the tensor under way. */
  #missing = 0

  private constructor(path: string, content: GgufContent, headerBytes: number) {
    this.path = path
    this.#partial = `${path}.${randomUUID().slice(0, 8)}.partial`
    this.#tensors = content.tensors
    this.#missing = content.tensors[0] ? tensorBytes(content.tensors[0]) : 0
    this.nBytes = content.tensors.reduce((bytes, tensor) => bytes + paddedBytes(tensor), headerBytes)
  }

  static async create(path: string, content: GgufContent): Promise<GgufWriter> {
    const header = encodeGgufHeader(content)
    const writer = new GgufWriter(path, content, header.length)
    await writer.#guard(async () => {
      if ((await stat(path).catch(() => null))?.isDirectory()) throw new Error('it is a folder')
      const disk = await statfs(dirname(path))
      const free = disk.bavail * disk.bsize
      if (free < writer.nBytes)
        throw new Error(`the disk has ${formatBytes(free)} free of the ${formatBytes(writer.nBytes)} needed`)
      writer.#file = await open(writer.#partial, 'wx')
      await writer.#append(header)
    })
    return writer
  }

  /** The next bytes of the data; a piece belongs to one tensor. */
  async write(bytes: Uint8Array): Promise<void> {
    if (bytes.length > this.#missing) throw new RangeError(`${bytes.length} bytes of data where ${this.#missing} are missing`)
    await this.#guard(() => this.#append(bytes))
    this.#missing -= bytes.length
    if (this.#missing > 0) return
    await this.#guard(() => this.#append(new Uint8Array(padding(tensorBytes(this.#tensors[this.#tensor]!)))))
    const next = this.#tensors[++this.#tensor]
    if (next) this.#missing = tensorBytes(next)
  }

  /** Gives the file its name. */
  async finish(): Promise<void> {
    if (this.#tensor < this.#tensors.length) throw new RangeError(`no data for tensor '${this.#tensors[this.#tensor]!.name}'`)
    await this.#guard(async () => {
      await this.#file!.sync()
      await this.#file!.close()
      await rename(this.#partial, this.path)
      this.#file = undefined
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#file === undefined) return
    await this.#file.close().catch(() => {})
    await rm(this.#partial, { force: true })
    this.#file = undefined
  }

  async #append(bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.length;) done += (await this.#file!.write(bytes, done)).bytesWritten
  }

  async #guard(act: () => Promise<void>): Promise<void> {
    try {
      await act()
    } catch (error) {
      await this[Symbol.asyncDispose]()
      throw new KvasirError('file_error', { action: 'write', path: this.path, reason: reasonOf(error) }, { cause: error })
    }
  }
}
