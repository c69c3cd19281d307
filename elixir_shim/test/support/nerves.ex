# The functions of Nerves that the shim calls. They return the names and paths of Nerves 1.15.0, except that the checksum
# is a constant. `integration/` has a larger stand-in, and can also use real Nerves.

defmodule Nerves.Package do
  @moduledoc false
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
end

defmodule Mix.Tasks.Nerves.Env do
  @moduledoc false
  use Mix.Task

  @impl Mix.Task
  def run(arguments),
    do: Application.put_env(:nerves_docker_port, :test_nerves_env, arguments)
end

defmodule Nerves.Artifact.BuildRunner do
  @moduledoc false
  @callback build(package :: map(), toolchain :: map(), opts :: term()) ::
              {:ok, String.t()} | {:error, term()}
  @callback archive(package :: map(), toolchain :: map(), opts :: term()) ::
              {:ok, String.t()} | {:error, term()}
  @callback clean(package :: map()) :: :ok | {:error, term()}
end

defmodule Nerves.Env do
  @moduledoc false

  # A test sets its packages with this function. In real Nerves, the packages are the project's dependencies.
  def put_packages(packages),
    do: Application.put_env(:nerves_docker_port, :test_packages, packages)

  def packages, do: Application.get_env(:nerves_docker_port, :test_packages, [])
  def package(app), do: Enum.find(packages(), &(&1.app == app))
  def packages_by_type(type), do: Enum.filter(packages(), &(&1.type == type))
  def download_dir, do: Path.expand(System.get_env("NERVES_DL_DIR") || "~/.nerves/dl")
end

defmodule Nerves.Artifact do
  @moduledoc false
  def name(package), do: "#{package.app}-portable-#{package.version}"
  def download_name(package), do: name(package) <> "-ABCDEF0"
  def ext(%{type: :toolchain}), do: ".tar.xz"
  def ext(_package), do: ".tar.gz"

  def download_path(package),
    do: Path.join(Nerves.Env.download_dir(), download_name(package) <> ext(package))

  def build_path(package), do: Path.join([package.path, ".nerves", "artifacts", name(package)])
end

defmodule Nerves.Artifact.Cache do
  @moduledoc false
  def path(package),
    do: Path.expand(Path.join("~/.nerves/artifacts", Nerves.Artifact.name(package)))
end
