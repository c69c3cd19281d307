defmodule Nerves.Artifact.Archive do
  @moduledoc """
  Packed artifacts.
  """

  @doc "Unpack an archive into a directory, without the archive's outermost directory."
  @spec extract(Path.t(), Path.t()) :: :ok | {:error, String.t()}
  def extract(file, directory) do
    case System.cmd("tar", ["xf", file, "--strip-components=1", "-C", directory],
           stderr_to_stdout: true
         ) do
      {"", 0} -> :ok
      {said, _status} -> {:error, said}
    end
  end
end
