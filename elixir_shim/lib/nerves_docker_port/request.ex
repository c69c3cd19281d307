defmodule NervesDockerPort.Request do
  @moduledoc """
  What the helper is told. Every name and path that Nerves owns is asked from Nerves, so that a change there needs none
  here.

  `:artifact_sites` can hold access tokens, and the helper has no use for it: it is taken out wherever it is.
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
  The arguments of a request about `package`.

  Raises `Mix.Error` where there are several platforms to choose from, or no home directory.
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
  The arguments of a request outside a Nerves project: those about a package are left out, and `package` is `nil`.

  Raises `Mix.Error` where there is no home directory.
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

  # The stock runner mounts `:nerves_system_br` as the platform, and takes the image of the one package of this type.
  # They are the same package in every system that Nerves can build.
  defp platform do
    ask(Nerves.Env, :package, [:nerves_system_br]) ||
      only(ask(Nerves.Env, :packages_by_type, [:system_platform]))
  end

  # Nerves is the system's own dependency and not ours (see mix.exs). Whether it is there when this is compiled differs, and
  # with it which warnings the compiler has for a plain call: that it is undefined, or that we do not depend on it. What
  # turns each off differs between versions of Elixir; of a call that is made of values there is nothing to warn.
  defp ask(module, function, arguments), do: apply(module, function, arguments)

  defp only([]), do: nil
  defp only([platform]), do: platform

  defp only(platforms) do
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
  # The tail of an improper list is not a list; it goes through as it is.
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
