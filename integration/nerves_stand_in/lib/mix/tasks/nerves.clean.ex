defmodule Mix.Tasks.Nerves.Clean do
  @shortdoc "Cleans dependencies and build artifacts"
  @moduledoc """
  Removes what the build runners of the packages have made.

      mix nerves.clean PACKAGE...
      mix nerves.clean --all
  """
  use Mix.Task

  @impl Mix.Task
  def run(args) do
    {opts, names, _invalid} = OptionParser.parse(args, strict: [all: :boolean])
    # `--disable` keeps Nerves from building the packages before they are cleaned.
    Mix.Tasks.Nerves.Env.run(["--disable"])

    packages =
      cond do
        names != [] ->
          Enum.map(names, &Nerves.Env.package(String.to_existing_atom(&1)))

        opts[:all] ->
          Nerves.Env.packages()

        true ->
          Mix.raise(
            "You must specify the Nerves dependencies to clean, separated by spaces, or pass --all"
          )
      end

    Nerves.Env.clean(packages)
  end
end
