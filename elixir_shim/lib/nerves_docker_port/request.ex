defmodule NervesDockerPort.Request do
  @moduledoc """
  Makes the arguments of a request. It asks Nerves for every name and path that Nerves chooses, so that a change in
  Nerves needs no change here.

  `:artifact_sites` can contain access tokens, and the helper does not use it. So it is removed at every level.
  """

  alias NervesDockerPort.Console

  @typedoc "A `%Nerves.Package{}`: the struct is Nerves' own, and its fields differ between versions."
  @type package :: %{
          :__struct__ => module(),
          :app => atom(),
          :path => Path.t(),
          :config => keyword(),
          optional(atom()) => term()
        }

  @typedoc "The `args` of a request, as in `docs/protocol.md`."
  @type t :: %{
          package: package(),
          toolchain: package() | nil,
          platform: package() | nil,
          opts: keyword(),
          names: %{atom() => String.t()},
          cwd: Path.t(),
          home: Path.t(),
          env: %{String.t() => String.t()},
          terminal: Console.terminal()
        }

  @doc """
  Returns the arguments of a request about `package`.

  Raises `Mix.Error` if the project has several platforms, or the home directory is not known.
  """
  @spec new(package(), package() | nil, keyword()) :: t()
  def new(package, toolchain, opts) do
    Map.merge(outside(), %{
      package: without_sites(package),
      toolchain: without_sites(toolchain),
      platform: without_sites(platform()),
      opts: without_sites(opts),
      names: names(package)
    })
  end

  @doc """
  Returns the arguments of a request outside a Nerves project: `package` is `nil`, and the keys about a package are absent.

  Raises `Mix.Error` if the home directory is not known.
  """
  @spec outside() :: %{
          package: nil,
          cwd: Path.t(),
          home: Path.t(),
          env: %{String.t() => String.t()},
          terminal: Console.terminal()
        }
  def outside do
    %{
      package: nil,
      cwd: File.cwd!(),
      home: System.user_home() || Mix.raise("The home directory is not known. Set HOME."),
      env: environment(),
      terminal: Console.terminal()
    }
  end

  defp names(package) do
    %{
      artifact: ask(Nerves.Artifact, :download_name, [package]),
      extension: ask(Nerves.Artifact, :ext, [package]),
      download_path: ask(Nerves.Artifact, :download_path, [package]),
      download_dir: ask(Nerves.Env, :download_dir, []),
      build_path: ask(Nerves.Artifact, :build_path, [package]),
      cache_path: ask(Nerves.Artifact.Cache, :path, [package])
    }
  end

  # The stock runner mounts the package `:nerves_system_br` as the platform, but takes the image from the package of the
  # type `:system_platform`. In every system that Nerves can build, these are the same package.
  defp platform do
    ask(Nerves.Env, :package, [:nerves_system_br]) ||
      only_one(ask(Nerves.Env, :packages_by_type, [:system_platform]))
  end

  # Nerves is a dependency of the system, not of this package (see mix.exs). So Nerves may or may not be available when
  # this module is compiled. For a direct call the compiler would warn either that the function is undefined, or that
  # this package does not depend on Nerves. Each version of Elixir has another way to turn that off. For `apply/3` it
  # never warns.
  defp ask(module, function, arguments), do: apply(module, function, arguments)

  defp only_one([]), do: nil
  defp only_one([platform]), do: platform

  defp only_one(platforms) do
    Mix.raise(
      "This project has more than one system platform: " <>
        Enum.map_join(platforms, ", ", &inspect(&1.app)) <>
        ". It can be built for one only; remove the others from its dependencies."
    )
  end

  defp environment do
    for {name, value} <- System.get_env(),
        name == "TERM" or String.starts_with?(name, "NERVES_DOCKER_"),
        into: %{},
        do: {name, value}
  end

  defp without_sites([{:artifact_sites, _sites} | rest]), do: without_sites(rest)
  # The tail of an improper list is not a list: another clause handles it.
  defp without_sites([head | rest]), do: [without_sites(head) | without_sites(rest)]

  defp without_sites(map) when is_map(map) do
    map = Map.delete(map, :artifact_sites)
    :maps.map(fn _key, value -> without_sites(value) end, map)
  end

  defp without_sites(tuple) when is_tuple(tuple) do
    tuple |> Tuple.to_list() |> without_sites() |> List.to_tuple()
  end

  defp without_sites(other), do: other
end
