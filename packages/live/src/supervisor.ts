/** Descriptors of the supervisor, and what each is for QEMU. */
export const SupervisorFd = {
  /** The lifeline: a pipe of which this process holds the other end. QEMU does not have it. */
  LIFELINE: 0,
  /** Where the supervisor reports. QEMU does not have it. */
  REPORT: 1,
  /** What QEMU says to people. */
  STDERR: 2,
  /** QMP: QEMU's standard input. */
  QMP_IN: 3,
  /** QMP: QEMU's standard output. */
  QMP_OUT: 4,
  /** The guest's memory; QEMU opens it as `/proc/self/fd/5`. */
  RAM: 5,
  /** The firmware; QEMU opens it as `/proc/self/fd/6`. */
  FIRMWARE: 6,
} as const;

/**
 * The shell script that QEMU runs under, in a session of its own: it reports QEMU's process id and
 * how it ended, and ends it when the lifeline breaks, that is, however we end. A shell gives
 * background commands /dev/null as standard input unless told otherwise, hence the copies.
 * The last line takes along whatever is left of the process group: the watcher, and a QEMU that
 * was started by a script of the user's which did not `exec` it.
 */
export const SUPERVISOR = `
exec 7<&0 </dev/null
"$@" <&3 >&4 3<&- 4>&- 7<&- &
qemu=$!
exec 2>/dev/null 3<&- 4>&- 5>&- 6<&-
trap '' TERM
echo "pid $qemu"
{ read -r line; kill 0; sleep 1; kill -9 0; } <&7 >&- &
exec 7<&-
wait "$qemu"
echo "exit $?"
kill -9 0
`;

/** What the supervisor has reported so far. */
export interface Report {
  /** QEMU's process id. */
  readonly pid: number | undefined;
  /** What `wait` said of QEMU: its exit code, or 128 and the number of the signal. */
  readonly exit: number | undefined;
}

/** Reads the supervisor's report; an unfinished line does not count. */
export function parseReport(text: string): Report {
  const number = (word: string): number | undefined => {
    const match = new RegExp(`^${word} (\\d+)\\n`, 'm').exec(text);
    return match === null ? undefined : Number(match[1]);
  };
  return { pid: number('pid'), exit: number('exit') };
}
