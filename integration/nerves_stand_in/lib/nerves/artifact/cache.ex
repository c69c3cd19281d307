defmodule Nerves.Artifact.Cache do
  @moduledoc """
  The cache of unpacked artifacts, each with the checksum of its sources in the file CHECKSUM.
  """

  alias Nerves.{Artifact, Package}

  @checksum "CHECKSUM"

  @spec get(Package.t()) :: Path.t() | nil
  def get(package), do: if(valid?(package), do: path(package))

  @doc "Unpack an archive, or link a directory, and write the checksum of its sources."
  @spec put(Package.t(), Path.t()) :: :ok | {:error, File.posix()}
  def put(package, path) do
    place = path(package)
    File.rm_rf!(place)

    if String.ends_with?(path, Artifact.ext(package)) do
      File.mkdir_p!(place)
      :ok = Artifact.Archive.extract(path, place)
    else
      File.mkdir_p!(Path.dirname(place))
      File.ln_s!(path, place)
    end

    File.write(Path.join(place, @checksum), Artifact.checksum(package))
  end

  @spec delete(Package.t()) :: {:ok, [Path.t()]} | {:error, File.posix(), Path.t()}
  def delete(package), do: File.rm_rf(path(package))

  @spec valid?(Package.t()) :: boolean()
  def valid?(package) do
    case File.read(checksum_path(package)) do
      {:ok, checksum} -> String.trim(checksum) == Artifact.checksum(package)
      {:error, _reason} -> false
    end
  end

  @spec path(Package.t()) :: Path.t()
  def path(package), do: Artifact.base_dir() |> Path.join(Artifact.name(package)) |> Path.expand()

  @spec checksum_path(Package.t()) :: Path.t()
  def checksum_path(package), do: Path.join(path(package), @checksum)
end
