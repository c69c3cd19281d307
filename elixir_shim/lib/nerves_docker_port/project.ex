defmodule NervesDockerPort.Project do
  @moduledoc """
  Finds the Nerves project that Mix runs in, for tasks that also work outside a Nerves project.
  """

  alias NervesDockerPort.Request

  @unknown_nerves "Unknown dependency nerves"

  @doc """
  Returns the arguments of a request about the project's system. `package` is `nil` if there is no system.

  `extra` is merged into the arguments.
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
  Returns the system that the project is, or the system of its target; `nil` if there is none.

  This does not build the system.
  """
  @spec system() :: Request.package() | nil
  def system do
    # `--disable` keeps Nerves from building the system while it loads (`mix nerves.system.shell` does the same).
    Mix.Task.run("nerves.env", ["--disable"])
    # `apply` and not a direct call: see `ask/3` in `NervesDockerPort.Request`.
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
