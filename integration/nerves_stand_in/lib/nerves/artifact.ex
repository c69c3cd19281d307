defmodule Nerves.Artifact do
  @moduledoc """
  The artifact of a package: its names and paths, and how to build, pack and remove it.
  """

  alias Nerves.{Artifact, Env, Package}

  @doc "Build the package, and put the artifact into the cache."
  @spec build(Package.t(), Package.t() | nil) :: :ok | {:error, File.posix()}
  def build(package, toolchain) do
    {runner, options} = package.build_runner

    case runner.build(package, toolchain, options) do
      {:ok, path} ->
        Artifact.Cache.put(package, path)

      {:error, reason} ->
        Mix.raise("""
        Nerves encountered an error while constructing the artifact
        #{if is_binary(reason) and String.valid?(reason), do: reason, else: inspect(reason)}
        """)
    end
  end

  @doc "Pack the artifact of a package that is built, and copy it to `opts[:path]`, or to the working directory."
  @spec create_archive(Package.t(), Package.t() | nil, keyword()) :: :ok
  def create_archive(package, toolchain, opts) do
    Mix.shell().info("Creating Artifact Archive")
    name = download_name(package) <> ext(package)
    opts = opts |> Keyword.put_new(:name, name) |> Keyword.put_new(:path, File.cwd!())
    {runner, _options} = package.build_runner
    _ = Code.ensure_compiled(package.platform)
    {:ok, archive} = runner.archive(package, toolchain, opts)
    archive = Path.expand(archive)
    path = opts[:path] |> Path.expand() |> Path.join(name)
    if path != archive, do: File.cp!(archive, path)
    :ok
  end

  @spec clean(Package.t()) :: :ok | {:error, term()}
  def clean(package) do
    Mix.shell().info("Cleaning Nerves Package #{package.app}")

    case package.build_runner do
      {runner, _options} when runner != nil ->
        runner.clean(package)

      _none ->
        Mix.shell().info("No build_runner specified for #{package.app}")
        {:error, :no_build_runner}
    end
  end

  @doc "Whether the artifact in the cache is missing or belongs to other sources."
  @spec stale?(Package.t()) :: boolean()
  def stale?(package), do: not env_var?(package) and not Artifact.Cache.valid?(package)

  @spec name(Package.t()) :: String.t()
  def name(package), do: "#{package.app}-#{host_tuple(package)}-#{package.version}"

  @doc "The artifact's name with the first seven digits of the checksum of its sources."
  @spec download_name(Package.t(), keyword()) :: String.t()
  def download_name(package, opts \\ []) do
    "#{name(package)}-#{checksum(package, short: opts[:checksum_short] || 7)}"
  end

  @spec download_path(Package.t()) :: Path.t()
  def download_path(package) do
    Env.download_dir() |> Path.join(download_name(package) <> ext(package)) |> Path.expand()
  end

  @spec base_dir() :: Path.t()
  def base_dir,
    do: System.get_env("NERVES_ARTIFACTS_DIR") || Path.join(Env.data_dir(), "artifacts")

  @spec build_path(Package.t()) :: Path.t()
  def build_path(package), do: Path.join([package.path, ".nerves", "artifacts", name(package)])

  @spec build_path_link(Package.t()) :: Path.t()
  def build_path_link(%{platform: platform} = package) do
    if platform && function_exported?(platform, :build_path_link, 1) do
      platform.build_path_link(package)
    else
      build_path(package)
    end
  end

  @doc "SHA-256 of the SHA-256s of the files that `:checksum` lists, in upper case hex; only the first n digits with `short: n`."
  @spec checksum(Package.t(), keyword()) :: String.t()
  def checksum(package, opts \\ []) do
    digest =
      package.config
      |> Keyword.get(:checksum, [])
      |> Enum.flat_map(&files(Path.join(package.path, &1)))
      |> Enum.uniq()
      |> Enum.map(&:crypto.hash(:sha256, File.read!(&1)))

    :sha256 |> :crypto.hash(digest) |> Base.encode16() |> String.slice(0, opts[:short] || 64)
  end

  @doc "The directory of the artifact: in the cache, unless an environment variable names another one."
  @spec dir(Package.t()) :: Path.t()
  def dir(package) do
    if env_var?(package) do
      Path.expand(System.get_env(env_var(package)))
    else
      Path.join(base_dir(), name(package))
    end
  end

  @spec env_var?(Package.t()) :: boolean()
  def env_var?(package) do
    directory = System.get_env(env_var(package))
    directory != nil and File.dir?(directory)
  end

  @spec env_var(Package.t()) :: String.t()
  def env_var(%{type: :system}), do: "NERVES_SYSTEM"
  def env_var(%{type: :toolchain}), do: "NERVES_TOOLCHAIN"
  def env_var(package), do: String.upcase(to_string(package.app))

  @doc "Always empty, because the stand-in downloads nothing."
  @spec expand_sites(Package.t()) :: []
  def expand_sites(_package), do: []

  @spec host_tuple(Package.t()) :: String.t()
  def host_tuple(%{type: :system}), do: "portable"
  def host_tuple(_package), do: Env.host_os() <> "_" <> Env.host_arch()

  @spec ext(Package.t()) :: String.t()
  def ext(%{type: :toolchain}), do: ".tar.xz"
  def ext(_package), do: ".tar.gz"

  @doc "The build runner that a project names, and its options. The stand-in has no default runner."
  @spec build_runner(keyword()) :: {module() | nil, keyword()}
  def build_runner(project) do
    nerves = project[:nerves_package]
    {nerves[:build_runner], nerves[:build_runner_opts] || []}
  end

  defp files(pattern) do
    pattern
    |> Path.wildcard()
    |> Enum.flat_map(&if(File.dir?(&1), do: Path.wildcard(Path.join(&1, "**")), else: [&1]))
    |> Enum.map(&Path.expand/1)
    |> Enum.filter(&File.regular?/1)
  end
end
