/** The browser's storage, which may be switched off, full, or hold what another version left there: never a reason to fail. */
export function recall(name: string): unknown {
  try {
    return JSON.parse(localStorage.getItem(`kvasir.${name}`) ?? 'null') as unknown
  } catch {
    return null
  }
}

export function remember(name: string, value: unknown): void {
  try {
    localStorage.setItem(`kvasir.${name}`, JSON.stringify(value))
  } catch {
    // The setting holds until the page is closed.
  }
}
