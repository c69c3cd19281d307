defmodule NervesDockerPort.BuildRunner do
  @moduledoc """
  The build runner that a Nerves system names in its `mix.exs`:

      build_runner: NervesDockerPort.BuildRunner

  This module has the callbacks of `Nerves.Artifact.BuildRunner`, and the two other public functions of Nerves' own Docker
  runner. The helper does the work; see `NervesDockerPort.Helper`. Every failure raises a `Mix.Error`.

  There is no `@behaviour`, because this package may be compiled before Nerves, and then the compiler would warn. A test
  compares the callbacks with the behaviour instead.
  """

  alias NervesDockerPort.{Helper, Request, Shell}

  @typedoc "A `%Nerves.Package{}`."
  @type package :: Request.package()

  @doc """
  Builds the package, and returns the path of its artifact in the download directory.

  The output is in `build.log` in the working directory. `opts` are the package's `:build_runner_opts`:

    * `:make_args` - additional arguments for `make`, a list of strings. Example: `["PARALLEL_JOBS=8"]`.
  """
  @spec build(package(), package() | nil, keyword()) :: {:ok, Path.t()}
  def build(package, toolchain, opts) do
    {:ok, artifact_path(:build, fn -> Request.new(package, toolchain, opts) end)}
  end

  @doc """
  Packs the built system, and returns the path of the artifact in the download directory.

  The output is in `archive.log` in the working directory. Raises if the package has not been built.
  """
  @spec archive(package(), package() | nil, keyword()) :: {:ok, Path.t()}
  def archive(package, toolchain, opts) do
    {:ok, artifact_path(:archive, fn -> Request.new(package, toolchain, opts) end)}
  end

  @doc """
  Deletes the package's build volume and its artifact in the cache. It is no error if these do not exist.
  """
  @spec clean(package()) :: :ok
  def clean(package) do
    _removed = Helper.request(:clean, fn -> Request.new(package, nil, []) end)
    :ok
  end

  @doc """
  Opens a shell in the build directory (`mix nerves.system.shell`), and returns when the person has left it.

  If Mix cannot hand over its terminal, this raises, and the error contains the command to type.
  """
  @spec system_shell(package()) :: :ok
  def system_shell(package), do: Shell.open(Request.new(package, nil, []))

  @doc """
  Parses the text that `docker --version` prints after "Docker version ": up to the first comma, without leading zeros.

  This runner asks the engine instead. The function exists for code that calls it on the stock runner.

  ## Examples

      iex> NervesDockerPort.BuildRunner.parse_docker_version("17.03.1-ce, build c6d412e")
      {:ok, Version.parse!("17.3.1-ce")}

      iex> NervesDockerPort.BuildRunner.parse_docker_version("podman version 4.9.3")
      :error
  """
  @spec parse_docker_version(String.t()) :: {:ok, Version.t()} | :error
  def parse_docker_version(text) do
    [version | _build] = String.split(text, ",", parts: 2)

    Regex.replace(~r/(\.|^)0+(?=\d)/, version, "\\1")
    |> Version.parse()
  end

  defp artifact_path(op, request) do
    case Helper.request(op, request) do
      %{path: path} when is_binary(path) ->
        path

      other ->
        Mix.raise("The helper ended #{op} well, but named no artifact: #{inspect(other)}")
    end
  end
end
