#!/bin/busybox sh
# First process of a guest. Its root is the initramfs, from which pivot_root refuses to go: the tree is attached once more over itself.
if [ ! -e /begun ]; then
    /bin/busybox touch /begun
    /bin/busybox mount -o bind / /mnt
    cd /mnt && /bin/busybox mount -o move . / && exec /bin/busybox chroot . /init
    echo "the tree cannot be attached once more"
    /bin/busybox poweroff -f
fi
/bin/busybox --install -s /bin
# What was taken along stands before what busybox has of the same name.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm /dev/mqueue
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devpts -o ptmxmode=0666 devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t mqueue mqueue /dev/mqueue
# Killed for memory, a module that is not signed, and the like: not among the lines that are read.
dmesg -n 1
while read -r module; do
    insmod "/lib/m/$module.ko" || echo "cannot load the module $module"
done < /lib/m/order
mount -t cgroup2 cgroup2 /sys/fs/cgroup
# Images must lie on a file system whose owners can be shifted, which the initramfs is not.
insmod /lib/m/brd.ko rd_nr=1 rd_size=1048576
mke2fs /dev/ram0 > /dev/null && mount -t ext4 /dev/ram0 /tmp && chmod 1777 /tmp || echo "no disk in memory"
ip link set lo up
# A server has an address; packets to containers come from it.
ip addr add 192.0.2.1/24 dev dummy0
ip link set dummy0 up
hostname guest
# Debian's kernel keeps everybody from perf_event_open; tests are to meet with what the runtime does.
echo 1 > /proc/sys/kernel/perf_event_paranoid
sh /run/script < /dev/null
echo "the script has ended with $?"
poweroff -f
