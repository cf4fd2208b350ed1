import { ExplainError } from './errors.js';

/** A word of a command line, quotes taken away. */
export interface ShellWord {
  readonly text: string;
  /** Where it starts, both from 1. */
  readonly line: number;
  readonly column: number;
}

/** What {@link splitShellWords} found. */
export interface ShellWords {
  readonly words: readonly ShellWord[];
  /** What a shell would have done and nobody did here: `$HOME`, `> file`, `| tee log`. */
  readonly notes: readonly string[];
}

/** A command line is not longer than this: what Linux lets a program start with. */
const MAX_LENGTH = 2 ** 21;

/**
 * Splits a command line as a POSIX shell does: quotes, backslashes, comments, lines continued by a
 * backslash. It replaces nothing (`$x`, `*`), and stops at the end of the command (`;`, `|`, `&`).
 * [POSIX 2018 §2.2 "Quoting", §2.3 "Token Recognition"]
 * @throws ExplainError `E_COMMAND_LINE` for a quote without its end, or text that is too long.
 */
export function splitShellWords(text: string): ShellWords {
  if (text.length > MAX_LENGTH) {
    throw new ExplainError(
      'E_COMMAND_LINE',
      `expected a command line of at most ${MAX_LENGTH} characters, found ${text.length}`,
    );
  }
  return new Splitter(text).split();
}

/** Of a variable's name no more is looked at: it is cut when it is shown. */
const MAX_NAME = 256;

class Splitter {
  readonly #text: string;
  readonly #words: ShellWord[] = [];
  readonly #notes = new Set<string>();
  #at = 0;
  #line = 1;
  #lineStart = 0;
  #lineEnd: number;
  /** The word being read. */
  #word: { text: string; start: number } | undefined;

  constructor(text: string) {
    this.#text = text;
    this.#lineEnd = this.#endOfLine(0);
  }

  split(): ShellWords {
    for (let isDone = false; !isDone && this.#at < this.#text.length; ) isDone = this.#step();
    this.#finish();
    return { words: this.#words, notes: [...this.#notes] };
  }

  // Takes a character or more; true at the end of the command.
  #step(): boolean {
    const char = this.#text[this.#at] as string;
    if (char === '\\') this.#backslash();
    else if (char === "'") this.#singleQuotes();
    else if (char === '"') this.#doubleQuotes();
    else if (/\s/.test(char)) {
      this.#finish();
      this.#at += 1;
    } else if (char === '#' && this.#word === undefined) {
      const end = this.#text.indexOf('\n', this.#at);
      this.#at = end < 0 ? this.#text.length : end;
    } else if (char === ';' || char === '|' || char === '&') {
      return this.#endOfCommand();
    } else if (char === '>' || char === '<') this.#redirection();
    else this.#plain(char);
    return false;
  }

  #plain(char: string): void {
    if (char === '$') this.#noteVariable();
    this.#append(char);
    this.#at += 1;
  }

  #backslash(): void {
    const next = this.#text[this.#at + 1];
    // A line that goes on.
    if (next === '\r' && this.#text[this.#at + 2] === '\n') this.#at += 1;
    else if (next !== '\n') this.#append(next ?? '\\');
    this.#at += 2;
  }

  #singleQuotes(): void {
    const end = this.#text.indexOf("'", this.#at + 1);
    if (end < 0) throw this.#unbalanced("'", this.#at);
    this.#append(this.#text.slice(this.#at + 1, end));
    this.#at = end + 1;
  }

  #doubleQuotes(): void {
    const start = this.#at;
    this.#append('');
    for (this.#at += 1; this.#text[this.#at] !== '"'; this.#at += 1) {
      const char = this.#text[this.#at];
      if (char === undefined) throw this.#unbalanced('"', start);
      if (char === '$') this.#noteVariable();
      const next = this.#text[this.#at + 1] ?? '';
      const isEscape = char === '\\' && '$`"\\\n'.includes(next) && next !== '';
      if (isEscape) this.#at += 1;
      if (!isEscape) this.#append(char);
      else if (next !== '\n') this.#append(next);
    }
    this.#at += 1;
  }

  #endOfCommand(): boolean {
    const rest = this.#text.slice(this.#at).trim();
    if (rest !== ';' && rest !== '&') {
      this.#notes.add(`the shell would run another command from here on, not read: ${short(rest)}`);
    }
    return true;
  }

  // The operator and the word after it are the shell's.
  #redirection(): void {
    const match = /^(?:<<?|>>?)&?\s*[^\s;|&]*/.exec(this.#text.slice(this.#at));
    // `2>`: the number belongs to it.
    if (this.#word !== undefined && /^\d$/.test(this.#word.text)) this.#word = undefined;
    this.#finish();
    this.#at += match?.[0].length ?? 1;
    this.#notes.add(`the shell would redirect: ${short(match?.[0] ?? '')}`);
  }

  #noteVariable(): void {
    const name = /^\$(?:\w+|\{[^}]*\}|\([^)]*\)?)/.exec(
      this.#text.slice(this.#at, this.#at + MAX_NAME),
    )?.[0];
    if (name !== undefined) {
      this.#notes.add(`the shell would replace ${short(name)}; it was taken as it stands`);
    }
  }

  #append(text: string): void {
    this.#word ??= { text: '', start: this.#at };
    this.#word.text += text;
  }

  #finish(): void {
    if (this.#word === undefined) return;
    const { text, start } = this.#word;
    this.#words.push({ text, ...this.#position(start) });
    this.#word = undefined;
  }

  // Asked from left to right.
  #position(at: number): { line: number; column: number } {
    while (this.#lineEnd < at) {
      this.#line += 1;
      this.#lineStart = this.#lineEnd + 1;
      this.#lineEnd = this.#endOfLine(this.#lineStart);
    }
    return { line: this.#line, column: at - this.#lineStart + 1 };
  }

  #endOfLine(start: number): number {
    const end = this.#text.indexOf('\n', start);
    return end < 0 ? this.#text.length : end;
  }

  #unbalanced(quote: string, at: number): ExplainError {
    const { line, column } = this.#position(at);
    return new ExplainError(
      'E_COMMAND_LINE',
      `line ${line}, column ${column}: expected a second ${quote} that ends this quote, found the end of the command line: ${short(this.#text.slice(at))}`,
      { details: { line, column } },
    );
  }
}

function short(text: string): string {
  const line = text.replace(/\s+/g, ' ');
  return line.length > 40 ? `${line.slice(0, 37)}...` : line;
}
