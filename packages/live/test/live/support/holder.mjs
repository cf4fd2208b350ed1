// A program with a live machine, which ends in the way its first argument says. The second is a
// marker for QEMU's command line. Imports the built package, as a user's program does.
import { LiveQemu } from '@pinhole/live';

const [way, marker] = process.argv.slice(2);
const qemu = LiveQemu.start({
  qemu: process.env.PINHOLE_QEMU ?? 'qemu-system-ppc64',
  args: ['-name', marker],
});
const put = () => qemu.call(0x20, [0x8000_0000n, 0n, 3n]).ret;
if (way === 'interrupted') {
  process.on('SIGINT', () => {
    console.log(`after SIGINT: ${put()}`);
    process.exit(0);
  });
}
console.log(`ready ${put()}`);
if (way === 'throw') throw new Error('thrown on purpose');
if (way === 'exit') process.exit(7);
if (way === 'close') qemu.close();
if (way === 'loop') for (;;) put();
if (way === 'wait' || way === 'interrupted') setInterval(() => {}, 1000);
// Otherwise: nothing more to do.
