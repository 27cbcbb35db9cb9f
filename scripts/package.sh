#!/usr/bin/env bash
# Builds everything that can be given to somebody else, into target/package, and tries each of it:
#
#   framelet-VERSION-TARGET.tar.gz     a static program, manual pages, completions
#   framelet-small-VERSION-TARGET.gz   the small static program alone, for routers
#   framelet_VERSION_ARCH.deb          a package for Debian
#   framelet-VERSION-1.ARCH.rpm        a package for Fedora
#   framelet-VERSION.oci               an image with the program alone, as an OCI layout with a tag for each
#                                      architecture, and -small
#
#     scripts/package.sh                         everything
#     scripts/package.sh x86_64-unknown-linux-musl   for these targets only
#
# What cannot be built here is named in a line that begins with NOT BUILT. Ends with 0 if all that was
# built works.
#
# Needs cargo, git, python3 with venv (zig, which links all targets, comes from PyPI), dpkg-dev, rpm, binutils, buildah,
# skopeo, iproute2, and qemu-user-static for other processors. If rustup does not have the library of a target, Debian's compiler
# and its source are used to build it: rustc-web, cargo-web and rust-web-src.

# shellcheck disable=SC2317,SC2329 # some functions are called by their names in variables
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

cd "$ROOT"
OUT=$ROOT/target/package
TOOLS=$ROOT/target/package-tools
TARGETS=("$@")
if [ $# -eq 0 ]; then
    TARGETS=(x86_64-unknown-linux-musl aarch64-unknown-linux-musl armv7-unknown-linux-musleabihf)
fi
VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
# The same source makes the same archives.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || echo 0)
export SOURCE_DATE_EPOCH
# Who answers for the Debian package.
MAINTAINER=${MAINTAINER:-framelet <framelet@localhost>}
SMALL=(--profile small --no-default-features --features cli)

need cargo cargo
need python3 python3
rm -rf "$OUT"
mkdir -p "$OUT"
work_dir

step() { printf '\n== %s\n' "$*"; }
not_built() { printf 'NOT BUILT: %s\n' "$*"; }

# ---- static programs

# Debian's names for the processors, those of container images, and what runs their programs here.
describe() {
    case $1 in
    x86_64-*) DEB_ARCH=amd64 OCI_ARCH=amd64 QEMU=() ;;
    aarch64-*) DEB_ARCH=arm64 OCI_ARCH=arm64 QEMU=(qemu-aarch64-static) ;;
    armv7-*) DEB_ARCH=armhf OCI_ARCH=arm QEMU=(qemu-arm-static) ;;
    *) die "the target $1 is not known here" ;;
    esac
    if [ "$(uname -m)" = "${1%%-*}" ]; then QEMU=(); fi
}

install_zig() {
    if [ ! -x "$TOOLS/bin/cargo-zigbuild" ]; then
        python3 -m venv "$TOOLS" && "$TOOLS/bin/pip" install --quiet ziglang cargo-zigbuild
    fi
}

# Prints where a toolchain with the source of the standard library is, if there is one.
source_of_std() {
    local root
    for root in "$(rustc --print sysroot)" /usr; do
        if [ -f "$root/lib/rustlib/src/rust/library/Cargo.lock" ]; then
            printf '%s' "$root"
            return
        fi
    done
}

