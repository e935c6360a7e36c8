#!/usr/bin/env bash
# Installs what `cargo run` and `cargo test` need beside Rust.
#
#   scripts/setup.sh          everything
#   scripts/setup.sh qemu     QEMU only (direct boot)
#   scripts/setup.sh iso      what makes and boots a GRUB CD image (bios, uefi)
#
# Debian, Ubuntu, Fedora and Arch, as root or with sudo that asks no password. Elsewhere it says
# what to type, and fails. Safe to run again: package managers skip what is there.
set -euo pipefail

say() { printf 'setup: %s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }

case "${1-all}" in
    all) sets=(qemu iso) ;;
    qemu | iso) sets=("$1") ;;
    *)
        say "usage: scripts/setup.sh [qemu|iso]"
        exit 2
        ;;
esac

# The distribution's package manager, what it calls the packages, and how it is told to install.
update=()
if have apt-get; then
    qemu=(qemu-system-x86)
    iso=(grub-common grub-pc-bin grub-efi-amd64-bin xorriso mtools ovmf)
    update=(apt-get update)
    install=(apt-get install --yes --no-install-recommends)
elif have dnf; then
    qemu=(qemu-system-x86-core)
    iso=(grub2-tools-extra grub2-pc-modules grub2-efi-x64-modules xorriso mtools edk2-ovmf)
    install=(dnf install --assumeyes)
elif have pacman; then
    qemu=(qemu-system-x86)
    iso=(grub libisoburn mtools edk2-ovmf)
    install=(pacman -Sy --needed --noconfirm)
else
    say "this system has none of apt-get, dnf and pacman; install by hand:"
    say "  qemu-system-x86_64, and for --firmware bios|uefi: grub-mkrescue with the i386-pc and"
    say "  x86_64-efi modules, xorriso, mtools, OVMF"
    exit 1
fi

packages=()
for set in "${sets[@]}"; do
    case "$set" in
        qemu) packages+=("${qemu[@]}") ;;
        iso) packages+=("${iso[@]}") ;;
    esac
done

# How to become root without a question.
if [[ $EUID -eq 0 ]]; then
    root=()
elif have sudo && sudo -n true 2>/dev/null; then
    root=(sudo -n)
else
    say "this needs root; type:"
    if [[ ${#update[@]} -gt 0 ]]; then
        say "  sudo ${update[*]} && sudo ${install[*]} ${packages[*]}"
    else
        say "  sudo ${install[*]} ${packages[*]}"
    fi
    exit 1
fi

run() {
    say "$*"
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive "$@" </dev/null >&2
}

if [[ ${#update[@]} -gt 0 ]]; then
    # An old list can still name packages that exist; only a failed install is final.
    run "${update[@]}" || say "the package list could not be brought up to date; trying with the old one"
fi
run "${install[@]}" "${packages[@]}"
