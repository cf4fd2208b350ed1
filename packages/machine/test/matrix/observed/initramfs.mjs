// An initramfs as Linux takes it: cpio, "newc". [linux Documentation/driver-api/early-userspace/buffer-format.rst]

/** @param files [path, content or undefined for a folder, mode][] */
export function initramfs(files) {
  const parts = [...files, ['TRAILER!!!', Buffer.alloc(0), 0]].map(([path, content, mode], at) => {
    const data = content ?? Buffer.alloc(0);
    const type = content === undefined ? 0o040000 : 0o100000;
    const fields = [at + 1, type | mode, 0, 0, 1, 0, data.length, 0, 0, 0, 0, path.length + 1, 0];
    const hex = fields.map((value) => value.toString(16).padStart(8, '0')).join('');
    return Buffer.concat([padded(Buffer.from(`070701${hex}${path}\0`)), padded(data)]);
  });
  return Buffer.concat(parts);
}

function padded(data) {
  return Buffer.concat([data, Buffer.alloc(-data.length & 3)]);
}