# build_static TARGET OPTION...: builds framelet for TARGET. The standard library is that of the toolchain, if it has one for
# TARGET, or is built from source. For the small program it is built from source wherever that is possible.
build_static() {
    local target=$1 source built flags='-C link-arg=-pie'
    local of_source='-C link-self-contained=no' std=("-Zbuild-std=std,panic_unwind")
    shift
    source=$(source_of_std)
    built=$(rustc --print sysroot)/lib/rustlib/$target
    case "$*" in
    *"--profile small"*)
        # A fixed address is shorter to write, and a program that aborts when it panics needs no tables for unwinding.
        flags='-C relocation-model=static -C force-unwind-tables=no'
        # Without what only backtraces need, and without the lines of panics.
        std=("-Zbuild-std=std,panic_abort" "-Zbuild-std-features=optimize_for_size")
        of_source+=' -Z location-detail=none'
        ;;
    *) if [ -d "$built" ]; then source=''; fi ;;
    esac
    local build=(cargo-zigbuild zigbuild --quiet --locked --target "$target" --target-dir target/static)
    if [ -n "$source" ]; then
        PATH=$TOOLS/bin:$PATH CARGO=$source/bin/cargo RUSTC=$source/bin/rustc RUSTC_BOOTSTRAP=1 \
            RUSTFLAGS="$flags $of_source" "${build[@]}" "${std[@]}" "$@"
    elif [ -d "$built" ]; then
        PATH=$TOOLS/bin:$PATH RUSTFLAGS=$flags "${build[@]}" "$@"
    else
        printf 'neither rustup target add %s nor rust-src\n' "$target" >&2
        return 1
    fi
}

# try_program PROGRAM NAME: sends a message to a server that it knows by name, and stores some if it can.
try_program() {
    local FRAMELET=$1 name=$2
    [[ $("$FRAMELET" --version) == "framelet $VERSION"* ]] &&
        start_server "$name" --output lines &&
        limited "$FRAMELET" send "localhost:${ADDR##*:}" --message "$name" &&
        stop_server TERM && [ "$STATUS" -eq 0 ] && grep -qx "$name" "$WORK/$name.out" || return 1
    [[ $("$FRAMELET" --version) == *sqlite* ]] || return 0
    start_server "$name-sqlite" --to "sqlite:$WORK/$name.db" &&
        seq 1000 | limited "$FRAMELET" send "$ADDR" --ack --input lines &&
        stop_server TERM && [ "$STATUS" -eq 0 ]
}

# Makes a command of a program for another processor.
runnable() {
    local program=$1 command=$WORK/run-$2
    printf '#!/bin/sh\nexec %s %s "$@"\n' "${QEMU[*]}" "$program" >"$command"
    chmod +x "$command"
    printf '%s' "$command"
}

# Fills a directory with what every package holds, apart from the program.
add_pages() {
    local to=$1 what
    mkdir -p "$to/share/man/man1" "$to/share/doc/framelet" "$to/share/bash-completion/completions" \
        "$to/share/zsh/vendor-completions" "$to/share/fish/vendor_completions.d"
    for what in man $("$NATIVE" generate man | sed -n 's/^\\fB\([a-z]*\)\\fR$/man-\1/p'); do
        "$NATIVE" generate "$what" | gzip -9n >"$to/share/man/man1/${what/#man/framelet}.1.gz"
    done
    "$NATIVE" generate bash >"$to/share/bash-completion/completions/framelet"
    "$NATIVE" generate zsh >"$to/share/zsh/vendor-completions/_framelet"
    "$NATIVE" generate fish >"$to/share/fish/vendor_completions.d/framelet.fish"
    {
        printf 'framelet is licensed under MIT or Apache-2.0, at your option:\n\n'
        cat LICENSE-MIT
        printf '\n(or /usr/share/common-licenses/Apache-2.0)\n\nThe program contains these crates:\n\n'
        cargo tree --locked --edges normal --prefix none --format '{p}  {l}' --target all |
            sed -n 's/ (\*)$//; s/^\([^ ]* v[^ ]*\) .*  \(.*\)$/\1  \2/; /^framelet /!p' | sort -u
    } >"$to/share/doc/framelet/copyright"
    gzip -9nc CHANGELOG.md >"$to/share/doc/framelet/CHANGELOG.md.gz"
    install -D -m 644 deploy/framelet.lua "$to/share/framelet/framelet.lua"
}

archive() { tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner "$@"; }

size_of() { stat -c %s "$1"; }
kib() { printf '%d KiB' "$(((${1:?} + 1023) / 1024))"; }

# At most as large as promised.
is_at_most() {
    [ "$1" -le "$2" ] || { printf 'it has %s, more than %s\n' "$(kib "$1")" "$(kib "$2")" && false; }
}

