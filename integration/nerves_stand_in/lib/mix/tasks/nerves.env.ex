defmodule Mix.Tasks.Nerves.Env do
  @moduledoc false
  use Mix.Task

  @impl Mix.Task
  def run(args) do
    if "--disable" in args, do: Nerves.Env.disable(), else: Nerves.Env.enable()
  end
end
