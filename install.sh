#!/bin/sh
# Installs Pilot for the user who runs it: one executable, `pilotctl`. No root, no changes to shell profiles.
#
#   curl -fsSL https://github.com/pilot-net/pilot/releases/latest/download/install.sh | sh
#   sh install.sh [--version X.Y.Z] [--dir DIR] [--dry-run] [--uninstall] [--help]
#
# PILOT_INSTALL_URL  where releases are ($URL/latest/download/NAME and $URL/download/vX.Y.Z/NAME)
# PILOT_INSTALL_KEY  the key that signs SHA256SUMS: an ssh public key, or a minisign one
set -eu

# Where releases are, and who signs them; without a key the checksums alone are checked, and that is said.
RELEASES=https://github.com/pilot-net/pilot/releases
KEY=

URL=${PILOT_INSTALL_URL:-$RELEASES}
KEY=${PILOT_INSTALL_KEY:-$KEY}

say() { printf '%s\n' "$*"; }
fail() { printf 'error: %s\n' "$1" >&2; [ -z "${2:-}" ] || printf 'hint: %s\n' "$2" >&2; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

usage() {
  cat <<'TEXT'
Installs Pilot for the user who runs it.

  sh install.sh                    the latest release, into ~/.local/bin
  sh install.sh --version 1.2.3    that release
  sh install.sh --dir DIR          into DIR
  sh install.sh --dry-run          says what it would do
  sh install.sh --uninstall        removes the executable; state in ~/.pilot stays
TEXT
}

platform() {
  case $(uname -s) in
    Linux) os=linux ;;
    Darwin) os=macos ;;
    *) fail "there is no release for $(uname -s)" "build it: cargo build --release -p pilotctl" ;;
  esac
  case $(uname -m) in
    x86_64 | amd64) arch=x86_64 ;;
    aarch64 | arm64) arch=aarch64 ;;
    *) fail "there is no release for $(uname -m)" "build it: cargo build --release -p pilotctl" ;;
  esac
  # A shell translated by Rosetta says x86_64 on an arm64 machine.
  if [ "$os/$arch" = macos/x86_64 ] && [ "$(sysctl -n hw.optional.arm64 2>/dev/null || true)" = 1 ]; then
    arch=aarch64
  fi
}

# fetch URL FILE
fetch() {
  if has curl; then
    case $1 in https://*) only='=https' ;; *) only='=http,https' ;; esac
    curl --proto "$only" --proto-redir "$only" -fsSL --retry 2 -o "$2" "$1"
  elif has wget; then
    wget -q -O "$2" "$1"
  else
    fail 'neither curl nor wget is there' 'install one of them'
  fi
}

sha256() {
  if has sha256sum; then sha256sum "$1"; elif has shasum; then shasum -a 256 "$1"; else openssl dgst -r -sha256 "$1"; fi |
    cut -d ' ' -f 1
}

# Checks that SHA256SUMS is signed by KEY.
check_signature() {
  if [ -z "$KEY" ]; then
    say 'signature: not checked, this script has no key; the checksum is'
    return
  fi
  case $KEY in
    ssh-* | ecdsa-* | sk-*) tool=ssh-keygen signature=SHA256SUMS.sig ;;
    *) tool=minisign signature=SHA256SUMS.minisig ;;
  esac
  if ! has "$tool"; then
    say "signature: not checked, $tool is not there; the checksum is"
    return
  fi
  fetch "$from/$signature" "$work/$signature" || fail "$from/$signature cannot be had" 'nothing was installed'
  if [ "$tool" = minisign ]; then
    minisign -Vqm "$work/SHA256SUMS" -x "$work/$signature" -P "$KEY" >/dev/null 2>&1
  else
    printf 'releases %s\n' "$KEY" >"$work/signers"
    ssh-keygen -Y verify -f "$work/signers" -I releases -n file -s "$work/$signature" \
      <"$work/SHA256SUMS" >/dev/null 2>&1
  fi || fail 'the signature of SHA256SUMS is wrong' 'nothing was installed; somebody may have tampered with the release'
  say 'signature: good'
}

