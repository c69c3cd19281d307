defmodule Nerves.Env do
  @moduledoc """
  The packages of the project, and the directories that they share.
  """

  alias Nerves.{Artifact, Package}

  @spec enabled?() :: boolean()
  def enabled?, do: System.get_env("NERVES_ENV_DISABLED") == nil

  @spec enable() :: :ok
  def enable, do: System.delete_env("NERVES_ENV_DISABLED")

  @spec disable() :: :ok
  def disable, do: System.put_env("NERVES_ENV_DISABLED", "1")

  @spec loaded?() :: boolean()
  def loaded?, do: System.get_env("NERVES_ENV_BOOTSTRAP") != nil

  @doc "The directory for downloaded artifacts and sources."
  @spec download_dir() :: Path.t()
  def download_dir do
    Path.expand(System.get_env("NERVES_DL_DIR") || Path.join(data_dir(), "dl"))
  end

  @spec data_dir() :: Path.t()
  def data_dir do
    case System.get_env("XDG_DATA_HOME") do
      nil -> Path.expand("~/.nerves")
      directory -> Path.join(directory, "nerves")
    end
  end

  @doc "All Nerves packages of the project: its dependencies and the project itself."
  @spec packages() :: [Package.t()]
  def packages do
    packages =
      Mix.Project.deps_paths()
      |> Map.put(Mix.Project.config()[:app], File.cwd!())
      |> Enum.filter(&nerves_package?/1)
      |> Enum.map(&Package.load_config/1)

    for type <- [:system, :toolchain], do: at_most_one!(packages, type)
    packages
  end

  @spec package(atom()) :: Package.t() | nil
  def package(app), do: Enum.find(packages(), &(&1.app == app))

  @spec packages_by_type(atom(), [Package.t()] | nil) :: [Package.t()]
  def packages_by_type(type, packages \\ nil) do
    Enum.filter(packages || packages(), &(&1.type == type))
  end

  @spec system() :: Package.t() | nil
  def system, do: List.first(packages_by_type(:system))

  @spec toolchain() :: Package.t() | nil
  def toolchain, do: List.first(packages_by_type(:toolchain))

  @doc "The package at `path`, which need not be a dependency of the project."
  @spec ensure_loaded(atom(), Path.t() | nil) :: {:ok, Package.t()} | {:error, String.t()}
  def ensure_loaded(app, path \\ nil) do
    path = path || File.cwd!()

    if nerves_package?({app, path}) do
      {:ok, Package.load_config({app, path})}
    else
      {:error, "Nerves package config for #{inspect(app)} was not found at #{path}"}
    end
  end

  @spec clean([Package.t()]) :: :ok
  def clean(packages), do: Enum.each(packages, &Artifact.clean/1)

  @spec host_arch() :: String.t()
  def host_arch, do: System.get_env("HOST_ARCH") || hd(String.split(architecture(), "-"))

  @spec host_os() :: String.t()
  def host_os do
    System.get_env("HOST_OS") || if architecture() =~ "darwin", do: "darwin", else: "linux"
  end

  @doc "Set the environment variables that tell other tools where the artifacts are."
  @spec bootstrap() :: :ok
  def bootstrap do
    for {name, package} <- [{"NERVES_SYSTEM", system()}, {"NERVES_TOOLCHAIN", toolchain()}],
        package do
      System.put_env(name, Artifact.dir(package))
    end

    System.put_env("NERVES_APP", File.cwd!())
    system = system()

    if system && File.dir?(Artifact.dir(system)) do
      system.platform.bootstrap(List.first(packages_by_type(:system_platform)))
    end

    for package <- packages(), do: System.put_env(package.env)
    System.put_env("NERVES_ENV_BOOTSTRAP", "1")
  end

  defp nerves_package?({app, path}) do
    Package.config(app, path)[:nerves_package] != nil
  rescue
    # A dependency whose mix.exs cannot be loaded is not a Nerves package.
    _any -> false
  end

  defp at_most_one!(packages, type) do
    case packages_by_type(type, packages) do
      [_one, _two | _rest] = several ->
        Mix.raise("""
        Your mix project cannot contain more than one #{type} for the target.
        Your dependencies for the target contain the following #{type}s:
        #{Enum.map_join(several, " ", & &1.app)}
        """)

      _fine ->
        :ok
    end
  end

  defp architecture, do: to_string(:erlang.system_info(:system_architecture))
end
