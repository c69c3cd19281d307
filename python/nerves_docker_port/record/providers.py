"""Finds the Buildroot package that has a library, header file, program, Python module or function named in a log.

The tables have only names that are often missing and whose package is certain. For any other name, the remedy tells the
user what to look for. The names of the packages, and which of them exist for the build machine, are those of Buildroot
2026.05.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

# Each line has a package and the names by which pkg-config, CMake, Meson, the linker and `#include` know its libraries,
# in lower case, without `lib` and `.h`. The packages of the first table exist for the build machine, too.
_BOTH = """
zlib: z zlib zconf
libpng: png
openssl: ssl crypto openssl
ncurses: ncurses ncursesw curses tinfo
libusb: usb usb-1.0
libglib2: glib gobject gio gthread gmodule glib.h
expat: expat
libffi: ffi
gmp: gmp gmpxx
mpfr: mpfr
mpc: mpc
elfutils: elf dw gelf
lzo: lzo lzo2
libnl: nl nl-3 nl-genl nl-genl-3 nl-route nl-route-3 netlink
libyaml: yaml
json-c: json-c json
sqlite: sqlite sqlite3
libcurl: curl
eudev: udev
libxml2: xml2 xml xml-2
readline: readline
pcre2: pcre2 pcre2-8 pcre2-posix
libarchive: archive
bzip2: bz2 bzip2 bzlib
xz: lzma liblzma
zstd: zstd
lz4: lz4
libgcrypt: gcrypt
attr: attr
acl: acl
libcap: cap
dbus: dbus dbus-1
libdrm: drm
wayland: wayland-client wayland-server wayland-scanner
freetype: freetype freetype2
fontconfig: fontconfig
cairo: cairo
pixman: pixman pixman-1
libjpeg: jpeg jpeglib
tiff: tiff tiffio
giflib: gif gif_lib
boost: boost
popt: popt
libconfuse: confuse
libsodium: sodium
gnutls: gnutls
nettle: nettle hogweed
libevent: event event2
libev: ev
libtirpc: tirpc
libpcap: pcap
kmod: kmod
xxhash: xxhash xxh
dtc: fdt
util-linux: uuid blkid mount
e2fsprogs: ext2fs e2p
libxcrypt: crypt
libaio: aio
libselinux: selinux
systemd: systemd
protobuf: protobuf
python3: python
"""
_TARGET_ONLY = """
libevdev: evdev
alsa-lib: asound alsa
libmnl: mnl
libnftnl: nftnl
libuv: uv
jansson: jansson
mbedtls: mbedtls mbedcrypto
libconfig: config
libftdi1: ftdi1
libfuse3: fuse3
libinput: input
libxkbcommon: xkbcommon
libgpiod2: gpiod
libmodbus: modbus
libunwind: unwind
libbsd: bsd
linux-pam: pam security
liburing: uring
bluez5_utils: bluetooth bluez
avahi: avahi-client avahi-common
libsndfile: sndfile
opus: opus
ffmpeg: avcodec avformat avutil
"""
_TOOLS = """
flex: flex lex
bison: bison yacc
m4: m4
gperf: gperf
nasm: nasm
ninja: ninja
meson: meson
cmake: cmake
autoconf: autoconf autoreconf autoheader
automake: automake aclocal
libtool: libtool libtoolize
pkgconf: pkg-config pkgconf
gettext: msgfmt xgettext msgmerge autopoint
swig: swig
lzip: lzip
xz: xz
dtc: dtc
uboot-tools: mkimage dumpimage mkenvimage
genimage: genimage
zip: zip
squashfs: mksquashfs unsquashfs
mtools: mcopy mmd mformat
dosfstools: mkdosfs mkfs.vfat mkfs.fat
e2fsprogs: mkfs.ext4 mke2fs
mtd: mkfs.ubifs ubinize mkfs.jffs2
openssl: openssl
ragel: ragel
scons: scons
intltool: intltoolize intltool-update
libxslt: xsltproc
libglib2: glib-genmarshal glib-mkenums glib-compile-resources gdbus-codegen glib-compile-schemas
go: go
rustc: rustc cargo
ruby: ruby
lua: lua luac
tcl: tclsh
wayland: wayland-scanner
protobuf: protoc
python3: python3 python
doxygen: doxygen
vala: valac
patchelf: patchelf
kmod: depmod
lz4: lz4 lz4c
zstd: zstd
lzop: lzop
cpio: cpio
jq: jq
fwup: fwup
erlang: erl erlc escript
gawk: gawk
vim: xxd
gengetopt: gengetopt
pahole: pahole
nodejs: node npm
ccache: ccache
erofs-utils: mkfs.erofs
imagemagick: convert
mkpasswd: mkpasswd
fakeroot: fakeroot
util-linux: uuidgen fallocate
"""
# Python modules whose package is not named after them.
_MODULES = """
pyyaml: yaml
pypa-build: build
installer: installer
pyelftools: elftools
pycryptodomex: Cryptodome
serial: serial
docutils: docutils
protobuf: google
dateutil: dateutil
beautifulsoup4: bs4
pillow: PIL
setuptools: setuptools pkg_resources
jinja2: jinja2
mako: mako
markupsafe: markupsafe
packaging: packaging
ply: ply
six: six
lxml: lxml
numpy: numpy
cffi: cffi
cryptography: cryptography
requests: requests
wheel: wheel
flit-core: flit_core
toml: toml
tomli: tomli
jsonschema: jsonschema
pyparsing: pyparsing
pycparser: pycparser
setuptools-scm: setuptools_scm
cython: Cython
click: click
attrs: attr
hatchling: hatchling
hatch-vcs: hatch_vcs
poetry-core: poetry
pdm-backend: pdm
meson-python: mesonpy
maturin: maturin
setuptools-rust: setuptools_rust
pathspec: pathspec
pluggy: pluggy
trove-classifiers: trove_classifiers
typing-extensions: typing_extensions
psutil: psutil
"""
# Functions whose library or header C programs often do not name: the linker's options, and the package of the library.
_SYMBOLS = {
    r"(?:crc32|adler32|(?:in|de)flate\w*|(?:un)?compress2?|gz(?:open|read|write|close)\w*|zlibVersion)": (
        "-lz",
        "zlib",
    ),
    r"(?:SSL_\w+|TLS_\w*method)": ("-lssl -lcrypto", "openssl"),
    r"(?:EVP_\w+|ERR_get_error|RSA_\w+|BIO_\w+|X509_\w+)": ("-lcrypto", "openssl"),
    r"(?:tgetent|tputs|initscr|endwin|wrefresh|stdscr)": ("-lncurses", "ncurses"),
    r"png_\w+": ("-lpng", "libpng"),
    r"(?:XML_Parser\w+|XML_Set\w+)": ("-lexpat", "expat"),
    r"BZ2_\w+": ("-lbz2", "bzip2"),
    r"lzma_\w+": ("-llzma", "xz"),
    r"uuid_(?:generate|parse|unparse)\w*": ("-luuid", "util-linux"),
    r"yaml_\w+": ("-lyaml", "libyaml"),
    r"(?:sin|cos|tan|a?sinh?|acosh?|atan2?|sqrt|pow|exp|exp2|log|log10|log2|floor|ceil|round|fmod|hypot|cbrt)f?l?": (
        "-lm",
        "",
    ),
    r"pthread_\w+": ("-pthread", ""),
    r"dl(?:open|sym|close|error)": ("-ldl", ""),
    r"(?:__atomic_\w+_\d|__sync_\w+_8)": ("-latomic", ""),
}
_HEADERS = """
string.h: strdup strndup strlen strcpy strncpy strcat strcmp strncmp
string.h: strchr strrchr strstr strtok memcpy memset memmove memcmp strerror
strings.h: strcasecmp strncasecmp bzero bcopy index rindex
stdlib.h: malloc calloc realloc free exit abort atoi atol atof
stdlib.h: strtol strtoul getenv setenv system qsort rand srand mkstemp
stdio.h: printf fprintf sprintf snprintf puts perror fopen fclose getline asprintf sscanf
unistd.h: usleep sleep read write close getpid getuid geteuid fork execvp
unistd.h: access unlink isatty getopt pipe dup2 chdir getcwd lseek fsync
ctype.h: isdigit isspace isalpha isalnum toupper tolower isupper isprint
time.h: time localtime gmtime strftime clock_gettime nanosleep mktime
sys/time.h: gettimeofday
sys/wait.h: wait waitpid
sys/stat.h: mkdir stat chmod umask mknod
fcntl.h: open fcntl creat
sys/ioctl.h: ioctl
signal.h: signal kill raise
arpa/inet.h: inet_ntoa inet_addr htons ntohs htonl ntohl
math.h: sqrt pow floor ceil
sys/sysmacros.h: major minor makedev
sys/mman.h: mmap munmap
"""


# What the kernel and U-Boot need of the build machine is an option of theirs (linux/Config.in, boot/uboot/Config.in).
_OPTIONS = {
    "linux": {
        "openssl": "BR2_LINUX_KERNEL_NEEDS_HOST_OPENSSL",
        "elfutils": "BR2_LINUX_KERNEL_NEEDS_HOST_LIBELF",
        "pahole": "BR2_LINUX_KERNEL_NEEDS_HOST_PAHOLE",
        "python3": "BR2_LINUX_KERNEL_NEEDS_HOST_PYTHON3",
    },
    "uboot": {
        "dtc": "BR2_TARGET_UBOOT_NEEDS_DTC",
        "python3": "BR2_TARGET_UBOOT_NEEDS_PYTHON3",
        "swig": "BR2_TARGET_UBOOT_NEEDS_PYLIBFDT",
        "python-pyelftools": "BR2_TARGET_UBOOT_NEEDS_PYELFTOOLS",
        "openssl": "BR2_TARGET_UBOOT_NEEDS_OPENSSL",
        "lzop": "BR2_TARGET_UBOOT_NEEDS_LZOP",
        "gnutls": "BR2_TARGET_UBOOT_NEEDS_GNUTLS",
        "util-linux": "BR2_TARGET_UBOOT_NEEDS_UTIL_LINUX",
        "vim": "BR2_TARGET_UBOOT_NEEDS_XXD",
    },
}
_OF_TOOLCHAIN = frozenset(
    ("c", "m", "gcc", "gcc_s", "stdc++", "pthread", "dl", "rt", "gomp", "atomic", "gfortran", "asan")
)
_OF_KERNEL = ("linux/", "asm/", "asm-generic/", "mtd/", "rdma/", "sound/", "video/")
_OF_C_LIBRARY = (
    *("sys/", "bits/", "gnu/", "net/", "netinet/", "arpa/", "rpc/", "execinfo.h", "error.h", "fts.h", "obstack.h"),
    *("argp.h", "printf.h", "wordexp.h", "ucontext.h", "threads.h", "stdbit.h"),
)


_MACROS = {
    r"PKG_": "pkgconf",
    r"AX_": "autoconf-archive",
    r"AM_(?:GNU_GETTEXT|NLS|ICONV|PO_SUBDIRS)": "gettext",
    r"(?:LT_|AC_PROG_LIBTOOL|AM_PROG_LIBTOOL)": "libtool",
    r"(?:IT_|AC_PROG_INTLTOOL|AM_INTLTOOL)": "intltool",
    r"GOBJECT_INTROSPECTION": "gobject-introspection",
    r"AM_PATH_GLIB|GLIB_": "libglib2",
}


def _table(text: str) -> Iterator[tuple[str, str]]:
    for line in text.split("\n")[1:-1]:
        package, _, names = line.partition(": ")
        yield from ((name, package) for name in names.split())


_LIBRARIES = dict(_table(_BOTH))
_TARGET_LIBRARIES = dict(_table(_TARGET_ONLY))
_PROGRAMS = dict(_table(_TOOLS))
_PYTHON = dict(_table(_MODULES))
_DECLARED = dict(_table(_HEADERS))


def library(name: str, *, for_host: bool) -> str | None:
    """Return the package that has the library, pkg-config module, CMake package or header file ``name``.

    With ``for_host``, this is the package for the build machine. Return ``None`` if the package is not certain.
    """
    for known in _spellings(name):
        if known in _LIBRARIES:
            return f"host-{_LIBRARIES[known]}" if for_host else _LIBRARIES[known]
        if known in _TARGET_LIBRARIES and not for_host:
            return _TARGET_LIBRARIES[known]
    return None


def program(name: str) -> str | None:
    """Return the host package that has the program ``name``, or ``None`` if it is not known."""
    package = _PROGRAMS.get(name.rpartition("/")[2])
    return f"host-{package}" if package else None


def option(package: str, provider: str) -> str | None:
    """The option with which ``package``, the kernel or U-Boot, gets the build machine's ``provider``."""
    return _OPTIONS.get(package, {}).get(provider.removeprefix("host-"))


