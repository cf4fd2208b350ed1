// The picture of the paths: a lane for each, with what came out of `pinhole compare`.

/** Colours of GitHub's pages, which show it. */
const THEMES = {
  light: {
    text: '#1f2328',
    quiet: '#59636e',
    line: '#d1d9e0',
    wall: '#818b98',
    good: '#1a7f37',
    slow: '#9a6700',
    bad: '#cf222e',
    memory: '#eaeef2',
  },
  dark: {
    text: '#f0f6fc',
    quiet: '#9198a1',
    line: '#3d444d',
    wall: '#9198a1',
    good: '#3fb950',
    slow: '#d29922',
    bad: '#f85149',
    memory: '#262c36',
  },
};
export const PICTURE_THEMES = Object.keys(THEMES);

const WIDTH = 1000;
const HEAD = 44;
const LANE = 58;
const DEVICE = 270;
const WALL = 400;
const MEMORY = { x: 540, width: 150, height: 28 };
const RESULT = 716;

/** What a lane shows; figures come from the report with this number. */
const LANES = [
  { number: 1, title: 'flag off', note: 'physical addresses', draw: direct },
  {
    number: 2,
    title: 'flag on: the pinhole',
    note: 'a hypercall per map and unmap',
    draw: slit,
  },
  { number: 4, title: 'flag on: second window lost', note: 'QEMU 7.2 without maxmem', draw: slit },
  {
    number: 3,
    title: 'flag on: second window',
    note: 'all of memory mapped once, at 2^59',
    draw: open,
  },
  { number: 5, title: 'secure guest, flag off', note: 'it hands out private pages', draw: locked },
  {
    number: 6,
    title: 'secure guest, bounce buffers',
    note: 'copies through shared pages',
    draw: bounced,
  },
  {
    number: 8,
    title: 'DMA offset, flag off, hook',
    note: 'bus addresses taken for physical',
    draw: astray,
  },
  {
    number: 9,
    title: 'DMA offset, flag on',
    note: 'both sides agree on bus addresses',
    draw: shifted,
  },
];

const TONES = {
  works: 'good',
  'works-slow': 'slow',
  refused: 'bad',
  fails: 'bad',
  'wrong-data': 'bad',
};

