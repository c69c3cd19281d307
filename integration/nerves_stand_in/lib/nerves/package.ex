defmodule Nerves.Package do
  @moduledoc """
  A Nerves package: the `:nerves_package` of a project, and what Mix knows about the project.
  """

  defstruct app: nil,
            path: nil,
            dep: nil,
            env: [],
            type: nil,
            version: nil,
            platform: nil,
            build_runner: nil,
            compilers: [],
            dep_opts: [],
            config: []

  @type t :: %__MODULE__{app: atom(), path: Path.t(), config: keyword()}

  # These keys of `:nerves_package` are fields of the struct. The other keys are in the field `config`.
  @own_fields [:type, :version, :platform]

  @doc "The package at `path`. Prints a message and exits if `:nerves_package` names no type."
  @spec load_config({atom(), Path.t()}) :: t()
  def load_config({app, path}) do
    project = config(app, path)
    nerves = project[:nerves_package]

    if nerves[:type] == nil do
      Mix.shell().error(
        "The Nerves package #{app} does not define a type.\n\nVerify that the key exists.\n"
      )

      exit({:shutdown, 1})
    end

    %__MODULE__{
      app: app,
      path: path,
      dep: dependency(app),
      env: Map.new(nerves[:env] || %{}),
      type: nerves[:type],
      version: project[:version],
      platform: nerves[:platform],
      build_runner: Nerves.Artifact.build_runner(project),
      compilers: project[:compilers] || Mix.compilers(),
      dep_opts: dependency_options(app),
      config: Keyword.drop(nerves, @own_fields)
    }
  end

  @doc "The Mix configuration of the project at `path`."
  @spec config(atom(), Path.t()) :: keyword()
  def config(app, path) do
    if app == Mix.Project.config()[:app] do
      Mix.Project.config()
    else
      Mix.Project.in_project(app, path, fn _module -> Mix.Project.config() end)
    end
  end

  defp dependency(app) do
    case Mix.Project.deps_paths()[app] do
      nil -> :project
      path -> if String.starts_with?(path, Mix.Project.deps_path() <> "/"), do: :hex, else: :path
    end
  end

  defp dependency_options(app) do
    dependency = Enum.find(Mix.Project.config()[:deps] || [], {app, []}, &(elem(&1, 0) == app))

    case dependency |> Tuple.to_list() |> List.last() do
      options when is_list(options) -> options[:nerves] || []
      _requirement -> []
    end
  end
end
