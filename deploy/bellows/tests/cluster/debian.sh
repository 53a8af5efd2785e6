#!/bin/sh
# A Debian root file system by debootstrap, with files that images get wrong, made into an image by umoci.
# Usage: unshare --mount sh debian.sh WORK LAYOUT CODENAME MIRROR SETXATTR
# WORK becomes a memory file system of this mount namespace only. Ends with 75 when packages cannot be fetched.
set -eu
work=$1 layout=$2 codename=$3 mirror=$4 setxattr=$5
mount --make-rprivate /
mount -t tmpfs -o size=1g,mode=755 tmpfs "$work"
cd "$work"
umoci init --layout "$layout"
umoci new --image "$layout:1"
umoci unpack --image "$layout:1" bundle
root=bundle/rootfs
ended=0
timeout 300 debootstrap --variant=minbase "$codename" "$root" "$mirror" >log 2>&1 || ended=$?
if [ "$ended" != 0 ]; then
    tail -n 5 log >&2
    # The mirror is reached, but so slowly that nothing would be learnt here.
    if [ "$ended" = 124 ]; then exit 75; fi
    if grep -q -e "Couldn't download" -e "Failed getting release" -e "Couldn't retrieve" log; then exit 75; fi
    exit 1
fi
rm -f "$root"/var/cache/apt/archives/*.deb

opt=$root/opt
long() { printf "%0$2d" 0 | tr 0 "$1"; }
printf 'unicode\n' >"$opt/żółć-名前-🙂"
printf 'long\n' >"$opt/$(long n 255)"
deep=$opt/$(long d 200)/$(long e 200)
mkdir -p "$deep"
printf 'deep\n' >"$deep/f"
printf 'owned\n' >"$opt/owned"
chown 12345:54321 "$opt/owned"
chmod 6750 "$opt/owned"
ln "$opt/owned" "$opt/twin"
ln -s twin "$opt/link"
mkfifo -m 0640 "$opt/pipe"
install -d -m 3770 -o 33 -g 33 "$opt/shared"
touch -d '2001-02-03 04:05:06 UTC' "$opt/old"
install -m 0755 "$root/bin/true" "$opt/capped"
# CAP_NET_BIND_SERVICE, permitted and effective: version 2 of the attribute's form.
chroot "$root" perl -e '
    ($file, $name, $value) = ("/opt/capped", "security.capability", pack("H*", "0100000200040000000000000000000000000000"));
    syscall('"$setxattr"', $file, $name, $value, length($value), 0) == 0 or die "setxattr: $!\n"'
umoci repack --image "$layout:1" bundle
