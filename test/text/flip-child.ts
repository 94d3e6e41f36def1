/**
 * Run as a process of its own: flips bits in the metadata of a copy of a GGUF file, and each time loads and uses its tokenizer.
 * Arguments: path of the copy, bytes of metadata, number of flips, seed. Says on stdout how often it worked and what else came.
 */
import { closeSync, openSync, readSync, writeSync } from 'node:fs'
import { KvasirError } from '../../src/core/errors.ts'
import { random } from '../../src/core/random.ts'
import { setLogLevel } from '../../src/core/log.ts'
import { loadTokenizer } from '../../src/text/load.ts'
import { openGguf } from '../../src/weights/gguf.ts'

const [path, nBytes, nFlips, seed] = [process.argv[2]!, ...process.argv.slice(3).map(Number)] as [string, number, number, number]
setLogLevel('silent')
const next = random(seed)
const fd = openSync(path, 'r+')
const outcomes: Record<string, number> = {}
const byte = Buffer.alloc(1)

function use(): string {
  try {
    using source = openGguf(path)
    using tokenizer = loadTokenizer(source)
    for (const parseSpecial of [true, false]) {
      const ids = tokenizer.encode('Hello wörld <|end|> 漢字\0\n\n  42 {"a": [1]}', { parseSpecial })
      tokenizer.decode(ids, parseSpecial)
    }
    for (let token = 0; token < tokenizer.nVocab; token += 101) tokenizer.piece(token, true)
    return 'works'
  } catch (error) {
    if (error instanceof KvasirError) return error.code
    throw error
  }
}

for (let i = 0; i < nFlips; i++) {
  const at = Math.floor(next() * nBytes)
  const bit = 1 << Math.floor(next() * 8)
  readSync(fd, byte, 0, 1, at)
  const before = byte[0]!
  byte[0] = before ^ bit
  writeSync(fd, byte, 0, 1, at)
  const outcome = use()
  outcomes[outcome] = (outcomes[outcome] ?? 0) + 1
  byte[0] = before
  writeSync(fd, byte, 0, 1, at)
}
closeSync(fd)
process.stdout.write(JSON.stringify(outcomes))
