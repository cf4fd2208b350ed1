import { stripVTControlCharacters } from 'node:util';

/** One line of printable text: no escape sequence, no line break. */
export function plain(text: string): string {
  return stripVTControlCharacters(text).replace(/[\p{Cc}\u2028\u2029]/gu, ' ');
}

/**
 * Breaks a text at its spaces, into lines of at most `width`. The first one starts with `head` as
 * it is, the others with `indent`. A word that is longer than a line is cut, after a slash if it has one.
 */
export function wrap(text: string, width: number, indent = '', head = ''): string[] {
  const lines: string[] = [];
  let line = head;
  let isEmpty = true;
  const next = (): void => {
    lines.push(line);
    line = indent;
    isEmpty = true;
  };
  for (const word of text.split(' ').filter((part) => part !== '')) {
    let rest = word;
    if (!isEmpty && line.length + 1 + rest.length > width) next();
    while (line.length + rest.length > width) {
      const room = width - line.length;
      const cut = rest.lastIndexOf('/', room - 1) + 1 || room;
      line += rest.slice(0, cut);
      rest = rest.slice(cut);
      next();
    }
    line += isEmpty ? rest : ` ${rest}`;
    isEmpty = false;
  }
  return [...lines, line];
}
