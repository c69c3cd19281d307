defmodule NervesDockerPort.Project do
  @moduledoc """
  The Nerves project that Mix runs in, for tasks that work without one, too.
  """

  alias NervesDockerPort.Request

  @unknown_nerves "Unknown dependency nerves"

  @doc """
  The arguments of a request about the project's system, or about none: `package` is `nil` then.

  `extra` is merged into them.
  """
  @spec request(map()) :: map()
  def request(extra \\ %{}) do
    case system() do
      nil -> Request.outside()
      package -> Request.new(package, nil, [])
    end
    |> Map.merge(extra)
  end

  @doc """
  The project's system, its own or that of its target; `nil` where there is none.

  Nothing is built on the way to it.
  """
  @spec system() :: Request.package() | nil
  def system do
    # As `mix nerves.system.shell` does it: disabled, so that loading Nerves does not build the system.
    Mix.Task.run("nerves.env", ["--disable"])
    # Not a plain call: see `NervesDockerPort.Request`.
    Nerves.Env |> apply(:packages_by_type, [:system]) |> List.first()
  rescue
    Mix.NoTaskError ->
      nil

    error in Mix.Error ->
      if String.starts_with?(error.message, @unknown_nerves),
        do: nil,
        else: reraise(error, __STACKTRACE__)
  end
end