step "the program for this machine"
cargo build --quiet --release --locked
NATIVE=$ROOT/target/release/framelet
printf '%s: %s\n' "target/release/framelet" "$(kib "$(size_of "$NATIVE")")"

images=()
install_zig || not_built "static programs: zig cannot be installed from PyPI"
for target in "${TARGETS[@]}"; do
    [ -x "$TOOLS/bin/cargo-zigbuild" ] || break
    step "static programs for $target"
    describe "$target"
    if ! build_static "$target" --release || ! build_static "$target" "${SMALL[@]}"; then
        not_built "$target"
        continue
    fi
    full=target/static/$target/release/framelet small=target/static/$target/small/framelet
    printf '%s: %s; small: %s\n' "$target" "$(kib "$(size_of "$full")")" "$(kib "$(size_of "$small")")"
    if [ -n "$(source_of_std)" ]; then
        check "the small program for $target is at most 900 KiB" is_at_most "$(size_of "$small")" $((900 * 1024))
    fi
    stage=$WORK/framelet-$VERSION-$target
    mkdir -p "$stage/bin" "$OUT/image/$OCI_ARCH"
    cp "$full" "$stage/bin/"
    add_pages "$stage"
    archive -C "$WORK" -c "${stage##*/}" | gzip -9n >"$OUT/${stage##*/}.tar.gz"
    gzip -9nc "$small" >"$OUT/framelet-small-$VERSION-$target.gz"
    cp "$full" "$OUT/image/$OCI_ARCH/framelet"
    cp "$small" "$OUT/image/$OCI_ARCH/framelet-small"
    images+=("$OCI_ARCH")
    if [ ${#QEMU[@]} -gt 0 ] && ! command -v "${QEMU[0]}" >/dev/null; then
        printf 'NOT TRIED: %s, since %s is missing\n' "$target" "${QEMU[0]}"
        continue
    fi
    check "the static program for $target works" try_program "$(runnable "$ROOT/$full" "$target")" "$target"
    check "the small program for $target works" \
        try_program "$(runnable "$ROOT/$small" "small-$target")" "small-$target"
    check "the static program for $target needs no library, and no address of its own" \
        bash -c "! readelf -d '$full' | grep NEEDED && readelf -h '$full' | grep -q 'Type: *DYN'"
done

# ---- the image

# Sends a message by name between two processes that have no network but the loopback, and whose root is $1.
# shellcheck disable=SC2016 # the other shell expands them
IN_ROOT='
    set -e
    ip link set lo up
    run() { exec chroot --userspec=65532:65532 "$root" /framelet "$@"; }
    root=$1
    run serve 127.0.0.1:4747 --output lines >"$2.out" 2>"$2.err" &
    server=$!
    until grep -q listening "$2.err"; do kill -0 $server; sleep 0.02; done
    (run send localhost:4747 --message "in the image")
    kill $server
    wait $server
    grep -qx "in the image" "$2.out"
'

# in_image TAG: unpacks the only layer of an image, and tries the program there.
in_image() {
    local image=$WORK/image-$1 root=$WORK/root-$1 layer
    mkdir "$root" &&
        skopeo copy --quiet "oci:$IMAGE:$1" "dir:$image" &&
        layer=$(json 'print(data["layers"][0]["digest"].split(":")[1])' <"$image/manifest.json") &&
        tar -C "$root" -xzf "$image/$layer" &&
        limited unshare --net --fork --kill-child bash -c "$IN_ROOT" _ "$root" "$WORK/in-image-$1"
}

# json CODE: runs a line of Python with the standard input as `data`.
json() { python3 -c "import json, sys; data = json.load(sys.stdin); $1"; }

step "the image"
IMAGE=$OUT/framelet-$VERSION.oci
BUILDAH=(buildah --storage-driver vfs --root "$WORK/storage" --runroot "$WORK/storage-run")
if [ ${#images[@]} -eq 0 ]; then
    not_built "the image: there is no static program"
elif ! command -v buildah >/dev/null || ! command -v skopeo >/dev/null; then
    not_built "the image: buildah or skopeo is missing"
else
    cp deploy/hosts "$OUT/image/hosts"
    for arch in "${images[@]}"; do
        for kind in "" -small; do
            tag=$VERSION$kind-$arch
            "${BUILDAH[@]}" build --isolation chroot --arch "$arch" --timestamp "$SOURCE_DATE_EPOCH" \
                --build-arg "TARGETARCH=$arch" --build-arg "PROGRAM=framelet$kind" --tag "framelet:$tag" \
                --file deploy/Containerfile "$OUT/image" >"$WORK/buildah" 2>&1 || die "$(tail -n 1 "$WORK/buildah")"
            "${BUILDAH[@]}" push --quiet "framelet:$tag" "oci:$IMAGE:$tag"
            printf 'image %s: %s, %s when packed\n' "$tag" \
                "$(kib "$(size_of "$OUT/image/$arch/framelet$kind")")" \
                "$(kib "$(skopeo inspect --raw "oci:$IMAGE:$tag" |
                    json 'print(sum(layer["size"] for layer in data["layers"]))')")"
        done
    done
    if [[ " ${images[*]} " == *" amd64 "* && $(uname -m) == x86_64 ]]; then
        small=$OUT/image/amd64/framelet-small
        check "the small image is at most 2 MiB" is_at_most "$(size_of "$small")" $((2 * 1024 * 1024))
        if unshare --net true 2>/dev/null; then
            check "the image runs, and finds localhost" in_image "$VERSION-amd64"
            check "the small image runs, and finds localhost" in_image "$VERSION-small-amd64"
        else
            printf 'NOT TRIED: the image, since namespaces need root\n'
        fi
    fi
fi
rm -rf "$OUT/image"

# ---- packages for systems, with the program for this machine: it asks the system's name service, as a static one cannot

# Fills a directory with what a system gets.
stage_system() {
    mkdir -p "$1/usr/bin" "$1/usr/lib/systemd/system"
    install -m 755 "$NATIVE" "$1/usr/bin/framelet"
    install -m 644 deploy/framelet@.service deploy/framelet@.socket "$1/usr/lib/systemd/system/"
    add_pages "$1/usr"
}

# What a package says about itself.
SUMMARY='whole messages over TCP'
DESCRIPTION='framelet is a server and a client for protocols that put a length before each
message. It receives, sends, converts and measures such messages, and stores
them in files and in SQLite, acknowledged and exactly once.'

step "the Debian package"
if ! command -v dpkg-deb >/dev/null || ! command -v dpkg-shlibdeps >/dev/null; then
    not_built "the Debian package: dpkg-dev is missing"
else
    DEB_ARCH=$(dpkg --print-architecture)
    package=$WORK/deb
    mkdir -p "$package/DEBIAN" "$WORK/shlibs/debian"
    stage_system "$package"
    printf 'framelet (%s) unstable; urgency=medium\n\n  * See CHANGELOG.md.gz.\n\n -- %s  %s\n' "$VERSION" \
        "$MAINTAINER" "$(date -R -u -d "@$SOURCE_DATE_EPOCH")" | gzip -9n >"$package/usr/share/doc/framelet/changelog.gz"
    touch "$WORK/shlibs/debian/control"
    needed=$(cd "$WORK/shlibs" && dpkg-shlibdeps -O "$package/usr/bin/framelet" 2>/dev/null)
    cat >"$package/DEBIAN/control" <<END
Package: framelet
Version: $VERSION
Architecture: $DEB_ARCH
Maintainer: $MAINTAINER
Installed-Size: $(du -sk "$package/usr" | cut -f 1)
Depends: ${needed#shlibs:Depends=}
Section: net
Priority: optional
Description: $SUMMARY
 ${DESCRIPTION//$'\n'/$'\n' }
END
    chmod -R u=rwX,go=rX "$package"
    deb=$OUT/framelet_${VERSION}_$DEB_ARCH.deb
    dpkg-deb --root-owner-group --build "$package" "$deb" >/dev/null
    printf '%s: %s\n' "${deb##*/}" "$(kib "$(size_of "$deb")")"

    # Installs it into a system that is empty but for the database of packages.
    install_deb() {
        local system=$WORK/system
        mkdir -p "$system/var/lib/dpkg/info" "$system/var/lib/dpkg/updates" &&
            touch "$system/var/lib/dpkg/status" &&
            dpkg --root="$system" --force-depends --log=/dev/null --install "$deb" &&
            try_program "$system/usr/bin/framelet" deb &&
            bash -c "source '$system/usr/share/bash-completion/completions/framelet' && complete -p framelet" &&
            zgrep -q '^\.TH FRAMELET' "$system/usr/share/man/man1/framelet-serve.1.gz" &&
            [ -f "$system/usr/lib/systemd/system/framelet@.socket" ] &&
            dpkg --root="$system" --log=/dev/null --purge framelet &&
            [ ! -e "$system/usr/bin/framelet" ]
    }
    if [ "$(id -u)" -eq 0 ]; then
        check "the Debian package installs, works, and goes away" install_deb
    else
        printf 'NOT TRIED: the Debian package, since dpkg needs root\n'
    fi
fi

# ---- a package for Fedora and its like

step "the RPM"
if ! command -v rpmbuild >/dev/null; then
    not_built "the RPM: rpmbuild is missing (on Debian: the package rpm)"
else
    stage_system "$WORK/rpm"
    # Where zsh looks there.
    mv "$WORK/rpm/usr/share/zsh/vendor-completions" "$WORK/rpm/usr/share/zsh/site-functions"
    chmod -R u=rwX,go=rX "$WORK/rpm"
    cat >"$WORK/framelet.spec" <<END
Name: framelet
Version: $VERSION
Release: 1
Summary: $SUMMARY
License: MIT OR Apache-2.0

%description
$DESCRIPTION

%install
cp -a "$WORK/rpm/." %{buildroot}

%files
/usr/bin/framelet
/usr/lib/systemd/system/framelet@.*
/usr/share/man/man1/*
/usr/share/bash-completion/completions/framelet
/usr/share/zsh/site-functions/_framelet
/usr/share/fish/vendor_completions.d/framelet.fish
/usr/share/framelet
%doc /usr/share/doc/framelet
END
    # The program is stripped already, and the same source makes the same package.
    rpmbuild -bb --quiet --define "_topdir $WORK/rpmbuild" --define '__os_install_post %{nil}' \
        --define '_binary_payload w9.xzdio' --define 'debug_package %{nil}' --define '_build_id_links none' --define '_buildhost localhost' \
        --define 'use_source_date_epoch_as_buildtime 1' --define 'clamp_mtime_to_source_date_epoch 1' \
        "$WORK/framelet.spec"
    rpm=$(find "$WORK/rpmbuild/RPMS" -name '*.rpm')
    mv "$rpm" "$OUT/"
    rpm=$OUT/${rpm##*/}
    printf '%s: %s\n' "${rpm##*/}" "$(kib "$(size_of "$rpm")")"

    # Installs it into an empty system, which therefore lacks what it needs.
    install_rpm() {
        local system=$WORK/fedora
        mkdir -p "$system" &&
            rpm --root "$system" --initdb &&
            rpm --root "$system" --install --nodeps "$rpm" &&
            rpm --root "$system" --verify --nodeps framelet &&
            try_program "$system/usr/bin/framelet" rpm &&
            rpm --root "$system" --query --requires --package "$rpm" | grep -q '^libc\.so' &&
            [ -f "$system/usr/lib/systemd/system/framelet@.socket" ] &&
            rpm --root "$system" --erase framelet &&
            [ ! -e "$system/usr/bin/framelet" ]
    }
    if [ "$(id -u)" -eq 0 ]; then
        check "the RPM installs, works, and goes away" install_rpm
    else
        printf 'NOT TRIED: the RPM, since its installation needs root\n'
    fi
fi

step "target/package"
(cd "$OUT" && sha256sum framelet*.gz framelet*.deb framelet*.rpm 2>/dev/null) >"$WORK/sums" || true
mv "$WORK/sums" "$OUT/SHA256SUMS"
cat "$OUT/SHA256SUMS"
finish
