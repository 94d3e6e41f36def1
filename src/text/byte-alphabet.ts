/**
 * The alphabet of byte-level BPE (GPT-2): a vocabulary is text, so each byte is written as one visible character. Bytes that
 * are visible in Latin-1 stand for themselves, the others become U+0100, U+0101, … in order (a space is Ġ, a newline Ċ).
 */
const isVisible = (byte: number) => (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad)

const bytesByCharacter = new Map<string, number>()
for (let byte = 0, next = 0x100; byte < 256; byte++) {
  bytesByCharacter.set(String.fromCharCode(isVisible(byte) ? byte : next++), byte)
}

/** Characters outside of the alphabet stand for their own UTF-8 bytes. */
export function bytesOfCharacters(text: string): Uint8Array {
  return Uint8Array.from(
    Array.from(text).flatMap((character) => {
      const byte = bytesByCharacter.get(character)
      return byte === undefined ? [...Buffer.from(character)] : [byte]
    }),
  )
}
