defmodule Nerves.System.BR.Mixfile do
  # The miniature platform: in the place of the real nerves_system_br, under its name, because Nerves' own code and the
  # build runners look for a package of this name.
  use Mix.Project

  # Tests of what depends on the platform's version (below 1.28.0: the old images) set it here.
  @version System.get_env("MINI_PLATFORM_VERSION") ||
             Path.join(__DIR__, "VERSION") |> File.read!() |> String.trim()

  def project do
    [
      app: :nerves_system_br,
      version: @version,
      elixir: "~> 1.14",
      compilers: [:app],
      nerves_package: [type: :system_platform]
    ]
  end
end
