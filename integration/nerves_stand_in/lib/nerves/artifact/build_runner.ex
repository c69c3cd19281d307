defmodule Nerves.Artifact.BuildRunner do
  @moduledoc """
  The behaviour of a build runner, which makes the artifact of a package.
  """

  alias Nerves.Package

  @type result :: {:ok, Path.t()} | {:error, term()}

  @callback build(Package.t(), toolchain :: Package.t() | nil, opts :: keyword()) :: result()
  @callback archive(Package.t(), toolchain :: Package.t() | nil, opts :: keyword()) :: result()
  @callback clean(Package.t()) :: :ok | {:error, term()}
end
