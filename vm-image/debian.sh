# Sourced by `build`: fetches the Debian packages that versions.toml names, with an apt that shares nothing with the
# system's own but the mirror and the keyring; where there is none, by their pinned places and digests alone.
#
# A package whose digest is in the cache needs no network. Otherwise apt's signed index vouches for what is
# downloaded, and the pin in versions.toml must agree with it. Only when the pinned version is gone from the archive
# is the newest of its series taken, with a notice.
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# pin TABLE KEY: a value of versions.toml.
pin() {
    awk -v table="[$1]" -v key="$2" '
        /^\[/ { inside = $0 == table }
        inside && $1 == key { sub(/^[^"]*"/, ""); sub(/"[^"]*$/, ""); print; exit }' "$here/versions.toml"
}

# site SUITE: the mirror from which this system takes SUITE of its own release.
site() {
    apt-get indextargets --format '$(RELEASE) $(SITE)' 'Created-By: Packages' | awk -v suite="$1" '$1 == suite && !found++ { print $2 }'
}

# prepare_apt: sets `apt` to the options of an apt that knows the suites of versions.toml for $arch.
prepare_apt() {
    [ -z "${apt+set}" ] || return 0
    local codename main security dir=$cache/apt/image-$arch suite
    codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
    main=$(site "$codename")
    [ -n "$main" ] || die "no Debian mirror for $codename in this system's apt sources"
    security=$(site "$codename-security")
    mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial" "$dir/parts"
    for suite in $(pin suites main); do
        printf 'deb [signed-by=%s] %s %s main\n' "$keyring" "$main" "$suite"
    done >"$dir/sources.list"
    if [ -n "$security" ]; then
        printf 'deb [signed-by=%s] %s %s main\n' "$keyring" "$security" "$(pin suites security)" >>"$dir/sources.list"
    else
        note "this system's apt knows no security mirror: the image gets no package from it"
    fi
    apt=(-o "APT::Architecture=$arch" -o "APT::Architectures=$arch" -o "Acquire::Languages=none"
        -o "Dir::Etc::sourcelist=$dir/sources.list" -o "Dir::Etc::sourceparts=$dir/parts"
        -o "Dir::State::lists=$dir/lists" -o "Dir::Cache=$dir/cache" -o "APT::Sandbox::User=root")
    if [ -z "$(find "$dir/lists" -name '*Packages*' -mmin -1440 -print -quit)" ]; then
        quietly "apt-image-$arch" apt-get "${apt[@]}" update
    fi
}

# in_archive PACKAGE VERSION: the digest that the archive's signed index gives for it; nothing when it is not there.
in_archive() {
    { apt-cache "${apt[@]}" show "$1=$2" 2>/dev/null || true; } | awk '$1 == "SHA256:" && !found++ { print $2 }'
}

# newest SERIES: "PACKAGE VERSION" of the newest package whose whole name matches the regular expression.
newest() {
    local name version best=
    while read -r name; do
        version=$(apt-cache "${apt[@]}" show "$name" | awk '$1 == "Version:" { print $2 }' | newest_version)
        if [ -z "$best" ] || dpkg --compare-versions "$version" gt "${best#* }"; then
            best="$name $version"
        fi
    done < <(apt-cache "${apt[@]}" pkgnames | grep -Ex "$1")
    printf '%s\n' "$best"
}

newest_version() {
    local version best=
    while read -r version; do
        if [ -z "$best" ] || dpkg --compare-versions "$version" gt "$best"; then best=$version; fi
    done
    printf '%s\n' "$best"
}

# download PACKAGE VERSION SHA256: puts the package into the cache, named by its digest. False if the mirror lacks it.
download() {
    local into ok=
    into=$(mktemp -d -p "$debs")
    if (cd "$into" && quietly "fetch-$1" apt-get "${apt[@]}" download "$1=$2"); then
        printf '%s  %s\n' "$3" "$(echo "$into"/*.deb)" | sha256sum --check --quiet --strict \
            || die "$1 $2 has not the digest that the archive's index gives"
        mv "$into"/*.deb "$debs/$3.deb"
        ok=yes
    fi
    rm -rf "$into"
    [ "$ok" ]
}

# resolve TABLE: what is to be fetched for a table of versions.toml goes to `package`, `version` and `sha256`: the pin
# if the archive has it, else the newest of its series.
resolve() {
    local found
    package=$(pin "$1" package) version=$(pin "$1" version) sha256=$(pin "$1" sha256)
    found=$(in_archive "$package" "$version")
    if [ "$found" = "$sha256" ]; then return; fi
    [ -z "$found" ] || die "$package $version in the archive has digest $found, versions.toml says $sha256"
    found=$(newest "$(pin "$1" series)")
    [ -n "$found" ] || die "the archive has neither $package $version nor another of its series"
    printf 'notice: %s %s has left the archive; %s takes its place (update vm-image/versions.toml)\n' \
        "$package" "$version" "$found" >&2
    read -r package version <<<"$found"
    sha256=$(in_archive "$package" "$version")
}

# download_pin PACKAGE VERSION SHA256 POOL: the same without an apt, from the mirror that CAISSON_DEBIAN_MIRROR names. The
# pinned digest is what vouches for it; there is no index that could name a successor.
download_pin() {
    local site=${CAISSON_DEBIAN_MIRROR:-}
    [ -n "$site" ] || die "where Debian's packages come from is not known on this computer: set CAISSON_DEBIAN_MIRROR to the address of a Debian mirror, ending in /debian"
    case $4 in pool/updates/*) site+=-security ;; esac
    curl --fail --silent --show-error --location --output "$debs/$3.part" "$site/$4/$1_${2#*:}_$arch.deb" \
        || die "$1 $2 cannot be fetched from $site; if it has left the archive, build the image on a Debian, which finds its successor"
    printf '%s  %s\n' "$3" "$debs/$3.part" | sha256sum --check --quiet --strict || die "$1 $2 has not its digest"
    mv "$debs/$3.part" "$debs/$3.deb"
}

# deb NAME: the path of the package that versions.toml calls NAME, fetched if need be, goes to `fetched`; what was
# really used is added to `packages` (name, version, sha256), for the manifest.
deb() {
    local table=$1.$arch package version sha256
    package=$(pin "$table" package) version=$(pin "$table" version) sha256=$(pin "$table" sha256)
    [ -n "$package" ] && [ -n "$version" ] && [ -n "$sha256" ] || die "versions.toml has no complete [$table]"
    if [ ! -f "$debs/$sha256.deb" ] && ! command -v apt-get >/dev/null; then
        download_pin "$package" "$version" "$sha256" "$(pin "$table" pool)"
    fi
    if [ ! -f "$debs/$sha256.deb" ]; then
        prepare_apt
        resolve "$table"
        if [ ! -f "$debs/$sha256.deb" ] && ! download "$package" "$version" "$sha256"; then
            # The archive has moved on since its index was read.
            quietly "apt-image-$arch" apt-get "${apt[@]}" update
            resolve "$table"
            download "$package" "$version" "$sha256" || die "$package $version cannot be fetched"
        fi
    fi
    packages+=("$package $version $sha256")
    fetched=$debs/$sha256.deb
}
