defmodule Mix.Tasks.Nerves.Precompile do
  # Compiles the Nerves packages, which builds them, before Mix does anything else: first the dependencies, then the project.
  @moduledoc false
  use Mix.Task

  @impl Mix.Task
  def run(args) do
    if Nerves.Env.enabled?() do
      System.put_env("NERVES_PRECOMPILE", "1")
      Mix.Task.run("nerves.env", [])

      {own, dependencies} = Enum.split_with(Nerves.Env.packages(), &own?/1)
      Enum.each(dependencies ++ own, &compile/1)

      Mix.Task.reenable("deps.compile")
      Mix.Task.reenable("compile")
      System.put_env("NERVES_PRECOMPILE", "0")
      unless "--no-loadpaths" in args, do: Mix.Task.rerun("nerves.loadpaths")
    end
  end

  defp compile(package) do
    if own?(package) do
      Mix.Tasks.Compile.run(["--include-children"])
    else
      Mix.Tasks.Deps.Compile.run([to_string(package.app), "--no-deps-check", "--include-children"])
    end
  end

  defp own?(package), do: package.app == Mix.Project.config()[:app]
end
