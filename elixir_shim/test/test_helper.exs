# The tests of a CI's output set these variables themselves, also where the suite itself runs in a CI.
Enum.each(~w(CI GITHUB_ACTIONS GITLAB_CI GITHUB_STEP_SUMMARY), &System.delete_env/1)

ExUnit.start()
