/** A short text with a fact in it, for a first question without a file at hand. */
import { attachText } from './attach.ts'
import { attachments, draft } from './state.ts'

const TEXT = `The workshop opens at eight. Tools are hung back on the wall in the evening, and the last one out closes the shutters.
Nora keeps the lamp in the dusty attic.
Deliveries are left at the side door. They are written into the book with the date and the name of the person who took them in.
The access code for the calm otter is 40412.
A machine that makes an unusual noise is switched off and reported. Nobody repairs it alone, however small the fault may look.
The access code for the brave falcon is 93175.
The kettle belongs to everybody. Whoever empties it fills it again.`

export function useExample(): void {
  attachments.value = []
  attachText('workshop.txt', TEXT)
  draft.value = 'What is the access code for the calm otter?'
}
