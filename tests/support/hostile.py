"""Variables that change what bash or other programs of the runner's scripts do. A build may want any of them."""

from __future__ import annotations

VARIABLES = {
    "BASHOPTS": "failglob",
    "BASH_COMPAT": "31",
    "BASH_ENV": "/nerves/env/my_system/hostile.sh",
    "BASH_FUNC_cat%%": "() { exit 9; }",
    "BASH_FUNC_printf%%": "() { exit 9; }",
    "BASH_FUNC_read%%": "() { exit 9; }",
    "BASH_XTRACEFD": "1",
    "CDPATH": "/",
    "CHILD_MAX": "1",
    "ENV": "/nerves/env/my_system/hostile.sh",
    "EXECIGNORE": "*/sleep:*/stat:*/find:*/sort:*/tar",
    "FUNCNEST": "1",
    "GLOBIGNORE": "*",
    "GREP_COLORS": "mt=1",
    "IFS": "nrves/",
    "LANGUAGE": "de",
    "LC_ALL": "xx_YY",
    "LD_LIBRARY_PATH": "/nowhere",
    "LD_PRELOAD": "/nowhere/lib.so",
    "OPTERR": "0",
    "PATH": "/usr/sbin:/usr/bin",
    "POSIXLY_CORRECT": "1",
    "PS4": "$(exit 9)",
    "SHELLOPTS": "nounset:noglob:noclobber",
    "TAR_OPTIONS": "--nonsense",
    "TMOUT": "1",
    "TMPDIR": "/nowhere",
    "a-name.with": "two\nlines",
    "ndp_state": "/nowhere",
    "ndp_with": "x",
}

HARMLESS_FOR_STOCK = {name: value for name, value in VARIABLES.items() if name not in ("BASH_ENV", "FUNCNEST")}
"""Those that do not break the entrypoint of images up to 1.27 under the stock runner, too. It is a bash script."""
