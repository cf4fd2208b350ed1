/**
 * A recorded ftrace as `trace-cmd report` (or `trace-cmd report -l`) words it.
 * [trace-cmd v3.4 tracecmd/trace-read.c trace_show_data]
 */
export function toTraceCmd(ftrace: string, style: 'normal' | 'latency'): string {
  const lines = ['CPU 7 is empty', 'cpus=8'];
  for (const line of ftrace.split(/\r?\n/)) {
    const match = /^ *(.+)-(\d+) +\[(\d+)\] (\S+) +([\d.]+): (\w+): (.*)$/.exec(line);
    if (match === null) continue;
    const [, task, pid, cpu, flags, time, event, rest] = match as unknown as string[];
    const isMarker = event === 'tracing_mark_write';
    const name = isMarker ? 'print: ' : `${event}: `;
    const head =
      style === 'normal'
        ? `${task!.padStart(16)}-${pid!.padEnd(5)} [${cpu}] ${flags} `
        : `${task!.slice(0, 8).padStart(8)}-${pid!.padEnd(5)} ${`${Number(cpu)}`.padStart(3)}${flags} `;
    lines.push(
      `${head}${time!.padStart(12)}: ${name.padEnd(22)}${isMarker ? `${event}: ` : ''}${rest}`,
    );
  }
  return `${lines.join('\n')}\n`;
}
