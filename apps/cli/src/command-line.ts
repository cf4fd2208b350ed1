/** The command that runs now, as a shell takes it: reports show it, so that they can be made again. */
export function commandLine(args: readonly string[] = process.argv.slice(2)): string {
  return ['pinhole', ...args.map(quoted)].join(' ');
}

// POSIX shells take everything within single quotes as it is.
function quoted(arg: string): string {
  return /^[\w@%+=:,./-]+$/.test(arg) ? arg : `'${arg.replaceAll("'", "'\\''")}'`;
}
