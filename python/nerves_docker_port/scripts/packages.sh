# shellcheck shell=bash
# Prints which packages a build has to build, while the build runs. Runs in the build directory and changes nothing in
# it.
#
# Argument: `look` or `list`. This text comes after environment.sh in one program.
#   look  prints `config SHA256` for the configuration, then `built DIRECTORY` for each package that is already built
#   list  prints the output of `make show-info` about the packages of the configuration, as JSON
#
# `make show-info` takes seconds, and in the build directory it would rewrite files that the build reads. So it runs in
# a directory of its own, and with the lowest priority for the processors, the disk and the memory.
set -e
case $1 in
  look)
    printf 'config %s\n' "$(sha256sum <.config | cut -d' ' -f1)"
    find build -mindepth 2 -maxdepth 2 -name '.stamp_*installed' -printf 'built %h\n' | sort -u
    ;;
  list)
    # The Makefile of the build directory says where Buildroot is (support/scripts/mkmakefile).
    ndp_buildroot=$(sed -n 's/^MAKEARGS *:= *-C *//p' Makefile)
    ndp_external=$(sed -n 's/^BR2_EXTERNAL *?= *//p' .br2-external.mk)
    ndp_output=$(mktemp -d)
    trap 'rm -rf "$ndp_output"' EXIT
    cp .config .br2-external.mk "$ndp_output"
    { echo 1000 >/proc/self/oom_score_adj && renice -n 19 $$ && ionice -c 3 -p $$; } >/dev/null 2>&1 || :
    # make reads the configuration in the environment of the build.
    ndp_with=()
    ndp_read_environment /nerves-docker-port/tmp/environment
    "${ndp_with[@]}" make -s --no-print-directory -C "$ndp_buildroot" O="$ndp_output" BR2_EXTERNAL="$ndp_external" show-info
    ;;
esac