install_it() {
  platform
  name=pilot-$os-$arch.tar.gz
  if [ -n "$version" ]; then from=$URL/download/v$version; else from=$URL/latest/download; fi
  say "Pilot ${version:-(latest release)} for $os $arch"
  say "  download  $from/$name"
  say "  check     SHA-256 against $from/SHA256SUMS${KEY:+, and its signature}"
  say "  install   $dir/pilotctl"
  say '  nothing else is changed; remove it with: sh install.sh --uninstall'
  if [ -n "$dry" ]; then
    say 'dry run: nothing was done'
    return
  fi
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  trap 'exit 1' HUP INT TERM
  fetch "$from/SHA256SUMS" "$work/SHA256SUMS" || fail "$from/SHA256SUMS cannot be had" 'is that a release? see --version'
  check_signature
  expected=$(awk -v name="$name" '$2 == name || $2 == "*" name { print $1; exit }' "$work/SHA256SUMS")
  [ -n "$expected" ] || fail "SHA256SUMS does not name $name" 'there is no such build in this release'
  fetch "$from/$name" "$work/$name" || fail "$from/$name cannot be had, or not whole" 'nothing was installed; try again'
  got=$(sha256 "$work/$name")
  [ "$got" = "$expected" ] ||
    fail "the checksum of $name is $got, not $expected" 'nothing was installed; try again, or tell the project'
  say 'checksum: good'
  mkdir "$work/unpacked"
  tar -xzf "$work/$name" -C "$work/unpacked"
  binary=$(find "$work/unpacked" -type f -name pilotctl | head -n 1)
  [ -n "$binary" ] || fail "there is no pilotctl in $name"
  chmod 755 "$binary"
  installed=$("$binary" --version) || fail 'the program does not run on this machine' 'build it: cargo build --release -p pilotctl'
  mkdir -p "$dir"
  # Under its name only when it is whole: one that runs meanwhile goes on.
  cp "$binary" "$dir/.pilotctl.new"
  chmod 755 "$dir/.pilotctl.new"
  mv -f "$dir/.pilotctl.new" "$dir/pilotctl"
  say "installed: $installed"
  case :$PATH: in
    *":$dir:"*) say 'next: pilotctl daemon start --hostname my-agent' ;;
    *)
      say "$dir is not in PATH. For this shell, and in your profile for later ones:"
      say "  export PATH=\"$dir:\$PATH\""
      ;;
  esac
}

uninstall() {
  if [ ! -e "$dir/pilotctl" ]; then
    say "there is no $dir/pilotctl"
    return
  fi
  say "removes $dir/pilotctl; state in ~/.pilot stays, and so does a daemon that runs: pilotctl daemon stop"
  if [ -n "$dry" ]; then
    say 'dry run: nothing was done'
    return
  fi
  rm -f "$dir/pilotctl" "$dir/.pilotctl.new"
  say 'removed'
}

main() {
  version='' dry='' what=install_it
  dir=
  while [ $# -gt 0 ]; do
    case $1 in
      --version | --dir)
        [ $# -ge 2 ] || fail "$1 needs a value" 'see --help'
        if [ "$1" = --dir ]; then dir=$2; else version=${2#v}; fi
        shift
        ;;
      --dry-run) dry=1 ;;
      --uninstall) what=uninstall ;;
      -h | --help) usage; exit 0 ;;
      *) fail "unknown option $1" 'see --help' ;;
    esac
    shift
  done
  case $version in *[!0-9A-Za-z.+-]*) fail "$version is no version" ;; esac
  if [ -z "$dir" ]; then dir=${HOME:?}/.local/bin; fi
  $what
}

# All of it is read before anything is done: a script that was cut off does nothing.
main "$@"
