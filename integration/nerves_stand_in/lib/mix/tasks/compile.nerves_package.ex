defmodule Mix.Tasks.Compile.NervesPackage do
  # The Mix compiler of systems and toolchains. It builds the artifact unless the cache has the artifact of these sources.
  @moduledoc false
  use Mix.Task

  @recursive true

  @impl Mix.Task
  def run(_args) do
    if Nerves.Env.enabled?(), do: build_stale(), else: :noop
  end

  defp build_stale do
    case Nerves.Env.ensure_loaded(Mix.Project.config()[:app]) do
      {:ok, package} ->
        if Nerves.Artifact.stale?(package) do
          Nerves.Artifact.build(package, Nerves.Env.toolchain())
          :ok
        else
          :noop
        end

      {:error, text} ->
        Mix.raise(text)
    end
  end
end
