defmodule Nerves.System.BR do
  @moduledoc """
  The platform module of systems that are built with Buildroot.
  """

  alias Nerves.{Artifact, Package}

  @doc "The last step of loading the environment."
  @spec bootstrap(Package.t()) :: :ok
  def bootstrap(%{path: path}) do
    path |> Path.join("nerves_env.exs") |> Code.require_file()
    :ok
  end

  @spec build_path_link(Package.t()) :: Path.t()
  def build_path_link(package), do: Artifact.build_path(package)
end
