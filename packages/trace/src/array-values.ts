/**
 * The numbers of an array argument, as the kernel prints it (`{0x1000,0x2000}`) or as trace-cmd does
 * (`4096 8192`); `undefined` when the text is no such thing.
 */
export function arrayValues(text: string): bigint[] | undefined {
  const hex = /^\{((?:0x[0-9a-f]{1,16},)*0x[0-9a-f]{1,16})?\}$/.exec(text);
  if (hex !== null) return (hex[1]?.split(',') ?? []).map(BigInt);
  if (!/^(?:\d{1,20} )*\d{1,20}$/.test(text)) return text === '' ? [] : undefined;
  return text.split(' ').map(BigInt);
}
