# shellcheck shell=bash
# Defines functions that count the processes in this container that the kernel has killed because memory ran out.
#
# The kernel counts them in "memory.events" (cgroup v2) or "memory.oom_control" (cgroup v1), and no other killed process
# (https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files). Old kernels do not count them, and some
# engines do not show these files.

# ndp_count_kills: set ndp_kills to the number so far, or to nothing if it is not known.
ndp_count_kills() {
  ndp_kills=
  for ndp_file in /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control; do
    [ -r "$ndp_file" ] || continue
    while read -r ndp_key ndp_value; do
      [ "$ndp_key" != oom_kill ] || ndp_kills=$ndp_value
    done <"$ndp_file"
    return
  done
}

# ndp_count_new_kills: set ndp_killed to the number since the call of ndp_count_kills, or to 999999999 if it is not known.
# shellcheck disable=SC2034 # steps.sh and run.sh use ndp_killed.
ndp_count_new_kills() {
  ndp_killed=999999999
  [ -n "$ndp_kills" ] || return 0
  ndp_before=$ndp_kills
  ndp_count_kills
  [ -z "$ndp_kills" ] || ndp_killed=$((ndp_kills - ndp_before))
}
