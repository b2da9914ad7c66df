#!/usr/bin/env bash
# Makes BUILD_DIR/NAME.tar.gz from a built tree: the programs and every shared
# library they need, so that they run on a host with nothing but a glibc no
# older than the one they were built with. Left to the host: the glibc family,
# cuBLAS and the GPU driver (opened at run time, CPU works without them).
#
#   deploy/bundle.sh BUILD_DIR NAME
#
# The CMake target `bundle` calls this with the right arguments.
set -euo pipefail

if (($# != 2)); then
  echo "usage: bundle.sh BUILD_DIR NAME" >&2
  exit 2
fi
build_dir=$(cd "$1" && pwd)
name=$2
for tool in patchelf strip ldd readelf; do
  if ! command -v "$tool" >/dev/null; then
    echo "bundle: '$tool' is missing; deploy/packages.sh bundle installs it" >&2
    exit 1
  fi
done

stage_root=$(mktemp -d "$build_dir/bundle.XXXXXX")
trap 'rm -rf "$stage_root"' EXIT
stage=$stage_root/$name

belongs_to_host() {
  case "$1" in
    libc.so.* | libm.so.* | libmvec.so.* | libpthread.so.* | libdl.so.* | \
      librt.so.* | libresolv.so.* | libutil.so.* | libnsl.so.* | \
      libanl.so.* | libnss_*.so.* | ld-linux*.so.* | linux-vdso.so.* | \
      libcuda.so.* | libcublas*.so.*) return 0 ;;
  esac
  return 1
}

# Lines "soname path" of all libraries a file needs, transitively.
needed_libraries() {
  ldd "$1" | awk '$2 == "=>" { print $1, ($3 == "not" ? "" : $3) }'
}

# Copies a library and the licence of the package it came from.
take_library() {
  local soname=$1 path package
  path=$(readlink -f "$2")
  if [[ -e "$stage/lib/$soname" ]]; then
    return
  fi
  install -m 644 "$path" "$stage/lib/$soname"
  strip --strip-unneeded "$stage/lib/$soname"
  patchelf --set-rpath "\$ORIGIN" "$stage/lib/$soname"
  if command -v dpkg-query >/dev/null; then
    # A merged /usr: the package may have registered either path.
    package=$({ dpkg-query -S "$path" "${path#/usr}" 2>/dev/null || true; } |
      sed -n '1s/:.*//p')
    if [[ -n "$package" && -f "/usr/share/doc/$package/copyright" ]]; then
      install -D -m 644 "/usr/share/doc/$package/copyright" \
        "$stage/share/licenses/$package/copyright"
    fi
  fi
}

cmake --install "$build_dir" --prefix "$stage" --strip >/dev/null
mkdir -p "$stage/lib"

for program in "$stage"/bin/*; do
  while read -r soname path; do
    if belongs_to_host "$soname"; then
      continue
    fi
    if [[ -z "$path" ]]; then
      echo "bundle: $(basename "$program") needs $soname, which is not here" >&2
      exit 1
    fi
    take_library "$soname" "$path"
  done < <(needed_libraries "$program")
  patchelf --set-rpath "\$ORIGIN/../lib" "$program"
done

# Everything must now resolve inside the tree or belong to the host.
for file in "$stage"/bin/* "$stage"/lib/*; do
  while read -r soname path; do
    if ! belongs_to_host "$soname" && [[ "$path" != "$stage/"* ]]; then
      echo "bundle: $(basename "$file") would take $soname from" \
        "'${path:-nowhere}' instead of the bundle" >&2
      exit 1
    fi
  done < <(needed_libraries "$file")
done

glibc=$(for file in "$stage"/bin/* "$stage"/lib/*; do
  readelf --version-info --wide "$file"
done | grep -o 'GLIBC_2\.[0-9]*' | sort -uV | tail -n 1)

tarball=$build_dir/$name.tar.gz
tar --sort=name --mtime="@${SOURCE_DATE_EPOCH:-0}" --owner=0 --group=0 \
  --numeric-owner -C "$stage_root" -c "$name" | gzip -n -9 >"$tarball.part"
mv "$tarball.part" "$tarball"
echo "bundle: $tarball"
echo "bundle: $(find "$stage/lib" -type f | wc -l) libraries," \
  "$(du -sm "$stage" | cut -f1) MiB unpacked," \
  "$(du -m "$tarball" | cut -f1) MiB packed, needs ${glibc/_/ }"
