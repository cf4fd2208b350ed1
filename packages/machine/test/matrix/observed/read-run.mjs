// What one boot's console, QEMU's log and the disks show, as facts: nothing of the model is in here.

/** The sector that marks the start and the end of the workload in QEMU's log; it is in no operation. */
const MARK = 'sector 2046 nsectors 1';
const REQUEST = /^virtio_blk_handle_(read|write) .* sector (\d+) nsectors (\d+)$/;
/** What a kernel says of DMA. */
const TELLING = /iommu|dmar|swiotlb|software io tlb|ddw|dma-window|dma window|bounce/i;
const UNTELLING = /ommand line|adding to iommu group|ACPI:|No \w+ found/i;
/** The doorbell of virt's GICv2m: the first address of memory is above. */
const VIRT_MEMORY = 0x4000_0000;

/** @throws Error when the guest did not come to its end */
export function readBoot({ console: text, log, images, plan, cells }) {
  const seen = readConsole(text);
  if (!seen.isDone || seen.disks.size !== cells.length) {
    throw new Error(`the guest did not come to its end: ${text.slice(-3000)}`);
  }
  const ofQemu = readQemuTrace(log);
  return {
    kernel: seen.kernel,
    // `#1 SMP Debian 6.1.176-1 (2026-08-01)`
    version: /Linux version .* Debian (\S+)/.exec(seen.messages.join('\n'))?.[1],
    pageKiB: seen.pageKiB,
    failures: seen.failures,
    messages: telling(seen.messages),
    windows: log.split('\n').filter((line) => /^spapr_iommu_ddw/.test(line)),
    cells: cells.map((cell, at) => {
      const disk = seen.disks.get(`disk${at}`);
      return {
        id: cell.id,
        features: featureWord(disk.features),
        failures: disk.failures,
        readsWrong: plan.reads
          .filter(([step, sum]) => disk.sums.find(([of]) => of === step)?.[1] !== sum)
          .map(([step]) => step),
        imageBytesWrong: images[at].reduce(
          (sum, byte, i) => sum + (byte === plan.after[i] ? 0 : 1),
          images[at].length - plan.after.length,
        ),
        messages: telling(disk.messages),
        guest: readGuestTrace(disk.trace),
        qemu: ofQemu[at],
      };
    }),
  };
}

// The console, taken apart: of the machine, and of each disk by its serial number.
function readConsole(text) {
  const boot = { disks: new Map(), messages: [], failures: [] };
  let disk;
  let isTrace = false;
  for (const line of text.split(/\r*\n/)) {
    const [, word, rest = ''] = /@ ([A-Z]+) ?(.*)$/.exec(line) ?? [];
    if (word === undefined) {
      if (isTrace && line !== '') disk.trace.push(line);
      continue;
    }
    isTrace = word === 'TRACE';
    if (word === 'KERNEL') boot.kernel = rest;
    else if (word === 'PAGE') boot.pageKiB = Number(rest);
    else if (word === 'BOOT') boot.messages.push(rest);
    else if (word === 'DONE') boot.isDone = true;
    else if (word === 'FAILED') (disk?.failures ?? boot.failures).push(rest);
    else if (word === 'DISK') {
      disk = { features: '', sums: [], trace: [], messages: [], failures: [] };
      boot.disks.set(rest, disk);
    } else if (word === 'FEATURES') disk.features = rest;
    else if (word === 'SUM') disk.sums.push(rest.split(' '));
    else if (word === 'DMESG') disk.messages.push(rest);
    else if (word === 'OVERRUN' && !/: 0$/.test(rest)) disk.failures.push(`lost events: ${rest}`);
  }
  return boot;
}

function telling(messages) {
  const lines = messages.map((line) => line.replace(/^(<\d+>)?\[[ \d.]+\] /, '').trim());
  return [...new Set(lines.filter((line) => TELLING.test(line) && !UNTELLING.test(line)))];
}

/** The bits as sysfs shows them, the lowest first. */
function featureWord(bits) {
  return `0x${BigInt(`0b${[...bits].reverse().join('') || '0'}`).toString(16)}`;
}

/** What the guest's virtio asked of the DMA API, and that of an IOMMU, while it ran the workload. */
function readGuestTrace(lines) {
  const begin = lines.findIndex((line) => line.includes('MARK begin'));
  const end = lines.findIndex((line) => line.includes('MARK end'));
  if (begin < 0 || end < begin) throw new Error('the trace has no marks');
  const workload = lines.slice(begin + 1, end);
  const counts = countBy(workload, (line) => /^(\w+):/.exec(line)?.[1]);
  const bounced = workload.filter((line) => line.startsWith('bounce:'));
  const ofRings = lines.slice(0, begin).filter((line) => line.startsWith('dma_alloc:'));
  return {
    ringsAllocated: ofRings.length,
    bytesBounced: bounced.reduce((sum, line) => sum + numberOf(line, 'size'), 0),
    events: Object.fromEntries(Object.entries(counts).sort()),
    layout: requestsOf(workload).map(layoutOf),
  };
}

