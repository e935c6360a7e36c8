#!/bin/sh
# Makes a bootable ISO image of a kernel: GRUB, for BIOS and UEFI, starts it through Multiboot2.
#
# usage: scripts/make-iso.sh [--grub-line LINE]... ELF CMDLINE OUT [RAMDISK]
#
# Each LINE is a line of GRUB's script that runs before the kernel is loaded.
# The image boots without a menu. GRUB's own messages go to the first serial line too. Runs of
# spaces in CMDLINE become one.
set -eu

fail() {
    printf 'make-iso: %s\n' "$1" >&2
    exit 1
}

usage='usage: make-iso.sh [--grub-line LINE]... ELF CMDLINE OUT [RAMDISK]'
grub_lines=
while [ "${1-}" = --grub-line ]; do
    [ $# -ge 2 ] || fail "$usage"
    grub_lines="$grub_lines    $2
"
    shift 2
done
[ $# -eq 3 ] || [ $# -eq 4 ] || fail "$usage"
elf=$1
cmdline=$2
out=$3
ramdisk=${4-}

[ -f "$elf" ] || fail "no such file: $elf"
[ -z "$ramdisk" ] || [ -f "$ramdisk" ] || fail "no such file: $ramdisk"
# Fedora calls GRUB's programs grub2-….
grub=grub
command -v grub-mkrescue >/dev/null || grub=grub2
for tool in "$grub-mkrescue" "$grub-file" xorriso mformat; do
    command -v "$tool" >/dev/null || fail "$tool is missing; run scripts/setup.sh iso"
done
"$grub-file" --is-x86-multiboot2 "$elf" || fail "$elf has no Multiboot2 header"

case $cmdline in
*'
'*) fail 'the command line has a line break' ;;
esac

# One GRUB word for each word of the command line: a word with a space in it would reach the
# kernel in quotes. A single quote is closed, escaped, and opened again.
words=
set -f
for word in $cmdline; do
    words="$words '$(printf '%s' "$word" | sed "s/'/'\\\\''/g")'"
done
set +f

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
mkdir -p "$work/iso/boot/grub"
cp "$elf" "$work/iso/boot/kernel"
{
    echo 'set timeout=0'
    echo 'set default=0'
    # UEFI firmware mirrors its console to the serial line by itself.
    echo 'if [ "$grub_platform" = pc ]; then'
    echo '    serial --unit=0 --speed=115200'
    echo '    terminfo serial dumb'
    echo '    terminal_output --append serial'
    echo 'fi'
    echo 'insmod all_video'
    echo "menuentry kernel {"
    printf '%s' "$grub_lines"
    printf '    multiboot2 /boot/kernel%s\n' "$words"
    if [ -n "$ramdisk" ]; then
        cp "$ramdisk" "$work/iso/boot/ramdisk"
        echo '    module2 /boot/ramdisk ramdisk'
    fi
    echo '    boot'
    echo '}'
} >"$work/iso/boot/grub/grub.cfg"

if ! "$grub-mkrescue" -o "$out" "$work/iso" >"$work/log" 2>&1; then
    cat "$work/log" >&2
    fail 'grub-mkrescue failed'
fi
