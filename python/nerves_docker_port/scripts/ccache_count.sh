# shellcheck shell=bash
# Counts what ccache did in this session, for the helper. Writes one line to the file `counted`: hits, those of them that
# came from the store, misses, errors of the store; then `lost` if the store was lost meanwhile.
#
# ccache's log of statistics has a line `# FILE` for each compilation, and then the name of each counter that it raised.
# Up to version 4.6 the store is called `secondary` there.
ndp_files=/tmp/nerves-docker-port.ccache-
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