function numberOf(line, key) {
  return Number(new RegExp(`\\b${key}=(\\w+)`).exec(line)?.[1]);
}

// Of each request: a header of 16 bytes, data, a status byte, and an indirect table where there is one.
function requestsOf(lines) {
  const requests = [];
  lines.forEach((line, at) => {
    if (!line.startsWith('dma_map:')) return;
    const size = numberOf(line, 'size');
    const isToDevice = numberOf(line, 'dir') === 1;
    const offset = numberOf(line, 'off') % 4096;
    const last = requests.at(-1);
    if (size === 16 && isToDevice && last?.isOpen !== true) {
      requests.push({ isOpen: true, header: offset, data: [], table: undefined });
    } else if (last === undefined || (!last.isOpen && last.table !== undefined)) {
      throw new Error(`a map of ${size} bytes is of no request`);
    } else if (!last.isOpen) {
      last.table = offset;
    } else if (size === 1 && !isToDevice) {
      last.isOpen = false;
    } else {
      last.data.push({ offset, size, page: pageOf(lines[at + 1]) });
    }
  });
  return requests;
}

// The physical page of a map, where an IOMMU's event says it: what alignment it has matters for ranges.
function pageOf(line = '') {
  const paddr = /^map: .* paddr=(\w+)/.exec(line)?.[1];
  return paddr === undefined ? undefined : (Number(paddr) / 4096) % 256;
}

/**
 * `header@4088 data 4096*3+8192^7+512 table@128`: where in its page each part is, and how its data is cut;
 * after `^` the page number, modulo 256, of a piece of several pages.
 */
function layoutOf({ header, data, table }) {
  const pieces = data.map(({ offset, size, page }) => {
    const at = offset === 0 ? '' : `@${offset}`;
    return `${size}${at}${page === undefined || size <= 4096 ? '' : `^${page}`}`;
  });
  const runs = pieces.reduce((all, piece) => {
    const last = all.at(-1);
    if (last?.piece === piece) last.times += 1;
    else all.push({ piece, times: 1 });
    return all;
  }, []);
  const cut = runs.map(({ piece, times }) => (times === 1 ? piece : `${piece}*${times}`)).join('+');
  return `header@${header} data ${cut}${table === undefined ? '' : ` table@${table}`}`;
}

/**
 * QEMU's log for the workload of each disk. Each was read at the mark twice before and once after: what
 * stands between the last two is the workload's and one mark's, between the first two one mark's.
 */
function readQemuTrace(text) {
  const lines = text.split('\n');
  const marks = lines.flatMap((line, at) => (line.endsWith(MARK) ? [at] : []));
  if (marks.length % 3 !== 0) throw new Error(`${marks.length} marks in QEMU's log, not 3 a disk`);
  return Array.from({ length: marks.length / 3 }, (_, disk) => {
    const [first, second, third] = marks.slice(disk * 3, disk * 3 + 3);
    const vdev = /vdev (\w+)/.exec(lines[first])[1];
    const counts = countBy(lines.slice(second, third), (line) => eventOf(line, vdev));
    const ofMark = countBy(lines.slice(first, second), (line) => eventOf(line, vdev));
    for (const [name, count] of Object.entries(ofMark)) {
      counts[name] = (counts[name] ?? 0) - count;
      if (counts[name] === 0) delete counts[name];
    }
    return {
      requests: lines
        .slice(second + 1, third)
        .flatMap((line) => (REQUEST.test(line) ? [line.replace(REQUEST, '$1 $2 $3')] : []))
        .join(', '),
      events: Object.fromEntries(Object.entries(counts).sort()),
    };
  });
}

// Of commands, which; what is another device's, and what is an interrupt, is called so.
function eventOf(line, vdev) {
  const name = /^(\w+)/.exec(line)?.[1];
  if (name === 'smmuv3_cmdq_opcode') return /SMMU_CMD_\w+/.exec(line)[0];
  if (/^virtio_(queue_)?notify/.test(line) && !line.includes(`vdev ${vdev} `)) {
    return `${name}, another`;
  }
  const target = /^smmuv3_translate_success .* translated=(\w+)/.exec(line)?.[1];
  return target !== undefined && Number(target) < VIRT_MEMORY ? `${name}, interrupt` : name;
}

function countBy(lines, nameOf) {
  const counts = {};
  for (const line of lines) {
    const name = nameOf(line);
    if (name === undefined || REQUEST.test(line) || name === 'tracing_mark_write') continue;
    counts[name] = (counts[name] ?? 0) + 1;
    const pages = /^spapr_iommu_pci_stuff .* npages=(\d+)/.exec(line)?.[1];
    if (pages !== undefined) counts['TCEs cleared'] = (counts['TCEs cleared'] ?? 0) + Number(pages);
  }
  return counts;
}
