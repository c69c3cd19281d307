defmodule Mix.Tasks.Nerves.Loadpaths do
  # Runs before Mix loads the paths of the dependencies, because the Nerves packages must be built before that.
  @moduledoc false
  use Mix.Task

  @impl Mix.Task
  def run(_args) do
    # Nothing is built before the shell, which is used to configure a system that is not built yet. NERVES_PRECOMPILE is set
    # when the tasks that `nerves.precompile` starts run this task again.
    unless System.get_env("NERVES_PRECOMPILE") == "1" or
             match?(["nerves.system.shell" | _], System.argv()) do
      Mix.Task.run("nerves.precompile", ["--no-loadpaths"])
      Mix.Nerves.IO.nerves_env_info()
      Mix.Task.run("nerves.env", [])
      Nerves.Env.bootstrap()
      Mix.Project.clear_deps_cache()
    end
  end
end
