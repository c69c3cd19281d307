defmodule Mix.Tasks.Nerves.Artifact do
  @shortdoc "Creates system and toolchain artifacts for Nerves"
  @moduledoc """
  Builds the package if it is stale, packs its artifact, and copies it to the working directory or to `--path`.

      mix nerves.artifact [PACKAGE] [--path DIRECTORY]
  """
  use Mix.Task

  @recursive true

  @impl Mix.Task
  def run(args) do
    Mix.Task.run("nerves.precompile", [])
    {opts, names, _invalid} = OptionParser.parse(args, strict: [path: :string])
    app = if names == [], do: Mix.Project.config()[:app], else: String.to_atom(hd(names))

    case Nerves.Env.package(app) do
      nil -> Mix.raise("Could not find Nerves package #{app} in env")
      package -> Nerves.Artifact.create_archive(package, Nerves.Env.toolchain(), opts)
    end
  end
end