def is_of_toolchain(library: str) -> bool:
    """Whether the library ``-l<library>`` comes with every compiler, so that no package has it."""
    return library in _OF_TOOLCHAIN


def is_of_kernel(header: str) -> bool:
    """Whether a header file is one of the kernel's, which are a part of the toolchain."""
    return header.startswith(_OF_KERNEL)


def is_of_c_library(header: str) -> bool:
    """Return whether C libraries have this header file. Not every C library has all of these header files."""
    return header.startswith(_OF_C_LIBRARY)


def m4_macro(name: str) -> str | None:
    """Return the host package that has the m4 file in which autoconf finds the macro ``name``, or ``None``."""
    for pattern, package in _MACROS.items():
        if re.match(pattern, name):
            return f"host-{package}"
    return None


def python_module(name: str) -> str | None:
    """Return the host package that has the Python module ``name``, or ``None`` if it is not known."""
    package = _PYTHON.get(name.partition(".")[0])
    return f"host-python-{package}" if package else None


def symbol(name: str) -> tuple[str, str | None] | None:
    """Return the linker's options for the function ``name`` and its package, ``None`` if that is the C library."""
    for pattern, (link, package) in _SYMBOLS.items():
        if re.fullmatch(pattern, name):
            return link, package or None
    return None


def declaring_header(name: str) -> str | None:
    """Return the header of the C library that declares the function ``name``, or ``None`` if it is not known."""
    return _DECLARED.get(name)


def _spellings(name: str) -> Iterator[str]:
    name = name.strip().lower()
    directory, _, base = name.rpartition("/")
    for part in filter(None, (name, base, directory.partition("/")[0])):
        bare = part.removesuffix(".h").removeprefix("lib")
        yield bare
        yield re.sub(r"[-_.]?\d[\d.]*$", "", bare)
