defmodule Mix.Tasks.Nerves.System.Shell do
  @shortdoc "Enter a shell to configure a custom system"
  @moduledoc """
  Opens a shell in the system's build directory, without building the system first.
  """
  use Mix.Task

  @impl Mix.Task
  def run(_args) do
    Mix.Task.run("nerves.env", ["--disable"])

    system =
      Nerves.Env.system() || Mix.raise("Unable to locate a relevant Nerves system package.")

    {runner, _options} = system.build_runner
    runner.system_shell(system)
    :ok
  end
end