/** @param paths - of `pinhole compare --format json`. @returns the SVG. */
export function pathsPicture(paths, themeName) {
  const theme = THEMES[themeName];
  const height = HEAD + LANES.length * LANE + 8;
  const lanes = LANES.map((lane, i) => {
    const { report } = paths.find(({ number }) => number === lane.number);
    return drawLane(lane, report, theme, HEAD + i * LANE + LANE / 2);
  });
  const heading = (x, words) =>
    `<text x="${x}" y="24" fill="${theme.quiet}" font-size="13">${words}</text>`;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" aria-labelledby="title" font-family="system-ui, 'Segoe UI', 'Noto Sans', Helvetica, Arial, sans-serif">
<title id="title">The paths of virtio devices to guest memory, and what came out: ${summary(paths)}</title>
<defs>${marker('good', theme)}${marker('slow', theme)}${marker('bad', theme)}${marker('quiet', theme)}</defs>
${heading(16, 'path')}${heading(DEVICE, 'device')}${heading(WALL - 22, 'IOMMU')}${heading(MEMORY.x, 'memory it can see')}${heading(RESULT, '155 requests, every byte checked')}
${lanes.join('\n')}
</svg>
`;
}

function drawLane(lane, report, theme, y) {
  const tone = TONES[report.verdict.outcome];
  const color = theme[tone];
  const [first, second] = results(report);
  const pen = { color, theme, tone, y, share: report.reach.plaintext / report.machine.memory };
  return `<g>
<line x1="16" x2="${WIDTH - 16}" y1="${y - LANE / 2}" y2="${y - LANE / 2}" stroke="${theme.line}"/>
<text x="16" y="${y - 3}" fill="${theme.text}" font-size="15"><tspan font-weight="600">${lane.number}</tspan>&#160; ${lane.title}</text>
<text x="36" y="${y + 15}" fill="${theme.quiet}" font-size="12">${lane.note}</text>
<rect x="${DEVICE}" y="${y - 12}" width="42" height="24" rx="4" fill="none" stroke="${theme.text}" stroke-width="1.5"/>
<path d="M${DEVICE + 8} ${y - 4}h26M${DEVICE + 8} ${y + 4}h26" stroke="${theme.quiet}" stroke-width="1.5"/>
${memory(pen)}
${lane.draw(pen)}
<text x="${RESULT}" y="${y - 3}" fill="${color}" font-size="14" font-weight="600">${first}</text>
<text x="${RESULT}" y="${y + 15}" fill="${theme.quiet}" font-size="12">${second}</text>
</g>`;
}

// What the device could see in clear, in proportion; a sliver is drawn 3 wide.
function memory({ color, theme, y, share }) {
  const { x, width, height } = MEMORY;
  const seen = Math.max(3, width * Math.min(share, 1));
  return `<rect x="${x}" y="${y - height / 2}" width="${width}" height="${height}" rx="3" fill="${theme.memory}" stroke="${theme.line}"/>
<rect x="${x}" y="${y - height / 2}" width="${seen.toFixed(1)}" height="${height}" rx="${seen < 6 ? 1 : 3}" fill="${color}" fill-opacity="0.35"/>`;
}

const START = DEVICE + 46;
const END = MEMORY.x - 4;

const arrow = ({ color, tone }, d, dash = '') =>
  `<path d="${d}" fill="none" stroke="${color}" stroke-width="2"${dash === '' ? '' : ` stroke-dasharray="${dash}"`} marker-end="url(#${tone})"/>`;

function wall({ theme, y }, gap) {
  const top = y - 24;
  const part = 24 - gap / 2;
  return `<rect x="${WALL - 5}" y="${top}" width="10" height="${part}" fill="${theme.wall}"/><rect x="${WALL - 5}" y="${y + gap / 2}" width="10" height="${part}" fill="${theme.wall}"/>`;
}

function direct(pen) {
  return arrow(pen, `M${START} ${pen.y}H${END}`);
}

function slit(pen) {
  return wall(pen, 5) + arrow(pen, `M${START} ${pen.y}H${END}`);
}

function open(pen) {
  return wall(pen, 30) + arrow(pen, `M${START} ${pen.y}H${END}`);
}

function locked(pen) {
  const { color, y } = pen;
  const x = END - 16;
  return `<path d="M${START} ${y}H${x}M${x} ${y - 8}l16 16M${x + 16} ${y - 8}l-16 16" fill="none" stroke="${color}" stroke-width="2.5"/>`;
}

// Into the shared pages, and by the guest's own hand into the others.
function bounced(pen) {
  const { color, y } = pen;
  const pool = MEMORY.x + 2;
  return `${arrow(pen, `M${START} ${y}H${END}`)}<path d="M${pool + 4} ${y + 4}c16 14 50 12 62 -4" fill="none" stroke="${color}" stroke-width="1.5" stroke-dasharray="3 3" marker-end="url(#${pen.tone})"/>`;
}

function astray(pen) {
  const { theme, y } = pen;
  const right = MEMORY.x + MEMORY.width - 18;
  return `<path d="M${START} ${y}C${WALL} ${y} ${WALL} ${y - 20} ${right - 20} ${y - 20}q20 0 20 18" fill="none" stroke="${theme.quiet}" stroke-width="1.5" stroke-dasharray="3 4" marker-end="url(#quiet)"/>${arrow(pen, `M${START} ${y}C${WALL} ${y} ${WALL} ${y + 6} ${END} ${y + 6}`)}`;
}

function shifted(pen) {
  const { y } = pen;
  return arrow(pen, `M${START} ${y}C${WALL} ${y} ${WALL} ${y + 6} ${END} ${y + 6}`);
}

const marker = (tone, theme) =>
  `<marker id="${tone}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="5" markerHeight="5" orient="auto"><path d="M0 0l8 4-8 4z" fill="${theme[tone]}"/></marker>`;

/** Two lines of figures. */
function results({ verdict, counters, data, reach, machine }) {
  const hcalls = counters.hcallsPerRequestTotal;
  const reached = `reaches ${size(reach.plaintext)}${machine.secure ? ' in clear' : ''} of ${size(machine.memory)}`;
  switch (verdict.outcome) {
    case 'works':
      return [
        counters.workload.bytesBounced > 0
          ? `correct, ${size(counters.workload.bytesBounced)} copied`
          : 'correct, no hypercall a request',
        reached,
      ];
    case 'works-slow':
      return [`correct, ${hcalls.toFixed(1)} hypercalls a request`, reached];
    case 'wrong-data':
      return [
        `${size(data.bytesReadWrong)} read wrong, silently`,
        'every request reported success',
      ];
    default:
      return ['no I/O: the device sees ciphertext', reached];
  }
}

/** As people say it: 1.0 MiB, 2 GiB. */
export function size(bytes) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  const unit = Math.min(Math.floor(Math.log2(Math.max(bytes, 1)) / 10), 4);
  const value = bytes / 2 ** (10 * unit);
  return `${Number.isInteger(value) ? value : value.toFixed(1)} ${units[unit]}`;
}

const summary = (paths) =>
  paths.map(({ number, report }) => `${number} ${report.verdict.outcome}`).join(', ');
