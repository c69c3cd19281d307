defmodule Mix.Tasks.Nerves.Loadpaths do
  # Runs before Mix loads the dependencies' paths: Nerves' packages have to be built by then.
  @moduledoc false
  use Mix.Task

  @impl Mix.Task
  def run(_args) do
    # The shell is for configuring a system before it is built, and what precompile starts comes through here again.
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
