/** The commands, loaded only when asked for: one line here, one file each. */
import type { Command } from './command.ts'

export const COMMANDS: Readonly<Record<string, () => Promise<Command>>> = {
  run: async () => (await import('./run.ts')).run,
  chat: async () => (await import('./chat.ts')).chat,
  serve: async () => (await import('./serve.ts')).serve,
  inspect: async () => (await import('./inspect.ts')).inspect,
  tokenize: async () => (await import('./tokenize.ts')).tokenize,
  methods: async () => (await import('./methods.ts')).methods,
  bench: async () => (await import('./bench.ts')).bench,
  'calibrate chai': async () => (await import('./calibrate-chai.ts')).calibrateChai,
  'train lisa': async () => (await import('./train-lisa.ts')).trainLisa,
  'train lckv': async () => (await import('./train-lckv.ts')).trainLckv,
  synth: async () => (await import('./synth.ts')).synth,
}
