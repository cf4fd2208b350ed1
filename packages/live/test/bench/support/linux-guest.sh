#!/bin/bash
# Times direct reads of a real Linux guest on a real QEMU under TCG, by three disks in turn: flag off, second
# window, default window only. What docs/COSTS.md calls the Linux guest.
# usage: VMLINUX=... BUSYBOX=... MODULES=... [QEMU=...] linux-guest.sh
#   VMLINUX, MODULES: /boot/vmlinux-* and /lib/modules/*/kernel of Debian's linux-image-*-powerpc64le:ppc64el
#   BUSYBOX: of busybox-static:ppc64el (dpkg -x unpacks both). Needs cpio and a 192 MiB file in /dev/shm.
# Prints, of each disk and size: rounds, lowest, median, highest microseconds of a read.
set -eu
here=$(mktemp -d)
disk=$(mktemp /dev/shm/pinhole-disk-XXXXXX)
trap 'rm -rf "$here" "$disk"' EXIT
mkdir -p "$here"/tree/{bin,mod,dev,proc,sys}
cp "$BUSYBOX" "$here/tree/bin/busybox"
for module in virtio/{virtio,virtio_ring,virtio_pci_modern_dev,virtio_pci_legacy_dev,virtio_pci} block/virtio_blk; do
  cp "$MODULES/drivers/$module.ko" "$here/tree/mod/"
done
cat > "$here/tree/init" <<'EOF'
#!/bin/busybox sh
/bin/busybox mkdir -p /sbin /usr/bin; /bin/busybox --install -s /bin
mount -t devtmpfs dev /dev; mount -t proc proc /proc; mount -t sysfs sys /sys
cd /mod; for m in virtio virtio_ring virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk; do insmod $m.ko; done
sleep 1; echo 3 > /proc/sys/kernel/printk
rd() { read a x < /proc/uptime; dd if=/dev/$1 of=/dev/null bs=$2 count=$3 iflag=direct 2> /dev/null; read b x < /proc/uptime; echo "READ $1 $2 $3 $a $b"; }
for d in vda vdb vdc; do rd $d 64k 300 > /dev/null; done
for i in $(seq 30); do for d in vda vdb vdc; do rd $d 64k 1200; done; done
for i in $(seq 12); do for d in vda vdb vdc; do rd $d 1M 180; done; done
poweroff -f
EOF
chmod +x "$here/tree/init"
(cd "$here/tree" && find . | cpio -o -H newc --quiet | gzip) > "$here/initrd.gz"
head -c 201326592 /dev/urandom > "$disk"
drive() { echo "-drive if=none,id=$1,file=$disk,format=raw,cache=writeback,file.locking=off -device virtio-blk-pci,drive=$1,disable-legacy=on,$2"; }
timeout 900 "${QEMU:-qemu-system-ppc64}" -M pseries -cpu POWER9 -m 2G -smp 1 -nographic -nodefaults \
  -chardev stdio,id=c1,mux=off -device spapr-vty,chardev=c1,reg=0x30000000 \
  -device spapr-pci-host-bridge,index=1,id=phb1,ddw=off \
  -kernel "$VMLINUX" -initrd "$here/initrd.gz" -append "console=hvc0 panic=-1 quiet" \
  $(drive d0 iommu_platform=off,bus=pci.0,addr=1) $(drive d1 iommu_platform=on,bus=pci.0,addr=2) \
  $(drive d2 iommu_platform=on,bus=phb1.0,addr=1) -no-reboot < /dev/null | tr -d '\r' |
  awk '$1 == "READ" { print $2, $3, int(($6 - $5) / $4 * 1e6) }' | sort -k1,2 -k3n |
  awk 'function tell() { if (n) printf "%s: %d rounds, %d %d %d us\n", key, n, v[1], v[int((n + 1) / 2)], v[n] }
    $1 " " $2 != key { tell(); key = $1 " " $2; n = 0 } { v[++n] = $3 } END { tell() }'
