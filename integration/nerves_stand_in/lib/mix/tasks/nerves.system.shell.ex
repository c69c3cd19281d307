defmodule Mix.Tasks.Nerves.System.Shell do
  @shortdoc "Enter a shell to configure a custom system"
  @moduledoc """
  Opens a shell in the system's build directory, without building the system first.
  """
  use Mix.Task

  @impl Mix.Task
  def run(_args) do
    # Nerves before 1.14 unregisters the name of the console's process first, and registers it again only if nothing raises.
    user = if System.get_env("STAND_IN_BEFORE_1_14"), do: Process.whereis(:user)
    if user, do: Process.unregister(:user)
    open_shell()
    if user, do: Process.register(user, :user)
    :ok
  end

  defp open_shell do
    Mix.Task.run("nerves.env", ["--disable"])

    system =
      Nerves.Env.system() || Mix.raise("Unable to locate a relevant Nerves system package.")

    kill_when_asked(System.get_env("STAND_IN_KILL_CALLER"), self())
    {runner, _options} = system.build_runner
    runner.system_shell(system)
    :ok
  end

  # Tests use this to kill the process that has called the runner: it is killed when the file exists.
  defp kill_when_asked(nil, _caller), do: :ok

  defp kill_when_asked(file, caller) do
    spawn(fn -> wait_for(file) && Process.exit(caller, :kill) end)
    :ok
  end

  defp wait_for(file) do
    File.exists?(file) || (Process.sleep(50) && wait_for(file))
  end
end
