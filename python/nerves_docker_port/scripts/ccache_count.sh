# shellcheck shell=bash
# Counts the hits and misses of ccache in this session, for the helper. Writes one line to the file `counted`: the hits,
# how many of them came from the store, the misses, and the errors of the store. Writes a second line `lost` if the
# store was lost during the session.
#
# ccache's log of statistics has a line `# FILE` for each compilation, and then the name of each counter that increased.
# Up to version 4.6 the log calls the store `secondary`.
ndp_files=/nerves-docker-port/tmp/ccache-
[ ! -f "${ndp_files}stats" ] || awk '
  function count() {
    hits += hit; misses += miss; if (hit && remote) remotes++
    hit = remote = miss = 0
  }
  /^# / { count() }
  $0 == "direct_cache_hit" || $0 == "preprocessed_cache_hit" { hit = 1 }
  $0 == "remote_storage_hit" || $0 == "secondary_storage_hit" { remote = 1 }
  $0 == "cache_miss" { miss = 1 }
  $0 ~ /^(remote|secondary)_storage_(error|timeout)$/ { failed++ }
  END { count(); print hits + 0, remotes + 0, misses + 0, failed + 0 }
' "${ndp_files}stats" >"${ndp_files}counted"
[ ! -f "${ndp_files}lost" ] || echo lost >>"${ndp_files}counted"
