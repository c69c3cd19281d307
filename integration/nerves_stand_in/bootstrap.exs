# This file replaces the nerves_bootstrap archive. Mix must run tasks of Nerves before it loads the dependencies, but these
# tasks are in a dependency. So the archive adds aliases for Mix's own tasks, which compile Nerves first.

# If a developer has installed the archive, the task here replaces the task of the same name without a warning.
conflicts = Code.get_compiler_option(:ignore_module_conflict)
Code.put_compiler_option(:ignore_module_conflict, true)

defmodule NervesStandIn.Bootstrap do
  @moduledoc false
  use Application

  @impl Application
  def start(_type, _args) do
    if Mix.target() != :host, do: add_aliases()
    {:ok, self()}
  end

  # Only the project in the working directory gets the aliases, and not the dependencies that Mix loads later.
  defp add_aliases do
    %{name: name, config: config, file: file} = Mix.ProjectStack.pop()

    config =
      if Mix.ProjectStack.peek() == nil do
        Keyword.update(config, :aliases, before([]), &before/1)
      else
        config
      end

    Mix.ProjectStack.push(name, config, file)
  end

  defp before(aliases) do
    Enum.reduce([:"deps.loadpaths", :"deps.compile"], aliases, fn task, aliases ->
      rest = aliases |> Keyword.get(task, [to_string(task)]) |> List.wrap()
      Keyword.put(aliases, task, ["nerves.bootstrap", "nerves.loadpaths" | rest])
    end)
  end
end

defmodule Mix.Tasks.Nerves.Bootstrap do
  @moduledoc false
  use Mix.Task

  @impl Mix.Task
  def run(_args) do
    unless Code.ensure_loaded?(Nerves.Env) do
      Mix.Tasks.Deps.Loadpaths.run(["--no-compile"])
      Mix.Tasks.Deps.Compile.run(["nerves", "--include-children"])
    end
  end
end

Code.put_compiler_option(:ignore_module_conflict, conflicts)

:ok =
  :application.load(
    {:application, :nerves_bootstrap,
     description: ~c"stand-in",
     vsn: ~c"1.14.0",
     modules: [],
     registered: [],
     applications: [:kernel, :stdlib],
     mod: {NervesStandIn.Bootstrap, []}}
  )
