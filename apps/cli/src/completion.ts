import { script } from '@bomb.sh/tab';
import type { Argument, Command, Option } from 'commander';
import { type Suggestion, suggestValues } from './completion-values.js';

/**
 * What a shell does with an answer: bits of the protocol that @bomb.sh/tab's scripts speak.
 * [tab v0.0.22 dist/index.mjs ShellCompDirective]
 */
const DIRECTIVE = { NO_SPACE: 2, NO_FILES: 4 } as const;

/** An answer to a shell. */
export interface Completions {
  readonly suggestions: readonly Suggestion[];
  /** Files are offered where no suggestion fits. */
  readonly orFiles: boolean;
}

/** `pinhole completion SHELL`: the script that a shell sources. */
export function printScript(shell: string): void {
  if (shell === 'bash') process.stdout.write(BASH);
  else script(shell, 'pinhole', 'pinhole');
}

/** `pinhole complete -- WORDS`: what the scripts ask. */
export async function answer(program: Command, words: readonly string[]): Promise<void> {
  const { suggestions, orFiles } = await complete(program, words);
  const isOpen = suggestions.some(({ value }) => value.endsWith('='));
  const directive = (orFiles ? 0 : DIRECTIVE.NO_FILES) | (isOpen ? DIRECTIVE.NO_SPACE : 0);
  const lines = suggestions.map(
    ({ value, description }) => `${value}\t${description.replace(/\s+/g, ' ')}`,
  );
  process.stdout.write([...lines, `:${directive}`, ''].join('\n'));
}

/** What could stand in the place of the last of `words`; all come from the program itself. */
export async function complete(program: Command, words: readonly string[]): Promise<Completions> {
  const typed = words.at(-1) ?? '';
  const { command, count, waiting, onlyArguments } = walk(program, words.slice(0, -1));
  if (waiting !== undefined) return ofValue(waiting, typed);
  if (typed.startsWith('-') && !onlyArguments) {
    const option = typed.includes('=') ? findOption(command, typed) : undefined;
    if (option !== undefined) return afterEquals(option, typed.slice(typed.indexOf('=') + 1));
    const options = command.createHelp().visibleOptions(command);
    const suggestions = options.map(({ long, short, description }) => ({
      value: long ?? short ?? '',
      description,
    }));
    return { suggestions: startingWith(suggestions, typed), orFiles: false };
  }
  const commands = count > 0 || onlyArguments ? [] : command.createHelp().visibleCommands(command);
  const names = commands.map((sub) => ({ value: sub.name(), description: sub.description() }));
  const argument = argumentAt(command, count);
  const { suggestions, orFiles } =
    argument === undefined ? { suggestions: [], orFiles: false } : await ofValue(argument, typed);
  return { suggestions: [...startingWith(names, typed), ...suggestions], orFiles };
}

interface Place {
  readonly command: Command;
  /** Arguments of it so far. */
  readonly count: number;
  /** An option that the next word is the value of. */
  readonly waiting: Option | undefined;
  /** There was a `--`. */
  readonly onlyArguments: boolean;
}

function walk(program: Command, words: readonly string[]): Place {
  let command = program;
  let count = 0;
  let waiting: Option | undefined;
  let onlyArguments = false;
  for (const word of words) {
    if (waiting !== undefined) waiting = undefined;
    else if (word === '--') onlyArguments = true;
    else if (word.startsWith('-') && !onlyArguments) {
      const option = findOption(command, word);
      waiting = option?.required === true && !word.includes('=') ? option : undefined;
    } else {
      const sub = count > 0 ? undefined : command.commands.find((one) => one.name() === word);
      if (sub !== undefined) command = sub;
      else if (word !== 'help') count += 1;
    }
  }
  return { command, count, waiting, onlyArguments };
}

function findOption(command: Command, word: string): Option | undefined {
  const [flag] = word.split('=', 1);
  return command.options.find(({ long, short }) => flag === long || flag === short);
}

function argumentAt(command: Command, index: number): Argument | undefined {
  const declared = command.registeredArguments;
  const last = declared.at(-1);
  return declared[index] ?? (last?.variadic === true ? last : undefined);
}

async function ofValue(of: Option | Argument, typed: string): Promise<Completions> {
  const { suggestions, orFiles } = await suggestValues(
    valueName(of),
    of.argChoices,
    typed,
    'long' in of ? of.long : undefined,
  );
  return { suggestions: startingWith(suggestions, typed), orFiles };
}

// Of --set=machine.arch=p the shell puts back what stands before the last =.
async function afterEquals(option: Option, typed: string): Promise<Completions> {
  const { suggestions, orFiles } = await ofValue(option, typed);
  const kept = typed.lastIndexOf('=') + 1;
  const rest = suggestions.map(({ value, description }) => ({
    value: value.slice(kept),
    description,
  }));
  return { suggestions: rest, orFiles };
}

/** The name between the brackets: `file` of `--html <file>`; empty where there is no value. */
export function valueName(of: Option | Argument): string {
  if ('flags' in of) return /[<[]([^\]>]+?)(\.\.\.)?[\]>]/.exec(of.flags)?.[1] ?? '';
  return of.name();
}

const startingWith = (suggestions: readonly Suggestion[], typed: string): Suggestion[] =>
  suggestions.filter(({ value }) => value.startsWith(typed));

// Tab's script for bash evaluates the words that were typed, and offers no files. This one evaluates
// nothing. For bash = and : end a word: what has no space in between is put together again.
const BASH = `# bash completion for pinhole

_pinhole() {
  local rest=\${COMP_LINE:0:COMP_POINT} i n=-1 word kept value out
  local -a words=()
  for ((i = 0; i <= COMP_CWORD; i++)); do
    word=\${COMP_WORDS[i]}
    if [[ $i != 0 && -n $rest && $rest != [[:space:]]* ]]; then
      words[n]+=$word
    else
      rest=\${rest#"\${rest%%[![:space:]]*}"}
      words[++n]=$word
    fi
    rest=\${rest#"$word"}
  done
  word=\${words[n]}
  kept=\${word%"\${word##*["$COMP_WORDBREAKS"]}"}
  out=$(pinhole complete -- "\${words[@]:1}" 2>/dev/null) || return
  COMPREPLY=()
  while IFS=$'\\t' read -r value _; do
    [[ $value == :* ]] || COMPREPLY+=("\${value#"$kept"}")
  done <<<"$out"
  ((\${out##*:} & ${DIRECTIVE.NO_SPACE})) && compopt -o nospace 2>/dev/null
  ((\${out##*:} & ${DIRECTIVE.NO_FILES})) && compopt +o default 2>/dev/null
}
complete -o default -F _pinhole pinhole
`;
